//! Gives the shared library its name for the loader (`SONAME`, `ld(1)`). Before 1.0, each minor version may change what programs
//! are linked with.

use std::env;

fn main() {
    let [major, minor] =
        ["MAJOR", "MINOR"].map(|part| env::var(format!("CARGO_PKG_VERSION_{part}")).unwrap_or_default());
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libsealane.so.{major}.{minor}");
    println!("cargo::rerun-if-changed=build.rs");
}
