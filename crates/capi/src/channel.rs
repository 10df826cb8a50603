//! `sealane_channel`: what it is, and its verbs.

use std::{
    ffi::{c_int, c_void},
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
    sync::Arc,
};

use sealane::{Channel as SealaneChannel, Closer, Limits as SealaneLimits, Peer as SealanePeer};

use crate::{
    arguments::{Given, Timeout, empty, handle, place, take},
    halves::Halves,
    message::Message,
    options::{Options, builder},
    status::{Failure, done, run, status},
    verbs::{reply, request, send},
};

/// One end of a channel. One thread may send while another receives; a second thread in the same direction gets -EBUSY.
#[derive(Debug)]
pub struct Channel {
    pub(crate) halves: Arc<Halves>,
    closer: Closer,
    peer: SealanePeer,
    /// How large a message to the peer may be, and one from it.
    limits: [SealaneLimits; 2],
    recv_fd: c_int,
}

impl Channel {
    pub(crate) fn new(channel: SealaneChannel) -> Box<Self> {
        let closer = channel.closer();
        let (sender, receiver) = channel.split();
        Box::new(Self {
            closer,
            peer: sender.peer().clone(),
            limits: [sender.limits(), receiver.limits()],
            recv_fd: receiver.as_raw_fd(),
            halves: Arc::new(Halves::new(sender, receiver)),
        })
    }

    pub(crate) fn receiving_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the receiver's, which lives as long as this channel.
        unsafe { BorrowedFd::borrow_raw(self.recv_fd) }
    }
}

impl Drop for Channel {
    /// Though messages and a loan have the halves too.
    fn drop(&mut self) {
        self.halves.end();
    }
}

/// How large a message may be in one direction.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Limits {
    /// Bytes of payload: half of the ring less 1,088.
    pub max_payload: usize,
    /// Control bytes.
    pub max_control: usize,
    /// Descriptors.
    pub max_fds: usize,
    /// Requests without a reply.
    pub max_requests: usize,
}

/// The process at the other end, as it was at the handshake.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Peer {
    /// Process; 0 if it is in no pid namespace that we see (pid_namespaces(7)).
    pub pid: u32,
    /// User; 65534 if our user namespace has no name for it.
    pub uid: u32,
    /// Group; likewise.
    pub gid: u32,
    /// Version of the protocol.
    pub version: u32,
}

/// Makes a connected pair of channels in this process. `options` may be null. Does not block.
///
/// For a child process use `sealane_prepare`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealane_pair(
    options: *const Options,
    a: *mut Option<Box<Channel>>,
    b: *mut Option<Box<Channel>>,
) -> c_int {
    done(|| {
        if ptr::eq(a, b) && !a.is_null() {
            return Err(Failure::invalid(
                "two variables for two channels expected, the same address twice found",
            ));
        }
        // SAFETY: null, or the address of a variable, by the header's contract; of another one than `b`.
        let a = empty(unsafe { a.cast::<MaybeUninit<_>>().as_mut() })?;
        // SAFETY: as above.
        let b = empty(unsafe { b.cast::<MaybeUninit<_>>().as_mut() })?;
        // SAFETY: the header's contract on options.
        let (one, other) = unsafe { builder(options) }?.pair()?;
        *a = Some(Channel::new(one));
        *b = Some(Channel::new(other));
        Ok(())
    })
}

/// Closes and frees a channel, and sets the variable to null; null is ignored. What was sent before is still delivered
/// to the peer. Messages of the channel stay valid; an open loan ends, its memory with it. Free them too. No other thread may be
/// using the handle.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_channel_free(channel: Option<&mut Option<Box<Channel>>>) {
    run(|| drop(take(channel)));
}

/// Ends both directions at once, from any thread: functions that wait return -EPIPE. What was not received is dropped.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_channel_close(channel: Option<&Channel>) -> c_int {
    done(|| {
        handle(channel)?.closer.close();
        Ok(())
    })
}

/// The descriptor to wait for with poll(2), POLLIN, before `sealane_recv` with timeout 0. It stays the channel's.
///
/// It becomes readable (level-triggered) once `sealane_recv` has returned -EAGAIN, or `sealane_channel_arm` 1, and something
/// has come since: a message, or the end of the peer. A fresh channel is armed.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_channel_recv_fd(channel: Option<&Channel>) -> c_int {
    status(|| Ok(handle(channel)?.recv_fd))
}

/// The descriptor to wait for with poll(2), POLLIN, after a sending function has returned -EAGAIN. It stays the channel's.
///
/// It is for what was refused last. Something else that was sent since may have taken the announcement along: repeat every
/// function that was refused before you wait.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_channel_send_fd(channel: Option<&Channel>) -> c_int {
    status(|| Ok(handle(channel)?.halves.sending_fd().as_raw_fd()))
}

/// Asks, without taking a message: 1 if there is none, and `sealane_channel_recv_fd` will be readable when one comes; 0 if
/// there is something to receive now. For loops that take one message at each turn. Does not block.
///
/// -EMFILE, -EPROTO and -EPIPE as of `sealane_recv`, which does not say them again.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_channel_arm(channel: Option<&Channel>) -> c_int {
    status(|| Ok(handle(channel)?.halves.arm()?.into()))
}

/// How large a message may be: one that is sent, and one that is received. Either address may be null.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_channel_limits(
    channel: Option<&Channel>,
    sent: Option<&mut MaybeUninit<Limits>>,
    received: Option<&mut MaybeUninit<Limits>>,
) -> c_int {
    done(|| {
        for (limits, out) in handle(channel)?.limits.iter().zip([sent, received]) {
            if let Some(out) = out {
                let SealaneLimits { max_payload, max_control, max_fds, max_requests, .. } = *limits;
                out.write(Limits { max_payload, max_control, max_fds, max_requests });
            }
        }
        Ok(())
    })
}

/// The process at the other end.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_channel_peer(
    channel: Option<&Channel>,
    peer: Option<&mut MaybeUninit<Peer>>,
) -> c_int {
    done(|| {
        let peer_of_channel = &handle(channel)?.peer;
        place(peer)?.write(peer_of(peer_of_channel.credentials(), peer_of_channel.version()));
        Ok(())
    })
}

pub(crate) fn peer_of(credentials: sealane::Credentials, version: u32) -> Peer {
    let sealane::Credentials { pid, uid, gid, .. } = credentials;
    Peer { pid: pid.map_or(0, u32::from), uid, gid, version }
}

/// A pidfd of the peer's process, if `sealane_options.peer_pidfd` asked for it and the kernel gave it; else -ENOENT. It stays
/// the channel's.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_channel_pidfd(channel: Option<&Channel>) -> c_int {
    status(|| {
        let text = "no pidfd of the peer: options.peer_pidfd = 1 and Linux 6.5 expected";
        let pidfd = handle(channel)?.peer.pidfd().map(|pidfd| pidfd.as_raw_fd());
        pidfd.ok_or(Failure::Usage { errno: libc::ENOENT, text })
    })
}

/// Sends a message without a payload: `len` control bytes and `fd_count` descriptors, which stay the caller's. Whole or not at
/// all. Waits while the socket is full, for `timeout_ms` at most: -1 for ever, 0 not at all.
///
/// -EAGAIN: no room; `sealane_channel_send_fd` says when to try again. -ETIMEDOUT. -EPIPE: the peer is gone. -EMSGSIZE: more
/// bytes or descriptors than the peer accepts. -EBUSY: a loan is open, or another thread is sending. -ETOOMANYREFS: too many
/// descriptors of this user are in flight; try again after some milliseconds. -EBADF: a descriptor is not open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealane_send(
    channel: Option<&Channel>,
    data: *const c_void,
    len: usize,
    fds: *const c_int,
    fd_count: usize,
    timeout_ms: c_int,
) -> c_int {
    done(|| {
        // SAFETY: the header's contract on bytes and descriptors.
        let given = unsafe { Given::new(data, len, fds, fd_count) }?;
        let timeout = Timeout::of(timeout_ms)?;
        let mut sending = handle(channel)?.halves.sending()?;
        send(sending.sender()?, given, timeout)
    })
}

/// Sends a message that expects a reply; as `sealane_send`. The reply has this number: `sealane_message_in_reply_to`.
/// `number` may be null.
///
/// -EDQUOT: too many requests are without a reply (`sealane_options.max_requests` of either side).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealane_request(
    channel: Option<&Channel>,
    data: *const c_void,
    len: usize,
    fds: *const c_int,
    fd_count: usize,
    timeout_ms: c_int,
    number: Option<&mut MaybeUninit<u64>>,
) -> c_int {
    done(|| {
        // SAFETY: the header's contract on bytes and descriptors.
        let given = unsafe { Given::new(data, len, fds, fd_count) }?;
        let timeout = Timeout::of(timeout_ms)?;
        let mut sending = handle(channel)?.halves.sending()?;
        let id = request(sending.sender()?, given, timeout)?;
        if let Some(out) = number {
            out.write(id.number());
        }
        Ok(())
    })
}

/// Replies to the request with this number (`sealane_message_expects_reply`); as `sealane_send`.
///
/// -ENOENT: no such request waits for a reply.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealane_reply(
    channel: Option<&Channel>,
    number: u64,
    data: *const c_void,
    len: usize,
    fds: *const c_int,
    fd_count: usize,
    timeout_ms: c_int,
) -> c_int {
    done(|| {
        // SAFETY: the header's contract on bytes and descriptors.
        let given = unsafe { Given::new(data, len, fds, fd_count) }?;
        let timeout = Timeout::of(timeout_ms)?;
        let mut sending = handle(channel)?.halves.sending()?;
        reply(sending.sender()?, number, given, timeout)
    })
}

/// Sends a request and waits for its reply: `timeout_ms` for both, -1 for ever; with 0 nothing is sent, and it has timed out.
/// Messages that come in between are kept, and delivered by the next `sealane_recv`. `sealane_channel_recv_fd` does not
/// announce them: receive until -EAGAIN, or call `sealane_channel_arm`, before you wait for it.
///
/// -EMFILE: a message that came in between is lost, and the call given up. -ETIMEDOUT: a reply that comes later is dropped. -EPIPE as soon as the peer is gone. -ENOBUFS: more messages came in
/// between than a channel keeps (64): receive them first. Others as of `sealane_request`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealane_call(
    channel: Option<&Channel>,
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
        *out = Some(handle(channel)?.halves.call(timeout, |sender| request(sender, given, timeout))?);
        Ok(())
    })
}

/// The number that the next message of this channel will have, so that of a request: to be noted before it is sent, where another
/// thread receives. -EBUSY: a loan is open, or another thread is sending.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_channel_next_number(
    channel: Option<&Channel>,
    number: Option<&mut MaybeUninit<u64>>,
) -> c_int {
    done(|| {
        let out = place(number)?;
        out.write(handle(channel)?.halves.sending()?.sender()?.next_id().number());
        Ok(())
    })
}

/// Waits for the reply to the request with this number (`sealane_request`, `sealane_loan_request`), for `timeout_ms` at most: -1
/// for ever, 0 not at all. Messages that come in between are kept, as by `sealane_call`.
///
/// -ENOENT: no such request, or it was answered or forgotten. -EAGAIN: the reply has not come. -ETIMEDOUT: the request is forgotten.
/// -ENOBUFS: it is not; receive, then wait again. Others as of `sealane_call`.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_wait_reply(
    channel: Option<&Channel>,
    number: u64,
    timeout_ms: c_int,
    reply: Option<&mut MaybeUninit<Option<Box<Message>>>>,
) -> c_int {
    done(|| {
        let out = empty(reply)?;
        let timeout = Timeout::of(timeout_ms)?;
        *out = Some(handle(channel)?.halves.wait_reply(number, timeout)?);
        Ok(())
    })
}

/// Forgets a request of this channel: its reply is dropped if it still comes. Does not block. Any thread may call it. A thread
/// that waits for the reply goes on waiting.
///
/// -ENOENT: it was answered, or forgotten before.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_cancel(channel: Option<&Channel>, number: u64) -> c_int {
    done(|| {
        let closer = &handle(channel)?.closer;
        closer.cancel(closer.request_id(number).ok_or(sealane::Error::UnknownRequest)?);
        Ok(())
    })
}

/// Receives the next message; waits for `timeout_ms` at most: -1 for ever, 0 not at all. Free it with `sealane_message_free`.
///
/// -EAGAIN: nothing is there; `sealane_channel_recv_fd` says when to try again. -ETIMEDOUT. -EPIPE: the peer is gone, and all
/// that it sent has been received. -EPROTO: the peer broke the protocol; the channel is closed. -EMFILE: a message is lost,
/// because this process is at its limit of open files; the channel works as before. -EBUSY: another thread is receiving.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_recv(
    channel: Option<&Channel>,
    timeout_ms: c_int,
    message: Option<&mut MaybeUninit<Option<Box<Message>>>>,
) -> c_int {
    done(|| {
        let out = empty(message)?;
        let timeout = Timeout::of(timeout_ms)?;
        *out = Some(handle(channel)?.halves.receive(timeout)?);
        Ok(())
    })
}
