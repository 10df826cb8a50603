//! [`Channel`]: both halves together, calls, and establishing.

use std::{borrow::BorrowMut, io, os::fd::AsFd, path::Path, process::ExitStatus, time::Duration};

use ::tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout_at},
};
use rustix::process::Pid;
use zerocopy::{FromBytes, IntoBytes};

use super::{Attempt, Loan, Readiness, Receiver, Sender};
use crate::{
    channel::{Control, Limits, Message, Peer, ReplyToken, RequestId, Stats, delegate},
    connect::{Builder, Handshake, child as process},
    error::{Error, Result},
    socket::link::Closer,
    sys::owner::Owner,
};

/// Between two attempts to connect to a listener with a full backlog, and two looks at a child.
const PAUSE: Duration = Duration::from_millis(5);

/// One end of a connection between two processes: a [`sealane::Channel`](crate::Channel) that awaits instead of blocking.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> sealane::Result<()> {
/// use sealane::tokio::Channel;
///
/// let (a, b) = sealane::Channel::builder().ring_capacity(1 << 20).pair()?;
/// let (mut a, mut b) = (Channel::try_from(a)?, Channel::try_from(b)?);
/// let server = tokio::spawn(async move {
///     while let Ok(question) = b.recv().await {
///         b.reply(question.reply_token().unwrap(), question.control()).await?;
///     }
///     Ok::<(), sealane::Error>(())
/// });
/// assert_eq!(a.call(b"anybody there?").await?.control(), b"anybody there?");
/// drop(a);
/// server.await.unwrap()
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Channel {
    /// The receiving half.
    // Declared, and so dropped, first, as in the channel that blocks.
    pub receiver: Receiver,
    /// The sending half.
    pub sender: Sender,
}

/// Registers both halves with the runtime.
impl TryFrom<crate::Channel> for Channel {
    type Error = Error;

    fn try_from(channel: crate::Channel) -> Result<Self> {
        let (sender, receiver) = channel.split();
        Ok(Self { sender: sender.try_into()?, receiver: receiver.try_into()? })
    }
}

/// Establishing. What does not name a [`Builder`] uses the default one.
///
/// The ring is made without awaiting: for one of many mebibytes that takes milliseconds.
impl Channel {
    /// Connects to a listener: see [`connect_with`](Self::connect_with).
    ///
    /// # Errors
    /// Those of [`Builder::connect`].
    pub async fn connect(path: impl AsRef<Path>) -> Result<Self> {
        Self::connect_with(&Builder::default(), path).await
    }

    /// Connects to a listener, waits for a place in its backlog, and for the handshake; for the handshake timeout at most.
    /// If the future is dropped, the connection is closed.
    ///
    /// # Errors
    /// Those of [`Builder::connect`].
    pub async fn connect_with(builder: &Builder, path: impl AsRef<Path>) -> Result<Self> {
        Self::establish(begin(builder, |builder| builder.try_connect(&path)).await?).await
    }

    /// Starts a child process with a channel to it: see [`spawn_with`](Self::spawn_with).
    ///
    /// # Errors
    /// Those of [`Builder::spawn`].
    pub async fn spawn(command: impl BorrowMut<Command>) -> Result<(Self, Child)> {
        Self::spawn_with(&Builder::default(), command).await
    }

    /// Starts a child process with a channel to it, which the child takes by [`inherited`](Self::inherited) of either
    /// kind. Command and child are tokio's: `Command::from` converts one of the standard library.
    ///
    /// A child whose handshake fails is given time to report it, then killed and reaped, see [`Builder::spawn`]. If the
    /// future is dropped, the child is killed at once.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use sealane::tokio::Channel;
    /// use tokio::process::Command;
    ///
    /// let (mut channel, mut child) = Channel::spawn(Command::new("./algorithm").kill_on_drop(true)).await?;
    /// assert_eq!(channel.call(b"begin").await?.control(), b"done");
    /// drop(channel);
    /// assert!(child.wait().await?.success());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`Builder::spawn`].
    pub async fn spawn_with(
        builder: &Builder,
        mut command: impl BorrowMut<Command>,
    ) -> Result<(Self, Child)> {
        let prepared = builder.prepare()?;
        let child = {
            let command = command.borrow_mut();
            prepared.attach(command.as_std_mut());
            let child = command.spawn();
            process::detach(command.as_std_mut(), child)?
        };
        let handshake = prepared.started();
        let deadline = handshake.deadline();
        let mut unfinished = KillOnDrop { child: Some(child), owner: Owner::here() };
        match Self::establish(handshake).await {
            // The child is there until this takes it.
            Ok(channel) => Ok((channel, unfinished.child.take().ok_or(Error::Disconnected)?)),
            Err(error) => Err(unfinished.end(deadline, error).await),
        }
    }

    /// Takes, in a child process, the channel to its parent. See [`inherited_with`](Self::inherited_with).
    ///
    /// # Errors
    /// Those of [`Builder::inherited`].
    pub async fn inherited() -> Result<Self> {
        Self::inherited_with(&Builder::default()).await
    }

    /// Takes, in a child process, the channel to its parent. Works once in a process, even if the future is dropped.
    ///
    /// # Errors
    /// Those of [`Builder::inherited`].
    pub async fn inherited_with(builder: &Builder) -> Result<Self> {
        Self::establish(builder.begin(process::inherited)?).await
    }

    /// Completes any handshake, by its deadline. If the future is dropped, the connection is closed.
    ///
    /// # Errors
    /// Those of [`Handshake::finish`], and [`Error::Io`] if the runtime cannot watch it.
    pub async fn establish(mut handshake: Handshake) -> Result<Self> {
        // Its descriptor is that of the receiver to come.
        let readiness = Readiness::new(handshake.as_fd())?;
        advance_until(&mut handshake, &readiness, |_| false).await?;
        let (sender, receiver) = handshake.finish()?.split();
        Ok(Self { sender: sender.try_into()?, receiver: Receiver::new(receiver, readiness) })
    }
}

/// Begins a handshake, once there is a place in the backlog of the listener. All of it has one timeout.
pub(super) async fn begin(
    builder: &Builder,
    attempt: impl Fn(&Builder) -> Result<Handshake>,
) -> Result<Handshake> {
    let start = std::time::Instant::now();
    loop {
        let left = builder.timeout().saturating_sub(start.elapsed());
        match attempt(&builder.clone().handshake_timeout(left)) {
            Err(Error::Full) if left.is_zero() => return Err(Error::Timeout),
            Err(Error::Full) => sleep(PAUSE.min(left)).await,
            begun => return begun,
        }
    }
}

/// Advances a handshake until it is complete, or `enough` after a step; by its deadline.
pub(super) async fn advance_until(
    handshake: &mut Handshake,
    readiness: &Readiness,
    enough: impl Fn(&Handshake) -> bool,
) -> Result<()> {
    let deadline = Instant::from_std(handshake.deadline());
    let attempt = || match handshake.advance() {
        Ok(complete) if complete || enough(handshake) => Ok(Attempt::Done(())),
        Ok(_) if handshake.needs_advance() => Ok(Attempt::Again),
        Ok(_) => Ok(Attempt::Wait),
        Err(Error::Full | Error::FdsInFlight) => Ok(Attempt::Pause),
        Err(error) => Err(error),
    };
    match timeout_at(deadline, readiness.until(attempt)).await {
        Ok(result) => result,
        // It knows why.
        Err(_) if handshake.advance()? || enough(handshake) => Ok(()),
        Err(_) => Err(Error::Timeout),
    }
}

impl process::Process for Child {
    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.id()?).ok()?)
    }

    fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.try_wait()
    }

    fn kill(&mut self) -> io::Result<()> {
        self.start_kill()
    }
}

/// A child without a channel yet, which its parent ends.
struct KillOnDrop {
    child: Option<Child>,
    owner: Owner,
}

impl KillOnDrop {
    /// Ends the child as `process::end` does, but awaits one that ends by itself.
    async fn end(mut self, deadline: std::time::Instant, error: Error) -> Error {
        let deadline = deadline.min(process::after_grace());
        while let Some(child) = &mut self.child
            && matches!(child.try_wait(), Ok(None))
            && std::time::Instant::now() < deadline
        {
            sleep(PAUSE).await;
        }
        match self.child.take() {
            Some(mut child) => process::kill_and_reap(&mut child, std::time::Instant::now(), error),
            None => error,
        }
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if self.owner.is_here()
            && let Some(child) = &mut self.child
        {
            process::kill(child, std::time::Instant::now());
        }
    }
}

/// The everyday methods of the [`Sender`]; the others are those of the field [`sender`](Self::sender).
impl Channel {
    delegate! { await Sender: self.sender;
        pub async fn loan(&mut self, len: usize) -> Result<Loan<'_>>;
        pub async fn send<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<()>;
        pub async fn request<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<RequestId>;
        pub async fn reply<'c>(&mut self, token: ReplyToken, control: impl Into<Control<'c>>) -> Result<()>;
    }
    delegate! { Sender: self.sender;
        pub fn try_loan(&mut self, len: usize) -> Result<Option<Loan<'_>>>;
        pub fn try_send<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<()>;
    }

    /// See [`Sender::loan_slice`].
    ///
    /// # Errors
    /// Those of [`Sender::loan_slice`].
    pub async fn loan_slice<'s, T: FromBytes + IntoBytes + 's>(
        &'s mut self,
        count: usize,
    ) -> Result<Loan<'s, T>> {
        self.sender.loan_slice(count).await
    }
}

/// The everyday methods of the [`Receiver`]; the others are those of the field [`receiver`](Self::receiver).
impl Channel {
    delegate! { await Receiver: self.receiver;
        pub async fn recv(&mut self) -> Result<Message>;
    }
    delegate! { Receiver: self.receiver;
        pub fn try_recv(&mut self) -> Result<Option<Message>>;
    }
}

/// Methods that need both halves, or are the same for both.
impl Channel {
    /// Sends a request and waits for its reply; messages that come meanwhile are kept, in order, for [`recv`](Self::recv).
    /// A limit is put around it: `timeout(limit, channel.call(question))`.
    ///
    /// If the future is dropped, or fails, the request is cancelled: a late reply is dropped and
    /// [counted](Stats::late_replies).
    ///
    /// If both sides call at the same time, neither answers the other until its own call has ended. Such programs answer in
    /// a loop instead, where replies arrive as messages. The peer should answer every request: nothing announces that it
    /// dropped one, so the call waits as long as the peer lives.
    ///
    /// # Errors
    /// Those of [`Sender::request`] and [`Receiver::wait_reply`]. [`Error::UnknownRequest`] if the two halves are of
    /// different channels; nothing was sent.
    pub async fn call<'c>(&mut self, control: impl Into<Control<'c>>) -> Result<Message> {
        if !self.receiver.is_of(self.sender.next_id()) {
            return Err(Error::UnknownRequest);
        }
        let request = self.sender.request(control).await?;
        let asked = CancelOnDrop { request, receiver: &mut self.receiver };
        asked.receiver.wait_reply(request).await
    }

    /// Returns the two halves. Each may live in a task of its own; dropping one closes its direction only.
    #[must_use]
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }

    /// The channel that blocks. It is not registered with the runtime any more.
    #[must_use]
    pub fn into_inner(self) -> crate::Channel {
        crate::Channel::new(self.sender.into_inner(), self.receiver.into_inner())
    }

    /// See [`sealane::Channel::peer`](crate::Channel::peer).
    #[must_use]
    pub fn peer(&self) -> &Peer {
        self.sender.peer()
    }

    /// See [`sealane::Channel::stats`](crate::Channel::stats).
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.sender.stats().merged(self.receiver.stats())
    }

    /// See [`sealane::Channel::limits`](crate::Channel::limits).
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.sender.limits()
    }

    /// See [`sealane::Channel::closer`](crate::Channel::closer).
    #[must_use]
    pub fn closer(&self) -> Closer {
        self.sender.closer()
    }
}

/// A request that is cancelled when its caller no longer waits for the reply.
struct CancelOnDrop<'c> {
    request: RequestId,
    receiver: &'c mut Receiver,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        self.receiver.cancel(self.request);
    }
}
