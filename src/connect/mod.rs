//! Ways by which two processes come to have a channel.
//!
//! Owns the builder and its settings, the handshake, listeners and clients, and children that inherit a channel.
//!
//! Refuses a peer whose `Hello` is wrong in any field, and tells it why. Every wait ends at the handshake's deadline.
//!
//! May import: all folders but `tokio`.

pub(crate) mod builder;
pub(crate) mod child;
pub(crate) mod handshake;
pub(crate) mod listener;
pub(crate) mod settings;
