//! [`Lane`]: the way between a publisher and one of its subscribers: sockets, and the subscriber's control page.
//!
//! A lane is like a channel of which the publisher's ring is not a part. The way back is a channel's: packets, read by an
//! [`Inbox`]. Towards the subscriber there are doorbells, descriptors of records, and replies.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use zerocopy::IntoBytes;

use crate::{
    channel::{Control, Credentials, Inbox, Limits, Message, Numbering, ReplyToken},
    connect::Parts,
    error::{Error, ProtocolError, Reason, Refusal, Result},
    fanout::{
        SubscriberId, SubscriberInfo,
        account::{Account, Want},
    },
    protocol::{Kind, PacketHeader, Position, Reject, Slow, Terms, Word},
    ring::Releases,
    socket::{
        death::Watch,
        doorbell::{PeerHalf, is_doorbell},
        link::Link,
        seqpacket::{PacketBuffer, Received, SendFailure},
    },
    sys::{own_region::ControlPage, peer_region::PeerRegion},
    wait::{Bells, Notified, Notifier, Outcome},
};

/// Most packets of descriptors that a subscriber may leave unread: more are not sent to it. They count against the limit of
/// this *user* (`RLIMIT_NOFILE`, `unix(7)`), so that one that does not read would stop the descriptors of all.
const MAX_UNREAD: usize = 8;
/// Bytes that the kernel counts for a small packet, at most (`skb->truesize`, `net/core/skbuff.c`).
const SMALL_PACKET: usize = 1024;

pub(super) struct Lane {
    pub(super) id: SubscriberId,
    pub(super) link: Arc<Link>,
    pub(super) region: PeerRegion,
    inbox: Inbox,
    notifier: Notifier,
    /// The numbers of replies.
    replies: Numbering,
    /// Doorbells for room.
    pub(super) bells: Bells,
    pub(super) credentials: Credentials,
    pub(super) terms: Terms,
    pub(super) account: Account,
    pub(super) watch: Watch,
    /// The numbers of descriptors of the packets that may be unread, oldest first.
    unread: VecDeque<usize>,
    /// Doorbells that were sent behind the last of them.
    bells_behind: usize,
    packets: PacketLimits,
    /// The last attempt whose packet was sent here.
    pub(super) attempt: u64,
    /// The reason for which it is to be ended.
    pub(super) end: Option<Error>,
}

/// How much a lane's socket may hold unread.
#[derive(Debug, Clone, Copy)]
pub(super) struct PacketLimits {
    /// Descriptors, but for those of one packet.
    pub(super) max_unread_fds: usize,
    /// Bytes that the kernel counts for a doorbell.
    pub(super) cost_of_bell: usize,
}

/// The result of sending a packet of descriptors.
pub(super) enum Sent {
    Yes,
    /// The subscriber does not read.
    Full,
    /// Descriptors in flight, or memory, are short: whose fault that is, is not known.
    Short(SendFailure),
}

impl Lane {
    /// `words` is the publisher's page, in which a lane writes nothing.
    pub(super) fn new(
        id: SubscriberId,
        parts: Parts,
        terms: Terms,
        account: Account,
        words: &ControlPage,
        bells: Bells,
        packets: PacketLimits,
    ) -> Self {
        let Parts { link, peer_region: region, peer, sending, receiving, spinner, .. } = parts;
        // As small as one reply and the packets of descriptors allow: what is unread there counts as ours.
        let smallest = SMALL_PACKET.saturating_mul(MAX_UNREAD);
        link.socket.shrink(sending.max_control, smallest);
        let watch = Watch::new(peer.pidfd_shared());
        let intake = Releases::new(region.clone(), Arc::clone(&link), words.clone());
        Self {
            id,
            inbox: Inbox::new(intake, words.clone(), receiving, watch.clone(), spinner),
            link,
            region,
            notifier: Notifier::default(),
            replies: Numbering::new(Limits { max_payload: 0, ..sending }),
            bells,
            credentials: peer.credentials(),
            terms,
            account,
            watch,
            unread: VecDeque::new(),
            bells_behind: 0,
            packets,
            attempt: 0,
            end: None,
        }
    }

    /// True for a subscriber that is waited for.
    pub(super) fn gates(&self) -> bool {
        self.terms.slow != Slow::Overrun
    }

    /// Wakes the subscriber, if it sleeps. The caller has passed a full fence since it published.
    #[inline]
    pub(super) fn notify(&mut self) -> Notified {
        let receiver = PeerHalf {
            region: &self.region,
            word: Word::ReceiverEpoch,
            socket: &self.link.socket,
            released: None,
        };
        let notified = self.notifier.notify_behind_fence(&receiver);
        // A doorbell that found no room was not sent.
        if notified == Notified::Sent
            && !self.unread.is_empty()
            && self.link.socket.has_room().unwrap_or(false)
        {
            self.bells_behind = self.bells_behind.saturating_add(1);
        }
        notified
    }

    /// Receives a message of the subscriber, and at most one packet.
    pub(super) fn receive(&mut self) -> Result<Option<Message>> {
        match self.inbox.receive_packet()? {
            Outcome::Done(message) => Ok(Some(message)),
            _ => Ok(None),
        }
    }

    /// Reads the space socket once. True if there was a doorbell.
    ///
    /// UNTRUSTED: all that may come there is doorbells, at most one for each epoch.
    pub(super) fn read_bell(&mut self, epochs: u64) -> Result<bool> {
        let mut buffer = PacketBuffer::take();
        let socket = &self.link.space_rx;
        let packet = match socket.receive(&mut buffer, 0)? {
            Received::Packet(packet) => packet,
            Received::Nothing => {
                self.bells.drained(epochs);
                return Ok(false);
            }
            Received::End => return Err(self.link.ended()),
        };
        let rang = packet
            .and_then(|incoming| is_doorbell(&incoming, Kind::Doorbell).map(|_| incoming.bytes()))
            .and_then(|bytes| self.bells.rang(epochs).map(|()| bytes));
        match rang {
            Ok(bytes) => self.bells.passed(epochs, bytes, || socket.unread().ok()),
            Err(violation) => return Err(self.link.violated(violation)),
        }
        Ok(true)
    }

    /// Whether both directions have ended, or the process was killed.
    pub(super) fn is_dead(&mut self) -> bool {
        self.link.socket.is_dead() || self.watch.look().is_err()
    }

    /// Whether another packet with `count` descriptors may be sent.
    pub(super) fn has_packet_room(&mut self, count: usize) -> bool {
        if !self.may_leave_unread(count) {
            self.count_unread();
        }
        self.may_leave_unread(count) && self.link.socket.has_room().unwrap_or(true)
    }

    fn may_leave_unread(&self, count: usize) -> bool {
        let fds = self.unread.iter().fold(0_usize, |sum, fds| sum.saturating_add(*fds));
        let few = fds == 0 || fds.saturating_add(count) <= self.packets.max_unread_fds;
        self.unread.len() < MAX_UNREAD && few
    }

    /// Forgets packets that must have been read: those that are unread have fewer bytes. Otherwise a subscriber that is always one
    /// message behind would seem to read none.
    fn count_unread(&mut self) {
        // Doorbells behind the last descriptors stay unread until the subscriber waits.
        let bells = self.bells_behind.saturating_mul(self.packets.cost_of_bell);
        let most = self.unread_bytes().saturating_sub(bells).div_ceil(self.packets.cost_of_bell.max(1));
        let read = self.unread.len().saturating_sub(most);
        self.unread.drain(..read);
    }

    /// Charges a subscriber that does not read its socket. True if it is to be ended.
    pub(super) fn charge(&mut self, want: Want) -> bool {
        let now = Instant::now();
        self.account.charge(want, now);
        if self.account.is_empty(now) {
            self.end = Some(Error::TooSlow);
        } else if self.is_dead() {
            self.end = Some(Error::Disconnected);
        }
        self.end.is_some()
    }

    /// Bytes that the subscriber has not read, as the kernel counts them.
    pub(super) fn unread_bytes(&self) -> usize {
        self.link.socket.unread_by_peer().unwrap_or(0)
    }

    /// Descriptors that the subscriber may not have read.
    pub(super) fn unread_fds(&mut self) -> usize {
        self.count_unread();
        self.unread.iter().fold(0, |sum, fds| sum.saturating_add(*fds))
    }

    /// Sends the descriptors of an attempt, unless that was done.
    pub(super) fn send_fds(&mut self, attempt: u64, control: &Control<'_>) -> Sent {
        if self.attempt == attempt || self.end.is_some() {
            return Sent::Yes;
        }
        if !self.has_packet_room(control.fds.len()) {
            return Sent::Full;
        }
        // At most 253, by the limit.
        let count = u32::try_from(control.fds.len()).unwrap_or(u32::MAX);
        match self.link.socket.send(PacketHeader::descriptors(attempt, count), &[], &control.fds) {
            Ok(()) => {
                self.attempt = attempt;
                self.bells_behind = 0;
                self.unread.push_back(control.fds.len());
                Sent::Yes
            }
            Err(SendFailure::Full) => Sent::Full,
            Err(failure @ (SendFailure::FdsInFlight | SendFailure::NoMemory(_))) => Sent::Short(failure),
            Err(failure) => {
                self.end = Some(failure.into());
                Sent::Yes
            }
        }
    }

    /// Sends a reply, without waiting.
    pub(super) fn reply(&mut self, token: ReplyToken, control: &Control<'_>) -> Result<()> {
        let control = Control { in_reply_to: Some(token), ..control.clone() };
        let heading = self.replies.heading(&self.link, &control, false)?;
        self.replies.begin(&self.link, heading)?;
        let fd_count = u32::try_from(control.fds.len()).unwrap_or(u32::MAX);
        let sent =
            self.link.socket.send(PacketHeader::control(heading, fd_count), control.bytes, &control.fds);
        self.replies.end(&self.link, heading, sent.is_ok());
        if sent.is_ok() && !control.fds.is_empty() {
            self.bells_behind = 0;
            self.unread.push_back(control.fds.len());
        }
        sent.map_err(|failure| match failure {
            SendFailure::Gone => Error::UnknownRequest,
            failure => failure.into(),
        })
    }

    /// Tells the subscriber why it is ended, if its socket has room. Otherwise it learns it from the ring, where its part is
    /// written over.
    pub(super) fn say_too_slow(&self) {
        let reason = Reject::new(Refusal { reason: Reason::Patience, expected: 0, found: 0 });
        let _ = self.link.socket.send(PacketHeader::plain(Kind::Reject, 0), reason.as_bytes(), &[]);
    }

    /// Ends it for a violation.
    pub(super) fn violated(&mut self, violation: ProtocolError) {
        self.end = Some(self.link.violated(violation));
    }

    /// How it stands; `head` is the end of what is published.
    pub(super) fn info(&self, head: Position, now: Instant) -> SubscriberInfo {
        let since = head.since(self.terms.first_position);
        SubscriberInfo {
            id: self.id,
            credentials: self.credentials,
            policy: self.terms.slow,
            // UNTRUSTED: both words are shown, and nothing else.
            lag: since.saturating_sub(self.region.load(Word::Tail)),
            account: self.account.left(now),
            waits: self.account.waits,
            missed: self.region.load(Word::Missed),
        }
    }
}
