//! Bookkeeping of a channel's messages is bounded by the builder's limits for any messages of the peer.
//!
//! All memory that the process allocates is counted, so this binary has one test only.
#![expect(unsafe_code, reason = "an allocator is implemented by unsafe functions")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use sealane::{Builder, Channel, Error};

/// Counts allocated bytes, and their maximum.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: contract of `GlobalAlloc`: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        MOST.fetch_max(NOW.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller's obligations are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's obligations are the same.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The growth of allocated memory during a call, at its maximum.
fn most_allocated(by: impl FnOnce()) -> usize {
    let before = NOW.load(Relaxed);
    MOST.store(before, Relaxed);
    by();
    MOST.load(Relaxed) - before
}

/// A sender with a ring of `capacity`, and its receiver.
fn one_way(capacity: usize) -> (Channel, Channel) {
    let ends = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let builder = |capacity| Builder::default().ring_capacity(capacity);
    let sending = thread::spawn(move || builder(capacity).handshake(ends.0).unwrap().finish().unwrap());
    let receiver = builder(4096).handshake(ends.1).unwrap().finish().unwrap();
    (sending.join().unwrap(), receiver)
}

/// There is one test, since there is one allocator.
#[test]
fn bookkeeping_is_bounded_by_the_builder() {
    a_payload_that_is_kept_before_a_million_empty_ones_costs_no_more();
    requests_without_replies_cost_what_the_builder_says();
}

fn a_payload_that_is_kept_before_a_million_empty_ones_costs_no_more() {
    const RING: usize = 64 << 20;
    const HELD: u64 = 10_000;
    // The first has 128 bytes of payload; then empty ones, 64 bytes each, until the 1,024 that each reserves are all that is free.
    const EMPTY: u64 = (RING as u64 - 192 - 1024) / 64;
    let (mut sender, mut receiver) = one_way(RING);
    sender.loan(128).unwrap().send().unwrap();
    for _ in 0..EMPTY {
        sender.loan(0).unwrap().send().unwrap();
    }
    assert!(sender.try_loan(0).unwrap().is_none(), "the ring is full");
    let kept = receiver.recv().unwrap().take_payload().unwrap();
    let noted = most_allocated(|| {
        for _ in 0..EMPTY {
            drop(receiver.recv().unwrap());
        }
    });
    assert!(noted < 64 << 10, "{noted} bytes were allocated for {EMPTY} records that were released");
    assert_eq!((receiver.receiver.held().count, receiver.receiver.held().bytes), (1, 192));
    drop(kept);
    assert_eq!((receiver.receiver.held().count, receiver.receiver.held().bytes), (0, 0));
    assert!(sender.try_loan(RING / 2 - 1088).unwrap().is_some(), "the longest has room again");

    // All payloads are released at once, and the youngest first.
    for _ in 0..HELD {
        sender.loan(0).unwrap().send().unwrap();
    }
    let mut held: Vec<_> = (0..HELD).map(|_| receiver.recv().unwrap().take_payload().unwrap()).collect();
    let noted = most_allocated(|| while held.pop().is_some() {});
    assert!(noted < 64 << 10, "{noted} bytes were allocated for {HELD} records that were released");
    assert_eq!((receiver.receiver.held().count, receiver.receiver.held().bytes), (0, 0));
}

fn requests_without_replies_cost_what_the_builder_says() {
    let (mut a, mut b) = Channel::builder().ring_capacity(4096).pair().unwrap();
    let max = a.limits().max_requests;
    // This thread's packet buffer does not count.
    a.send(b"").unwrap();
    b.recv().unwrap();
    let noted = most_allocated(|| {
        let mut refused = 0;
        for _ in 0..65_536 {
            match a.sender.try_request(b"?") {
                Ok(_) => drop(b.recv().unwrap()),
                Err(Error::TooManyRequests { .. }) => refused += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(refused, 65_536 - max);
    });
    assert!(noted < max * 40 + 4096, "{noted} bytes were allocated for {max} requests, at both sides");
}
