//! `sealane_listener`: a socket to which other processes connect.

use std::{
    ffi::{c_char, c_int},
    mem::MaybeUninit,
    os::fd::AsRawFd,
};

use sealane::Listener as SealaneListener;

use crate::{
    arguments::{Timeout, duplicate, empty, handle, path, take},
    channel::Channel,
    handshake::Handshake,
    options::{Options, builder},
    status::{Failure, done, run, status},
};

/// A socket to which other processes connect. Several threads may accept at once.
#[derive(Debug)]
pub struct Listener(SealaneListener);

/// Listens at a path (mode 0600; removed when the listener is freed by its owner), or at an abstract name behind "@". A path at
/// which nobody listens any more is taken over. `options` are those of each accepted channel, and may be null.
///
/// -EADDRINUSE: somebody listens there, or another kind of file is there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealane_listen(
    options: *const Options,
    path: *const c_char,
    listener: Option<&mut MaybeUninit<Option<Box<Listener>>>>,
) -> c_int {
    done(|| {
        let out = empty(listener)?;
        // SAFETY: the header's contract on strings.
        let path = unsafe { self::path(path) }?;
        // SAFETY: the header's contract on options.
        let builder = unsafe { builder(options) }?;
        *out = Some(Box::new(Listener(builder.listen(path)?)));
        Ok(())
    })
}

/// Listens on a socket that listens already, for socket activation. It is duplicated and stays the caller's, and is never
/// removed; it becomes non-blocking for all who have it.
///
/// -EINVAL: no listening AF_UNIX SOCK_SEQPACKET socket.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealane_listen_on(
    options: *const Options,
    fd: c_int,
    listener: Option<&mut MaybeUninit<Option<Box<Listener>>>>,
) -> c_int {
    done(|| {
        let out = empty(listener)?;
        // SAFETY: the header's contract on options.
        let builder = unsafe { builder(options) }?;
        *out = Some(Box::new(Listener(builder.listen_on(duplicate(fd)?)?)));
        Ok(())
    })
}

/// The descriptor to wait for with poll(2), POLLIN, before `sealane_accept_start`. It stays the listener's.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_listener_fd(listener: Option<&Listener>) -> c_int {
    status(|| Ok(handle(listener)?.0.as_raw_fd()))
}

/// Waits for a client for `timeout_ms` at most (-1 for ever, 0 not at all), and then for its handshake, at most
/// `sealane_options.handshake_timeout_ms`. A client that fails is gone; the next call takes the next. A server of clients that it
/// does not trust uses `sealane_accept_start`: it gives nothing to a client before it has looked at who that is.
///
/// -EAGAIN: no client. -ETIMEDOUT: no client, or a client that was too slow. -ECONNREFUSED, -ECONNRESET, -EMFILE ...
#[unsafe(no_mangle)]
pub extern "C" fn sealane_accept(
    listener: Option<&Listener>,
    timeout_ms: c_int,
    channel: Option<&mut MaybeUninit<Option<Box<Channel>>>>,
) -> c_int {
    done(|| {
        let out = empty(channel)?;
        let listener = &handle(listener)?.0;
        let channel = match Timeout::of(timeout_ms)? {
            Timeout::Forever => listener.accept()?,
            Timeout::Try => listener.try_accept()?.ok_or_else(no_client)?.finish()?,
            Timeout::Within(time) => listener.accept_timeout(time)?,
        };
        *out = Some(Channel::new(channel));
        Ok(())
    })
}

fn no_client() -> Failure {
    Failure::again("no client is there")
}

/// Takes a client that has connected, without blocking: continue with `sealane_handshake_advance`. -EAGAIN: no client.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_accept_start(
    listener: Option<&Listener>,
    handshake: Option<&mut MaybeUninit<Option<Box<Handshake>>>>,
) -> c_int {
    done(|| {
        let out = empty(handshake)?;
        *out = Some(Handshake::begun(handle(listener)?.0.try_accept()?.ok_or_else(no_client)?));
        Ok(())
    })
}

/// Stops listening, and sets the variable to null; null is ignored. Accepted channels stay.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_listener_free(listener: Option<&mut Option<Box<Listener>>>) {
    run(|| drop(take(listener)));
}
