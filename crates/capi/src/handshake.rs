//! `sealane_handshake`: a channel that is being established, here or with a child.

use std::{
    ffi::{c_char, c_int},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd},
    time::Instant,
};

use sealane::{Handshake as SealaneHandshake, Prepared};

use crate::{
    arguments::{duplicate, empty, handle, path, place, room, string, take, variable},
    channel::{Channel, Peer, peer_of},
    options::{Options, builder},
    status::{Failure, Result, done, run, status},
};

/// Enough room for `sealane_handshake_child_name`.
pub const SEALANE_NAME_SIZE: usize = 64;

/// A channel that is being established. One thread at a time may use it.
#[derive(Debug)]
pub struct Handshake(State);

#[derive(Debug)]
enum State {
    /// The child is not started yet.
    Prepared(Prepared),
    Begun(SealaneHandshake),
    /// In between.
    Taken,
}

impl Handshake {
    pub(crate) fn begun(handshake: SealaneHandshake) -> Box<Self> {
        Box::new(Self(State::Begun(handshake)))
    }

    fn begun_mut(&mut self) -> Result<&mut SealaneHandshake> {
        match &mut self.0 {
            State::Begun(handshake) => Ok(handshake),
            _ => Err(not_started()),
        }
    }

    /// Takes the handshake out of its variable, unless the child's end is still here.
    pub(crate) fn take_begun(handshake: Option<&mut Option<Box<Self>>>) -> Result<SealaneHandshake> {
        let variable = variable(handshake)?;
        if let Some(handshake) = variable {
            handshake.begun_mut()?;
        }
        match take(Some(variable))?.0 {
            State::Begun(handshake) => Ok(handshake),
            _ => Err(not_started()),
        }
    }

    fn prepared(&self) -> Result<&Prepared> {
        match &self.0 {
            State::Prepared(prepared) => Ok(prepared),
            _ => Err(Failure::invalid(
                "a handshake of sealane_prepare whose child was not started yet expected, another found",
            )),
        }
    }
}

fn not_started() -> Failure {
    Failure::busy("sealane_handshake_child_started expected first: this process still has the child's end")
}

fn begun(handshake: Option<&mut Handshake>) -> Result<&mut SealaneHandshake> {
    handshake.ok_or_else(|| Failure::null("a handshake expected, a null pointer found"))?.begun_mut()
}

/// Connects to a listener at a path, or at an abstract name behind "@", and waits for the handshake, at most
/// `sealane_options.handshake_timeout_ms`. `options` may be null.
///
/// -ECONNREFUSED: nobody listens there, or one side refused the other: the sentence says which limit. -ENOENT: no such path.
/// -ETIMEDOUT. -ECONNRESET: the peer went away in the middle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealane_connect(
    options: *const Options,
    path: *const c_char,
    channel: Option<&mut MaybeUninit<Option<Box<Channel>>>>,
) -> c_int {
    done(|| {
        let out = empty(channel)?;
        // SAFETY: the header's contract on strings.
        let path = unsafe { self::path(path) }?;
        // SAFETY: the header's contract on options.
        let builder = unsafe { builder(options) }?;
        *out = Some(Channel::new(builder.connect(path)?));
        Ok(())
    })
}

/// Begins to connect, without blocking: continue with `sealane_handshake_advance`. Failures as of `sealane_connect`; -EAGAIN if
/// the listener has too many clients waiting.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealane_connect_start(
    options: *const Options,
    path: *const c_char,
    handshake: Option<&mut MaybeUninit<Option<Box<Handshake>>>>,
) -> c_int {
    done(|| {
        let out = empty(handshake)?;
        // SAFETY: the header's contract on strings.
        let path = unsafe { self::path(path) }?;
        // SAFETY: the header's contract on options.
        let builder = unsafe { builder(options) }?;
        *out = Some(Handshake::begun(builder.try_connect(path)?));
        Ok(())
    })
}

/// Begins a handshake on a connected AF_UNIX SOCK_SEQPACKET socket, one end of a socketpair(2) for instance. The descriptor is
/// duplicated and stays the caller's: close it, or the peer cannot notice this end's close. Does not block.
///
/// -EPROTOTYPE: another kind of descriptor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealane_handshake_start(
    options: *const Options,
    fd: c_int,
    handshake: Option<&mut MaybeUninit<Option<Box<Handshake>>>>,
) -> c_int {
    done(|| {
        let out = empty(handshake)?;
        // SAFETY: the header's contract on options.
        let builder = unsafe { builder(options) }?;
        *out = Some(Handshake::begun(builder.handshake(duplicate(fd)?)?));
        Ok(())
    })
}

/// Prepares a channel to a child process, which is started later, in any way. Does not block.
///
/// 1. `sealane_handshake_child_name` gives a string for the child's arguments.
/// 2. Start the child, with the descriptor of `sealane_handshake_child_fd`, which is close-on-exec: between fork and exec call
///    fcntl(fd, F_SETFD, 0); with posix_spawn(3) use posix_spawn_file_actions_adddup2(fd, fd). The child calls
///    `sealane_inherited_as` with the string.
/// 3. `sealane_handshake_child_started` closes this process's copy of the child's end.
/// 4. `sealane_handshake_finish`, or an event loop with `sealane_handshake_advance`.
///
/// The handshake's time begins here.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealane_prepare(
    options: *const Options,
    handshake: Option<&mut MaybeUninit<Option<Box<Handshake>>>>,
) -> c_int {
    done(|| {
        let out = empty(handshake)?;
        // SAFETY: the header's contract on options.
        let builder = unsafe { builder(options) }?;
        *out = Some(Box::new(Handshake(State::Prepared(builder.prepare()?))));
        Ok(())
    })
}

/// The child's end of `sealane_prepare`. It stays the handshake's.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_handshake_child_fd(handshake: Option<&Handshake>) -> c_int {
    status(|| Ok(handle(handshake)?.prepared()?.as_fd().as_raw_fd()))
}

/// Writes the string that names the child's end, such as "5:1234": the descriptor's number, and its cookie (socket(7),
/// SO_COOKIE). `SEALANE_NAME_SIZE` bytes are enough; fewer than needed are -ERANGE. Where a launcher gives the descriptor
/// another number, hand on that number alone instead.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealane_handshake_child_name(
    handshake: Option<&Handshake>,
    name: *mut c_char,
    size: usize,
) -> c_int {
    done(|| {
        let text = handle(handshake)?.prepared()?.to_string();
        // SAFETY: the header's contract on room for results.
        let room = unsafe { room(name, size) }?;
        if room.len() <= text.len() {
            let text = "room for the child's name expected (SEALANE_NAME_SIZE bytes), less found";
            return Err(Failure::Usage { errno: libc::ERANGE, text });
        }
        for (place, byte) in room.iter_mut().zip(text.bytes().chain([0])) {
            place.write(c_char::from_ne_bytes([byte]));
        }
        Ok(())
    })
}

/// Closes this process's copy of the child's end. Call it when the child runs.
///
/// A child of fork(2) without exec calls `sealane_inherited_as` instead, then `sealane_handshake_free`.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_handshake_child_started(handshake: Option<&mut Handshake>) -> c_int {
    done(|| {
        let handshake =
            handshake.ok_or_else(|| Failure::null("a handshake expected, a null pointer found"))?;
        handshake.prepared()?;
        if let State::Prepared(prepared) = std::mem::replace(&mut handshake.0, State::Taken) {
            handshake.0 = State::Begun(prepared.started());
        }
        Ok(())
    })
}

/// In the child: makes the channel that the parent prepared, and waits for its handshake. `name` is the string of
/// `sealane_handshake_child_name`, or a descriptor's number; null: the environment's SEALANE_FD, where a parent in Rust puts it. A
/// parent in C whose child is in Rust puts the string there too.
///
/// -ENOENT: the name, or the descriptor, is none: it is close-on-exec, unless fcntl(fd, F_SETFD, 0) came before the exec.
/// -EALREADY: taken before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealane_inherited_as(
    options: *const Options,
    name: *const c_char,
    channel: Option<&mut MaybeUninit<Option<Box<Channel>>>>,
) -> c_int {
    done(|| {
        let out = empty(channel)?;
        // SAFETY: the header's contract on options.
        let builder = unsafe { builder(options) }?;
        let inherited = if name.is_null() {
            builder.inherited()?
        } else {
            // SAFETY: the header's contract on strings.
            let name = unsafe { string(name) }?;
            builder.inherited_as(&name.to_string_lossy())?
        };
        *out = Some(Channel::new(inherited));
        Ok(())
    })
}

/// The descriptor to wait for with poll(2), POLLIN, before the next `sealane_handshake_advance`. It stays the handshake's, and
/// is the same as `sealane_channel_recv_fd` later.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_handshake_fd(handshake: Option<&Handshake>) -> c_int {
    status(|| match &handle(handshake)?.0 {
        State::Begun(handshake) => Ok(handshake.as_raw_fd()),
        _ => Err(not_started()),
    })
}

/// Milliseconds until the handshake fails, rounded up: wait no longer for its descriptor, since a silent peer makes none
/// readable.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_handshake_remaining_ms(handshake: Option<&Handshake>) -> c_int {
    status(|| match &handle(handshake)?.0 {
        State::Begun(handshake) => {
            let left = handshake.deadline().saturating_duration_since(Instant::now());
            Ok(c_int::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(c_int::MAX))
        }
        _ => Err(not_started()),
    })
}

/// Takes the steps that are possible at once; never blocks. 1 when `sealane_handshake_finish` will not block; 0: wait for the
/// descriptor, unless `sealane_handshake_needs_advance` says 1.
///
/// -EAGAIN and -ETOOMANYREFS pass: call again after some milliseconds. -EBUSY: `sealane_handshake_child_started` first. Every
/// other failure is the handshake's end; free it.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_handshake_advance(handshake: Option<&mut Handshake>) -> c_int {
    status(|| Ok(begun(handshake)?.advance()?.into()))
}

/// 1 if the last `sealane_handshake_advance` left more to do at once; else 0. It stops before a client is given anything,
/// so that a server can look at `sealane_handshake_peer` first.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_handshake_needs_advance(handshake: Option<&mut Handshake>) -> c_int {
    begun(handshake).is_ok_and(|handshake| handshake.needs_advance()).into()
}

/// The process at the other end. -EAGAIN while it is unknown. `version` is 0.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_handshake_peer(
    handshake: Option<&mut Handshake>,
    peer: Option<&mut MaybeUninit<Peer>>,
) -> c_int {
    done(|| {
        let credentials = begun(handshake)?.peer_credentials();
        let credentials = credentials.ok_or_else(|| Failure::again("the peer has not said who it is yet"))?;
        place(peer)?.write(peer_of(credentials, 0));
        Ok(())
    })
}

/// Completes the handshake, waits until its deadline at most, and makes the channel. Frees the handshake, whatever the result,
/// and sets its variable to null; except for -EBUSY, if the child's end is still here, and -EFAULT.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_handshake_finish(
    handshake: Option<&mut Option<Box<Handshake>>>,
    channel: Option<&mut MaybeUninit<Option<Box<Channel>>>>,
) -> c_int {
    done(|| {
        let out = empty(channel)?;
        *out = Some(Channel::new(Handshake::take_begun(handshake)?.finish()?));
        Ok(())
    })
}

/// Refuses the peer, and frees the handshake. Sets the variable to null. Does not block. The peer gets -ECONNREFUSED, or, if its
/// side of the handshake is complete already, -EPROTO from its channel.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_handshake_refuse(handshake: Option<&mut Option<Box<Handshake>>>) -> c_int {
    done(|| {
        if let State::Begun(handshake) = take(handshake)?.0 {
            handshake.refuse();
        }
        Ok(())
    })
}

/// Ends a handshake, and sets the variable to null; null is ignored.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_handshake_free(handshake: Option<&mut Option<Box<Handshake>>>) {
    run(|| drop(take(handshake)));
}
