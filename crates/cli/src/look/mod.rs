//! Looking at the channels and publishers of this machine from outside.
//!
//! Owns what is read of other processes: `/proc/PID/maps` tells which have mapped a region of sealane's, and the region's
//! control page how it fares (docs/protocol.md). Nothing is opened in, or sent to, a process that is looked at. All that is
//! read is foreign: names are escaped where they are shown, numbers are checked against each other, reads are bounded, and
//! those of memory are made by a child process with a deadline.
//!
//! ```text
//! processes (/proc) ──► regions, by file ──► pages (reader, in a child) ──► pairs: channels, publishers
//! ```

mod maps;
mod page;
mod pairs;
mod processes;
mod reader;

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use anyhow::Result;
use serde::Serialize;

pub(crate) use page::{Owner, Page};
pub(crate) use pairs::{Direction, Fan, Lane, Link, Reading, Single, Views};
pub(crate) use processes::{Process, Unseen};
pub(crate) use reader::serve;

use self::{
    maps::FileId,
    processes::Walker,
    reader::{Reader, Request},
};

/// How long all reads of one look may hang, together.
const PATIENCE: Duration = Duration::from_secs(2);

/// The reason why a control page could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Unread {
    /// The kernel does not let this process look (`ptrace(2)`, `PTRACE_MODE_ATTACH`).
    Forbidden,
    /// The read has hung.
    DoesNotAnswer,
    /// The process has ended, or has unmapped, truncated or guarded the region.
    Unreadable,
    /// Other reads have hung for too long.
    NotTried,
}

/// A process that has mapped a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) pid: u32,
    /// Only the owner's mapping is writable, and those that a fork has inherited from it.
    pub(crate) writable: bool,
    address: u64,
}

/// A region: a memfd of sealane's, by whoever it is mapped.
#[derive(Debug)]
pub(crate) struct Region {
    pub(crate) file: FileId,
    /// Bytes, as mapped.
    pub(crate) len: u64,
    pub(crate) holders: Vec<Holder>,
    pub(crate) page: Result<Page, Unread>,
}

impl Region {
    /// The processes that can write it.
    pub(crate) fn owners(&self) -> impl Iterator<Item = u32> {
        self.holders.iter().filter(|one| one.writable).map(|one| one.pid)
    }

    /// The processes that can only read it.
    pub(crate) fn readers(&self) -> impl Iterator<Item = u32> {
        self.holders.iter().filter(|one| !one.writable).map(|one| one.pid)
    }

    fn is_held_by_one_of(&self, other: &Self) -> bool {
        self.holders.iter().any(|one| other.holders.iter().any(|two| one.pid == two.pid))
    }
}

/// All that was seen at one moment.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    pub(crate) processes: BTreeMap<u32, Process>,
    pub(crate) regions: Vec<Region>,
    pub(crate) unseen: Unseen,
}

/// Looks again and again, with what is known from before.
pub(crate) struct Looker {
    walker: Walker,
    reader: Reader,
    /// Users of processes whose pages have not answered: theirs are read last.
    slow: HashSet<u32>,
    /// Processes whose pages have not answered. They are not asked again before the next walk.
    hung: HashSet<u32>,
}

impl Looker {
    /// # Errors
    /// If this machine makes no memfd, or the child process for reads does not start.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            walker: Walker::new()?,
            reader: Reader::start()?,
            slow: HashSet::new(),
            hung: HashSet::new(),
        })
    }

    /// Walks over all processes, then reads the pages.
    pub(crate) fn look(&mut self) -> Result<Seen> {
        let (processes, unseen) = self.walker.walk()?;
        self.hung.clear();
        let mut regions: BTreeMap<FileId, Region> = BTreeMap::new();
        for process in processes.values() {
            for mapping in &process.mappings {
                let region = regions.entry(mapping.file).or_insert_with(|| Region {
                    file: mapping.file,
                    len: mapping.len,
                    holders: Vec::new(),
                    page: Err(Unread::NotTried),
                });
                let (pid, writable, address) = (process.pid, mapping.writable, mapping.start);
                region.holders.push(Holder { pid, writable, address });
            }
        }
        let regions = regions.into_values().collect();
        let mut seen = Seen { at: Instant::now(), processes, regions, unseen };
        self.read(&mut seen)?;
        Ok(seen)
    }

    /// Reads the pages of all known regions anew.
    pub(crate) fn read(&mut self, seen: &mut Seen) -> Result<()> {
        seen.at = Instant::now();
        for region in &mut seen.regions {
            region.page = Err(Unread::NotTried);
            // The owner is asked first: readers of its page may be of other users.
            region.holders.sort_by_key(|one| !one.writable);
        }
        let mut patience = PATIENCE;
        // A page that one holder does not show may be shown by another.
        let most = seen.regions.iter().map(|region| region.holders.len()).max().unwrap_or(0);
        for nth in 0..most {
            let uid = |pid| seen.processes.get(&pid).map_or(u32::MAX, |process| process.uid);
            let mut wanted: Vec<(usize, Request, u32)> = Vec::new();
            for (at, region) in seen.regions.iter().enumerate() {
                let Some(holder) = region.holders.get(nth).filter(|_| region.page.is_err()) else { continue };
                if !self.hung.contains(&holder.pid) {
                    let request = Request { pid: holder.pid, address: holder.address };
                    wanted.push((at, request, uid(holder.pid)));
                }
            }
            wanted.sort_by_key(|(_, _, uid)| self.slow.contains(uid));
            let mut rest = &wanted[..];
            while !rest.is_empty() && !patience.is_zero() {
                let requests: Vec<_> = rest.iter().map(|(_, request, _)| *request).collect();
                let answers = self.reader.read(&requests)?;
                for ((at, _, _), answer) in rest.iter().zip(&answers.pages) {
                    let region = &mut seen.regions[*at];
                    region.page = answer.and_then(|bytes| Page::new(&bytes).ok_or(Unread::Unreadable));
                }
                rest = &rest[answers.pages.len()..];
                if let (true, [(at, request, uid), after @ ..]) = (answers.hung, rest) {
                    seen.regions[*at].page = Err(Unread::DoesNotAnswer);
                    self.hung.insert(request.pid);
                    self.slow.insert(*uid);
                    patience = patience.saturating_sub(reader::DEADLINE);
                    rest = after;
                }
            }
        }
        Ok(())
    }
}
