//! Helpers of all tests: roles for other processes, raw peers, forks, event loops, scripts of messages.
#![allow(
    clippy::allow_attributes,
    dead_code,
    unused_imports,
    reason = "each test binary uses its part of this"
)]

pub(crate) mod forks;
pub(crate) mod hostile;
pub(crate) mod loops;
pub(crate) mod process;
pub(crate) mod role;
pub(crate) mod script;
pub(crate) mod threads;

use std::{fmt::Debug, time::Duration};

pub(crate) use process::{is_abandoned, left_over, may_open, socket_path};
pub(crate) use role::role;
use sealane::{Channel, Error, HandshakeError, Payload, Result, Wait};

/// All ways to wait, with a spin that ends soon.
pub(crate) const WAITS: [Wait; 3] =
    [Wait::Adaptive { max_spin: Duration::from_micros(50) }, Wait::Block, Wait::Spin];

/// The error of a handshake that has failed.
pub(crate) fn handshake_error<T: Debug>(result: Result<T>) -> HandshakeError {
    match result {
        Err(Error::Handshake(error)) => error,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn is_disconnected<T>(result: Result<T>) -> bool {
    result.is_err_and(|error| matches!(error, Error::Disconnected))
}

/// The measure of a test that finds the more the longer it runs: `short` as a rule, `long` with `SEALANE_NIGHTLY` set.
pub(crate) fn short_or_long<T>(short: T, long: T) -> T {
    if std::env::var_os("SEALANE_NIGHTLY").is_some() { long } else { short }
}

/// A received payload that holds `bytes`, and the channel that it came by.
pub(crate) fn payload(bytes: &[u8]) -> (Payload, (Channel, Channel)) {
    let (mut a, mut b) = Channel::pair().unwrap();
    let mut loan = a.loan(bytes.len()).unwrap();
    loan.copy_from_slice(bytes);
    loan.send().unwrap();
    (b.recv_timeout(threads::SOON).unwrap().take_payload().unwrap(), (a, b))
}

/// Bytes that repeat after 251, which is no power of two.
pub(crate) fn numbers(len: usize) -> Vec<u8> {
    (0..251).cycle().take(len).collect()
}
