//! All unsafe code, behind a safe interface: mappings, loads from memory that a peer can write, descriptors by number.
//!
//! Owns every mapping, `recvmsg(2)` and its ancillary data, the number that distinguishes forks, and the owner of a value.
//! Refuses ranges beyond a mapping, misaligned values, and descriptors that the kernel did not just install.
//!
//! May import: `error`, `protocol`, `wait`.
//!
//! The interface relies on this:
//! - [`mapping`]: a mapping lives as long as everything that borrows from it.
//! - [`own_region`]: our own ring has one writer, [`own_region::OwnRing`], and the kernel keeps the peer from writing there.
//! - [`peer_region`]: memory that a peer can write is only ever loaded.
//! - [`sealed`]: a sealed file never changes.
//! - [`foreign`] and [`copy`]: memory that another process may be changing is read by opaque or atomic loads, and only to
//!   private memory. No reference to it exists.
//! - [`generation`]: the page that the kernel wipes in a fork holds nothing else.
//! - [`cmsg`] and [`descriptor`]: a number becomes an owned descriptor only where the kernel has just installed it for us.
#![expect(unsafe_code, clippy::disallowed_methods, reason = "the home of all unsafe code")]

pub(crate) mod cmsg;
mod copy;
pub(crate) mod descriptor;
pub(crate) mod foreign;
pub(crate) mod generation;
mod mapping;
pub(crate) mod own_region;
pub(crate) mod owner;
pub(crate) mod peer_region;
pub(crate) mod sealed;
pub(crate) mod sockopt;
