//! Packets, descriptors and wake-ups: the part of a channel that crosses through sockets.
//!
//! Owns the `SOCK_SEQPACKET` socket (`unix(7)`), received descriptors from the first moment, doorbells, and the link that
//! the halves of a channel share.
//!
//! Refuses packets that are malformed, truncated, or carry another number of descriptors than they say. Never blocks
//! without a deadline or an explicit "forever".
//!
//! May import: `error`, `protocol`, `wait`, `sys`, `memory`.

pub(crate) mod death;
pub(crate) mod doorbell;
pub(crate) mod link;
pub(crate) mod seqpacket;
