//! A process's descriptors and memory, as the kernel counts them, and whether they grow.

use std::{fmt, fs, path::Path};

use crate::Result;

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

/// Descriptors and memory of a process, second by second.
#[derive(Debug, Default)]
pub(crate) struct Trend(Vec<Reading>);

impl Trend {
    pub(crate) fn note(&mut self, reading: Reading) {
        self.0.push(reading);
    }

    /// Whether the end has more than the beginning ever had: use goes up and down, a leak only goes up.
    pub(crate) fn judge(&self, name: &str) -> Result<()> {
        let quarter = self.0.len() / 4;
        if quarter == 0 {
            return Ok(());
        }
        let (early, late) = (&self.0[..self.0.len() / 2], &self.0[self.0.len() - quarter..]);
        let grown = |of: fn(&Reading) -> u64, slack: u64| {
            let (most, least) = (early.iter().map(of).max(), late.iter().map(of).min());
            let (most, least) = (most.unwrap_or(0), least.unwrap_or(0));
            (least > most + slack).then_some((most, least))
        };
        if let Some((most, least)) = grown(|reading| reading.descriptors, 0) {
            return Err(format!(
                "{name}: at most {most} descriptors expected, never fewer than {least} found"
            )
            .into());
        }
        // The allocator may keep some freed memory.
        if let Some((most, least)) = grown(|reading| reading.memory, 2048) {
            return Err(
                format!("{name}: at most {most} KiB expected, never less than {least} KiB found").into()
            );
        }
        Ok(())
    }
}

impl fmt::Display for Trend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Reading { descriptors, memory } = self.0.last().copied().unwrap_or_default();
        write!(f, "{descriptors} fds {memory} KiB")
    }
}
