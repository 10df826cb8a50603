//! [`Limit`]: the least that moves a message, to show what the machine can do.
//!
//! There are slots of one size in a memory that both processes write, a counter for each end, and nothing else: no headers,
//! no lengths, no checks, no life cycle, no isolation.
//!
//! Each end keeps a copy of the other's counter and looks at the shared one only when the copy does not suffice.

use std::{
    hint::spin_loop,
    ptr::NonNull,
    slice,
    sync::atomic::{
        AtomicU32, AtomicU64,
        Ordering::{Acquire, Relaxed, Release, SeqCst},
        fence,
    },
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use rustix::{io::Errno, thread::futex};

use crate::{
    cell::{Cell, Side},
    end::End,
    link::Link,
    mapping::Mapping,
};

/// How an end waits: it spins for ever; it spins for 50 µs, then sleeps; it sleeps at once.
pub(super) const SPIN: u8 = 0;
pub(super) const HYBRID: u8 = 1;
pub(super) const SLEEP: u8 = 2;

const MAX_SPIN: Duration = Duration::from_micros(50);
/// Looks between two looks at the clock.
const LOOKS: usize = 64;

#[repr(align(64))]
struct Line<T>(T);

/// The shared words of one direction, each on a line of its own.
#[repr(C)]
struct Words {
    /// Messages published.
    head: Line<AtomicU64>,
    /// Messages done with.
    tail: Line<AtomicU64>,
    /// 1 while the receiver sleeps for the head.
    receiver_sleeps: Line<AtomicU32>,
    /// 1 while the sender sleeps for the tail.
    sender_sleeps: Line<AtomicU32>,
}

/// One direction, as one of its ends sees it.
struct Lane {
    words: &'static Words,
    slots: NonNull<u8>,
    count: u64,
    stride: usize,
    /// This end's own counter.
    own: u64,
    /// The other end's, as it was seen last.
    seen: u64,
}

impl Lane {
    /// The words' page comes first.
    const SLOTS: usize = 4096;

    fn len(cell: &Cell) -> usize {
        Self::SLOTS + cell.depth * Self::stride(cell)
    }

    /// Where slots begin: at a line of their own.
    fn stride(cell: &Cell) -> usize {
        cell.size.next_multiple_of(64)
    }

    fn new(mapping: &Mapping, offset: usize, cell: &Cell) -> Self {
        // SAFETY: zeros are `Words`; the mapping begins at a page, `offset` is a multiple of 64, and both live as long as
        // the process. All access is atomic.
        let words = unsafe { mapping.at(offset, size_of::<Words>()).cast::<Words>().as_ref() };
        let (count, stride) = (cell.depth, Self::stride(cell));
        let slots = mapping.at(offset + Self::SLOTS, count * stride);
        Self { words, slots, count: count as u64, stride, own: 0, seen: 0 }
    }

    fn slot(&self) -> NonNull<u8> {
        let index = (self.own % self.count) as usize;
        // SAFETY: less than `count`, for which the mapping has room.
        unsafe { self.slots.add(index * self.stride) }
    }
}

pub(super) struct Limit<const WAIT: u8> {
    out: Lane,
    incoming: Lane,
}

impl<const WAIT: u8> Limit<WAIT> {
    /// Waits until `word` is not `old`.
    #[cold]
    fn wait(word: &AtomicU64, old: u64, sleeps: &AtomicU32) -> Result<u64> {
        let mut started = None;
        loop {
            if WAIT != SLEEP {
                for _ in 0..LOOKS {
                    let new = word.load(Acquire);
                    if new != old {
                        return Ok(new);
                    }
                    spin_loop();
                }
                if WAIT == SPIN || started.get_or_insert_with(Instant::now).elapsed() < MAX_SPIN {
                    continue;
                }
            }
            sleeps.store(1, Relaxed);
            // ORDERING: pairs with the fence in `wake`. Either this load sees the new count, or that one sees us sleep.
            fence(SeqCst);
            let new = word.load(Acquire);
            if new != old {
                sleeps.store(0, Relaxed);
                return Ok(new);
            }
            match futex::wait(sleeps, futex::Flags::empty(), 1, None) {
                Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => bail!("futex: {error}"),
            }
        }
    }

    /// Wakes the other end if it sleeps, after a count was stored.
    #[inline]
    fn wake(sleeps: &AtomicU32) -> Result<()> {
        if WAIT == SPIN {
            return Ok(());
        }
        // ORDERING: see `wait`.
        fence(SeqCst);
        if sleeps.load(Relaxed) != 0 && sleeps.swap(0, Relaxed) != 0 {
            futex::wake(sleeps, futex::Flags::empty(), 1)?;
        }
        Ok(())
    }
}

impl<const WAIT: u8> End for Limit<WAIT> {
    type View<'a> = &'a [u8];

    fn connect(side: Side, cell: &Cell, link: &Link) -> Result<Self> {
        let len = Lane::len(cell);
        let mapping = Mapping::connect(side, link, 2 * len)?;
        let (there, back) = (Lane::new(&mapping, 0, cell), Lane::new(&mapping, len, cell));
        Ok(match side {
            Side::First => Self { out: there, incoming: back },
            Side::Second => Self { out: back, incoming: there },
        })
    }

    #[inline]
    fn send(&mut self, len: usize, mut fill: impl FnMut(&mut [u8])) -> Result<()> {
        let lane = &mut self.out;
        let words = lane.words;
        if lane.own - lane.seen == lane.count {
            // Acquire here or in the wait: the receiver that released the slot has read it.
            lane.seen = words.tail.0.load(Acquire);
            if lane.own - lane.seen == lane.count {
                lane.seen = Self::wait(&words.tail.0, lane.seen, &words.sender_sleeps.0)?;
            }
        }
        // SAFETY: the slot has `len` bytes, and is the sender's until the head says otherwise.
        fill(unsafe { slice::from_raw_parts_mut(lane.slot().as_ptr(), len) });
        lane.own += 1;
        words.head.0.store(lane.own, Release);
        Self::wake(&words.receiver_sleeps.0)
    }

    #[inline]
    fn receive(&mut self, len: usize, mut read: impl FnMut(Self::View<'_>)) -> Result<()> {
        let lane = &mut self.incoming;
        let words = lane.words;
        if lane.seen == lane.own {
            lane.seen = words.head.0.load(Acquire);
            if lane.seen == lane.own {
                lane.seen = Self::wait(&words.head.0, lane.own, &words.receiver_sleeps.0)?;
            }
        }
        // SAFETY: the slot has `len` bytes, and is the receiver's until the tail says otherwise.
        read(unsafe { slice::from_raw_parts(lane.slot().as_ptr(), len) });
        lane.own += 1;
        words.tail.0.store(lane.own, Release);
        Self::wake(&words.sender_sleeps.0)
    }
}
