//! Ways by which two processes establish a channel.
//!
//! Owns the builder and its settings, the handshake, listeners and clients, and children that inherit a channel.
//!
//! Refuses a peer whose `Hello` is wrong in any field, and sends it the reason. Every wait ends at the handshake's deadline.
//!
//! May import: all folders but `tokio`.

mod builder;
pub(crate) mod child;
mod establish;
mod handshake;
mod listener;
mod offer;
mod prepared;
mod settings;
mod steps;

pub use self::{
    builder::Builder,
    handshake::Handshake,
    listener::Listener,
    prepared::{Inheritable, Prepared},
};
pub(crate) use self::{
    establish::Parts,
    listener::connect,
    offer::{Region, SharedRegion},
    settings::{Role, Settings},
};
use self::{
    offer::{Offer, PeerOffer},
    steps::{Progress, State},
};
