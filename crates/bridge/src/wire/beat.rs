//! Beats: where a source stands, and how its earlier runs ended. So losses at the end of a run are told even if nothing follows.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian::U64};

use super::{Malformed, Place};

/// Runs that a beat tells of at most.
pub const MAX_RUNS: usize = 16;

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawRun {
    run: U64,
    end: U64,
}

/// A run that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// The run.
    pub run: u64,
    /// The number that its next message would have had.
    pub end: u64,
}

/// The runs that a beat's payload tells of, oldest first.
///
/// # Errors
/// UNTRUSTED: [`Malformed::Runs`] for more than [`MAX_RUNS`] or a part of one; [`Malformed::Place`] as of a head.
pub fn parse(payload: &[u8]) -> Result<Vec<Ended>, Malformed> {
    let refused = Malformed::Runs(payload.len());
    let runs = <[RawRun]>::ref_from_bytes(payload).map_err(|_| refused)?;
    if runs.len() > MAX_RUNS {
        return Err(refused);
    }
    let ended = |raw: &RawRun| {
        let (run, number) = (raw.run.get(), raw.end.get());
        Place { run, number, source: 0 }.check().map(|()| Ended { run, end: number })
    };
    runs.iter().map(ended).collect()
}

/// A beat's payload.
#[must_use]
pub fn to_bytes<'r>(runs: impl IntoIterator<Item = &'r Ended>) -> Vec<u8> {
    let raw = runs.into_iter().map(|run| RawRun { run: run.run.into(), end: run.end.into() });
    raw.flat_map(|run| run.as_bytes().to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_come_back_and_too_many_are_refused() {
        let runs: Vec<_> = (1..=20).map(|run| Ended { run, end: run * 10 }).collect();
        assert_eq!(parse(&to_bytes(&runs[..MAX_RUNS])).unwrap(), &runs[..MAX_RUNS]);
        assert_eq!(parse(&to_bytes(&runs)), Err(Malformed::Runs(320)));
        assert_eq!(parse(&[0; 17]), Err(Malformed::Runs(17)));
        assert_eq!(parse(&[]), Ok(vec![]));
        for (run, number) in [(0, 1), (1, Place::MOST)] {
            let wrong = to_bytes(&[Ended { run, end: number }]);
            assert_eq!(parse(&wrong), Err(Malformed::Place { run, number }));
        }
    }
}
