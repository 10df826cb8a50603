//! The requests of `ioctl(2)` that are made, with their structures as the kernel's headers lay them out on 64-bit machines,
//! a file for each group of them.
//!
//! A request can only be made with the structure that it was defined with, whose size is part of the request's number. No
//! structure is given that holds an address which the kernel would follow. `unsafe` is in this file and nowhere else.
#![expect(unsafe_code, reason = "the kernel is given a structure, and gives descriptors as numbers")]

pub(crate) mod dmabuf;
pub(crate) mod vgem;
pub(crate) mod video;

use std::{
    ffi::c_void,
    fmt, io,
    marker::PhantomData,
    os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
};

use rustix::{
    io::{Errno, retry_on_intr},
    ioctl::{Ioctl, IoctlOutput, Opcode, ioctl},
};
use zerocopy::{FromBytes, IntoBytes};

/// A request that reads a `T`, or writes one, or both.
pub(crate) struct Request<T> {
    name: &'static str,
    number: Opcode,
    about: PhantomData<T>,
}

impl<T: FromBytes + IntoBytes> Request<T> {
    const fn new(name: &'static str, number: Opcode) -> Self {
        Self { name, number, about: PhantomData }
    }

    /// Makes the request. The error names it.
    pub(crate) fn make(&self, fd: impl AsFd, value: &mut T) -> io::Result<()> {
        self.try_make(fd.as_fd(), value).map_err(|errno| self.failed(errno))?;
        Ok(())
    }

    /// Makes the request, and passes the kernel's result on.
    pub(crate) fn try_make(&self, fd: BorrowedFd<'_>, value: &mut T) -> Result<IoctlOutput, Errno> {
        retry_on_intr(|| {
            let call = Call { number: self.number, value: &mut *value };
            // SAFETY: contract of `ioctl`: the request fits the structure. The constants of this module's files, the only
            // ones that there are, pair them as the kernel's headers do.
            unsafe { ioctl(fd, call) }
        })
    }

    pub(crate) fn failed(&self, errno: Errno) -> io::Error {
        let error = io::Error::from(errno);
        io::Error::new(error.kind(), format!("{}: {error}", self.name))
    }
}

impl<T> fmt::Debug for Request<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A request about to be made.
struct Call<'a, T> {
    number: Opcode,
    value: &'a mut T,
}

// SAFETY: contract of `Ioctl`: the pointer is to a live `T`, borrowed uniquely, of which the kernel may write every byte:
// any bytes are a `T`. It reads and writes as many bytes as the number says, which was made with the size of `T`.
unsafe impl<T: FromBytes + IntoBytes> Ioctl for Call<'_, T> {
    type Output = IoctlOutput;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.number
    }

    fn as_ptr(&mut self) -> *mut c_void {
        ptr::from_mut(self.value).cast()
    }

    unsafe fn output_from_ptr(output: IoctlOutput, _: *mut c_void) -> rustix::io::Result<IoctlOutput> {
        Ok(output)
    }
}

/// Owns a descriptor that a request has just given.
fn given(number: i32) -> OwnedFd {
    // SAFETY: contract of `from_raw_fd`: the kernel has installed the descriptor during the request, for us alone. The
    // callers, in this module's files, hand on the number that it returned, once.
    unsafe { OwnedFd::from_raw_fd(number) }
}
