//! `sealane_sealed`: memory that nobody can change any more, to be passed as a descriptor.

use std::{
    ffi::{c_int, c_void},
    mem::{self, MaybeUninit},
    os::fd::{AsFd, AsRawFd},
    ptr,
};

use sealane::{SealedBuffer, SealedBufferMut};

use crate::{
    arguments::{duplicate, empty, handle, take},
    status::{Failure, done, run, status},
};

/// Memory of a memfd (memfd_create(2)): written first, then immutable for every process and for ever. Once it is sealed, several
/// threads may read it.
#[derive(Debug)]
pub struct Sealed(State);

#[derive(Debug)]
enum State {
    Draft(SealedBufferMut),
    Sealed(SealedBuffer),
    /// Sealing failed, and took the contents along.
    Lost,
}

impl Sealed {
    fn bytes(&self) -> &[u8] {
        match &self.0 {
            State::Draft(draft) => draft,
            State::Sealed(sealed) => sealed,
            State::Lost => &[],
        }
    }
}

fn not_to_seal(state: &State) -> Failure {
    Failure::invalid(match state {
        State::Lost => "a buffer whose sealing has not failed expected: its contents are gone",
        _ => "a buffer that is not sealed yet expected",
    })
}

/// Makes a buffer of `len` bytes, page-aligned, all 0. All memory is allocated at once.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_sealed_new(
    len: usize,
    sealed: Option<&mut MaybeUninit<Option<Box<Sealed>>>>,
) -> c_int {
    done(|| {
        let out = empty(sealed)?;
        *out = Some(Box::new(Sealed(State::Draft(SealedBufferMut::new(len)?))));
        Ok(())
    })
}

/// The memory to write, until `sealane_sealed_seal`; null from then on.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_sealed_data_mut(sealed: Option<&mut Sealed>) -> *mut c_void {
    match sealed.map(|sealed| &mut sealed.0) {
        Some(State::Draft(draft)) => draft.as_mut_ptr().cast(),
        _ => ptr::null_mut(),
    }
}

/// Makes the buffer immutable (fcntl(2), F_SEAL_WRITE). Pointers of `sealane_sealed_data_mut` end here. -EINVAL: sealed before. If
/// it fails for another reason, of which -EMFILE and -ENOMEM are the likely ones, the contents are gone.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_sealed_seal(sealed: Option<&mut Sealed>) -> c_int {
    done(|| {
        let sealed = sealed.ok_or_else(|| Failure::null("a buffer expected, a null pointer found"))?;
        let State::Draft(_) = sealed.0 else {
            return Err(not_to_seal(&sealed.0));
        };
        if let State::Draft(draft) = mem::replace(&mut sealed.0, State::Lost) {
            sealed.0 = State::Sealed(draft.seal()?);
        }
        Ok(())
    })
}

/// Verifies and maps a received descriptor: a memfd of at most `max` bytes that is sealed. The descriptor is duplicated and
/// stays the caller's. Does not block.
///
/// -EBADMSG: it is not what it should be; the sentence says how.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_sealed_open(
    fd: c_int,
    max: u64,
    sealed: Option<&mut MaybeUninit<Option<Box<Sealed>>>>,
) -> c_int {
    done(|| {
        let out = empty(sealed)?;
        *out = Some(Box::new(Sealed(State::Sealed(SealedBuffer::with_limit(duplicate(fd)?, max)?))));
        Ok(())
    })
}

/// The bytes, `sealane_sealed_len` of them; null for a null buffer. Valid until the buffer is freed, or sealed.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_sealed_data(sealed: Option<&Sealed>) -> *const c_void {
    sealed.map_or(ptr::null(), |sealed| sealed.bytes().as_ptr().cast())
}

/// Bytes of the buffer; 0 for a null buffer.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_sealed_len(sealed: Option<&Sealed>) -> usize {
    sealed.map_or(0, |sealed| sealed.bytes().len())
}

/// The descriptor to send. It stays the buffer's. -EINVAL: not sealed yet.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_sealed_fd(sealed: Option<&Sealed>) -> c_int {
    status(|| match &handle(sealed)?.0 {
        State::Sealed(sealed) => Ok(sealed.as_fd().as_raw_fd()),
        State::Draft(_) => Err(Failure::invalid("a sealed buffer expected: call sealane_sealed_seal first")),
        lost @ State::Lost => Err(not_to_seal(lost)),
    })
}

/// Unmaps and closes a buffer, and sets the variable to null; null is ignored.
#[unsafe(no_mangle)]
pub extern "C" fn sealane_sealed_free(sealed: Option<&mut Option<Box<Sealed>>>) {
    run(|| drop(take(sealed)));
}
