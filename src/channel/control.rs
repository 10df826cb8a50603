//! [`Control`]: the small part of a message, as it is given to a sender.

use std::{
    fmt,
    os::fd::{AsFd, BorrowedFd},
};

use zerocopy::{Immutable, IntoBytes};

use crate::{channel::ReplyToken, socket::fd_list::FdList};

/// Control bytes and descriptors for one message; borrowed until it is sent.
///
/// Anything that is bytes converts: `send(b"hello")`, `send("text")`, `send(&vec)`. An empty control is a message too.
///
/// ```
/// use sealane::{Channel, Control};
/// use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
///
/// #[derive(IntoBytes, FromBytes, KnownLayout, Immutable, Debug, PartialEq)]
/// #[repr(C)]
/// struct SetGain { channel: u32, gain: f32 }
///
/// let (mut a, mut b) = Channel::pair()?;
/// let file = std::fs::File::open("/dev/null").unwrap();
/// a.send(Control::of(&SetGain { channel: 1, gain: 2.0 }).fd(&file))?;
///
/// let mut message = b.recv()?;
/// assert_eq!(message.control_as::<SetGain>()?, &SetGain { channel: 1, gain: 2.0 });
/// let file: std::fs::File = message.take_fd().unwrap().into();
/// # Ok::<(), sealane::Error>(())
/// ```
#[derive(Default, Clone)]
pub struct Control<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) fds: FdList<BorrowedFd<'a>>,
    pub(crate) in_reply_to: Option<ReplyToken>,
}

impl<'a> Control<'a> {
    /// These bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// The bytes of a value; its reader is [`Message::control_as`](crate::Message::control_as). The type must have no
    /// padding, which would tell the peer what stood there before.
    #[must_use]
    pub fn of<T: IntoBytes + Immutable + ?Sized>(value: &'a T) -> Self {
        Self::new(value.as_bytes())
    }

    /// Adds a descriptor behind the others. The peer gets a duplicate; ours stays open.
    #[must_use]
    pub fn fd(mut self, fd: &'a impl AsFd) -> Self {
        self.fds.extend([fd.as_fd()]);
        self
    }

    /// Adds descriptors behind the others: references to anything that has one, or borrowed ones.
    ///
    /// ```
    /// # use sealane::Control;
    /// # use std::os::fd::AsFd;
    /// let files = [std::fs::File::open("/dev/null").unwrap(), std::fs::File::open("/dev/zero").unwrap()];
    /// let _ = Control::new(b"two files").fds(&files);
    /// let _ = Control::new(b"the same").fds(files.iter().map(|file| file.as_fd()));
    /// ```
    #[must_use]
    pub fn fds<I>(mut self, fds: I) -> Self
    where
        I: IntoIterator<Item: IntoBorrowedFd<'a>>,
    {
        self.fds.extend(fds.into_iter().map(IntoBorrowedFd::into_borrowed_fd));
        self
    }

    /// Makes the message a reply to the request that the token came with.
    #[must_use]
    pub fn in_reply_to(mut self, token: ReplyToken) -> Self {
        self.in_reply_to = Some(token);
        self
    }
}

impl<'a, T: AsRef<[u8]> + ?Sized> From<&'a T> for Control<'a> {
    fn from(bytes: &'a T) -> Self {
        Self::new(bytes.as_ref())
    }
}

impl fmt::Debug for Control<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("len", &self.bytes.len())
            .field("fds", &self.fds.len())
            .field("in_reply_to", &self.in_reply_to)
            .finish()
    }
}

/// Items that [`Control::fds`] takes: a reference to anything with a descriptor, or a borrowed descriptor.
///
/// ```
/// # use std::os::fd::AsFd;
/// use sealane::IntoBorrowedFd;
/// let input = std::io::stdin();
/// let borrowed = (&input).into_borrowed_fd();
/// let _same = borrowed.into_borrowed_fd();
/// ```
pub trait IntoBorrowedFd<'a>: sealed::Sealed {
    /// The descriptor, for as long as what it came from is borrowed.
    fn into_borrowed_fd(self) -> BorrowedFd<'a>;
}

impl<'a, T: AsFd + ?Sized> IntoBorrowedFd<'a> for &'a T {
    fn into_borrowed_fd(self) -> BorrowedFd<'a> {
        self.as_fd()
    }
}

impl<'a> IntoBorrowedFd<'a> for BorrowedFd<'a> {
    fn into_borrowed_fd(self) -> BorrowedFd<'a> {
        self
    }
}

mod sealed {
    pub trait Sealed {}
    impl<T: std::os::fd::AsFd + ?Sized> Sealed for &T {}
    impl Sealed for std::os::fd::BorrowedFd<'_> {}
}
