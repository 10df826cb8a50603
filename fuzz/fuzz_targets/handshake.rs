//! See the body.
#![no_main]

#[path = "../bodies/handshake.rs"]
mod handshake;
#[path = "../../tests/support/hostile/mod.rs"]
mod hostile;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let before = open_descriptors();
    handshake::run(data);
    assert_eq!(open_descriptors(), before, "descriptors are left over");
});

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
