//! `sealane_message`: one received message. Payloads are copied out; no pointer to one leaves this file.

use std::{
    ffi::{c_int, c_void},
    mem::{self, MaybeUninit},
    os::fd::IntoRawFd,
    ptr,
    sync::{Arc, Mutex},
};

use crate::{
    arguments::{handle, place, room, take},
    status::{Failure, Result, done, run, status},
};

/// A message that was received. Its payload holds room in the sender's ring until the message is freed, or its payload
/// released. It stays valid when its channel is freed. One thread at a time may use it.
#[derive(Debug)]
pub struct Message {
    /// None while the handle is in the pool.
    received: Option<Received>,
}

#[derive(Debug)]
struct Received {
    message: sealane::Message,
    /// Where the handle goes when it is freed.
    pool: Arc<Pool>,
    /// A copy of the payload, once it was asked for.
    copy: Option<Vec<u8>>,
}

/// Freed handles, and memory of copies: with malloc's defaults, fresh memory for a copy costs more than copying. Its lock is only
/// tried, since a fork may have a copy that another thread had locked.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<Freed>);

#[derive(Debug, Default)]
struct Freed {
    messages: Vec<Box<Message>>,
    /// The largest one. No longer than a payload of the peer can be.
    copy: Vec<u8>,
}

/// Handles that a pool keeps.
const POOLED: usize = 64;

impl Pool {
    pub(crate) fn message(self: &Arc<Self>, message: sealane::Message) -> Box<Message> {
        let spare = self.0.try_lock().ok().and_then(|mut freed| freed.messages.pop());
        let mut handle = spare.unwrap_or_else(|| Box::new(Message { received: None }));
        handle.received = Some(Received { message, pool: Arc::clone(self), copy: None });
        handle
    }

    fn take_back(&self, message: Box<Message>, copy: Option<Vec<u8>>) {
        let Ok(mut freed) = self.0.try_lock() else { return };
        if freed.messages.len() < POOLED {
            freed.messages.push(message);
        }
        if let Some(copy) = copy
            && copy.capacity() > freed.copy.capacity()
        {
            freed.copy = copy;
        }
    }

    /// Memory for a copy of `len` bytes. Not much more of it: a peer could have each small message that is kept hold that of a
    /// large one.
    fn buffer(&self, len: usize) -> Vec<u8> {
        match self.0.try_lock() {
            Ok(mut freed) if freed.copy.capacity() / 2 <= len => mem::take(&mut freed.copy),
            _ => Vec::new(),
        }
    }
}

/// What a callback of `sealane_message_blocks` is: `bytes` are a private copy, valid during the call. It returns 0 to go on.
pub type Block =
    Option<unsafe extern "C" fn(context: *mut c_void, bytes: *const c_void, len: usize) -> c_int>;

impl Message {
    fn received(&self) -> Result<&Received> {
        self.received.as_ref().ok_or_else(|| Failure::null("a message expected"))
    }
}

impl Received {
    fn bytes(&mut self) -> &[u8] {
        let payload = match (&self.copy, self.message.payload()) {
            (None, Some(payload)) => payload,
            (None, None) => return self.message.control(),
            (Some(_), _) => return self.copy.as_deref().unwrap_or_default(),
        };
        let copy = self.copy.insert(self.pool.buffer(payload.len()));
        copy.resize(payload.len(), 0);
        // It is as long as the payload.
        let _ = payload.copy_to_slice(copy);
        copy
    }
}

fn message(message: Option<&Message>) -> Result<&Received> {
    handle(message)?.received()
}

fn message_mut(message: Option<&mut Message>) -> Result<&mut Received> {
    let message = message.ok_or_else(|| Failure::null("a message expected, a null pointer found"))?;
    message.received.as_mut().ok_or_else(|| Failure::null("a message expected"))
}

/// Frees a message: releases its payload's room, closes descriptors that were not taken, and sets the variable to null; null
/// is ignored.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_message_free(message: Option<&mut Option<Box<Message>>>) {
    run(|| {
        let Ok(mut message) = take(message) else { return };
        match message.received.take() {
            Some(Received { message: received, pool, copy }) => {
                drop(received);
                pool.take_back(message, copy);
            }
            // It was freed through another variable before, and is its channel's.
            None => mem::forget(message),
        }
    });
}

/// The control bytes, and their number in `len` (which may be null). They are private memory, hold still, and are aligned to 16;
/// valid until the message is freed. Null for a null message.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_message_control(
    message: Option<&Message>,
    len: Option<&mut MaybeUninit<usize>>,
) -> *const c_void {
    let control =
        message.and_then(|message| message.received().ok()).map(|received| received.message.control());
    if let Some(len) = len {
        len.write(control.map_or(0, <[u8]>::len));
    }
    control.map_or(ptr::null(), |control| control.as_ptr().cast())
}

/// 1 if the message has a payload, which may have no bytes; else 0.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_message_has_payload(message: Option<&Message>) -> c_int {
    message
        .and_then(|message| message.received().ok())
        .is_some_and(|received| received.message.payload().is_some())
        .into()
}

/// Bytes of the payload; 0 where there is none.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_message_payload_len(message: Option<&Message>) -> usize {
    let received = message.and_then(|message| message.received().ok());
    received.and_then(|received| received.message.payload()).map_or(0, sealane::Payload::len)
}

/// The bytes of a message that was sent by a `sealane_pipe_..._any`, whichever way it came, and their number in `len` (which may
/// be null): those of the payload if it has one, which are copied by the first call, else the control bytes. They are private
/// memory and hold still; valid until the message is freed. Null for a null message.
///
/// The payload keeps its room in the ring, unless `sealane_message_release` follows; what was released before it was asked for is
/// not there any more.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_message_bytes(
    message: Option<&mut Message>,
    len: Option<&mut MaybeUninit<usize>>,
) -> *const c_void {
    let bytes = run(|| message.and_then(|message| message.received.as_mut()).map(Received::bytes));
    if let Some(len) = len {
        len.write(bytes.map_or(0, <[u8]>::len));
    }
    bytes.map_or(ptr::null(), |bytes| bytes.as_ptr().cast())
}

/// Copies `len` bytes of the payload, from `offset` on. -EINVAL: the range reaches past the payload's end; nothing is copied.
/// -ENODATA: the message has no payload.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealane_message_copy(
    message: Option<&Message>,
    offset: usize,
    destination: *mut c_void,
    len: usize,
) -> c_int {
    done(|| {
        let payload = self::message(message)?.message.payload().ok_or_else(no_payload)?;
        let source = payload.shared_at::<u8>(offset, len)?;
        // SAFETY: the header's contract on room for results.
        let room = unsafe { room(destination.cast::<u8>(), len) }?;
        source.copy_to_uninit(room)?;
        Ok(())
    })
}

fn no_payload() -> Failure {
    Failure::Usage { errno: libc::ENODATA, text: "the message has no payload" }
}

/// Calls `each` with all of the payload, block by block, in order: private copies of at most 8 KiB, which hold still. A result
/// other than 0 ends the reading and is returned; let it be positive, so that it is no failure of this function. `each` must not
/// use this message, and must return: neither longjmp(3) nor a C++ exception may leave it.
///
/// -ENODATA: the message has no payload.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealane_message_blocks(
    message: Option<&Message>,
    each: Block,
    context: *mut c_void,
) -> c_int {
    status(|| {
        let payload = self::message(message)?.message.payload().ok_or_else(no_payload)?;
        let each =
            each.ok_or_else(|| Failure::null("a function for the blocks expected, a null pointer found"))?;
        let stopped = payload.bytes().try_for_each_block(|block| {
            // SAFETY: the caller's function, by the header's contract, with bytes that live during the call.
            match unsafe { each(context, block.as_ptr().cast(), block.len()) } {
                0 => Ok(()),
                stop => Err(stop),
            }
        });
        Ok(stopped.err().unwrap_or(0))
    })
}

/// Releases the payload's room before the message is freed. Control bytes and descriptors stay.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_message_release(message: Option<&mut Message>) -> c_int {
    done(|| {
        drop(message_mut(message)?.message.take_payload());
        Ok(())
    })
}

/// Descriptors of the message that were not taken yet.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_message_fd_count(message: Option<&Message>) -> usize {
    message.and_then(|message| message.received().ok()).map_or(0, |received| received.message.fds().len())
}

/// Takes the next `count` descriptors at most, in the order in which they were sent, and returns how many. They are
/// close-on-exec, and the caller's to close.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sealane_message_take_fds(
    message: Option<&mut Message>,
    fds: *mut c_int,
    count: usize,
) -> c_int {
    status(|| {
        let received = message_mut(message)?;
        let count = count.min(received.message.fds().len());
        // SAFETY: the header's contract on room for results.
        let room = unsafe { room(fds, count) }?;
        for place in room {
            let Some(fd) = received.message.take_fd() else { break };
            place.write(fd.into_raw_fd());
        }
        Ok(c_int::try_from(count).unwrap_or(c_int::MAX))
    })
}

/// 1 if the sender expects a reply, whose `number` is for `sealane_reply`; else 0. `number` may be null.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_message_expects_reply(
    message: Option<&Message>,
    number: Option<&mut MaybeUninit<u64>>,
) -> c_int {
    numbered(message, number, |message| message.reply_token().map(sealane::ReplyToken::number))
}

/// 1 if the message is the reply to our request of this `number` (`sealane_request`); else 0. `number` may be null.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_message_in_reply_to(
    message: Option<&Message>,
    number: Option<&mut MaybeUninit<u64>>,
) -> c_int {
    numbered(message, number, |message| message.in_reply_to().map(sealane::RequestId::number))
}

fn numbered(
    message: Option<&Message>,
    out: Option<&mut MaybeUninit<u64>>,
    find: impl FnOnce(&sealane::Message) -> Option<u64>,
) -> c_int {
    let number = message.and_then(|message| find(&message.received().ok()?.message));
    if let (Some(number), Some(out)) = (number, out) {
        out.write(number);
    }
    number.is_some().into()
}

/// The message's number among all that its sender has sent on this channel.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_message_number(
    message: Option<&Message>,
    number: Option<&mut MaybeUninit<u64>>,
) -> c_int {
    done(|| {
        place(number)?.write(self::message(message)?.message.sequence());
        Ok(())
    })
}
