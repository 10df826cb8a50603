//! Allocations of a message: those of the Rust interface are the ones listed here, and the C interface makes no others.
//!
//! All allocations of the process are counted, so this binary has one test only.
#![expect(unsafe_code, reason = "an allocator is implemented by unsafe functions")]

#[path = "support/installed.rs"]
mod installed;
#[path = "support/programs.rs"]
mod programs;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    fs::File,
    iter::repeat_n,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
};

use sealane::{Channel, Control};

use crate::{
    installed::{INSTALLED, ROOT, passes},
    programs::{PATIENCE, compiler, limited},
};

/// Allocations of a message of each kind, at both ends together.
const ALLOCATIONS: [(&str, usize); 9] = [
    ("64 B", 1),
    ("200 B", 2),
    ("64 B, a descriptor", 1),
    ("64 B, 3 descriptors", 3),
    ("128 KiB in blocks", 0),
    ("128 KiB in blocks, 64 B", 1),
    ("128 KiB copied", 0),
    ("request and reply of 64 B", 2),
    ("call of 64 B", 2),
];

const MESSAGES: usize = 1000;
const WARM_UP: usize = 100;
const CONTROL: [u8; 64] = [0; 64];
const PAYLOAD: usize = 128 << 10;

/// Counts allocations.
struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: contract of `GlobalAlloc`: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Relaxed);
        // SAFETY: the caller's obligations are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's obligations are the same.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The allocations of [`MESSAGES`] messages, after some that warm up.
fn allocations(mut message: impl FnMut()) -> usize {
    (0..WARM_UP).for_each(|_| message());
    let before = COUNT.load(Relaxed);
    (0..MESSAGES).for_each(|_| message());
    COUNT.load(Relaxed) - before
}

/// There is one test, since there is one allocator.
#[test]
fn c_interface_allocates_what_the_rust_interface_does_and_no_more() {
    let expected = ALLOCATIONS.map(|(name, each)| (name, each * MESSAGES));
    assert_eq!(in_rust(), expected);
    assert_eq!(in_c(), expected.map(|(name, count)| format!("{name}: {count}\n")).concat());
}

/// The counts of `tests/c/allocations.c`, with the shared library.
fn in_c() -> String {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("allocations");
    let lib = INSTALLED.join("lib");
    passes(compiler("cc", "-std=c11").arg(Path::new(ROOT).join("tests/c/allocations.c")).arg("-L").args([
        &lib,
        Path::new("-lsealane"),
        Path::new("-lpthread"),
        Path::new("-o"),
        &program,
    ]));
    passes(limited(program).arg(MESSAGES.to_string()).env("LD_LIBRARY_PATH", lib))
}

/// The same messages as in `tests/c/allocations.c`.
fn in_rust() -> [(&'static str, usize); ALLOCATIONS.len()] {
    let (mut a, mut b) = Channel::pair().unwrap();
    let null = File::open("/dev/null").unwrap();
    let mut payload = vec![0; PAYLOAD];
    let mut counts = vec![
        allocations(|| {
            a.send(&CONTROL).unwrap();
            assert_eq!(b.recv().unwrap().control(), CONTROL);
        }),
        allocations(|| {
            a.send(&[0; 200]).unwrap();
            assert_eq!(b.recv().unwrap().control(), [0; 200]);
        }),
        allocations(|| {
            a.send(Control::new(&CONTROL).fd(&null)).unwrap();
            drop(b.recv().unwrap().take_fd().unwrap());
        }),
        allocations(|| {
            a.send(Control::new(&CONTROL).fds(repeat_n(&null, 3))).unwrap();
            drop(b.recv().unwrap().take_fds());
        }),
        allocations(|| loan_in_blocks(&mut a, &mut b, &[])),
        allocations(|| loan_in_blocks(&mut a, &mut b, &CONTROL)),
        allocations(|| {
            a.loan(PAYLOAD).unwrap().send().unwrap();
            b.recv().unwrap().payload().unwrap().copy_to_slice(&mut payload).unwrap();
        }),
        allocations(|| {
            let id = a.request(&CONTROL).unwrap();
            answer(&mut b);
            assert_eq!(a.recv().unwrap().in_reply_to(), Some(id));
        }),
    ];
    thread::scope(|scope| {
        scope.spawn(|| (0..WARM_UP + MESSAGES).for_each(|_| answer(&mut b)));
        counts.push(allocations(|| drop(a.call(&CONTROL, PATIENCE).unwrap())));
    });
    let mut counts = counts.into_iter();
    ALLOCATIONS.map(|(name, _)| (name, counts.next().unwrap()))
}

fn loan_in_blocks(a: &mut Channel, b: &mut Channel, control: &[u8]) {
    let mut loan = a.loan(PAYLOAD).unwrap();
    loan.fill(1);
    loan.send_with(control).unwrap();
    let message = b.recv().unwrap();
    let mut sum = 0;
    message
        .payload()
        .unwrap()
        .bytes()
        .for_each_block(|block| sum += block.iter().copied().map(usize::from).sum::<usize>());
    assert_eq!(sum, PAYLOAD);
}

fn answer(b: &mut Channel) {
    let token = b.recv().unwrap().reply_token().unwrap();
    b.reply(token, &CONTROL).unwrap();
}
