//! Regions and sealed buffers have no name in the file system: nothing of them stays in `/dev/shm`, however their holders end.

use std::fs;

use sealane::{Channel, SealedBufferMut};

#[test]
fn memory_is_in_memfds_which_have_no_name() {
    let (_a, _b) = Channel::pair().unwrap();
    let _buffer = SealedBufferMut::new(4096).unwrap().seal().unwrap();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    // Address, rights, offset, device, inode, and the file if there is one.
    let shared = maps
        .lines()
        .filter(|line| line.split_whitespace().nth(1).is_some_and(|rights| rights.ends_with('s')));
    let files: Vec<&str> = shared.map(|line| line.splitn(6, ' ').nth(5).unwrap().trim()).collect();
    assert!(files.len() >= 3, "two regions and a buffer: {files:?}");
    for file in files {
        assert_eq!(file, "/memfd:sealane (deleted)");
    }
}
