//! Gives the shared library its name for the loader (`SONAME`, `ld(1)`).

fn main() {
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libsealane.so.0");
    println!("cargo::rerun-if-changed=build.rs");
}
