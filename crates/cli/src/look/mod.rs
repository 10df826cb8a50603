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
mod rights;
mod sockets;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

use anyhow::Result;
use serde::Serialize;

pub(crate) use page::{Owner, Page};
pub(crate) use pairs::{Direction, Fan, Lane, Link, Reading, Single, Views};
pub(crate) use processes::{Process, Unseen, comm};
pub(crate) use reader::serve;
pub(crate) use rights::Rights;

use self::{
    maps::FileId,
    processes::Walker,
    reader::{Reader, Request},
    sockets::Sockets,
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
    /// The process has unmapped, truncated or guarded the region, or ends just now.
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
    /// Bytes.
    len: u64,
}

/// A region: a memfd of sealane's, by whoever it is mapped.
#[derive(Debug)]
pub(crate) struct Region {
    pub(crate) file: FileId,
    /// Bytes, as mapped by the process whose page was read: another one can map less.
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

    /// Whether one that can write this region reads the other one.
    fn owner_reads(&self, other: &Self) -> bool {
        let readers: HashSet<u32> = other.readers().collect();
        self.owners().any(|pid| readers.contains(&pid))
    }
}

/// All that was seen at one moment.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    pub(crate) processes: BTreeMap<u32, Process>,
    pub(crate) regions: Vec<Region>,
    pub(crate) unseen: Unseen,
    pub(crate) rights: Rights,
}

impl Seen {
    /// Forgets processes that have ended, and the regions that nobody has mapped any more.
    fn forget(&mut self, ended: &HashSet<u32>) {
        if ended.is_empty() {
            return;
        }
        self.processes.retain(|pid, _| !ended.contains(pid));
        for region in &mut self.regions {
            region.holders.retain(|holder| !ended.contains(&holder.pid));
        }
        self.regions.retain(|region| !region.holders.is_empty());
    }

    /// Finds out where publishers listen.
    fn find_sockets(&mut self) {
        let mut sockets = Sockets::default();
        let is_publisher =
            |region: &&Region| region.page.as_ref().is_ok_and(|page| page.owner() == Some(Owner::Publisher));
        let owners: HashSet<u32> =
            self.regions.iter().filter(is_publisher).flat_map(Region::owners).collect();
        for (pid, process) in &mut self.processes {
            if owners.contains(pid) {
                process.listens = sockets.of(*pid, process.uid);
            }
        }
    }
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
                let (pid, writable) = (process.pid, mapping.writable);
                region.holders.push(Holder { pid, writable, address: mapping.start, len: mapping.len });
            }
        }
        let regions = regions.into_values().collect();
        let mut seen = Seen { at: Instant::now(), processes, regions, unseen, rights: self.walker.rights };
        self.read(&mut seen)?;
        seen.find_sockets();
        Ok(seen)
    }

    /// Reads the pages of all known regions anew.
    pub(crate) fn read(&mut self, seen: &mut Seen) -> Result<()> {
        seen.at = Instant::now();
        let mut origins = Vec::with_capacity(seen.regions.len());
        for region in &mut seen.regions {
            origins.push(region.page.as_ref().ok().map(Page::origin));
            region.page = Err(Unread::NotTried);
            // The owner is asked first: readers of its page may be of other users.
            region.holders.sort_by_key(|one| !one.writable);
        }
        let mut patience = Patience::default();
        // Processes whose pages could not be read. They may have ended since the walk.
        let mut silent = HashSet::new();
        // A page that one holder does not show may be shown by another.
        for nth in 0..MOST_ASKED {
            let mut wanted = self.wanted(seen, nth);
            while !wanted.is_empty() && !patience.is_used_up() {
                wanted.sort_by_key(|one| self.slow.contains(&one.uid));
                wanted.retain(|one| !patience.is_used_up_for(one.uid));
                let requests: Vec<_> = wanted.iter().map(|one| one.request).collect();
                let answers = self.reader.read(&requests)?;
                let answered = answers.pages.len();
                for (one, answer) in wanted.drain(..answered).zip(answers.pages) {
                    let region = &mut seen.regions[one.region];
                    if matches!(answer, Err(Unread::Unreadable)) {
                        silent.insert(one.request.pid);
                    }
                    region.page = answer.and_then(|bytes| Page::new(&bytes).ok_or(Unread::Unreadable));
                    region.len = one.len;
                }
                if answers.hung && !wanted.is_empty() {
                    let hung = wanted.remove(0);
                    seen.regions[hung.region].page = Err(Unread::DoesNotAnswer);
                    self.hung.insert(hung.request.pid);
                    self.slow.insert(hung.uid);
                    patience.note(hung.uid);
                }
            }
        }
        // Another region may be mapped at the same place by now. The next walk finds out.
        for (region, before) in seen.regions.iter_mut().zip(origins) {
            if let (Ok(page), Some(before)) = (&region.page, before)
                && page.origin() != before
            {
                region.page = Err(Unread::Unreadable);
            }
        }
        silent.retain(|pid| processes::has_ended(*pid));
        seen.forget(&silent);
        Ok(())
    }

    /// The pages that are asked of the `nth` holder of each region, as far as they are not read yet.
    fn wanted(&self, seen: &Seen, nth: usize) -> Vec<Wanted> {
        let regions = seen.regions.iter().enumerate().filter(|(_, region)| region.page.is_err());
        let holders = regions.filter_map(|(at, region)| Some((at, region.holders.get(nth)?)));
        holders
            .filter(|(_, holder)| !self.hung.contains(&holder.pid))
            .map(|(region, holder)| Wanted {
                region,
                request: Request { pid: holder.pid, address: holder.address },
                len: holder.len,
                uid: seen.processes.get(&holder.pid).map_or(u32::MAX, |process| process.uid),
            })
            .collect()
    }
}

/// Holders of one region that are asked for its page.
const MOST_ASKED: usize = 4;

/// A page that is to be read.
struct Wanted {
    region: usize,
    request: Request,
    len: u64,
    uid: u32,
}

/// The time that reads that hang have used up, in all and for each user.
#[derive(Default)]
struct Patience {
    all: Duration,
    of_user: HashMap<u32, Duration>,
}

impl Patience {
    fn note(&mut self, uid: u32) {
        self.all += reader::DEADLINE;
        *self.of_user.entry(uid).or_default() += reader::DEADLINE;
    }

    fn is_used_up(&self) -> bool {
        self.all >= PATIENCE
    }

    /// One user has half of the time.
    fn is_used_up_for(&self, uid: u32) -> bool {
        self.of_user.get(&uid).is_some_and(|used| *used >= PATIENCE / 2)
    }
}
