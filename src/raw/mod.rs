//! The only module with unsafe code: mappings, loads from memory that a peer can write, and descriptors by number.
//!
//! Its interface is safe. What it relies on:
//! - [`mapping`]: a mapping lives as long as what borrows from it; our own ring has one writer, [`mapping::RingWriter`].
//! - [`foreign`]: memory that somebody else may be changing is read by opaque or atomic loads, and only into private
//!   memory. No reference to it exists.
//! - [`generation`]: a page of which the kernel wipes the copy of a fork holds nothing else.
//! - [`descriptor`]: a number becomes an owned descriptor only where the kernel just gave it to us.
#![expect(unsafe_code, clippy::disallowed_methods, reason = "the home of all unsafe code")]

pub(crate) mod descriptor;
pub(crate) mod foreign;
pub(crate) mod generation;
pub(crate) mod mapping;
