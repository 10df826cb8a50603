//! The bodies of the packets `Hello`, `Ready` and `Reject`, byte by byte. docs/protocol.md has the same as tables.

use std::mem::size_of;

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U32, U64},
};

use crate::{
    error::{Reason, Refusal},
    protocol::{CACHE_LINE, Position, Slow, Terms, to_u64},
};

/// First bytes of a `Hello`: "SEALANE" and a zero, read as a little-endian number.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"SEALANE\0");
/// The only version so far.
pub(crate) const VERSION: u32 = 1;

/// The body of a `Hello`. The first 24 bytes never change; a newer version may append.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Hello {
    pub(crate) magic: U64,
    pub(crate) lowest_version: U32,
    pub(crate) highest_version: U32,
    /// Bytes of this body, from `magic` on.
    pub(crate) length: U32,
    pub(crate) reserved: U32,
    /// Features that the sender offers, as bits.
    pub(crate) features: U64,
    /// Features that the sender demands, as bits.
    pub(crate) required: U64,
    /// Bytes from the start of the region to the ring.
    pub(crate) ring_offset: U64,
    /// Bytes of the ring.
    pub(crate) ring_capacity: U64,
    /// Control bytes that the sender accepts in one message.
    pub(crate) max_control: U32,
    /// Descriptors that the sender accepts with one message.
    pub(crate) max_fds: U32,
    pub(crate) first_sequence: U64,
    pub(crate) first_position: U64,
    /// Requests that may be without a reply at the sender.
    pub(crate) max_requests: U32,
    /// Where a subscriber wishes to begin, see [`Start`](crate::Start).
    pub(crate) start: U32,
    /// How long a subscriber wishes to be waited for, see [`Slow`].
    pub(crate) patience: U64,
}
/// Bytes of this version's `Hello`.
pub(crate) const HELLO_LEN: u32 = 96;
const _: () = assert!(size_of::<Hello>() == 96);
/// Bytes of the part of a `Hello` that no version changes.
pub(crate) const HELLO_FIXED: usize = 24;
/// Bytes of the longest `Hello` packet that is read, with room for later versions.
pub(crate) const HELLO_MAX: usize = 4096;

/// The body of a publisher's `Ready`: the terms on which a subscriber reads. Those of others have none.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Ready {
    /// How long the subscriber is waited for, see [`Slow`].
    patience: U64,
    /// Number of the message that it reads first.
    first_sequence: U64,
    /// Where that begins.
    first_position: U64,
    /// [`Source::lost`](crate::protocol::Source::lost) before it.
    lost: U64,
}
const _: () = assert!(size_of::<Ready>() == 32);

impl Ready {
    pub(crate) fn new(terms: Terms) -> Self {
        Self {
            patience: terms.slow.to_patience().into(),
            first_sequence: terms.first_sequence.into(),
            first_position: terms.first_position.get().into(),
            lost: terms.lost.into(),
        }
    }

    /// Parses a body.
    ///
    /// UNTRUSTED: a position must be one.
    pub(crate) fn parse(body: &[u8]) -> Result<Terms, Refusal> {
        let refuse = |reason, expected, found| Err(Refusal { reason, expected, found });
        let Ok(ready) = Self::read_from_bytes(body) else {
            let (expected, found) = (to_u64(size_of::<Self>()), to_u64(body.len()));
            return refuse(Reason::ReadyLength, expected, found);
        };
        let first = ready.first_position.get();
        if !first.is_multiple_of(CACHE_LINE) || first >= Position::END.get() {
            return refuse(Reason::Start, CACHE_LINE, first);
        }
        Ok(Terms {
            slow: Slow::from_patience(ready.patience.get()),
            first_sequence: ready.first_sequence.get(),
            first_position: Position::new(first),
            lost: ready.lost.get(),
        })
    }
}

/// The body of a `Reject`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Reject {
    reason: U32,
    reserved: U32,
    expected: U64,
    found: U64,
}
const _: () = assert!(size_of::<Reject>() == 24);

impl Reject {
    /// Bytes of the body.
    pub(crate) const LEN: usize = size_of::<Self>();

    pub(crate) fn new(refusal: Refusal) -> Self {
        Self {
            reason: refusal.reason.code().into(),
            reserved: 0.into(),
            expected: refusal.expected.into(),
            found: refusal.found.into(),
        }
    }

    /// Parses a body. A body that is too short gives the reason `Unknown(0)`.
    pub(crate) fn parse(body: &[u8]) -> Refusal {
        let Ok((reject, _)) = Self::read_from_prefix(body) else {
            let (expected, found) = (to_u64(size_of::<Self>()), to_u64(body.len()));
            return Refusal { reason: Reason::Unknown(0), expected, found };
        };
        let reason = Reason::from_code(reject.reason.get());
        Refusal { reason, expected: reject.expected.get(), found: reject.found.get() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::protocol::page::{assert_documented, table};

    #[test]
    fn documented_bodies_are_these() {
        assert_documented!(Hello {
            magic,
            lowest_version,
            highest_version,
            length,
            reserved,
            features,
            required,
            ring_offset,
            ring_capacity,
            max_control,
            max_fds,
            first_sequence,
            first_position,
            max_requests,
            start,
            patience,
        });
        assert_documented!(Ready { patience, first_sequence, first_position, lost });
        assert_documented!(Reject { reason, reserved, expected, found });
    }

    #[test]
    fn every_documented_reason_round_trips_and_there_is_no_other() {
        let rows = table("| reason | name");
        assert!(rows.len() > 10, "{rows:?}");
        let round_trip = |reason| {
            let refusal = Refusal { reason, expected: 1, found: u64::MAX };
            assert_eq!(Reject::parse(Reject::new(refusal).as_bytes()), refusal);
        };
        for (row, code) in rows.iter().zip(1..) {
            let reason = Reason::from_code(code);
            assert_eq!((row[1].clone(), row[2].clone()), (code.to_string(), format!("{reason:?}")));
            assert_eq!(reason.code(), code);
            round_trip(reason);
        }
        // Numbers beyond the table have no name, and are kept.
        let beyond = u32::try_from(rows.len()).unwrap() + 1;
        for code in [0, beyond, beyond + 1, 999, u32::MAX] {
            assert_eq!(Reason::from_code(code), Reason::Unknown(code));
            round_trip(Reason::Unknown(code));
        }
    }

    #[test]
    fn terms_round_trip_and_others_are_refused_by_name() {
        for slow in [Slow::Overrun, Slow::default(), Slow::Wait(Duration::MAX)] {
            let terms = Terms { slow, first_sequence: 7, first_position: Position::new(640), lost: 3 };
            assert_eq!(Ready::parse(Ready::new(terms).as_bytes()), Ok(terms));
        }
        let refused = |body: &[u8]| Ready::parse(body).unwrap_err().reason;
        assert_eq!([refused(&[0; 31]), refused(&[0; 33]), refused(&[])], [Reason::ReadyLength; 3]);
        for position in [1, 63, u64::MAX - 63, 1 << 63] {
            let terms = Terms {
                slow: Slow::Overrun,
                first_sequence: 0,
                first_position: Position::new(position),
                lost: 0,
            };
            assert_eq!(refused(Ready::new(terms).as_bytes()), Reason::Start, "{position}");
        }
    }

    #[test]
    fn reject_that_is_too_short_has_no_reason() {
        assert_eq!(Reject::parse(b"short").reason, Reason::Unknown(0));
    }
}
