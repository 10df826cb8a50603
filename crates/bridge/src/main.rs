//! The program `sealane-bridge`.

fn main() {}
