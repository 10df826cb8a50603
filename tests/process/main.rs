//! Processes as they are: started, forked, sandboxed, killed and restarted, with a channel between them.
//!
//! The modules share one process. A test that measures or changes its whole process has a binary of its own beside this
//! one (`[[test]]` in Cargo.toml).

mod children;
mod daemons;
mod death;
mod deaths_behind_wrappers;
mod establishing;
mod mapping_failures;
mod namespaces;
mod standard_streams;
#[path = "../support/mod.rs"]
mod support;
mod taking_over;
