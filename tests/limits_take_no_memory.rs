//! What a builder allows is not allocated before it comes. Alone in its file, because it measures the whole process.

use std::fs;

use sealane::Channel;

/// Bytes of this process's memory that are there.
fn resident() -> usize {
    let pages: usize =
        fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size()
}

#[test]
fn who_accepts_long_messages_pays_for_those_that_come() {
    let (mut a, mut b) = Channel::builder().max_control(1 << 30).ring_capacity(4096).pair().unwrap();
    let before = resident();
    assert!(b.try_recv().unwrap().is_none());
    a.send(&[7; 10_000]).unwrap();
    assert_eq!(b.recv().unwrap().control(), [7; 10_000]);
    let after = resident();
    assert!(after < before + (16 << 20), "{before} bytes, then {after}");
}
