//! `sealane_pipe`: message passing for event loops. A handshake, then a channel, with a queue before it.

mod readiness;

use std::{
    ffi::{c_int, c_void},
    mem::{self, MaybeUninit},
    os::fd::{AsFd, AsRawFd},
    sync::Arc,
    time::Instant,
};

use sealane::{Error, Handshake as SealaneHandshake, RequestId, Sender};

use self::readiness::Readiness;
use crate::{
    arguments::{Given, Timeout, empty, handle, take, variable},
    channel::{Channel, Halves},
    handshake::Handshake,
    message::Message,
    sending::{Progress, Queue, reply_any, request_any, send_any},
    status::{Failure, Result, done, run, status},
};

/// A result of `sealane_pipe_dispatch`: `sealane_pipe_recv` has something to say, a message or the end.
pub const SEALANE_PIPE_CAN_RECV: c_int = 1;
/// A result of `sealane_pipe_dispatch`: try again what returned -EAGAIN.
pub const SEALANE_PIPE_CAN_SEND: c_int = 2;

/// Message passing for event loops: a handshake and then a channel, with one descriptor, and a queue for what is sent before
/// the peer is there. Messages have any size up to the limits: small ones go in packets, large ones through the ring. One
/// thread at a time may use it.
#[derive(Debug)]
pub struct Pipe {
    stage: Stage,
    readiness: Readiness,
    /// The handshake is over, and all that was queued is sent.
    settled: bool,
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
            Self::Failed(error) => Err(Failure::note(error)),
        }
    }
}

impl Pipe {
    fn begun(handshake: SealaneHandshake) -> Result<Box<Self>> {
        let mut readiness = Readiness::new(handshake.as_fd())?;
        // The first step waits for nothing.
        readiness.set_again(true)?;
        let stage = Stage::Handshake(handshake, Queue::default());
        Ok(Box::new(Self { stage, readiness, settled: false }))
    }

    /// Takes the channel if it succeeds.
    fn open(variable: &mut Option<Box<Channel>>) -> Result<Box<Self>> {
        let channel = handle(variable.as_deref())?;
        channel.halves.sending()?.sender()?;
        let mut readiness = Readiness::new(channel.receiving_fd())?;
        // Nobody knows whether the channel is armed.
        readiness.set_again(true)?;
        let stage = Stage::Open(take(Some(variable))?);
        Ok(Box::new(Self { stage, readiness, settled: true }))
    }

    /// Goes on with the handshake and the queue; never blocks. True when both are done.
    fn advance(&mut self) -> Result<bool> {
        if self.settled {
            return Ok(true);
        }
        if let Stage::Handshake(handshake, _) = &mut self.stage {
            match handshake.advance() {
                Ok(true) => self.establish()?,
                Ok(false) => {
                    let left = handshake.deadline().saturating_duration_since(Instant::now());
                    let again = handshake.needs_advance();
                    self.readiness.set_timer(left)?;
                    self.readiness.set_again(again)?;
                    return Ok(false);
                }
                Err(Error::Full | Error::FdsInFlight) => {
                    self.readiness.set_pause()?;
                    self.readiness.set_again(false)?;
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
                }
                Err(error) => return Err(self.fail(error)),
            }
        }
        Ok(())
    }

    fn fail(&mut self, error: Error) -> Failure {
        let failure = Failure::note(&error);
        self.stage = Stage::Failed(error);
        // The descriptor stays readable, as that of a channel does whose peer is gone.
        match self.readiness.set_again(true) {
            Ok(()) => failure,
            Err(failure) => failure,
        }
    }

    /// Sends what is queued. True when nothing is queued any more.
    fn flush(&mut self) -> Result<bool> {
        let channel = self.stage.channel()?;
        let progress = channel.halves.sending()?.flush();
        let sending = channel.halves.sending_fd();
        match progress {
            Ok(Progress::Done) => {
                self.readiness.room_found(sending)?;
                self.readiness.stop_timer()?;
                self.settled = true;
            }
            Ok(Progress::Blocked) => {
                self.readiness.wait_for_room(sending)?;
                self.readiness.stop_timer()?;
            }
            Ok(Progress::Later) => self.readiness.set_pause()?,
            Err(failure) => {
                // The rest of the queue is the next turn's.
                self.readiness.set_again(true)?;
                return Err(failure);
            }
        }
        Ok(self.settled)
    }

    /// Waits until the handshake is over and the queue is sent.
    fn settle(&mut self, timeout: Timeout, begun: Instant) -> Result<()> {
        while !self.advance()? {
            let left = timeout.after(begun).left()?;
            match &self.stage {
                // Its descriptors are those that the handshake waits for.
                Stage::Handshake(..) => self.readiness.wait(left)?,
                Stage::Open(channel) => self.readiness.wait_to_send(channel.halves.sending_fd(), left)?,
                Stage::Failed(error) => return Err(Failure::note(error)),
            }
        }
        Ok(())
    }

    /// Sends by `send`, which does not block. Without room, the descriptor says when there is some.
    fn try_send<R>(&mut self, send: impl FnOnce(&mut Sender) -> Result<R>) -> Result<R> {
        if !self.advance()? {
            return Err(Failure::again("earlier messages are queued, or the pipe is not connected yet"));
        }
        let channel = self.stage.channel()?;
        let result = send(channel.halves.sending()?.sender()?);
        if let Err(Failure::Library(Error::Full)) = &result {
            self.readiness.wait_for_room(channel.halves.sending_fd())?;
        }
        result
    }

    /// A set of `SEALANE_PIPE_...`.
    fn dispatch(&mut self) -> Result<c_int> {
        let settled = self.advance()?;
        let Stage::Open(channel) = &self.stage else { return Ok(0) };
        let can_send = settled && self.readiness.has_room(channel.halves.sending_fd())?;
        // What a failure is, receiving says.
        let can_recv = !matches!(channel.halves.arm(), Ok(true));
        self.readiness.set_again(can_recv)?;
        let bits = [(can_recv, SEALANE_PIPE_CAN_RECV), (can_send, SEALANE_PIPE_CAN_SEND)];
        Ok(bits.into_iter().filter(|(is, _)| *is).map(|(_, bit)| bit).sum())
    }

    fn receive(&mut self, timeout: Timeout) -> Result<Box<Message>> {
        let begun = Instant::now();
        // Messages come while some are still queued.
        while !self.advance()? {
            match self.try_receive() {
                Err(Failure::Usage { errno: libc::EAGAIN, .. }) => {
                    self.readiness.wait(timeout.after(begun).left()?)?;
                }
                result => return result,
            }
        }
        match timeout.after(begun) {
            Timeout::Try => self.try_receive(),
            timeout => self.waiting(|halves| halves.receive(timeout)),
        }
    }

    /// For event loops: the descriptor says whether there is another message.
    fn try_receive(&mut self) -> Result<Box<Message>> {
        let halves = &self.stage.channel()?.halves;
        let message = halves.receive(Timeout::Try);
        let is_armed = match message {
            Ok(_) => matches!(halves.arm(), Ok(true)),
            Err(Failure::Usage { errno: libc::EAGAIN, .. }) => true,
            Err(_) => false,
        };
        self.readiness.set_again(!is_armed)?;
        message
    }

    /// Does what takes messages and leaves the channel as it is, armed or not: the next dispatch arms it.
    fn waiting<R>(&mut self, wait: impl FnOnce(&Arc<Halves>) -> Result<R>) -> Result<R> {
        let result = wait(&self.stage.channel()?.halves);
        self.readiness.set_again(true)?;
        result
    }

    fn call(
        &mut self,
        timeout: Timeout,
        request: impl FnOnce(&mut Sender, Timeout) -> Result<RequestId>,
    ) -> Result<Box<Message>> {
        let begun = Instant::now();
        self.settle(timeout, begun)?;
        let left = timeout.after(begun);
        self.waiting(|halves| halves.call(left, |sender| request(sender, left)))
    }
}

fn pipe(pipe: Option<&mut Pipe>) -> Result<&mut Pipe> {
    pipe.ok_or_else(|| Failure::null("a pipe expected, a null pointer found"))
}

/// Makes a pipe of a handshake, whichever function began it. Frees the handshake, and sets its variable to null, except where it
/// fails with -EBUSY: `sealane_handshake_child_started` first. Does not block.
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

/// Makes a pipe of a channel: in a child, after `sealane_inherited_as`. Takes the channel, and sets its variable to null, unless it
/// fails. Does not block. -EBUSY: a loan of the channel is open, or another thread is sending.
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

/// The only descriptor to wait for with poll(2), POLLIN: readable (level-triggered) when `sealane_pipe_dispatch` has something to
/// do or to say. It counts the handshake's time too. It stays the pipe's, and the same for all of its life.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_pipe_fd(pipe: Option<&Pipe>) -> c_int {
    status(|| Ok(handle(pipe)?.readiness.fd().as_raw_fd()))
}

/// Does what is possible at once: goes on with the handshake, sends what is queued. Never blocks. Returns a set of
/// `SEALANE_PIPE_CAN_RECV` and `SEALANE_PIPE_CAN_SEND`, or 0.
///
/// Call it whenever `sealane_pipe_fd` is readable. A failure of the handshake is returned by this and every later call: as of
/// `sealane_handshake_advance`, and -ETIMEDOUT. -EMSGSIZE: a queued message is larger than the peer accepts; it was dropped, and
/// the pipe works as before. The end of a connected pipe is `sealane_pipe_recv`'s to say.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_pipe_dispatch(pipe: Option<&mut Pipe>) -> c_int {
    status(|| self::pipe(pipe)?.dispatch())
}

/// The pipe's channel, for its limits, its peer, and loans; null while there is none. It stays the pipe's: do not free it, and
/// receive through the pipe, or its descriptor does not know. What a function for sending has refused with -EAGAIN is waited for
/// with `sealane_channel_send_fd`.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_pipe_channel(pipe: Option<&Pipe>) -> Option<&Channel> {
    pipe.and_then(|pipe| pipe.stage.channel().ok())
}

/// Sends a message of any size: `len` bytes and `fd_count` descriptors, which stay the caller's. Whole or not at all. Never blocks.
/// The receiver reads it by `sealane_message_bytes`. Goes in a packet below 4 KiB, with descriptors up to 16 KiB, and else through
/// the ring.
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
            Stage::Handshake(_, queue) => queue.push(given),
            _ => pipe.try_send(|sender| send_any(sender, given, Timeout::Try)),
        }
    })
}

/// Sends a message of any size that expects a reply, which has this number: `sealane_message_in_reply_to`. `number` may be null.
/// As `sealane_pipe_send_any`, but nothing is queued: -EAGAIN before the pipe is connected.
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
        let id = self::pipe(pipe)?.try_send(|sender| request_any(sender, given, Timeout::Try))?;
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
        self::pipe(pipe)?.try_send(|sender| reply_any(sender, number, given, Timeout::Try))
    })
}

/// Sends a request of any size and waits for its reply: `timeout_ms` for both, and for the handshake and what is queued before
/// it, -1 for ever; 0 is -EINVAL. It watches this pipe only. Messages that come in between are kept; the pipe's descriptor is
/// readable afterwards.
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
        let timeout = Timeout::of_call(timeout_ms)?;
        *out = Some(self::pipe(pipe)?.call(timeout, |sender, left| request_any(sender, given, left))?);
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
/// Failures as of `sealane_recv`, and those of the handshake.
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
