//! [`Walker`]: the processes of this machine that have mapped regions, by a walk over `/proc`.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{ErrorKind, Read},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::fs::{Dev, MemfdFlags, fstat, memfd_create};
use serde::Serialize;

use super::{
    maps::{self, Mapping},
    rights::Rights,
};

/// Most bytes of one `maps` that are read: some 60,000 mappings, which take 84 ms.
const MAX_MAPS: usize = 4 << 20;

/// Most mappings of one user's processes that are kept, and the time for which they are read in one walk. Processes can share all of
/// their memory (`CLONE_VM`), and show it each for itself.
const MAX_OF_USER: (usize, Duration) = (100_000, Duration::from_secs(2));

/// A process that has mapped regions.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// The effective user.
    pub(crate) uid: u32,
    /// The first 15 bytes of its name, which it can set to anything (`PR_SET_NAME`).
    pub(crate) comm: String,
    /// The program's file, where the kernel tells it.
    pub(crate) exe: Option<PathBuf>,
    /// The names of the sockets at which a publisher listens, as far as they are known.
    pub(crate) listens: Vec<String>,
    pub(super) mappings: Vec<Mapping>,
}

/// Counts of processes that could not be looked at.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub(crate) struct Unseen {
    /// Processes whose mappings the kernel does not show to this user.
    pub(crate) processes: usize,
    /// Processes with more mappings than are read, or of users whose processes have too many together.
    pub(crate) cut: usize,
    /// `/proc` hides processes of other users (`hidepid`, `proc(5)`): nobody can count them.
    pub(crate) hidden: bool,
}

/// Walks over `/proc`.
pub(super) struct Walker {
    /// The devices of memfds: of ordinary pages, and of huge ones of 2 MiB where there are any.
    devices: Vec<Dev>,
    text: Vec<u8>,
    pub(super) rights: Rights,
}

impl Walker {
    pub(super) fn new() -> Result<Self> {
        std::fs::metadata("/proc/self/maps").context("reading /proc, which has to be mounted")?;
        let device = |flags| {
            fstat(memfd_create(c"sealane-look", flags | MemfdFlags::CLOEXEC)?).map(|stat| stat.st_dev)
        };
        let ordinary =
            device(MemfdFlags::empty()).context("memfd_create(2), to learn the device of memfds")?;
        // Pages of each size have a device of their own.
        let huge = device(MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB).ok();
        let devices = [ordinary].into_iter().chain(huge).collect();
        Ok(Self { devices, text: Vec::new(), rights: Rights::new() })
    }

    /// One walk over all processes.
    pub(super) fn walk(&mut self) -> Result<(BTreeMap<u32, Process>, Unseen)> {
        let mut unseen = Unseen { hidden: self.rights.hidden, ..Unseen::default() };
        let (mut found, mut spent) = (BTreeMap::new(), HashMap::<u32, (usize, Duration)>::new());
        let entries = std::fs::read_dir("/proc").context("reading /proc, which has to be mounted")?;
        for entry in entries {
            // A process can end while it is looked at. Then it is none.
            let Ok(entry) = entry else { continue };
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            // The folder's owner is root for a process that is not dumpable, which only root can look at.
            let Ok(owner) = entry.metadata().map(|folder| folder.uid()) else { continue };
            let (kept, time) = spent.entry(owner).or_default();
            if *kept > MAX_OF_USER.0 || *time > MAX_OF_USER.1 {
                unseen.cut += 1;
                continue;
            }
            let start = Instant::now();
            let mappings = self.maps(pid).map(|is_cut| (maps::regions(&self.text, &self.devices), is_cut));
            *time += start.elapsed();
            let mappings = match mappings {
                Ok((mappings, is_cut)) => {
                    unseen.cut += usize::from(is_cut);
                    mappings
                }
                Err(error) => {
                    unseen.processes += usize::from(error.kind() == ErrorKind::PermissionDenied);
                    continue;
                }
            };
            if mappings.is_empty() {
                continue;
            }
            *kept += mappings.len();
            let (Some(uid), Some(comm)) = (uid(pid), comm(pid)) else { continue };
            let exe = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
            found.insert(pid, Process { pid, uid, comm, exe, listens: Vec::new(), mappings });
        }
        Ok((found, unseen))
    }

    /// Reads the mappings of a process, up to a limit. True if there are more.
    fn maps(&mut self, pid: u32) -> std::io::Result<bool> {
        self.text.clear();
        let mut file = File::open(format!("/proc/{pid}/maps"))?;
        let read = (&mut file).take(MAX_MAPS as u64).read_to_end(&mut self.text)?;
        Ok(read == MAX_MAPS && file.read(&mut [0])? > 0)
    }
}

/// Whether a process has ended: it is gone, or has no memory any more.
pub(super) fn has_ended(pid: u32) -> bool {
    let read = File::open(format!("/proc/{pid}/maps")).and_then(|mut maps| maps.read(&mut [0]));
    match read {
        Ok(read) => read == 0,
        Err(error) => {
            error.kind() == ErrorKind::NotFound
                || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
        }
    }
}

/// The first bytes of a file of a process.
fn head_of(pid: u32, name: &str) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(format!("/proc/{pid}/{name}")).ok()?.take(4096).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The name of a process, which it can choose.
pub(crate) fn comm(pid: u32) -> Option<String> {
    let text = head_of(pid, "comm")?;
    Some(text.strip_suffix('\n').unwrap_or(&text).to_owned())
}

/// The effective user, from `status`: the owner of the folder is root for a process that is not dumpable. A name in `status` has
/// no line's end: the kernel escapes it.
fn uid(pid: u32) -> Option<u32> {
    let status = head_of(pid, "status")?;
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    ids.split_ascii_whitespace().nth(1)?.parse().ok()
}
