//! A number for this process, which no fork shares with the process that it was forked from.
//!
//! The number stands in a page of its own, which the kernel wipes in a forked child (`MADV_WIPEONFORK`, `madvise(2)`; Linux
//! 4.14). A process that finds 0 there takes a number above those of all its ancestors. A process id would not do: ids
//! repeat, in another namespace or after a while. It is the substitute where the kernel does not wipe the page.

use std::sync::atomic::{
    AtomicU8, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use rustix::{
    mm::{Advice, madvise},
    param::page_size,
    process::getpid,
};

/// A page of the processor's largest size, with nothing else in it.
///
/// It has no bytes in the program's file, so that it is anonymous memory, as the advice demands. Programs are loaded at
/// multiples of its size, which keeps its alignment.
#[cfg_attr(
    any(target_arch = "aarch64", target_arch = "loongarch64", target_arch = "powerpc64"),
    repr(align(65536))
)]
#[cfg_attr(
    not(any(target_arch = "aarch64", target_arch = "loongarch64", target_arch = "powerpc64")),
    repr(align(4096))
)]
struct Page(AtomicU64);

/// This process's number. 0 in a fork that has not taken one yet, and always where the kernel does not wipe the page.
static NUMBER: Page = Page(AtomicU64::new(0));
/// The next number. A fork copies it, so that its number is above all numbers in the memory that it has copied.
static NEXT: AtomicU64 = AtomicU64::new(1);
/// Whether the kernel wipes the page in forks: one of the three constants below. A fork copies the answer.
static IS_WIPED: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const WIPED: u8 = 1;
const REFUSED: u8 = 2;

/// The bit that distinguishes a process id from a number that was taken.
const BY_ID: u64 = 1 << 63;

/// Returns this process's number. No value that a fork copied from its parent holds the fork's number.
pub(crate) fn generation() -> u64 {
    match generation_or_zero() {
        0 => take(),
        number => number,
    }
}

/// Returns this process's number, or 0 if it takes more than one load to know it.
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
    // Another thread may have stored a number in between, which is the process's then.
    NUMBER.0.compare_exchange(0, next, Relaxed, Relaxed).map_or_else(|faster| faster, |_| next)
}

/// Asks the kernel to wipe the page, at the first call. There is no lock, which a fork in the middle would leave locked.
fn is_wiped() -> bool {
    // ORDERING: Acquire pairs with the Release store below: the page is advised before any thread takes a number.
    if IS_WIPED.load(Acquire) == UNKNOWN {
        let found = if wipe_on_fork() { WIPED } else { REFUSED };
        // Two threads that ask at once get the same answer; the first one stays.
        let _ = IS_WIPED.compare_exchange(UNKNOWN, found, Release, Relaxed);
    }
    IS_WIPED.load(Acquire) == WIPED
}

fn wipe_on_fork() -> bool {
    let len = size_of::<Page>();
    let page = (&raw const NUMBER).cast_mut().cast();
    // The kernel rounds the length up to whole pages. Larger pages than ours would have other variables wiped.
    // SAFETY: `madvise` demands that the advice breaks no invariant of the memory in the range. The range is the static
    // `NUMBER`, whole pages and nothing else: its size and alignment are a multiple of the kernel's page, as the comparison
    // says. `MADV_WIPEONFORK` changes nothing in this process. A fork finds zeros there, which are a valid `AtomicU64` and
    // the value that `generation` expects; every access is atomic.
    page_size() <= len && unsafe { madvise(page, len, Advice::LinuxWipeOnFork) }.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_threads_of_a_process_get_one_number() {
        let numbers = [(); 8].map(|()| std::thread::spawn(generation)).map(|thread| thread.join().unwrap());
        assert_eq!(numbers, [generation(); 8]);
        assert!(generation() > 0 && generation() < BY_ID, "the page is wiped: {:x}", generation());
    }
}
