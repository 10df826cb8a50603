//! Memory within a builder's limits is allocated when messages need it, and not before.
//!
//! The memory of the whole process is measured, so this binary has one test only.

use std::fs;

use sealane::Channel;

/// Resident bytes of this process.
fn resident() -> usize {
    let pages: usize =
        fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size()
}

#[test]
fn a_receiver_of_long_messages_pays_for_those_that_come() {
    const MOST: usize = 212_928;
    // Each channel is used in a thread of its own, which has a packet buffer of its own.
    let mut pairs: Vec<_> =
        (0..64).map(|_| Channel::builder().max_control(MOST).ring_capacity(4096).pair().unwrap()).collect();
    let before = resident();
    let done = &std::sync::Barrier::new(pairs.len() + 1);
    std::thread::scope(|scope| {
        for (a, b) in &mut pairs {
            scope.spawn(move || {
                assert!(b.try_recv().unwrap().is_none());
                a.send(&[7; 1000]).unwrap();
                assert_eq!(b.recv().unwrap().control(), [7; 1000]);
                done.wait();
                done.wait();
            });
        }
        done.wait();
        let after = resident();
        done.wait();
        assert!(after < before + (6 << 20), "{before} bytes, then {after}");
    });
}
