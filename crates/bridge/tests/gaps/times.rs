//! Times, seeds and repetitions.

use std::{
    cell::Cell,
    env,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Whether times are at full length.
pub(crate) fn is_nightly() -> bool {
    env::var("SEALANE_NIGHTLY").is_ok_and(|value| value == "1")
}

/// So many seconds at full length, or a twentieth of them.
pub(crate) fn secs(secs: f64) -> Duration {
    Duration::from_secs_f64(if is_nightly() { secs } else { secs / 20.0 })
}

/// Random numbers from a seed.
pub(crate) struct Random(Cell<u64>);

impl Random {
    pub(crate) fn below(&self, end: u64) -> u64 {
        // SplitMix64.
        let mut mixed = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(mixed);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    pub(crate) fn one_of<T: Copy>(&self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }

    /// A time around so many seconds at full length.
    pub(crate) fn about(&self, around: f64) -> Duration {
        secs(around).mul_f64(0.5 + Duration::from_millis(self.below(1000)).as_secs_f64())
    }
}

/// Runs a scenario as often as `SEALANE_REPEAT` says, with another seed each time: `SEALANE_SEED`, which is said if it fails, counts up.
pub(crate) fn repeat(name: &str, scenario: impl Fn(&Random) -> String) {
    let number = |name| env::var(name).ok().map(|value: String| value.parse::<u64>().unwrap());
    let times = number("SEALANE_REPEAT").unwrap_or(3);
    let now = || u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap();
    let first = number("SEALANE_SEED").unwrap_or_else(now);
    for seed in first..first + times {
        eprintln!("{name}: SEALANE_SEED={seed}");
        let said = scenario(&Random(Cell::new(seed)));
        eprintln!("{name}: SEALANE_SEED={seed}: {said}");
    }
}
