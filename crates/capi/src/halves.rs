//! Both halves of a channel, each behind a lock that is only tried, and the handle of its loan.

use std::{
    ffi::c_int,
    os::fd::{AsRawFd, BorrowedFd},
    sync::{Arc, Mutex, MutexGuard, TryLockError},
    thread,
    time::Instant,
};

use sealane::{Receiver, RequestId, Sender};

use crate::{
    arguments::Timeout,
    message::{Message, Pool},
    sending::{Lent, Sending, freed},
    status::{Failure, Result},
};

/// The part of a channel that its loan has too.
#[derive(Debug)]
pub(crate) struct Halves {
    sending: Mutex<Sending>,
    send_fd: c_int,
    receiving: Mutex<Option<Receiver>>,
    /// The handle of the last loan. There is at most one loan at a time.
    spare: Mutex<Option<Box<Loan>>>,
    pool: Arc<Pool>,
}

/// Memory in the ring, to be filled and sent. While it is open, the channel's sending functions return -EBUSY; receiving goes
/// on. It ends with its channel. One thread at a time may use it.
#[derive(Debug)]
pub struct Loan {
    /// None while the handle is in the pool.
    pub(crate) halves: Option<Arc<Halves>>,
}

impl Loan {
    pub(crate) fn halves(&self) -> Result<&Arc<Halves>> {
        self.halves.as_ref().ok_or_else(|| Failure::null("an open loan expected: this one was sent or freed"))
    }

    /// Looks at the open loan.
    pub(crate) fn with<R>(&self, look: impl FnOnce(&mut Lent) -> R) -> Result<R> {
        Ok(look(self.halves()?.lending()?.loan()?))
    }
}

impl Halves {
    pub(crate) fn new(sender: Sender, receiver: Receiver) -> Self {
        Self {
            send_fd: sender.as_raw_fd(),
            sending: Mutex::new(Sending::new(sender)),
            receiving: Mutex::new(Some(receiver)),
            spare: Mutex::default(),
            pool: Arc::default(),
        }
    }

    /// Ends both directions, and an open loan.
    ///
    /// In a fork a half may be locked for ever: by a thread that was using it, and is not there. Such a copy ends nothing.
    pub(crate) fn end(&self) {
        if let Ok(mut sending) = self.lending() {
            sending.end();
        }
        if let Ok(mut receiving) = self.receiving() {
            *receiving = None;
        }
    }

    /// The handle of the loan that was opened.
    pub(crate) fn loan(self: &Arc<Self>) -> Box<Loan> {
        let spare = self.spare.try_lock().ok().and_then(|mut spare| spare.take());
        let mut loan = spare.unwrap_or_else(|| Box::new(Loan { halves: None }));
        loan.halves = Some(Arc::clone(self));
        loan
    }

    /// Keeps the handle of a loan that has ended, for the next.
    pub(crate) fn take_back(&self, mut loan: Box<Loan>) {
        loan.halves = None;
        if let Ok(mut spare) = self.spare.try_lock() {
            *spare = Some(loan);
        }
    }

    pub(crate) fn sending_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the sender's, here or in a loan. Who asks for it has the channel, or a loan, which ends with the channel.
        unsafe { BorrowedFd::borrow_raw(self.send_fd) }
    }

    /// The sending half, unless another thread is using it.
    pub(crate) fn sending(&self) -> Result<MutexGuard<'_, Sending>> {
        unless_used(
            &self.sending,
            "another thread is sending on this channel, or was when this process was forked",
        )
    }

    /// The sending half for the one who has a loan: nobody else can have it for long.
    pub(crate) fn lending(&self) -> Result<MutexGuard<'_, Sending>> {
        unless_lost(&self.sending)
    }

    fn receiving(&self) -> Result<MutexGuard<'_, Option<Receiver>>> {
        unless_used(
            &self.receiving,
            "another thread is receiving on this channel, or was when this process was forked",
        )
    }

    /// Receives a message.
    pub(crate) fn receive(self: &Arc<Self>, timeout: Timeout) -> Result<Box<Message>> {
        let mut receiving = self.receiving()?;
        let receiver = receiving.as_mut().ok_or_else(freed)?;
        let message = match timeout {
            Timeout::Forever => receiver.recv()?,
            Timeout::Try => receiver.try_recv()?.ok_or_else(|| Failure::again("no message is there"))?,
            Timeout::Within(time) => receiver.recv_timeout(time)?,
        };
        drop(receiving);
        Ok(self.pool.message(message))
    }

    /// True if there is nothing to receive, and the descriptor will say when there is.
    pub(crate) fn arm(&self) -> Result<bool> {
        let mut receiving = self.receiving()?;
        Ok(receiving.as_mut().ok_or_else(freed)?.arm()?)
    }

    /// Sends a request by `request`, and waits for its reply. If that fails, the request is forgotten.
    pub(crate) fn call(
        self: &Arc<Self>,
        timeout: Timeout,
        request: impl FnOnce(&mut Sender) -> Result<RequestId>,
    ) -> Result<Box<Message>> {
        let mut receiving = self.receiving()?;
        let receiver = receiving.as_mut().ok_or_else(freed)?;
        let begun = Instant::now();
        if let Timeout::Try = timeout {
            return Err(sealane::Error::Timeout.into());
        }
        let id = request(self.sending()?.sender()?)?;
        let message =
            receiver.wait_reply(id, timeout.after(begun).duration()).inspect_err(|_| receiver.cancel(id))?;
        drop(receiving);
        Ok(self.pool.message(message))
    }

    pub(crate) fn wait_reply(self: &Arc<Self>, number: u64, timeout: Timeout) -> Result<Box<Message>> {
        let mut receiving = self.receiving()?;
        let receiver = receiving.as_mut().ok_or_else(freed)?;
        let id = receiver.request_id(number).ok_or(sealane::Error::UnknownRequest)?;
        let message = if let Timeout::Try = timeout {
            receiver.take_reply(id)?.ok_or_else(|| Failure::again("the reply has not come yet"))?
        } else {
            receiver.wait_reply(id, timeout.duration())?
        };
        drop(receiving);
        Ok(self.pool.message(message))
    }
}

/// Yields after which a lock counts as lost: some milliseconds at most.
const TURNS: u32 = 1000;

/// Locks for a short section. A fork may have a copy of a lock that another thread held, and no copy of that thread.
fn unless_lost<T>(mutex: &Mutex<T>) -> Result<MutexGuard<'_, T>> {
    for _ in 0..TURNS {
        if let Ok(guard) = unless_used(mutex, "") {
            return Ok(guard);
        }
        thread::yield_now();
    }
    Err(Failure::busy("a thread was sending on this channel when this process was forked"))
}

fn unless_used<'m, T>(mutex: &'m Mutex<T>, text: &'static str) -> Result<MutexGuard<'m, T>> {
    match mutex.try_lock() {
        Ok(guard) => Ok(guard),
        Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => Err(Failure::busy(text)),
    }
}
