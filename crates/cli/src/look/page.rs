//! [`Page`]: the words of a control page, as docs/protocol.md has them.

use serde::Serialize;
use zerocopy::{FromBytes, Immutable, KnownLayout, little_endian::U64};

/// Bytes of a page that are read: up to the end of its last line.
pub(crate) const BYTES: usize = 0x1c0;

/// The words, at their places. Words between them are not looked at.
#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Words {
    head: U64,
    packets: U64,
    _0: U64,
    latest: U64,
    messages: U64,
    high_water: U64,
    _1: [U64; 2],
    tail: U64,
    missed: U64,
    _2: [U64; 6],
    receiver_epoch: U64,
    _3: [U64; 7],
    sender_epoch: U64,
    sender_needs: U64,
    waits: U64,
    _4: [U64; 5],
    origin: U64,
    peer: U64,
    owner: U64,
    base: U64,
    capacity: U64,
    _5: [U64; 3],
    claimed: U64,
    _6: [U64; 7],
    wakes: U64,
    _7: [U64; 7],
}
const _: () = assert!(size_of::<Words>() == BYTES);

/// The part that the owner of a region claims to play.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Owner {
    Channel,
    Publisher,
    /// A subscriber that is waited for.
    Gating,
    /// A subscriber that may be overrun.
    Overrunning,
}

/// A control page that was read. UNTRUSTED: its owner can write anything there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Page(Words);

macro_rules! words {
    ($($(#[$about:meta])* $name:ident,)*) => {$(
        $(#[$about])*
        pub(crate) fn $name(&self) -> u64 {
            self.0.$name.get()
        }
    )*};
}

impl Page {
    /// `None` if the bytes are too few.
    pub(super) fn new(bytes: &[u8]) -> Option<Self> {
        Words::read_from_prefix(bytes).ok().map(|(words, _)| Self(words))
    }

    words! {
        /// Bytes committed to the owner's ring.
        head,
        /// Messages that the owner has sent.
        messages,
        /// The most bytes of the owner's ring that were in use at once.
        high_water,
        /// Bytes of the peer's ring that the owner has released.
        tail,
        /// Messages that a subscriber has missed.
        missed,
        sender_needs,
        /// How often the owner's sender has found no space.
        waits,
        origin,
        peer,
        /// The position from which a subscriber's `tail` counts.
        base,
        /// Bytes of the owner's ring.
        capacity,
    }

    /// `None` during a handshake, or for a page of another version.
    pub(crate) fn owner(&self) -> Option<Owner> {
        match self.0.owner.get() {
            1 => Some(Owner::Channel),
            2 => Some(Owner::Publisher),
            3 => Some(Owner::Gating),
            4 => Some(Owner::Overrunning),
            _ => None,
        }
    }

    /// Whether the owner's receiver sleeps, or waits in an event loop.
    pub(crate) fn is_asleep(&self) -> bool {
        self.0.receiver_epoch.get() % 2 == 1
    }

    /// Whether the owner's sender waits for space.
    pub(crate) fn waits_for_space(&self) -> bool {
        self.0.sender_epoch.get() % 2 == 1
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn words_stand_where_the_protocol_page_says() {
        let page = include_str!("../../../../docs/protocol.md");
        let table = page.split("| offset | word |").nth(1).unwrap().split("\n\n").next().unwrap();
        let mut documented = 0;
        for (name, offset) in [
            ("Head", offset_of!(Words, head)),
            ("Packets", offset_of!(Words, packets)),
            ("Latest", offset_of!(Words, latest)),
            ("Messages", offset_of!(Words, messages)),
            ("HighWater", offset_of!(Words, high_water)),
            ("Tail", offset_of!(Words, tail)),
            ("Missed", offset_of!(Words, missed)),
            ("ReceiverEpoch", offset_of!(Words, receiver_epoch)),
            ("SenderEpoch", offset_of!(Words, sender_epoch)),
            ("SenderNeeds", offset_of!(Words, sender_needs)),
            ("Waits", offset_of!(Words, waits)),
            ("Origin", offset_of!(Words, origin)),
            ("Peer", offset_of!(Words, peer)),
            ("Owner", offset_of!(Words, owner)),
            ("Base", offset_of!(Words, base)),
            ("Capacity", offset_of!(Words, capacity)),
            ("Claimed", offset_of!(Words, claimed)),
            ("Wakes", offset_of!(Words, wakes)),
        ] {
            assert!(table.contains(&format!("| {offset:#05x} | `{name}`:")), "{name} at {offset:#05x}");
            documented += 1;
        }
        assert_eq!(table.matches("\n| 0x").count(), documented);
    }

    #[test]
    fn pages_that_are_too_short_are_none() {
        assert!(Page::new(&[0; BYTES - 1]).is_none());
        assert_eq!(Page::new(&[0; BYTES]).unwrap().owner(), None);
    }
}
