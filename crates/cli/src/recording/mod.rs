//! Recordings: MCAP files with the messages of one publisher, as `record` writes and `replay` reads them.
//!
//! Owns the format ([`message`], [`layout`]) and the reading of files that nobody vouches for ([`fields`], [`records`], [`chunk`],
//! [`messages`]). Every length is checked against the bytes that are there before memory is taken for it.
//!
//! Files are not read by the crate `mcap`, as its readers are for files that somebody trusts: they allocate by the lengths that
//! a file claims, and subtract lengths that nobody has compared. Nor are they written by it: it copies each message twice more, and
//! sums it twice. The tests read with it what is written here.

pub(crate) mod chunk;
pub(crate) mod damages;
pub(crate) mod fields;
pub(crate) mod layout;
pub(crate) mod message;
pub(crate) mod messages;
pub(crate) mod records;
