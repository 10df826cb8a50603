//! Which process this is, by a number that no fork shares with the process it was forked from.
//!
//! The number stands in a page of its own that the kernel empties in a forked child (`MADV_WIPEONFORK`, `madvise(2)`;
//! Linux 4.14). A process that finds 0 there takes a number above those of all its ancestors. It is no process id: those
//! repeat, in another namespace or after a while. Where the kernel does not wipe the page, the process id has to do.

use std::sync::atomic::{
    AtomicU8, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use rustix::{
    mm::{Advice, madvise},
    param::page_size,
    process::getpid,
};

/// A page as large as any of this processor's, and nothing else in it. Programs are loaded at multiples of that, and it has no
/// bytes in their files: so the kernel has it as anonymous memory, as the advice wants it.
#[cfg_attr(
    any(target_arch = "aarch64", target_arch = "loongarch64", target_arch = "powerpc64"),
    repr(align(65536))
)]
#[cfg_attr(
    not(any(target_arch = "aarch64", target_arch = "loongarch64", target_arch = "powerpc64")),
    repr(align(4096))
)]
struct Page(AtomicU64);

/// This process's number; 0 in a fork that has not taken one, and for good where the page is not wiped.
static NUMBER: Page = Page(AtomicU64::new(0));
/// The next number. A fork copies it: so what that takes is above all numbers in the memory that it has copied.
static NEXT: AtomicU64 = AtomicU64::new(1);
/// Whether the page is wiped in forks. A fork copies this, too.
static IS_WIPED: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const WIPED: u8 = 1;
const REFUSED: u8 = 2;

/// Tells a process id from a number that was taken.
const BY_ID: u64 = 1 << 63;

/// This process's number. Nothing that a fork has copied from its parent holds the number that the fork takes.
pub(crate) fn generation() -> u64 {
    match generation_or_zero() {
        0 => take(),
        number => number,
    }
}

/// This process's number, or 0 if it is not known at a glance.
#[inline]
pub(crate) fn generation_or_zero() -> u64 {
    NUMBER.0.load(Relaxed)
}

#[cold]
fn take() -> u64 {
    if !is_wiped() {
        return BY_ID | u64::from(getpid().as_raw_nonzero().get().unsigned_abs());
    }
    let next = NEXT.fetch_add(1, Relaxed);
    // Another thread may have been faster: then its number is the process's.
    NUMBER.0.compare_exchange(0, next, Relaxed, Relaxed).map_or_else(|faster| faster, |_| next)
}

/// Asks the kernel to wipe the page, the first time. No lock: a fork in the middle would leave it locked in the child.
fn is_wiped() -> bool {
    // ORDERING: Acquire pairs with the Release store below: the page is advised before any thread takes a number.
    if IS_WIPED.load(Acquire) == UNKNOWN {
        let found = if wipe_on_fork() { WIPED } else { REFUSED };
        // Two threads that ask at once hear the same, or the first to say so is right.
        let _ = IS_WIPED.compare_exchange(UNKNOWN, found, Release, Relaxed);
    }
    IS_WIPED.load(Acquire) == WIPED
}

fn wipe_on_fork() -> bool {
    let len = size_of::<Page>();
    let page = (&raw const NUMBER).cast_mut().cast();
    // The kernel rounds the length up to its pages: more than ours must not be wiped.
    // SAFETY: the range is `NUMBER` and nothing else, as the page is no larger than that, of which it is a multiple. Nothing
    // changes in this process; in a fork it is 0, a value of it that is expected there, and it is only accessed as an atomic.
    page_size() <= len && unsafe { madvise(page, len, Advice::LinuxWipeOnFork) }.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_one_number_whichever_thread_asks() {
        let numbers = [(); 8].map(|()| std::thread::spawn(generation)).map(|thread| thread.join().unwrap());
        assert_eq!(numbers, [generation(); 8]);
        assert!(generation() > 0 && generation() < BY_ID, "the page is wiped: {:x}", generation());
    }
}
