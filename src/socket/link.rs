//! What the two halves of a channel, its payloads and its closers share: the descriptors, and whether it has ended.

use std::sync::{
    OnceLock, Weak,
    atomic::{Ordering::SeqCst, fence},
};

use rustix::net::Shutdown;

use crate::{
    error::{Error, ProtocolError, Result},
    protocol::requests::{Requests, Unanswered},
    socket::seqpacket::Socket,
    sys::owner::Owner,
};

/// The sockets of a channel.
///
/// Of the three descriptors, `socket` is read by the receiver and written by the sender, `credit_in` is read by the sender
/// and `credit_out` written by the receiver: no two halves read the same one, and none that is read here is held by the
/// peer.
#[derive(Debug)]
pub(crate) struct Link {
    /// Unique on this machine while it is up: tells channels apart.
    pub(crate) id: u64,
    pub(crate) socket: Socket,
    /// Where the peer announces room.
    pub(crate) credit_in: Socket,
    /// Where we announce room to the peer.
    pub(crate) credit_out: Socket,
    /// Our requests that the peer has not answered.
    pub(crate) requests: Requests,
    /// The peer's requests that we have not answered.
    pub(crate) unanswered: Unanswered,
    /// Whose drops the peer learns of. Given up when the channel is closed here, by a violation or by a [`Closer`].
    owner: Owner,
    violation: OnceLock<ProtocolError>,
}

impl Link {
    pub(crate) fn new(id: u64, socket: Socket, credit_in: Socket, credit_out: Socket) -> Self {
        Self {
            id,
            socket,
            credit_in,
            credit_out,
            requests: Requests::default(),
            unanswered: Unanswered::default(),
            owner: Owner::here(),
            violation: OnceLock::new(),
        }
    }

    /// Whether this process has used the channel, or made it, and it is not closed here.
    pub(crate) fn is_ours(&self) -> bool {
        self.owner.is_here()
    }

    /// Says the same as [`is_ours`](Self::is_ours), or no, for callers that have a slower way then.
    #[inline]
    pub(crate) fn is_ours_at_a_glance(&self) -> bool {
        self.owner.is_here_at_a_glance()
    }

    /// This process uses the channel: it [is ours](Self::is_ours) from now on. An error if it is closed here.
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_ours_at_a_glance() { Ok(()) } else { self.claim() }
    }

    #[cold]
    fn claim(&self) -> Result<()> {
        let claimed = self.owner.claim();
        // ORDERING: pairs with the fence in `Intake::release_early`: who notes a payload sees that the channel is ours, or our
        // caller sees the note.
        fence(SeqCst);
        if claimed { Ok(()) } else { Err(self.ended()) }
    }

    /// The error for a channel that has ended.
    pub(crate) fn ended(&self) -> Error {
        self.violation.get().map_or(Error::Disconnected, |violation| Error::Protocol(*violation))
    }

    /// Our sender is dropped: the peer learns that nothing more comes, if the channel is ours.
    pub(crate) fn close_sending(&self) {
        if self.is_ours() {
            self.socket.shut(Shutdown::Write);
            self.credit_in.shut(Shutdown::Both);
        }
    }

    /// Our receiver is dropped: the peer learns that nothing more is read, if the channel is ours.
    pub(crate) fn close_receiving(&self) {
        if self.is_ours() {
            self.socket.shut(Shutdown::Read);
            self.credit_out.shut(Shutdown::Both);
        }
    }

    /// Closes both directions of everything, which wakes the other half and the peer.
    pub(crate) fn close(&self) {
        self.owner.give_up();
        for socket in [&self.socket, &self.credit_in, &self.credit_out] {
            socket.shut(Shutdown::Both);
        }
    }

    /// The peer broke the protocol: nothing more is said or heard.
    pub(crate) fn violated(&self, violation: ProtocolError) -> Error {
        let first = *self.violation.get_or_init(|| violation);
        self.close();
        Error::Protocol(first)
    }
}

/// Ends a channel from any thread: both halves, at once. Who waits in one of them, or calls it later, gets
/// [`Error::Disconnected`]; the peer sees the end of the channel.
///
/// A `Closer` does not keep the channel's descriptors open.
///
/// ```
/// use sealane::{Channel, Error};
///
/// let (a, _b) = Channel::pair()?;
/// let closer = a.closer();
/// let thread = std::thread::spawn(move || {
///     let mut a = a;
///     a.recv()
/// });
/// closer.close();
/// assert!(matches!(thread.join().unwrap(), Err(Error::Disconnected)));
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Closer(pub(crate) Weak<Link>);

impl Closer {
    /// Ends the channel. Does not block; does nothing if it has ended. A call in a fork ends the parent's channel too.
    pub fn close(&self) {
        if let Some(link) = self.0.upgrade() {
            link.close();
        }
    }
}
