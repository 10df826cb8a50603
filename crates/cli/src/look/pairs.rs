//! [`Views`]: which regions make up a channel, or a publisher with its subscribers, and how they fare.
//!
//! UNTRUSTED: the words of pages. A page can claim to be anybody's peer, so two regions are a pair only if each names the other, and
//! each side's owner has mapped the other side's region: a process can lie about its own channels only. Numbers that contradict each
//! other are `None`.

use std::collections::HashMap;

use super::{FileId, Owner, Page, Region, Seen, Unread};

/// One side: its region, and the processes that have mapped that for writing.
#[derive(Debug, Clone)]
pub(crate) struct End {
    /// More than one after a fork; none if the side has ended, or may not be looked at.
    pub(crate) pids: Vec<u32>,
    /// Nothing more is known without the page.
    pub(crate) page: Result<Page, Unread>,
}

/// The messages of one side, in its ring, as a tool sees them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    pub(crate) file: FileId,
    pub(crate) messages: u64,
    /// Bytes committed to the ring, with headers and padding.
    pub(crate) bytes: u64,
    pub(crate) capacity: u64,
    pub(crate) high_water: Option<u64>,
    /// How often the sender has found no space.
    pub(crate) waits: u64,
    pub(crate) waits_now: bool,
}

/// One direction of a channel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Direction {
    pub(crate) sent: Reading,
    /// Bytes that the receiver has not released.
    pub(crate) fill: Option<u64>,
    pub(crate) receiver_sleeps: Option<bool>,
    /// The sender waits for space, and the receiver could give it.
    pub(crate) held_up: Option<bool>,
}

/// A channel.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) ends: [End; 2],
    /// The messages of each end.
    pub(crate) directions: [Option<Direction>; 2],
}

/// A subscriber of a publisher.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) end: End,
    pub(crate) is_gating: bool,
    /// Bytes that are published, and that it has not released or passed.
    pub(crate) lag: Option<u64>,
    pub(crate) missed: u64,
    pub(crate) sleeps: bool,
    pub(crate) holds_up: bool,
    /// Messages that it has sent back.
    pub(crate) sent: Reading,
}

/// A publisher and its subscribers.
#[derive(Debug)]
pub(crate) struct Fan {
    pub(crate) publisher: End,
    pub(crate) published: Reading,
    pub(crate) lanes: Vec<Lane>,
}

/// A region that belongs to neither: its page cannot be read, its peer is not there, or a handshake goes on.
#[derive(Debug)]
pub(crate) struct Single {
    pub(crate) file: FileId,
    pub(crate) end: End,
    pub(crate) readers: Vec<u32>,
    pub(crate) len: u64,
}

/// All that is on this machine, in the order of process ids.
#[derive(Debug)]
pub(crate) struct Views {
    pub(crate) links: Vec<Link>,
    pub(crate) fans: Vec<Fan>,
    pub(crate) singles: Vec<Single>,
}

impl Views {
    pub(crate) fn new(seen: &Seen) -> Self {
        let regions = &seen.regions;
        let index = Index::new(regions);
        let mut views = Self { links: Vec::new(), fans: Vec::new(), singles: Vec::new() };
        let mut used = vec![false; regions.len()];
        for (at, region) in regions.iter().enumerate() {
            let Ok(page) = &region.page else { continue };
            if page.owner() != Some(Owner::Channel) || used[at] {
                continue;
            }
            let is_free = |other: usize| other != at && !used[other];
            if let Some(other) = index.peer(region, page, (Owner::Channel, page.origin()), is_free) {
                (used[at], used[other]) = (true, true);
                views.links.push(Link::new(region, &regions[other]));
            }
        }
        let mut lanes: HashMap<usize, Vec<usize>> = HashMap::new();
        for (at, region) in regions.iter().enumerate() {
            let Ok(page) = &region.page else { continue };
            if !matches!(page.owner(), Some(Owner::Gating | Owner::Overrunning)) {
                continue;
            }
            if let Some(publisher) = index.peer(region, page, (Owner::Publisher, 0), |_| true) {
                used[at] = true;
                lanes.entry(publisher).or_default().push(at);
            }
        }
        for (at, region) in regions.iter().enumerate() {
            let Ok(page) = &region.page else { continue };
            if page.owner() == Some(Owner::Publisher) {
                used[at] = true;
                let lanes = lanes.get(&at).into_iter().flatten().map(|lane| &regions[*lane]);
                views.fans.push(Fan::new(region, page, lanes));
            }
        }
        let rest = regions.iter().zip(used).filter(|(_, used)| !used);
        views.singles = rest.map(|(region, _)| Single::new(region)).collect();
        views.links.sort_by(|a, b| a.ends[0].pids.cmp(&b.ends[0].pids));
        views.fans.sort_by(|a, b| a.publisher.pids.cmp(&b.publisher.pids));
        views.singles.sort_by(|a, b| a.end.pids.cmp(&b.end.pids));
        views
    }
}

/// Most regions of one process with the same random numbers that are looked at: an honest one has no second.
const MOST_ALIKE: usize = 4;

/// Regions by what they say that they are, their random number and their peer's, and a process that can write them.
struct Index<'r> {
    regions: &'r [Region],
    by: HashMap<(Owner, u64, u64, u32), Vec<usize>>,
}

impl<'r> Index<'r> {
    fn new(regions: &'r [Region]) -> Self {
        let mut by: HashMap<_, Vec<usize>> = HashMap::new();
        for (at, region) in regions.iter().enumerate() {
            let Ok(page) = &region.page else { continue };
            let Some(owner) = page.owner() else { continue };
            for pid in region.owners() {
                by.entry((owner, page.origin(), page.peer(), pid)).or_default().push(at);
            }
        }
        Self { regions, by }
    }

    /// The region that `page` names as its peer's, if that is what is `expected`: its kind, and the number that it names itself. Each
    /// side's owner reads the other side's region.
    fn peer(
        &self,
        region: &Region,
        page: &Page,
        expected: (Owner, u64),
        is_free: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        // A random number is 0 for nobody.
        let number = Some(page.peer()).filter(|number| *number != 0)?;
        // The peer's owner is one of those that read this region.
        region.readers().find_map(|pid| {
            let (owner, names) = expected;
            let alike = self.by.get(&(owner, number, names, pid))?.iter().copied();
            let mut free = alike.take(MOST_ALIKE).filter(|other| is_free(*other));
            free.find(|other| region.owner_reads(&self.regions[*other]))
        })
    }
}

impl End {
    fn new(region: &Region) -> Self {
        Self { pids: region.owners().collect(), page: region.page }
    }
}

impl Reading {
    fn new(region: &Region, page: &Page) -> Self {
        // The ring is in the region, so it cannot be larger.
        let capacity = page.capacity().min(region.len);
        Self {
            file: region.file,
            messages: page.messages(),
            bytes: page.head(),
            capacity,
            high_water: Some(page.high_water()).filter(|mark| *mark <= capacity),
            waits: page.waits(),
            waits_now: page.waits_for_space(),
        }
    }

    /// Bytes in flight to a reader that has released all up to the position `tail`. The two pages are not read at the same moment,
    /// so that the reader may seem to be ahead.
    fn fill(&self, tail: u64) -> Option<u64> {
        match self.bytes.checked_sub(tail) {
            Some(fill) => Some(fill).filter(|fill| *fill <= self.capacity),
            None => Some(0).filter(|_| tail - self.bytes <= self.capacity),
        }
    }
}

impl Reading {
    /// The same for a reader that may be overrun, and so be more than a ring behind.
    fn lag(&self, tail: u64) -> Option<u64> {
        self.bytes.checked_sub(tail).or_else(|| self.fill(tail))
    }
}

impl Link {
    fn new(one: &Region, two: &Region) -> Self {
        let (first, second) = if two.owners().min() < one.owners().min() { (two, one) } else { (one, two) };
        Self {
            ends: [End::new(first), End::new(second)],
            directions: [Direction::new(first, second), Direction::new(second, first)],
        }
    }
}

impl Direction {
    fn new(from: &Region, to: &Region) -> Option<Self> {
        let page = from.page.as_ref().ok()?;
        let (sent, peer) = (Reading::new(from, page), to.page.as_ref().ok());
        let held_up = |peer: &Page| sent.waits_now && peer.tail() < page.sender_needs();
        Some(Self {
            fill: peer.and_then(|peer| sent.fill(peer.tail())),
            receiver_sleeps: peer.map(Page::is_asleep),
            held_up: peer.map(held_up),
            sent,
        })
    }
}

impl Fan {
    fn new<'r>(region: &'r Region, page: &Page, lanes: impl Iterator<Item = &'r Region>) -> Self {
        let published = Reading::new(region, page);
        let mut lanes: Vec<_> = lanes.filter_map(|lane| Lane::new(lane, published, page)).collect();
        lanes.sort_by(|a, b| a.end.pids.cmp(&b.end.pids));
        Self { publisher: End::new(region), published, lanes }
    }
}

impl Lane {
    fn new(region: &Region, published: Reading, owner: &Page) -> Option<Self> {
        let page = region.page.as_ref().ok()?;
        let is_gating = page.owner() == Some(Owner::Gating);
        let tail = page.base().checked_add(page.tail());
        Some(Self {
            end: End::new(region),
            is_gating,
            lag: tail.and_then(|tail| if is_gating { published.fill(tail) } else { published.lag(tail) }),
            missed: page.missed(),
            sleeps: page.is_asleep(),
            holds_up: is_gating
                && published.waits_now
                && tail.is_some_and(|tail| tail < owner.sender_needs()),
            sent: Reading::new(region, page),
        })
    }
}

impl Single {
    fn new(region: &Region) -> Self {
        Self {
            file: region.file,
            end: End::new(region),
            readers: region.readers().collect(),
            len: region.len,
        }
    }
}
