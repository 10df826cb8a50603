//! Negotiation, without memory or sockets: our `Hello`, and the verdict on the peer's.

use zerocopy::transmute;

use crate::{
    error::{Reason, Refusal},
    protocol::{
        Geometry, Hello, SCM_MAX_FD, Slow, Start, Wish,
        hello::{HELLO_FIXED, HELLO_LEN, MAGIC, VERSION},
        to_u64, to_usize,
    },
};

/// The feature of publishers and subscribers, which both require: one ring for many readers.
pub(crate) const FAN_OUT: u64 = 1;
/// Largest offset of a ring in its region, in bytes: the largest page there is.
const MAX_OFFSET: u64 = 1 << 30;

/// The limits of this side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalLimits {
    /// Largest ring of the peer that is mapped, in bytes.
    pub(crate) ring: usize,
    /// Most control bytes of a message that is received.
    pub(crate) control: u32,
    /// Most descriptors of a message that is received.
    pub(crate) fds: u32,
    /// Most requests that may be without a reply, in either direction.
    pub(crate) requests: u32,
    /// What is established.
    pub(crate) part: Part,
}

/// The part of this side in what is established.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// One end of a channel.
    Channel,
    Subscriber(Wish),
    Publisher,
}

impl Part {
    /// The features that this side offers, and requires.
    fn features(self) -> u64 {
        match self {
            Self::Channel => 0,
            Self::Subscriber(_) | Self::Publisher => FAN_OUT,
        }
    }
}

/// The result of a negotiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Negotiated {
    pub(crate) version: u32,
    /// Geometry of the peer's region.
    pub(crate) geometry: Geometry,
    /// Most control bytes that the peer receives in one message.
    pub(crate) max_control: usize,
    /// Most descriptors that the peer receives with one message.
    pub(crate) max_fds: usize,
    /// Most requests of ours that may be without a reply: the lower of both sides' limits.
    pub(crate) max_requests: usize,
    /// What the peer asks for, if it is a subscriber.
    pub(crate) wish: Wish,
}

impl LocalLimits {
    /// The body of our `Hello`, for a region of `geometry`.
    pub(crate) fn hello(&self, geometry: Geometry) -> Hello {
        let (start, patience) = match self.part {
            Part::Subscriber(wish) => (wish.start.code(), wish.slow.to_patience()),
            Part::Channel | Part::Publisher => (0, 0),
        };
        Hello {
            magic: MAGIC.into(),
            lowest_version: VERSION.into(),
            highest_version: VERSION.into(),
            length: HELLO_LEN.into(),
            reserved: 0.into(),
            features: self.part.features().into(),
            required: self.part.features().into(),
            ring_offset: to_u64(geometry.offset).into(),
            ring_capacity: to_u64(geometry.capacity).into(),
            max_control: self.control.into(),
            max_fds: self.fds.into(),
            first_sequence: 0.into(),
            first_position: 0.into(),
            max_requests: self.requests.into(),
            start: start.into(),
            patience: patience.into(),
        }
    }

    /// Checks the body of the peer's `Hello`.
    ///
    /// UNTRUSTED: every field. A newer peer may append to the body; its lowest version says whether it can do without.
    pub(crate) fn negotiate(&self, body: &[u8]) -> Result<Negotiated, Refusal> {
        let refuse = |reason, expected, found| Err(Refusal { reason, expected, found });
        let found = to_u64(body.len());
        // A body may be shorter than ours: zeros stand for the missing bytes until the length is checked below. So a
        // stranger's short packet is refused for its magic, and an older peer's for its length.
        let mut bytes = [0; size_of::<Hello>()];
        bytes.iter_mut().zip(body).for_each(|(to, from)| *to = *from);
        let hello: Hello = transmute!(bytes);
        if hello.magic.get() != MAGIC {
            return refuse(Reason::Magic, MAGIC, hello.magic.get());
        }
        if body.len() < HELLO_FIXED {
            return refuse(Reason::HelloLength, to_u64(HELLO_FIXED), found);
        }
        let (lowest, highest) = (hello.lowest_version.get(), hello.highest_version.get());
        if highest < VERSION {
            return refuse(Reason::Version, VERSION.into(), highest.into());
        }
        if lowest > VERSION {
            return refuse(Reason::Version, VERSION.into(), lowest.into());
        }
        let needed = hello.length.get().max(HELLO_LEN);
        if found < needed.into() || hello.length.get() < needed {
            return refuse(Reason::HelloLength, needed.into(), found.min(hello.length.get().into()));
        }
        let ours = self.part.features();
        for unmet in [hello.required.get() & !ours, ours & !hello.features.get()] {
            if unmet != 0 {
                return refuse(
                    Reason::Features,
                    ours,
                    if unmet & ours == 0 { hello.required.get() } else { hello.features.get() },
                );
            }
        }
        let (capacity, offset) = (hello.ring_capacity.get(), hello.ring_offset.get());
        let max = to_u64(self.ring);
        if capacity > max {
            return refuse(Reason::RingTooLarge, max, capacity);
        }
        let page = to_u64(rustix::param::page_size());
        if !capacity.is_multiple_of(page) {
            return refuse(Reason::Geometry, page, capacity);
        }
        if offset == 0 || offset > MAX_OFFSET || !offset.is_multiple_of(page) {
            return refuse(Reason::Geometry, page, offset);
        }
        for first in [hello.first_sequence.get(), hello.first_position.get()] {
            if first != 0 {
                return refuse(Reason::Start, 0, first);
            }
        }
        // A publisher sends one message to all, so that each must accept the longest.
        if self.part == Part::Publisher {
            for (reason, ours, theirs) in [
                (Reason::ControlLimit, self.control, hello.max_control.get()),
                (Reason::FdLimit, self.fds, hello.max_fds.get()),
            ] {
                if theirs < ours {
                    return refuse(reason, ours.into(), theirs.into());
                }
            }
        }
        let wish = Wish {
            slow: Slow::from_patience(hello.patience.get()),
            start: Start::from_code(hello.start.get()),
        };
        Ok(Negotiated {
            wish,
            version: VERSION,
            geometry: Geometry { offset: to_usize(offset), capacity: to_usize(capacity) },
            max_control: to_usize(hello.max_control.get().into()),
            max_fds: to_usize(hello.max_fds.get().into()).min(SCM_MAX_FD),
            max_requests: to_usize(hello.max_requests.get().min(self.requests).into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;

    const GEOMETRY: Geometry = Geometry { offset: 4096, capacity: 8192 };
    const LIMITS: LocalLimits =
        LocalLimits { ring: 1 << 20, control: 100, fds: 300, requests: 20, part: Part::Channel };
    const WISH: Wish = Wish { slow: Slow::Overrun, start: Start::Latest };
    const NO_WISH: Wish = Wish { slow: Slow::Overrun, start: Start::Next };

    fn reason(change: impl FnOnce(&mut Hello)) -> Reason {
        let mut hello = LIMITS.hello(GEOMETRY);
        change(&mut hello);
        LIMITS.negotiate(hello.as_bytes()).unwrap_err().reason
    }

    #[test]
    fn our_own_hello_is_accepted() {
        let negotiated = Negotiated {
            version: 1,
            geometry: GEOMETRY,
            max_control: 100,
            max_fds: 253,
            max_requests: 20,
            wish: NO_WISH,
        };
        assert_eq!(LIMITS.negotiate(LIMITS.hello(GEOMETRY).as_bytes()), Ok(negotiated));
    }

    #[test]
    fn open_requests_are_what_both_sides_allow() {
        for (theirs, agreed) in [(0, 0), (19, 19), (21, 20), (u32::MAX, 20)] {
            let hello = LocalLimits { requests: theirs, ..LIMITS }.hello(GEOMETRY);
            let negotiated = LIMITS.negotiate(hello.as_bytes()).unwrap();
            assert_eq!(negotiated.max_requests, agreed, "{theirs}");
        }
    }

    #[test]
    fn hellos_at_the_bounds_are_accepted() {
        for (offset, capacity) in
            [(4096, 1 << 20), (4096, 0), (1 << 30, 4096), (4096, 12288), (4096, (1 << 20) - 4096)]
        {
            let geometry = Geometry { offset, capacity };
            let negotiated = LIMITS.negotiate(LIMITS.hello(geometry).as_bytes());
            assert_eq!(negotiated.map(|negotiated| negotiated.geometry), Ok(geometry));
        }
    }

    #[test]
    fn a_newer_peer_may_append() {
        let mut hello = LIMITS.hello(GEOMETRY);
        hello.highest_version = 7.into();
        hello.length = 100.into();
        hello.features = u64::MAX.into();
        let longer = [hello.as_bytes(), b"more"].concat();
        assert!(LIMITS.negotiate(&longer).is_ok());
    }

    #[test]
    fn wrong_fields_are_refused_by_name() {
        assert_eq!(reason(|h| h.magic = 1.into()), Reason::Magic);
        assert_eq!(reason(|h| h.lowest_version = 2.into()), Reason::Version);
        assert_eq!(reason(|h| h.highest_version = 0.into()), Reason::Version);
        assert_eq!(reason(|h| h.length = 95.into()), Reason::HelloLength);
        assert_eq!(reason(|h| h.length = 97.into()), Reason::HelloLength);
        assert_eq!(reason(|h| h.required = 4.into()), Reason::Features);
        assert_eq!(reason(|h| h.ring_capacity = (2 << 20).into()), Reason::RingTooLarge);
        for capacity in [1, 64, 2048, 4095, 4160, 12288 + 2048] {
            assert_eq!(reason(|h| h.ring_capacity = capacity.into()), Reason::Geometry, "{capacity}");
        }
        for offset in [0, 64, 4097, 1 << 31, u64::MAX - 4095] {
            assert_eq!(reason(|h| h.ring_offset = offset.into()), Reason::Geometry, "{offset}");
        }
        assert_eq!(reason(|h| h.first_sequence = 1.into()), Reason::Start);
        assert_eq!(reason(|h| h.first_position = 64.into()), Reason::Start);
    }

    #[test]
    fn publishers_and_subscribers_meet_each_other_only() {
        let part = |part| LocalLimits { part, ring: 8192, ..LIMITS };
        let (channel, publisher) = (part(Part::Channel), part(Part::Publisher));
        let subscriber = part(Part::Subscriber(WISH));
        let meet = |from: LocalLimits, to: LocalLimits| to.negotiate(from.hello(GEOMETRY).as_bytes());
        assert_eq!(meet(subscriber, publisher).map(|negotiated| negotiated.wish), Ok(WISH));
        assert!(meet(publisher, subscriber).is_ok());
        let features = |expected, found| Err(Refusal { reason: Reason::Features, expected, found });
        for part in [publisher, subscriber] {
            assert_eq!(meet(part, channel), features(0, 1));
            assert_eq!(meet(channel, part), features(1, 0));
        }
    }

    #[test]
    fn subscriber_accepts_all_that_its_publisher_sends() {
        let publisher = LocalLimits { part: Part::Publisher, ..LIMITS };
        let subscriber = LocalLimits { part: Part::Subscriber(WISH), ..LIMITS };
        let refused = |limits: LocalLimits| {
            publisher.negotiate(limits.hello(GEOMETRY).as_bytes()).map_err(|refusal| refusal.reason).err()
        };
        assert_eq!(refused(LocalLimits { control: 101, fds: 301, ..subscriber }), None);
        assert_eq!(refused(LocalLimits { control: 99, ..subscriber }), Some(Reason::ControlLimit));
        assert_eq!(refused(LocalLimits { fds: 299, ..subscriber }), Some(Reason::FdLimit));
        // A subscriber reads what comes: its own limits are those of its builder.
        let small = LocalLimits { control: 0, fds: 0, ..publisher };
        assert!(subscriber.negotiate(small.hello(GEOMETRY).as_bytes()).is_ok());
    }

    #[test]
    fn every_shorter_hello_is_refused() {
        let hello = LIMITS.hello(GEOMETRY);
        for len in 0..96 {
            let refusal = LIMITS.negotiate(&hello.as_bytes()[..len]).unwrap_err();
            let (reason, expected) = match len {
                0..7 => (Reason::Magic, MAGIC),
                7..24 => (Reason::HelloLength, 24),
                _ => (Reason::HelloLength, 96),
            };
            assert_eq!((refusal.reason, refusal.expected), (reason, expected), "{len} bytes");
        }
    }
}
