//! [`Lane`]: the way between a publisher and one of its subscribers: sockets, and the subscriber's control page.
//!
//! A lane is like a channel of which the publisher's ring is not a part. The way back is a channel's: packets, read by an
//! [`Inbox`]. Towards the subscriber there are doorbells, descriptors of records, and replies.

use std::{sync::Arc, time::Instant};

use zerocopy::IntoBytes;

use crate::{
    channel::{Control, Credentials, Inbox, Limits, Message, Numbering, ReplyToken},
    connect::Parts,
    error::{Error, ProtocolError, Reason, Refusal, Result},
    fanout::{
        SubscriberId, SubscriberInfo,
        account::{Account, Want},
        unread::{MAX_UNREAD, PacketLimits, Unread},
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
    /// Descriptors that were sent.
    unread: Unread,
    /// Packets of them that had been read when it was charged last.
    read_before: u64,
    /// The last attempt whose packet was sent here.
    pub(super) attempt: u64,
    /// The reason for which it is to be ended.
    pub(super) end: Option<Error>,
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
        // No larger than one reply and the packets of descriptors need: bytes unread there are charged to this process.
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
            unread: Unread::new(packets),
            read_before: 0,
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
            self.unread.add_bell();
        }
        notified
    }

    /// Receives a message of the subscriber, and at most one packet.
    pub(super) fn receive(&mut self) -> Result<Outcome<Message>> {
        self.inbox.receive_packet()
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

    /// Ends the lane if it is dead.
    pub(super) fn look_for_death(&mut self) {
        if self.end.is_none() && self.is_dead() {
            self.end = Some(Error::Disconnected);
        }
    }

    /// Whether another packet with `count` descriptors may be sent.
    pub(super) fn has_packet_room(&mut self, count: usize) -> bool {
        if !self.unread.may_add(count) {
            self.look_at_unread();
        }
        self.unread.may_add(count) && self.link.socket.has_room().unwrap_or(true)
    }

    fn look_at_unread(&mut self) {
        self.unread.look(self.link.socket.unread_by_peer().unwrap_or(0));
    }

    /// Descriptors that the subscriber may not have read.
    pub(super) fn unread_fds(&mut self) -> usize {
        self.look_at_unread();
        self.unread.fds()
    }

    /// When the oldest descriptors were sent that the subscriber may not have read.
    pub(super) fn oldest_unread(&mut self) -> Option<Instant> {
        self.look_at_unread();
        self.unread.oldest()
    }

    /// Charges a subscriber that does not read its socket, for `want`. True if it is to be ended.
    pub(super) fn charge(&mut self, want: Want) -> bool {
        let now = Instant::now();
        // The earlier want may be satisfied, and this one be for later packets.
        if self.has_read(self.account.want()) {
            self.account.settle(now);
        }
        self.account.charge(want, now);
        self.read_before = self.unread.read();
        if self.account.is_empty(now) {
            self.end = Some(Error::TooSlow);
        } else if self.is_dead() {
            self.end = Some(Error::Disconnected);
        }
        self.end.is_some()
    }

    /// Whether the subscriber has read what was wanted. Packets sent since then do not count.
    pub(super) fn has_read(&mut self, want: Option<Want>) -> bool {
        self.look_at_unread();
        match want {
            Some(Want::Socket(count)) => {
                self.unread.read() != self.read_before || self.has_packet_room(count)
            }
            Some(Want::Descriptors) => self.unread.read() != self.read_before,
            Some(Want::Room(_)) | None => false,
        }
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
                self.unread.add(control.fds.len());
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
            self.unread.add(control.fds.len());
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
