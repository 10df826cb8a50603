//! Publishers and subscribers: one ring, many readers.

mod delivery;
mod event_loop;
mod numbers;

#[path = "fan.rs"]
mod fan;
#[path = "../support/mod.rs"]
mod support;
