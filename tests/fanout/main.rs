//! Publishers and subscribers: one ring, many readers.

mod delivery;

#[path = "../support/mod.rs"]
mod support;
#[path = "fan.rs"]
mod fan;
