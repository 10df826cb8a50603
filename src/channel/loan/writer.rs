//! [`LoanWriter`]: a loan that is written as a stream.
//!
//! Invariant: every byte before `written` was written through it, so sending that much sends nothing older.

use std::{
    fmt,
    io::{self, Seek, SeekFrom, Write},
    time::Duration,
};

use crate::{
    channel::{Control, Loan, ReplyToken, RequestId, Unsent, delegate, seek::sought},
    error::Result,
    protocol::{to_u64, to_usize},
};

/// A loan as [`io::Write`] and [`io::Seek`]: for formats that write a stream. From [`Loan::writer`].
///
/// Its methods that send are those of the [loan](Self::into_loan), cut to the furthest byte that was written: the peer never
/// receives old bytes of the ring. A write behind a
/// seek past that end fills the gap with zeros, as a file does. [`SeekFrom::End`] counts from the furthest byte written.
///
/// A write that does not fit writes what does and returns its length; `write_all` then fails with
/// [`WriteZero`](io::ErrorKind::WriteZero). Neither blocks or makes a system call. A write of one byte costs about as much
/// as one to a slice.
///
/// ```
/// use std::io::{Seek, SeekFrom, Write};
/// use sealane::Channel;
///
/// let (mut a, mut b) = Channel::pair()?;
/// let mut writer = a.loan(100)?.writer();
/// // A length of 4 bytes, which is known when the text is written.
/// writer.seek(SeekFrom::Start(4)).unwrap();
/// write!(writer, "{} stars", 7).unwrap();
/// let len = writer.written() as u32 - 4;
/// writer.rewind().unwrap();
/// writer.write_all(&len.to_le_bytes()).unwrap();
/// writer.send()?;
/// assert_eq!(b.recv()?.payload().unwrap().to_vec(), b"\x07\0\0\x007 stars");
/// # Ok::<(), sealane::Error>(())
/// ```
#[must_use = "a loan that is dropped is not sent"]
pub struct LoanWriter<'s> {
    loan: Loan<'s>,
    /// Where the next byte goes. All bytes of the loan before it were written, or are zeros since the last seek.
    at: usize,
    /// Where the last seek led.
    start: usize,
    /// The furthest end of what was written before the last seek.
    end: usize,
}

impl<'s> LoanWriter<'s> {
    pub(super) fn new(loan: Loan<'s>) -> Self {
        Self { loan, at: 0, start: 0, end: 0 }
    }

    /// Bytes that would be sent: up to the furthest one written, gaps included.
    #[must_use]
    pub fn written(&self) -> usize {
        if self.at > self.start { self.end.max(self.at) } else { self.end }
    }

    /// The loan, cut to what was written.
    pub fn into_loan(self) -> Loan<'s> {
        let written = self.written();
        let Self { mut loan, .. } = self;
        loan.truncate(written);
        loan
    }

    delegate! { Loan: self.into_loan();
        pub fn send(self) -> Result<()>;
        pub fn send_with<'c>(self, control: impl Into<Control<'c>>) -> Result<()>;
        pub fn send_with_timeout<'c>(self, control: impl Into<Control<'c>>, timeout: Duration) -> Result<()>;
        pub fn try_send_with<'c>(self, control: impl Into<Control<'c>>) -> Result<(), Unsent<Loan<'s>>>;
        pub fn request<'c>(self, control: impl Into<Control<'c>>) -> Result<RequestId>;
        pub fn request_timeout<'c>(self, control: impl Into<Control<'c>>, timeout: Duration) -> Result<RequestId>;
        pub fn try_request<'c>(self, control: impl Into<Control<'c>>) -> Result<RequestId, Unsent<Loan<'s>>>;
        pub fn reply<'c>(self, token: ReplyToken, control: impl Into<Control<'c>>) -> Result<()>;
        pub fn reply_timeout<'c>(self, token: ReplyToken, control: impl Into<Control<'c>>, timeout: Duration) -> Result<()>;
        pub fn try_reply<'c>(self, token: ReplyToken, control: impl Into<Control<'c>>) -> Result<(), Unsent<Loan<'s>>>;
    }

    /// Writes zeros from the end of the written bytes to the position. They are sent only if bytes are written behind them.
    #[cold]
    fn fill_gap(&mut self) {
        let gap = self.end..self.at.min(self.loan.len());
        if let Some(gap) = self.loan.get_mut(gap) {
            gap.fill(0);
        }
    }
}

/// Writes the part of `bytes` that fits behind `at`, as they do not fit whole, and says how long it is.
///
/// No method: the writer's fields stay in registers where it does not leave its function.
#[cold]
fn write_part(loan: &mut [u8], at: usize, bytes: &[u8]) -> usize {
    let room = loan.get_mut(at..).unwrap_or_default();
    let len = room.len();
    if let Some(part) = bytes.get(..len) {
        room.copy_from_slice(part);
    }
    len
}

#[cold]
fn does_not_fit(len: usize, written: usize, max: usize) -> io::Error {
    let text =
        format!("only {written} of {len} bytes fit before the end of a loan of {max} bytes: lend more");
    io::Error::new(io::ErrorKind::WriteZero, text)
}

impl Write for LoanWriter<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (loan, at) = (&mut *self.loan, self.at);
        let len = match loan.get_mut(at..).and_then(|room| room.get_mut(..bytes.len())) {
            Some(to) => {
                to.copy_from_slice(bytes);
                bytes.len()
            }
            None => write_part(loan, at, bytes),
        };
        // Within the loan.
        self.at = at.wrapping_add(len);
        Ok(len)
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.write(bytes)?;
        if written == bytes.len() { Ok(()) } else { Err(does_not_fit(bytes.len(), written, self.loan.len())) }
    }

    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for LoanWriter<'_> {
    #[inline]
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let written = self.written();
        let position = sought(to, to_u64(self.at), to_u64(written))?;
        (self.at, self.start, self.end) = (to_usize(position), to_usize(position), written);
        if self.at > written {
            self.fill_gap();
        }
        Ok(position)
    }
}

/// Prints lengths, never the bytes.
impl fmt::Debug for LoanWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (len, written) = (self.loan.len(), self.written());
        f.debug_struct("LoanWriter").field("len", &len).field("written", &written).finish_non_exhaustive()
    }
}
