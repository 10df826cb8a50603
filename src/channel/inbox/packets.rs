//! The receiver's socket: packets are read, compared with our limits, and put in order.

use super::Inbox;
use crate::{
    channel::{message::Attachments, stats::count},
    error::{ProtocolError, Result},
    memory::aligned_bytes::AlignedBytes,
    protocol::packet::Kind,
    socket::{
        doorbell::is_doorbell,
        seqpacket::{PacketBuffer, Received, ReceivedPacket},
    },
};

#[expect(clippy::inline_always, reason = "a packet on its way must not be copied from frame to frame")]
impl Inbox {
    /// Reads one packet, without blocking. True if there was one, or the end of file: the ring has to be looked at again.
    ///
    /// UNTRUSTED: `Socket::receive` checked the packet's format; this compares it with our limits.
    pub(super) fn read_packet(&mut self) -> Result<bool> {
        let mut buffer = PacketBuffer::take();
        let arrival = self.link.socket.receive(&mut buffer, self.limits.max_control)?;
        self.on_arrival(arrival)
    }

    /// Like [`read_packet`](Self::read_packet), but blocks until there is one. False if the socket does not block.
    pub(super) fn wait_for_packet(&mut self) -> Result<bool> {
        let mut buffer = PacketBuffer::take();
        let arrival = self.link.socket.wait(&mut buffer, self.limits.max_control)?;
        self.on_arrival(arrival)
    }

    #[inline(always)]
    fn on_arrival(&mut self, arrival: Received<'_>) -> Result<bool> {
        match arrival {
            Received::Nothing => {
                self.word.drained();
                return Ok(false);
            }
            Received::End => self.eof = true,
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

    /// UNTRUSTED: a packet is a doorbell, or part of a message within our limits.
    #[inline(always)]
    fn on_packet(&mut self, incoming: ReceivedPacket<'_>) -> Result<(), ProtocolError> {
        if is_doorbell(&incoming, Kind::Control)? {
            count(&mut self.stats.doorbells_received, 1);
            return self.word.on_doorbell();
        }
        let fd_count = incoming.packet.fd_count;
        if fd_count > self.limits.max_fds {
            return Err(ProtocolError::FdLimit { max: self.limits.max_fds, found: fd_count });
        }
        self.packets = self.packets.wrapping_add(1);
        count(&mut self.stats.packets_received, 1);
        let control = AlignedBytes::from(incoming.body);
        let lost = incoming.fds_truncated.then_some(fd_count);
        let extras = Box::new(Attachments { control, fds: incoming.fds, lost, ..Attachments::default() });
        self.order.push_packet(incoming.packet.heading, extras)?;
        // A sender may be waiting for the room that this packet took.
        self.consumer.intake().notify_space();
        Ok(())
    }
}
