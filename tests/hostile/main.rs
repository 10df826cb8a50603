//! Peers that break the protocol, send traps or withhold answers: each is reported by name, bounded and harmless.
//!
//! The modules share one process. A test that measures or changes its whole process has a binary of its own beside this
//! one (`[[test]]` in Cargo.toml).

mod budgets;
mod files;
mod handshake;
mod kernel_enforcement;
mod locks;
mod own_failures;
mod stream;
#[path = "../support/mod.rs"]
mod support;
mod unwilling_client;
