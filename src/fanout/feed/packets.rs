//! The subscriber's socket: descriptors of records, replies, and doorbells.

use super::Feed;
use crate::{
    channel::{Attachments, Message, stats::count},
    error::{Error, ProtocolError, Reason, Result},
    memory::aligned_bytes::AlignedBytes,
    protocol::{Asked, Kind, MessageHeader, Reject},
    socket::{
        doorbell::is_doorbell,
        seqpacket::{PacketBuffer, Received, ReceivedPacket},
    },
};

impl Feed {
    /// Reads one packet, without blocking. True if there was one, or the end of file: the ring has to be looked at again.
    pub(super) fn read_packet(&mut self) -> Result<bool> {
        let mut buffer = PacketBuffer::take();
        let arrival = self.link.socket.receive(&mut buffer, self.longest_body())?;
        self.on_arrival(arrival)
    }

    /// Like [`read_packet`](Self::read_packet), but blocks until there is one. False if the socket does not block.
    pub(super) fn wait_for_packet(&mut self) -> Result<bool> {
        let mut buffer = PacketBuffer::take();
        let arrival = self.link.socket.wait(&mut buffer, self.longest_body())?;
        self.on_arrival(arrival)
    }

    /// Bytes of the longest body that may come: of a reply, or of the reason for which we are ended.
    fn longest_body(&self) -> usize {
        self.limits.max_control.max(Reject::LEN)
    }

    fn on_arrival(&mut self, arrival: Received<'_>) -> Result<bool> {
        match arrival {
            Received::Nothing => {
                self.word.drained();
                return Ok(false);
            }
            Received::End => self.set_ended(),
            Received::Packet(packet) => {
                let filed = packet.and_then(|incoming| {
                    let bytes = incoming.bytes();
                    self.on_packet(incoming).map(|()| bytes)
                });
                let bytes = filed.map_err(|violation| self.link.violated(violation))?;
                self.word.passed(bytes, || self.link.socket.unread().ok());
            }
        }
        Ok(true)
    }

    /// UNTRUSTED: a packet is a doorbell, the descriptors of a record, a reply to a request of ours, within our limits, or the reason
    /// for which we are ended.
    fn on_packet(&mut self, incoming: ReceivedPacket<'_>) -> Result<(), ProtocolError> {
        let kind = incoming.packet.kind;
        if kind == Kind::Reject && incoming.fds.is_empty() {
            self.is_too_slow = Reject::parse(incoming.body).reason == Reason::Patience;
            return Ok(());
        }
        let (max, found) = (self.limits.max_control, incoming.body.len());
        if found > max {
            return Err(ProtocolError::PacketTooLong { max });
        }
        let expected = if kind == Kind::Descriptors { kind } else { Kind::Control };
        if is_doorbell(&incoming, expected)? {
            count(&mut self.stats.doorbells_received, 1);
            // The publisher may be waiting until this socket is empty, of doorbells too.
            self.follower.intake().notify_space();
            return self.word.on_doorbell();
        }
        let fd_count = incoming.packet.fd_count;
        if fd_count > self.limits.max_fds {
            return Err(ProtocolError::FdLimit { max: self.limits.max_fds, found: fd_count });
        }
        count(&mut self.stats.packets_received, 1);
        let heading = incoming.packet.heading;
        let extras = Box::new(Attachments {
            control: AlignedBytes::from(incoming.body),
            lost: incoming.fds_truncated.then_some(fd_count),
            fds: incoming.fds,
            ..Attachments::default()
        });
        if kind == Kind::Descriptors {
            self.attempts.push(heading.sequence, extras)?;
        } else {
            self.on_reply(heading, extras)?;
        }
        // The publisher may be waiting for the room that this packet took.
        self.follower.intake().notify_space();
        Ok(())
    }

    /// UNTRUSTED: replies are numbered by themselves, ask for nothing, and answer open requests.
    fn on_reply(&mut self, heading: MessageHeader, extras: Box<Attachments>) -> Result<(), ProtocolError> {
        let (expected, found) = (self.next_reply, heading.sequence);
        if found != expected {
            return Err(ProtocolError::Sequence { expected, found });
        }
        if heading.flags() != 0 {
            return Err(ProtocolError::PacketFlags { known: 0, found: heading.flags() });
        }
        let Some(sequence) = heading.in_reply_to() else {
            let (expected, found) = (Kind::Descriptors.code(), Kind::Control.code());
            return Err(ProtocolError::PacketKind { expected, found });
        };
        self.next_reply = expected.wrapping_add(1);
        match self.link.requests.answer(sequence) {
            None => return Err(ProtocolError::UnaskedReply { sequence }),
            Some(Asked::Cancelled) => count(&mut self.stats.late_replies, 1),
            Some(Asked::Open) => {
                let reply = match extras.lost {
                    Some(expected) => Err(Error::FdsLost { expected, received: extras.fds.len() }),
                    None => Ok(Message::new(heading, self.link.id, Some(extras), None)),
                };
                self.replies.push_back(reply);
            }
        }
        Ok(())
    }
}
