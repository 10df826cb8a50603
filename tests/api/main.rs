//! The promises of the public interface, between two ends that keep to the rules.
//!
//! The modules share one process. A test that measures or changes its whole process has a binary of its own beside this
//! one (`[[test]]` in Cargo.toml).

mod batches;
mod calls;
mod delivery;
mod disconnected;
mod event_loops;
mod held_payloads;
mod random_steps;
mod reading;
mod stats;
mod streams;
#[path = "../support/mod.rs"]
mod support;
mod verbs;
mod waiting;
