//! See the body.
#![no_main]

#[path = "../../tests/support/hostile/mod.rs"]
mod hostile;
#[path = "../bodies/parts.rs"]
mod parts;
#[path = "../bodies/subscriber.rs"]
mod subscriber;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let before = open_descriptors();
    subscriber::run(data);
    assert_eq!(open_descriptors(), before, "descriptors are left over");
});

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
