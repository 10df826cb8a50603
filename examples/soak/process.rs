//! A process's descriptors and memory, as the kernel counts them, and whether they grow.

use std::{fmt, fs, path::Path, time::Duration};

use crate::Result;

/// Readings in a second. What is under way at one moment differs by more than a slow leak; among many readings some find little.
pub(crate) const A_SECOND: u32 = 20;

/// The time between two readings.
pub(crate) const EVERY: Duration = Duration::from_millis(1000 / A_SECOND as u64);

/// The second that this reading is the last of.
pub(crate) fn second(reading: u32) -> Option<u32> {
    reading.is_multiple_of(A_SECOND).then_some(reading / A_SECOND)
}

/// Descriptors and memory of a process at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reading {
    pub(crate) descriptors: u64,
    /// Resident, in KiB.
    memory: u64,
}

impl Reading {
    /// Reads them for the process `pid`, or for `self`.
    pub(crate) fn of(pid: &str) -> Result<Self> {
        let process = Path::new("/proc").join(pid);
        let descriptors = u64::try_from(fs::read_dir(process.join("fd"))?.count())?;
        let status = fs::read_to_string(process.join("status"))?;
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let memory =
            memory.and_then(|rest| rest.split_whitespace().next()).ok_or("no VmRSS found")?.parse()?;
        Ok(Self { descriptors, memory })
    }

    /// Fails unless the traffic has left the expected number of descriptors.
    pub(crate) fn settled(self, expected: u64) -> Result<()> {
        if self.descriptors == expected {
            return Ok(());
        }
        Err(format!("{expected} descriptors expected at the end, {} found", self.descriptors).into())
    }
}

/// Descriptors and memory of a process, from reading to reading.
#[derive(Debug, Default)]
pub(crate) struct Trend(Vec<Reading>);

impl Trend {
    pub(crate) fn note(&mut self, reading: Reading) {
        self.0.push(reading);
    }

    /// Fails if the end has more descriptors, or memory, than the beginning ever had: use goes up and down, a leak only goes up.
    pub(crate) fn judge(&self, name: &str) -> Result<()> {
        if let Some((most, least)) = self.grown(|reading| reading.descriptors, 0) {
            let text = format!("{name}: at most {most} descriptors expected, never fewer than {least} found");
            return Err(text.into());
        }
        self.judge_memory(name)
    }

    /// The same for memory only, where the number of peers changes, and with it that of descriptors.
    pub(crate) fn judge_memory(&self, name: &str) -> Result<()> {
        // The allocator may keep some freed memory.
        if let Some((most, least)) = self.grown(|reading| reading.memory, 2048) {
            return Err(
                format!("{name}: at most {most} KiB expected, never less than {least} KiB found").into()
            );
        }
        Ok(())
    }

    /// The most that the beginning had, and the least that the end has, if that is more by so much.
    fn grown(&self, of: fn(&Reading) -> u64, slack: u64) -> Option<(u64, u64)> {
        let (early, late) = (&self.0[..self.0.len() / 2], &self.0[self.0.len() - self.0.len() / 4..]);
        let (most, least) = (early.iter().map(of).max()?, late.iter().map(of).min()?);
        (least > most + slack).then_some((most, least))
    }
}

impl fmt::Display for Trend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Reading { descriptors, memory } = self.0.last().copied().unwrap_or_default();
        write!(f, "{descriptors} fds {memory} KiB")
    }
}
