//! [`Views`]: which regions make up a channel, or a publisher with its subscribers, and how they fare.
//!
//! UNTRUSTED: the words of pages. A page can claim to be anybody's peer, so two regions are a pair only if each names the other,
//! and some process has mapped both: a process can lie about its own channels only. Numbers that contradict each other are `None`.

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
    /// What each end sends.
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
        let mut by_origin: HashMap<u64, Vec<usize>> = HashMap::new();
        for (at, region) in regions.iter().enumerate() {
            if let Ok(page) = &region.page {
                by_origin.entry(page.origin()).or_default().push(at);
            }
        }
        let mut views = Self { links: Vec::new(), fans: Vec::new(), singles: Vec::new() };
        let mut used = vec![false; regions.len()];
        // The regions that a page names as its peer's. Random numbers are 0 for nobody.
        let named = |page: &Page, region: &Region| {
            let candidates = by_origin.get(&page.peer()).filter(|_| page.peer() != 0);
            let others = candidates.into_iter().flatten().copied();
            others.filter(|at| regions[*at].is_held_by_one_of(region)).collect::<Vec<_>>()
        };
        for (at, region) in regions.iter().enumerate() {
            let Ok(page) = &region.page else { continue };
            if page.owner() != Some(Owner::Channel) || used[at] {
                continue;
            }
            let is_peer = |other: &usize| {
                let other_page = regions[*other].page.as_ref().ok();
                *other != at
                    && !used[*other]
                    && other_page.is_some_and(|other| {
                        other.owner() == Some(Owner::Channel) && other.peer() == page.origin()
                    })
            };
            if let Some(other) = named(page, region).into_iter().find(is_peer) {
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
            let is_publisher = |other: &usize| {
                regions[*other].page.as_ref().is_ok_and(|page| page.owner() == Some(Owner::Publisher))
            };
            if let Some(publisher) = named(page, region).into_iter().find(is_publisher) {
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
            lag: tail.and_then(|tail| published.fill(tail)),
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
        Self { end: End::new(region), readers: region.readers().collect(), len: region.len }
    }
}
