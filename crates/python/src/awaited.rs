//! [`Awaited`] and [`Party`]: the event, or the other party, that a call waits for. The text of its timeout names it.
//!
//! An error that no waiting mends keeps the library's text.

use pyo3::prelude::*;
use sealane::Error;

use crate::{
    errors::{raise, raise_as},
    wait::{Timeout, passes},
};

/// The event that a call waits for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Awaited {
    /// A message of the peer.
    Message,
    /// The reply to a request.
    Reply,
    /// A client of a listener.
    Client,
    /// Room for this many bytes in the ring. The text names its keeper.
    Room(usize, &'static str),
    /// Room for a packet in the socket.
    Socket,
}

impl Awaited {
    /// The exception for an error of a call that had `timeout`. An error that no waiting mends has its own.
    pub(crate) fn raise(self, py: Python<'_>, error: Error, timeout: Timeout) -> PyErr {
        if !passes(&error) || matches!(error, Error::FdsInFlight) {
            return raise(py, error);
        }
        let within = timeout.within();
        let text = match (self, within) {
            (Self::Message, None) => "no message is there".to_owned(),
            (Self::Message, Some(time)) => format!("no message came within {time} s"),
            (Self::Reply, None) => "no reply is there".to_owned(),
            (Self::Reply, Some(time)) => format!("no reply came within {time} s"),
            (Self::Client, None) => "no client is there".to_owned(),
            (Self::Client, Some(time)) => format!("no client came within {time} s"),
            (Self::Room(len, keeper), None) => format!("no room for {len} bytes in the ring now: {keeper}"),
            (Self::Room(len, keeper), Some(time)) => {
                format!("no room for {len} bytes in the ring within {time} s: {keeper}")
            }
            (Self::Socket, None) => format!("no room in the socket now: {UNREAD}"),
            (Self::Socket, Some(time)) => format!("no room in the socket within {time} s: {UNREAD}"),
        };
        let held = match error {
            Error::TimeoutHolding { count, bytes } => format!(
                ", while the peer waits for room in its ring: {count} payloads of {bytes} bytes are held here, release them"
            ),
            _ => String::new(),
        };
        raise_as(py, error, text + &held)
    }
}

/// The reason for which a socket has no room.
const UNREAD: &str = "the peer has not received what was sent before";

/// The other party of a handshake, and the time for it.
#[derive(Debug, Clone)]
pub(crate) struct Party {
    /// A sentence with the step that the party has not done.
    fault: String,
    seconds: f64,
}

impl Party {
    pub(crate) fn new(fault: String, seconds: f64) -> Self {
        Self { fault, seconds }
    }

    /// A party that has not completed the handshake.
    pub(crate) fn named(name: &str, seconds: f64) -> Self {
        Self::new(format!("{name} has not completed the handshake"), seconds)
    }

    /// The exception for an error of the handshake.
    pub(crate) fn raise(&self, py: Python<'_>, error: Error) -> PyErr {
        if !passes(&error) || matches!(error, Error::FdsInFlight) {
            return raise(py, error);
        }
        let Self { fault, seconds } = self;
        raise_as(py, error, format!("{fault} within {seconds} s (handshake_timeout)"))
    }
}
