//! Forks of the test's own process.
//!
//! They are apart from other tests, because a fork keeps every descriptor that another test has open until it ends.

mod copies;
mod establishing;
mod inherited;
#[path = "../support/mod.rs"]
mod support;
