//! All unsafe code, behind a safe interface: mappings, loads from memory that a peer can write, descriptors by number.
//!
//! Owns every mapping, `recvmsg(2)` and its ancillary data, the number that tells forks apart, and the rule of who owns a
//! value. Refuses ranges beyond a mapping, misaligned values, and descriptors that the kernel did not just install.
//!
//! May import: `error`, `protocol`, `wait`.
//!
//! What its interface relies on:
//! - [`mapping`]: a mapping lives as long as what borrows from it.
//! - [`own_region`]: our own ring has one writer, [`own_region::OwnRing`], and the kernel keeps the peer from writing there.
//! - [`peer_region`]: what a peer can write is only ever loaded.
//! - [`sealed`]: a sealed file never changes.
//! - [`foreign`]: memory that somebody else may be changing is read by opaque or atomic loads, and only into private
//!   memory. No reference to it exists.
//! - [`generation`]: a page of which the kernel wipes the copy of a fork holds nothing else.
//! - [`cmsg`]: a number becomes an owned descriptor only where the kernel just gave it to us.
#![expect(unsafe_code, clippy::disallowed_methods, reason = "the home of all unsafe code")]

pub(crate) mod cmsg;
pub(crate) mod foreign;
pub(crate) mod generation;
mod mapping;
pub(crate) mod own_region;
pub(crate) mod owner;
pub(crate) mod peer_region;
pub(crate) mod sealed;
