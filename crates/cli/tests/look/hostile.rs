//! Programs that would hurt whoever looks: memory that does not answer, pages that lie, mappings without end.
#![expect(unsafe_code, reason = "these programs do what no safe interface offers")]

use std::{
    ffi::c_long,
    fs::{self, File},
    os::fd::{AsRawFd, OwnedFd},
    ptr,
};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use sealane::Channel;
use serde_json::{Value, json};

use super::{Role, ls, ready, rows_from, rows_to};

const PAGE: usize = 4096;

/// A memfd that looks like a region, mapped for writing from its byte `offset` on. It stays mapped.
fn region(len: usize, offset: usize) -> (OwnedFd, usize) {
    let file = memfd_create(c"sealane", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, len as u64).unwrap();
    (file.try_clone().unwrap(), map(&file, len - offset, offset, libc::PROT_READ | libc::PROT_WRITE))
}

fn map(file: &OwnedFd, len: usize, offset: usize, protection: libc::c_int) -> usize {
    let flags = libc::MAP_SHARED;
    // SAFETY: a new mapping at an address that the kernel chooses disturbs nothing.
    let at = unsafe {
        libc::mmap(ptr::null_mut(), len, protection, flags, file.as_raw_fd(), offset.try_into().unwrap())
    };
    assert_ne!(at, libc::MAP_FAILED);
    at.addr()
}

/// Writes words into a page by way of its file.
fn write(file: &OwnedFd, words: &[(u64, u64)]) {
    let file = File::from(file.try_clone().unwrap());
    for (offset, value) in words {
        std::os::unix::fs::FileExt::write_all_at(&file, &value.to_le_bytes(), *offset).unwrap();
    }
}

const HEAD: u64 = 0x000;
const HIGH_WATER: u64 = 0x028;
const TAIL: u64 = 0x040;
const ORIGIN: u64 = 0x100;
const PEER: u64 = 0x108;
const OWNER: u64 = 0x110;
const CAPACITY: u64 = 0x120;

#[test]
#[ignore = "the child of another test"]
fn does_not_answer() {
    let call = |number: c_long, a: usize, b: usize, c: usize| {
        // SAFETY: `userfaultfd(2)`, and `ioctl(2)` with pointers to live arrays of the right length.
        unsafe { libc::syscall(number, a, b, c) }
    };
    let Ok(fd) = usize::try_from(call(libc::SYS_userfaultfd, 0, 0, 0)) else { std::process::exit(0) };
    for _ in 0..3 {
        let (_, at) = region(2 * PAGE, 0);
        // `UFFDIO_API`, once, and `UFFDIO_REGISTER` for missing pages.
        let (mut api, mut range) = ([0xaa_u64, 0, 0], [at as u64, 2 * PAGE as u64, 1, 0]);
        call(libc::SYS_ioctl, fd, 0xc018_aa3f, api.as_mut_ptr().addr());
        if call(libc::SYS_ioctl, fd, 0xc020_aa00, range.as_mut_ptr().addr()) != 0 {
            std::process::exit(0);
        }
    }
    let _ends = Channel::pair().unwrap();
    ready();
}

#[test]
fn memory_that_does_not_answer_is_given_up_and_hides_nobody_else() {
    let Some(hostile) = Role::start_as(does_not_answer, None) else {
        return eprintln!("SKIPPED: this user has no right to userfaultfd(2) for the kernel's faults");
    };
    let honest = Role::start(has_a_pair);
    let report = ls();
    let states: Vec<_> = rows_from(&report, hostile.pid()).iter().map(|row| row["state"].clone()).collect();
    // By `/proc/PID/mem` such a page is an error at once on the kernels that were tried.
    let given_up = |state: &&Value| **state == "unreadable" || **state == "does-not-answer";
    assert_eq!(states.iter().filter(given_up).count(), 3, "{states:?}");
    let rows = rows_from(&report, honest.pid());
    assert_eq!(rows.len(), 2, "{report:#}");
    assert!(rows.iter().all(|row| row["kind"] == "channel"), "{rows:#?}");
}

#[test]
#[ignore = "the child of another test"]
pub(crate) fn has_a_pair() {
    let _ends = Channel::pair().unwrap();
    ready();
}

#[test]
#[ignore = "the child of another test"]
fn lies() {
    // Two regions that name each other, with numbers that contradict each other.
    let (one, _) = region(5 * PAGE, 0);
    let (two, _) = region(5 * PAGE, 0);
    // Each is read by the owner of the other one, as those of an honest pair.
    for file in [&one, &two] {
        map(file, 5 * PAGE, 0, libc::PROT_READ);
    }
    write(
        &one,
        &[(OWNER, 1), (ORIGIN, 7), (PEER, 9), (CAPACITY, u64::MAX), (HEAD, u64::MAX), (HIGH_WATER, u64::MAX)],
    );
    write(&two, &[(OWNER, 1), (ORIGIN, 9), (PEER, 7), (CAPACITY, 1), (TAIL, 5), (HEAD, 0)]);
    // One names itself, one a stranger's number, one has an owner that does not exist.
    for words in [
        [(OWNER, 1), (ORIGIN, 5), (PEER, 5)],
        [(OWNER, 3), (ORIGIN, 0), (PEER, 9)],
        [(OWNER, 99), (ORIGIN, 1), (PEER, 0)],
    ] {
        write(&region(PAGE, 0).0, &words);
    }
    // No regions: a mapping of the middle of a file, and a file that was cut behind its mapping.
    region(2 * PAGE, PAGE);
    let (cut, _) = region(2 * PAGE, 0);
    ftruncate(&cut, 0).unwrap();
    ready();
}

#[test]
fn lies_are_shown_as_unknown_and_stay_among_the_liars() {
    let (liar, honest) = (Role::start(lies), Role::start(has_a_pair));
    let report = ls();
    let rows = rows_from(&report, liar.pid());
    assert_eq!(rows.len(), 2 + 3 + 1, "{rows:#?}");
    let channel: Vec<_> = rows.iter().filter(|row| row["kind"] == "channel").collect();
    assert_eq!(channel.len(), 2, "{rows:#?}");
    for row in channel {
        let is_sound = row["bytes"] == 0;
        assert_eq!(row["fill"], if is_sound { json!(0) } else { Value::Null }, "{row:#}");
        assert!(row["high_water"].is_null() || is_sound, "{row:#}");
        assert!(row["ring"].as_u64().unwrap() <= 5 * PAGE as u64, "{row:#}");
    }
    assert!(rows.iter().any(|row| row["state"] == "unreadable"), "{rows:#?}");
    assert!(rows.iter().any(|row| row["kind"] == "handshake"), "{rows:#?}");
    assert_eq!(rows_from(&report, honest.pid()).len(), 2);
}

#[test]
#[ignore = "the child of another test"]
fn claims_to_subscribe() {
    // The regions of the process that started this one, found as `ls` finds them; the page says the rest.
    let publisher = std::env::var("PUBLISHER").unwrap();
    let maps = fs::read_to_string(format!("/proc/{publisher}/maps")).unwrap();
    let line = maps.lines().find(|line| line.contains("rw-s") && line.contains("memfd:sealane")).unwrap();
    let start = u64::from_str_radix(line.split('-').next().unwrap(), 16).unwrap();
    let mut origin = [0; 8];
    let memory = File::open(format!("/proc/{publisher}/mem")).unwrap();
    std::os::unix::fs::FileExt::read_exact_at(&memory, &mut origin, start + ORIGIN).unwrap();
    let (forged, _) = region(PAGE, 0);
    write(&forged, &[(OWNER, 3), (ORIGIN, 77), (PEER, u64::from_le_bytes(origin))]);
    ready();
}

#[test]
fn subscriber_that_its_publisher_does_not_know_is_none() {
    let mut publisher = sealane::Builder::default().publisher().unwrap();
    publisher.loan(1000).unwrap().send().unwrap();
    // This process has other regions as well, of other tests: the role takes the first, whichever that is.
    let liar = Role::start_with(claims_to_subscribe, "PUBLISHER", &std::process::id().to_string());
    let report = ls();
    let lying = rows_to(&report, liar.pid());
    assert!(lying.is_empty(), "{lying:#?}");
    assert_eq!(rows_from(&report, liar.pid())[0]["kind"], "alone");
}

#[test]
#[ignore = "the child of another test"]
fn has_many_mappings() {
    let _ends = Channel::pair().unwrap();
    let file = memfd_create(c"sealane", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, PAGE as u64).unwrap();
    let most: usize = fs::read_to_string("/proc/sys/vm/max_map_count").unwrap().trim().parse().unwrap();
    let mut count = 0;
    while count < 60_000.min(most - 5_000) {
        // Mappings of one page each do not merge: each begins at the file's first byte.
        map(&file, PAGE, 0, libc::PROT_READ);
        count += 1;
    }
    eprintln!("{count} mappings");
    ready();
}

#[test]
fn mappings_without_end_are_read_up_to_a_limit_and_said() {
    let (many, honest) = (Role::start(has_many_mappings), Role::start(has_a_pair));
    let report = ls();
    assert_eq!(rows_from(&report, honest.pid()).len(), 2);
    assert_eq!(report["unseen"]["cut"], 1, "{report:#}");
    // All of these mappings are of one file.
    assert!(rows_from(&report, many.pid()).len() <= 3);
}

#[test]
fn processes_that_end_meanwhile_are_left_out() {
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                drop(Role::start(has_a_pair));
            }
        });
        for _ in 0..30 {
            ls();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
