//! Formats and rules of the protocol: what crosses between two processes, and whose turn it is.
//!
//! Owns the layout of a region, the headers of records and packets, negotiation, the order of messages over ring and
//! socket, and the table of open requests. The page docs/protocol.md states the same; tests compare the two.
//!
//! Refuses every input that breaks a rule, with an error that names the rule. Does no I/O, touches no shared memory and
//! makes no system call, so each rule is tested and fuzzed by itself.
//!
//! May import: `error`.

pub(crate) mod layout;
pub(crate) mod negotiation;
pub(crate) mod order;
pub(crate) mod packet;
pub(crate) mod record;
pub(crate) mod requests;
