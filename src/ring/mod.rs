//! A direction's ring of records: the producer at its owner, the consumer at the peer.
//!
//! The producer's `head` and the consumer's `tail` are counters in the two control pages; each side keeps the other's as
//! it was last seen, and looks again only when that is not enough.

pub(crate) mod consumer;
pub(crate) mod producer;
