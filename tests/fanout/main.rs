//! Publishers and subscribers: one ring, many readers.

mod delivery;

#[path = "fan.rs"]
mod fan;
#[path = "../support/mod.rs"]
mod support;
