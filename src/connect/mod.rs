//! Ways by which two processes establish a channel.
//!
//! Owns the builder and its settings, the handshake, listeners and clients, and children that inherit a channel.
//!
//! Refuses a peer whose `Hello` is wrong in any field, and sends it the reason. Every wait ends at the handshake's deadline.
//!
//! May import: all folders but `tokio`.

pub(crate) mod builder;
pub(crate) mod child;
mod establish;
pub(crate) mod handshake;
pub(crate) mod listener;
mod offer;
pub(crate) mod prepared;
pub(crate) mod settings;
mod steps;
