//! Packets, descriptors and wake-ups: the part of a channel that crosses through sockets.
//!
//! Owns the `SOCK_SEQPACKET` socket (`unix(7)`), received packets and their descriptors from the first moment, doorbells, the
//! watch over the peer's process, and the link that the halves of a channel share.
//!
//! Refuses packets that are malformed, truncated, or carry another number of descriptors than their header says. Blocks only
//! until a deadline, or where the caller says "forever".
//!
//! May import: `error`, `protocol`, `wait`, `sys`, `memory`.

pub(crate) mod death;
pub(crate) mod doorbell;
pub(crate) mod fd_list;
pub(crate) mod link;
mod received;
pub(crate) mod seqpacket;
