//! `sealane_pipe`: message passing for event loops. A handshake, then a channel, with a queue before it.

mod readiness;

use std::{
    collections::VecDeque,
    ffi::{c_int, c_void},
    mem::{self, MaybeUninit},
    os::fd::{AsFd, AsRawFd},
    sync::Arc,
    time::{Duration, Instant},
};

use sealane::{Error, Handshake as SealaneHandshake, RequestId, Sender};

use self::readiness::Readiness;
use crate::{
    arguments::{Given, Timeout, empty, handle, take, variable},
    channel::Channel,
    halves::Halves,
    handshake::Handshake,
    message::Message,
    readable::is_readable,
    sending::{Progress, Queue},
    status::{Failure, Result, done, run, status},
    verbs::{fits_a_packet, reply_any, request_any, send_any},
};

/// In a result of `sealane_pipe_dispatch`: call `sealane_pipe_recv`. It has a message, the end, or, once in a while, -EAGAIN.
pub const SEALANE_PIPE_CAN_RECV: c_int = 1;
/// In a result of `sealane_pipe_dispatch`: sending can be tried, so what returned -EAGAIN too.
pub const SEALANE_PIPE_CAN_SEND: c_int = 2;

/// Message passing for event loops: a handshake and then a channel, with one descriptor, and a queue for what is sent before
/// the peer is there. Messages have any size up to the limits: small ones go in packets, large ones through the ring. One
/// thread at a time may use it. It takes six descriptors, where a channel alone takes three.
#[derive(Debug)]
pub struct Pipe {
    stage: Stage,
    readiness: Readiness,
    /// The handshake is over, and all that was queued is sent.
    settled: bool,
    /// Something can be received, or nobody knows.
    can_recv: bool,
    /// The next dispatch has something else to do or to say.
    news: bool,
    /// Set when a message is refused, until a dispatch says that it can be tried: bytes of the largest one for the ring, or 0.
    wanted: Option<usize>,
    /// A failure that was met by looking for a message: the next receiving's to say.
    unsaid: Option<Failure>,
    /// Why queued messages were dropped: to be said.
    refused: VecDeque<Failure>,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one a pipe, and the first one is the largest")]
enum Stage {
    Handshake(SealaneHandshake, Queue),
    Open(Box<Channel>),
    Failed(Error),
}

impl Stage {
    fn channel(&self) -> Result<&Channel> {
        match self {
            Self::Open(channel) => Ok(channel),
            Self::Handshake(..) => Err(Failure::again("the pipe is not connected yet")),
            Self::Failed(error) => Err(ended(error)),
        }
    }
}

/// Why the handshake failed. Its deadline has a number of its own, since a function's time can pass too.
fn ended(error: &Error) -> Failure {
    match error {
        Error::Timeout => Failure::Usage {
            errno: libc::ECONNABORTED,
            text: "the peer did not complete its handshake within options.handshake_timeout_ms",
        },
        error => Failure::note(error),
    }
}

impl Pipe {
    fn new(stage: Stage, readiness: Readiness) -> Box<Self> {
        let settled = matches!(stage, Stage::Open(_));
        let refused = VecDeque::new();
        // The handshake's first step waits for nothing, and nobody knows whether a channel is armed.
        let mut pipe = Self {
            stage,
            readiness,
            settled,
            can_recv: true,
            news: !settled,
            wanted: None,
            unsaid: None,
            refused,
        };
        pipe.signal();
        Box::new(pipe)
    }

    fn begun(handshake: SealaneHandshake) -> Result<Box<Self>> {
        let readiness = Readiness::new(handshake.as_fd())?;
        Ok(Self::new(Stage::Handshake(handshake, Queue::default()), readiness))
    }

    /// Takes the channel if it succeeds.
    fn open(variable: &mut Option<Box<Channel>>) -> Result<Box<Self>> {
        let channel = handle(variable.as_deref())?;
        channel.halves.sending()?.sender()?;
        let readiness = Readiness::new(channel.receiving_fd())?;
        Ok(Self::new(Stage::Open(take(Some(variable))?), readiness))
    }

    /// Makes the descriptor readable while the next dispatch has something to do or to say that no other descriptor announces.
    fn signal(&mut self) {
        let is_connecting = matches!(self.stage, Stage::Handshake(..));
        self.readiness.set_again(self.news || !self.refused.is_empty() || (self.can_recv && !is_connecting));
    }

    /// Goes on with the handshake and the queue; never blocks. True when both are done.
    fn advance(&mut self) -> Result<bool> {
        if self.settled {
            return Ok(true);
        }
        let advanced = self.step();
        self.signal();
        advanced
    }

    fn step(&mut self) -> Result<bool> {
        if let Stage::Handshake(handshake, _) = &mut self.stage {
            self.readiness.go_on(handshake.as_fd())?;
            match handshake.advance() {
                Ok(true) => self.establish()?,
                Ok(false) => {
                    self.news = handshake.needs_advance();
                    let left = handshake.deadline().saturating_duration_since(Instant::now());
                    self.readiness.set_timer(Some(left))?;
                    return Ok(false);
                }
                Err(Error::Full | Error::FdsInFlight) => {
                    self.news = false;
                    self.readiness.pause(handshake.as_fd())?;
                    return Ok(false);
                }
                Err(error) => return Err(self.fail(error)),
            }
        }
        self.flush()
    }

    /// The handshake becomes a channel, which gets the queue.
    fn establish(&mut self) -> Result<()> {
        // Nothing sees the error between these two lines.
        let stage = mem::replace(&mut self.stage, Stage::Failed(Error::Disconnected));
        if let Stage::Handshake(handshake, queue) = stage {
            match handshake.finish() {
                Ok(channel) => {
                    let channel = Channel::new(channel);
                    channel.halves.sending()?.queue = queue;
                    self.stage = Stage::Open(channel);
                    self.readiness.set_timer(None)?;
                }
                Err(error) => return Err(self.fail(error)),
            }
        }
        Ok(())
    }

    /// The descriptor stays readable, as that of a channel does whose peer is gone.
    fn fail(&mut self, error: Error) -> Failure {
        let failure = ended(&error);
        self.stage = Stage::Failed(error);
        self.news = true;
        failure
    }

    /// Sends what is queued. True when nothing is queued any more.
    fn flush(&mut self) -> Result<bool> {
        let channel = self.stage.channel()?;
        let (receiving, sending) = (channel.receiving_fd(), channel.halves.sending_fd());
        self.readiness.go_on(receiving)?;
        self.news = false;
        match channel.halves.sending()?.flush(&mut self.refused)? {
            Progress::Done => {
                self.readiness.room_found(sending)?;
                self.settled = true;
                self.news = self.wanted.is_some();
            }
            Progress::Blocked => self.readiness.wait_for_room(sending)?,
            Progress::Later => self.readiness.pause(receiving)?,
        }
        Ok(self.settled)
    }

    /// Waits until the handshake is over and the queue is sent.
    fn settle(&mut self, timeout: Timeout, begun: Instant) -> Result<()> {
        while !self.advance()? {
            let left = timeout.after(begun).left()?;
            match &self.stage {
                Stage::Open(channel) => self.readiness.wait_to_send(channel.halves.sending_fd(), left)?,
                // Its descriptors are those that the handshake waits for.
                _ => self.readiness.wait(left)?,
            }
        }
        Ok(())
    }

    /// Sends by `send`, which does not block. Without room, the descriptor says when there is some.
    fn try_send<R>(&mut self, given: Given<'_>, send: impl FnOnce(&mut Sender) -> Result<R>) -> Result<R> {
        if !self.advance()? {
            self.wanted = self.wanted.max(Some(0));
            return Err(Failure::again("earlier messages are queued, or the pipe is not connected yet"));
        }
        let channel = self.stage.channel()?;
        let mut sending = channel.halves.sending()?;
        let sender = sending.sender()?;
        let result = send(sender);
        match &result {
            Err(failure) if failure.is_full() => {
                let in_the_ring = !fits_a_packet(&sender.limits(), given);
                self.wanted = self.wanted.max(Some(if in_the_ring { given.bytes.len() } else { 0 }));
                self.readiness.wait_for_room(channel.halves.sending_fd())?;
            }
            Ok(_) => {
                drop(sending);
                self.sent()?;
            }
            Err(_) => {}
        }
        result
    }

    /// A message that was sent may have taken along the announcement of room for another one, which was refused before.
    fn sent(&mut self) -> Result<()> {
        if self.readiness.is_waiting_for_room() {
            self.readiness.room_found(self.stage.channel()?.halves.sending_fd())?;
            self.news = true;
            self.signal();
        }
        Ok(())
    }

    /// Whether what was refused can be tried again. A loan of the channel may have taken the announcement of room along, so that
    /// asking is not enough: the announcement is asked for again.
    fn has_room(&mut self) -> Result<bool> {
        if !self.readiness.is_waiting_for_room() {
            return Ok(true);
        }
        let channel = self.stage.channel()?;
        let sending = channel.halves.sending_fd();
        let mut has_room = is_readable(sending, Some(Duration::ZERO))?;
        if !has_room && let Ok(sender) = channel.halves.sending()?.sender() {
            has_room = self.wanted.is_some_and(|len| len > 0 && sender.has_space(len).unwrap_or(true));
        }
        if has_room {
            self.readiness.room_found(sending)?;
        }
        Ok(has_room)
    }

    /// A set of `SEALANE_PIPE_...`.
    fn dispatch(&mut self) -> Result<c_int> {
        let settled = self.advance()?;
        if let Some(failure) = self.refused.pop_front() {
            self.signal();
            return Err(failure);
        }
        let Stage::Open(channel) = &self.stage else { return Ok(0) };
        if self.unsaid.is_none() {
            (self.can_recv, self.unsaid) = looked(channel.halves.arm());
        }
        let can_send = settled && self.has_room()?;
        self.news = false;
        if can_send {
            self.wanted = None;
        }
        self.signal();
        let bits = [(self.can_recv, SEALANE_PIPE_CAN_RECV), (can_send, SEALANE_PIPE_CAN_SEND)];
        Ok(bits.into_iter().filter(|(is, _)| *is).map(|(_, bit)| bit).sum())
    }

    fn receive(&mut self, timeout: Timeout) -> Result<Box<Message>> {
        let begun = Instant::now();
        // Messages come while some are still queued.
        while !self.advance()? {
            match self.try_receive() {
                Err(Failure::Usage { errno: libc::EAGAIN, .. }) => {
                    self.wait_for_more(timeout.after(begun).left()?)?;
                }
                result => return result,
            }
        }
        match timeout.after(begun) {
            Timeout::Try => self.try_receive(),
            _ if self.unsaid.is_some() => self.try_receive(),
            timeout => self.waiting(|halves| halves.receive(timeout)),
        }
    }

    /// Waits for the descriptor, whatever the next dispatch has to say.
    fn wait_for_more(&mut self, left: Option<Duration>) -> Result<()> {
        self.readiness.set_again(self.news && matches!(self.stage, Stage::Handshake(..)));
        let waited = self.readiness.wait(left);
        self.signal();
        waited
    }

    /// For event loops: the descriptor says whether there is another message.
    fn try_receive(&mut self) -> Result<Box<Message>> {
        let halves = &self.stage.channel()?.halves;
        let message = match self.unsaid.take() {
            Some(failure) => Err(failure),
            None => halves.receive(Timeout::Try),
        };
        match message {
            Ok(_) => (self.can_recv, self.unsaid) = looked(halves.arm()),
            Err(Failure::Usage { errno: libc::EAGAIN, .. }) => self.can_recv = false,
            Err(_) => self.can_recv = true,
        }
        // Loops that only receive learn it too.
        let refusal = if message.is_err() && !self.can_recv { self.refused.pop_front() } else { None };
        self.signal();
        refusal.map_or(message, Err)
    }

    /// Does what takes messages and leaves the channel as it is, armed or not: the next dispatch arms it.
    fn waiting<R>(&mut self, wait: impl FnOnce(&Arc<Halves>) -> Result<R>) -> Result<R> {
        let result = wait(&self.stage.channel()?.halves);
        self.can_recv = true;
        self.signal();
        result
    }

    fn call(
        &mut self,
        timeout: Timeout,
        request: impl FnOnce(&mut Sender, Timeout) -> Result<RequestId>,
    ) -> Result<Box<Message>> {
        let begun = Instant::now();
        if let Timeout::Try = timeout {
            return Err(Error::Timeout.into());
        }
        self.settle(timeout, begun)?;
        let left = timeout.after(begun);
        let reply = self.waiting(|halves| halves.call(left, |sender| request(sender, left)));
        self.sent()?;
        reply
    }
}

/// Whether there is something to receive, and the failure that was met by looking, which nobody would meet again.
fn looked(armed: Result<bool>) -> (bool, Option<Failure>) {
    match armed {
        Ok(is_armed) => (!is_armed, None),
        Err(failure) => (true, Some(failure)),
    }
}

fn pipe(pipe: Option<&mut Pipe>) -> Result<&mut Pipe> {
    pipe.ok_or_else(|| Failure::null("a pipe expected, a null pointer found"))
}

/// Makes a pipe of a handshake, whichever function began it; a server first looks at `sealane_handshake_peer`, if it wants to.
/// Frees the handshake, and sets its variable to null, except for -EBUSY, `sealane_handshake_child_started` first, and -EFAULT.
/// Does not block.
///
/// Create, start the child, send: `sealane_prepare`, start it, `sealane_handshake_child_started`, `sealane_pipe_new`,
/// `sealane_pipe_send_any`.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_pipe_new(
    handshake: Option<&mut Option<Box<Handshake>>>,
    pipe: Option<&mut MaybeUninit<Option<Box<Pipe>>>>,
) -> c_int {
    done(|| {
        let out = empty(pipe)?;
        *out = Some(Pipe::begun(Handshake::take_begun(handshake)?)?);
        Ok(())
    })
}

/// Makes a pipe of a channel: in a child, after `sealane_inherited_as`. Takes the channel, and sets its variable to null,
/// unless it fails. Does not block. -EBUSY: a loan of the channel is open, or another thread is sending.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_pipe_from_channel(
    channel: Option<&mut Option<Box<Channel>>>,
    pipe: Option<&mut MaybeUninit<Option<Box<Pipe>>>>,
) -> c_int {
    done(|| {
        let out = empty(pipe)?;
        *out = Some(Pipe::open(variable(channel)?)?);
        Ok(())
    })
}

/// Closes and frees a pipe, and sets the variable to null; null is ignored. What was sent is still delivered; what is queued is
/// not. Messages of the pipe stay valid: free them too.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_pipe_free(pipe: Option<&mut Option<Box<Pipe>>>) {
    run(|| drop(take(pipe)));
}

/// The only descriptor to wait for with poll(2), POLLIN: readable (level-triggered) when `sealane_pipe_dispatch` has something
/// to do or to say. It counts the handshake's time too. It stays the pipe's, and the same for all of its life. After the end,
/// and after a handshake that failed, it stays readable: take it out of the loop.
///
/// It sees that the peer is gone by the peer's socket. Where a copy of that may outlive the peer, wait for `sealane_channel_pidfd`
/// too: functions that wait see both.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_pipe_fd(pipe: Option<&Pipe>) -> c_int {
    status(|| Ok(handle(pipe)?.readiness.fd().as_raw_fd()))
}

/// Does what is possible at once: goes on with the handshake, sends what is queued. Never blocks. Returns a set of
/// `SEALANE_PIPE_CAN_RECV` and `SEALANE_PIPE_CAN_SEND`, or 0.
///
/// Call it whenever `sealane_pipe_fd` is readable. A failure of the handshake is returned by this and every later call: -ECONNREFUSED,
/// -ECONNRESET, and -ECONNABORTED where the peer did not complete it in time. -EMSGSIZE: a queued message is larger than the peer accepts; it was dropped, and
/// the pipe works as before. Only this function says so, and `sealane_pipe_recv` where it would return -EAGAIN. The end of a
/// connected pipe is `sealane_pipe_recv`'s to say; what was queued is lost then.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_pipe_dispatch(pipe: Option<&mut Pipe>) -> c_int {
    status(|| self::pipe(pipe)?.dispatch())
}

/// The pipe's channel, for its limits, its peer, and loans; null while there is none. It stays the pipe's: do not free it, and
/// receive through the pipe, or its descriptor does not know.
///
/// A loan that is refused with -EAGAIN is waited for with `sealane_channel_send_fd`; while messages are queued, which the sentence
/// says, with SEALANE_PIPE_CAN_SEND. When a loan was sent while the pipe waits for room, call `sealane_pipe_dispatch`: it may have
/// taken the announcement along.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_pipe_channel(pipe: Option<&Pipe>) -> Option<&Channel> {
    pipe.and_then(|pipe| pipe.stage.channel().ok())
}

/// Sends a message of any size: `len` bytes and `fd_count` descriptors, which stay the caller's. Whole or not at all. Never
/// blocks. The receiver reads it by `sealane_message_bytes`. Goes in a packet below 4 KiB, with descriptors up to 16 KiB, and
/// else through the ring.
///
/// Before the pipe is connected, messages are queued, with copies of their descriptors: at most 64, with 1 MiB and 253
/// descriptors in all. -EAGAIN: no room, or messages are queued still; after SEALANE_PIPE_CAN_SEND try again. -EMSGSIZE: more than
/// the peer accepts, or than this end's ring can hold. Others as of `sealane_send`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealane_pipe_send_any(
    pipe: Option<&mut Pipe>,
    data: *const c_void,
    len: usize,
    fds: *const c_int,
    fd_count: usize,
) -> c_int {
    done(|| {
        // SAFETY: the header's contract on bytes and descriptors.
        let given = unsafe { Given::new(data, len, fds, fd_count) }?;
        let pipe = self::pipe(pipe)?;
        match &mut pipe.stage {
            Stage::Handshake(_, queue) => {
                let pushed = queue.push(given);
                if pushed.is_err() {
                    pipe.wanted = Some(0);
                }
                pushed
            }
            _ => pipe.try_send(given, |sender| send_any(sender, given, Timeout::Try)),
        }
    })
}

/// Sends a message of any size that expects a reply, which has this number: `sealane_message_in_reply_to`. `number` may be null.
/// It is sent like `sealane_pipe_send_any`, but never queued: -EAGAIN before the pipe is connected.
///
/// -EDQUOT: too many requests are without a reply (`sealane_options.max_requests` of either side).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealane_pipe_request_any(
    pipe: Option<&mut Pipe>,
    data: *const c_void,
    len: usize,
    fds: *const c_int,
    fd_count: usize,
    number: Option<&mut MaybeUninit<u64>>,
) -> c_int {
    done(|| {
        // SAFETY: the header's contract on bytes and descriptors.
        let given = unsafe { Given::new(data, len, fds, fd_count) }?;
        let id = self::pipe(pipe)?.try_send(given, |sender| request_any(sender, given, Timeout::Try))?;
        if let Some(out) = number {
            out.write(id.number());
        }
        Ok(())
    })
}

/// Replies to the request with this number (`sealane_message_expects_reply`); as `sealane_pipe_send_any`.
///
/// -ENOENT: no such request waits for a reply.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealane_pipe_reply_any(
    pipe: Option<&mut Pipe>,
    number: u64,
    data: *const c_void,
    len: usize,
    fds: *const c_int,
    fd_count: usize,
) -> c_int {
    done(|| {
        // SAFETY: the header's contract on bytes and descriptors.
        let given = unsafe { Given::new(data, len, fds, fd_count) }?;
        self::pipe(pipe)?.try_send(given, |sender| reply_any(sender, number, given, Timeout::Try))
    })
}

/// Sends a request of any size and waits for its reply: `timeout_ms` for both, and for the handshake and what is queued before
/// it, -1 for ever; with 0 nothing is sent, and it has timed out. It watches this pipe only. A peer that itself waits for room,
/// for messages that nobody receives here meanwhile, answers to no call. Messages that come in between are kept; the pipe's
/// descriptor is readable afterwards.
///
/// Failures as of `sealane_call`, and those of the handshake.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealane_pipe_call_any(
    pipe: Option<&mut Pipe>,
    data: *const c_void,
    len: usize,
    fds: *const c_int,
    fd_count: usize,
    timeout_ms: c_int,
    reply: Option<&mut MaybeUninit<Option<Box<Message>>>>,
) -> c_int {
    done(|| {
        let out = empty(reply)?;
        // SAFETY: the header's contract on bytes and descriptors.
        let given = unsafe { Given::new(data, len, fds, fd_count) }?;
        let timeout = Timeout::of(timeout_ms)?;
        *out = Some(self::pipe(pipe)?.call(timeout, |sender, left| request_any(sender, given, left))?);
        Ok(())
    })
}

/// Waits for the reply to the request with this number (`sealane_pipe_request_any`, `sealane_loan_request` on the pipe's channel),
/// as `sealane_wait_reply`. The pipe's descriptor is readable afterwards.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_pipe_wait_reply(
    pipe: Option<&mut Pipe>,
    number: u64,
    timeout_ms: c_int,
    reply: Option<&mut MaybeUninit<Option<Box<Message>>>>,
) -> c_int {
    done(|| {
        let out = empty(reply)?;
        let timeout = Timeout::of(timeout_ms)?;
        *out = Some(self::pipe(pipe)?.waiting(|halves| halves.wait_reply(number, timeout))?);
        Ok(())
    })
}

/// Receives the next message, as `sealane_recv`; before the pipe is connected it waits, or returns -EAGAIN. With timeout 0 the
/// pipe's descriptor says afterwards whether there is another message, so that a loop can take one at each turn, even if it is
/// entered again from within.
///
/// It also goes through the handshake and sends what is queued. So a loop that waits for no room can call it alone, without
/// `sealane_pipe_dispatch`, which saves two system calls a message.
///
/// Failures as of `sealane_recv`, and those of the handshake. -EMSGSIZE instead of -EAGAIN: a queued message was dropped.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_pipe_recv(
    pipe: Option<&mut Pipe>,
    timeout_ms: c_int,
    message: Option<&mut MaybeUninit<Option<Box<Message>>>>,
) -> c_int {
    done(|| {
        let out = empty(message)?;
        let timeout = Timeout::of(timeout_ms)?;
        *out = Some(self::pipe(pipe)?.receive(timeout)?);
        Ok(())
    })
}
