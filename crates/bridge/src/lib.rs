//! Carries what a sealane [`Publisher`](sealane::Publisher) publishes to other machines, over [Zenoh](zenoh).
//!
//! An *exporter* subscribes to a publisher on its machine, and puts its messages under a key of Zenoh. An *importer* on another machine
//! publishes them again, at a path of its own. Neither the publisher nor its far subscribers change. Whatever is lost on the way is
//! told to the far subscribers, exactly: [`sealane::Message::missed`].
//!
//! ```no_run
//! use sealane_bridge::{Bridge, Network, Settings};
//!
//! // On the machine of the camera:
//! let network = Network::default().listen("tcp/0.0.0.0:7700");
//! let bridge = Bridge::open(&network)?.export("stats", "/run/camera/stats", &Settings::default())?;
//! # drop(bridge);
//!
//! // On another one:
//! let network = Network::default().connect("tcp/host-a:7700");
//! let bridge = Bridge::open(&network)?.import("stats", "/run/remote/stats", &Settings::default())?;
//! # drop(bridge);
//! # Ok::<(), sealane_bridge::Error>(())
//! ```
//!
//! The program `sealane-bridge` does the same from a command line or a file.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "tests may panic"
    )
)]

mod bridge;
mod counts;
mod error;
mod export;
mod follow;
mod import;
mod network;
mod renewal;
mod settings;
mod subscriber;
mod tally;
mod threads;
mod waiting;
mod wake;
#[doc(hidden)]
pub mod wire;

pub use bridge::Bridge;
pub use counts::{Count, Role, TopicStatus};
#[doc(hidden)]
pub use error::without_places;
pub use error::{Error, Result};
pub use network::Network;
pub use settings::{Fds, Settings, WhenBehind};
pub use subscriber::{BridgedMessage, Received, Subscriber};
pub use wire::{
    call::CallError,
    notice::{Gone, NoNotice, Notice},
};
