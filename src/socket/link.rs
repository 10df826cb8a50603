//! [`Link`]: the state that the two halves of a channel, its payloads and its closers share.

use std::sync::{
    OnceLock, Weak,
    atomic::{Ordering::SeqCst, fence},
};

use rustix::net::Shutdown;

use crate::{
    error::{Error, ProtocolError, Result},
    protocol::requests::{IncomingRequests, OutgoingRequests},
    socket::seqpacket::Socket,
    sys::owner::Owner,
};

/// The sockets of a channel, its open requests, and whether it has ended.
///
/// The receiver reads `socket` and writes `space_tx`; the sender writes `socket` and reads `space_rx`. So no two halves
/// read one descriptor, and the peer holds none that is read here.
#[derive(Debug)]
pub(crate) struct Link {
    /// Number of the channel, unique on this machine while it is up.
    pub(crate) id: u64,
    pub(crate) socket: Socket,
    /// Our end of the socket that brings the peer's doorbells for room.
    pub(crate) space_rx: Socket,
    /// The peer's socket that takes our doorbells for room.
    pub(crate) space_tx: Socket,
    /// Requests of ours without a reply.
    pub(crate) requests: OutgoingRequests,
    /// Requests of the peer without a reply.
    pub(crate) unanswered: IncomingRequests,
    /// The process whose drops end directions. Given up when the channel is closed here, by a violation or by a [`Closer`].
    owner: Owner,
    violation: OnceLock<ProtocolError>,
}

impl Link {
    pub(crate) fn new(id: u64, socket: Socket, space_rx: Socket, space_tx: Socket) -> Self {
        Self {
            id,
            socket,
            space_rx,
            space_tx,
            requests: OutgoingRequests::default(),
            unanswered: IncomingRequests::default(),
            owner: Owner::here(),
            violation: OnceLock::new(),
        }
    }

    /// True if this process has made or used the channel, and has not closed it.
    pub(crate) fn is_ours(&self) -> bool {
        self.owner.is_here()
    }

    /// Answers as [`is_ours`](Self::is_ours), or false, for callers that have a slower path then.
    #[inline]
    pub(crate) fn is_ours_at_a_glance(&self) -> bool {
        self.owner.is_here_at_a_glance()
    }

    /// Makes the channel [ours](Self::is_ours), because this process uses it. An error if it is closed here.
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_ours_at_a_glance() { Ok(()) } else { self.claim() }
    }

    #[cold]
    fn claim(&self) -> Result<()> {
        let claimed = self.owner.claim();
        // ORDERING: pairs with the fence in `Releases::release_out_of_order`. Either the thread that notes a released payload sees that
        // the channel is ours, or our caller sees the note.
        fence(SeqCst);
        if claimed { Ok(()) } else { Err(self.ended()) }
    }

    /// The error of a channel that has ended.
    pub(crate) fn ended(&self) -> Error {
        self.violation.get().map_or(Error::Disconnected, |violation| Error::Protocol(*violation))
    }

    /// Ends our direction, because the sender is dropped. Does nothing unless the channel is ours.
    pub(crate) fn close_sending(&self) {
        if self.is_ours() {
            self.socket.shutdown(Shutdown::Write);
            self.space_rx.shutdown(Shutdown::Both);
        }
    }

    /// Ends the peer's direction, because the receiver is dropped. Does nothing unless the channel is ours.
    pub(crate) fn close_receiving(&self) {
        if self.is_ours() {
            self.socket.shutdown(Shutdown::Read);
            self.space_tx.shutdown(Shutdown::Both);
        }
    }

    /// Ends both directions, which wakes the other half and the peer.
    pub(crate) fn close(&self) {
        self.owner.give_up();
        for socket in [&self.socket, &self.space_rx, &self.space_tx] {
            socket.shutdown(Shutdown::Both);
        }
    }

    /// Ends the channel for a violation by the peer. Returns the error of the first violation.
    pub(crate) fn violated(&self, violation: ProtocolError) -> Error {
        let first = *self.violation.get_or_init(|| violation);
        self.close();
        Error::Protocol(first)
    }
}

/// A handle that ends both halves of a channel at once, from any thread.
///
/// Calls that wait in one of the halves, and later ones, return [`Error::Disconnected`]. The peer sees the end of the channel.
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
    /// Ends the channel. Does not block, and does nothing if the channel has ended. A call in a fork ends the parent's channel
    /// too.
    pub fn close(&self) {
        if let Some(link) = self.0.upgrade() {
            link.close();
        }
    }
}
