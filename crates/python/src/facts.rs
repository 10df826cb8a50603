//! Facts about a channel as plain values of Python: who the peer is, counts, limits.

use std::num::NonZeroU32;

use pyo3::{prelude::*, types::PyDict};
use sealane::{Credentials, Limits, Stats};

/// The process at the other end, as the kernel vouches: ``pid`` (``None`` if it is in a namespace of its own), ``uid``, ``gid``.
#[pyclass(frozen, get_all, eq, hash, module = "sealane")]
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Peer {
    /// Process.
    pid: Option<u32>,
    /// User.
    uid: u32,
    /// Group.
    gid: u32,
}

impl From<Credentials> for Peer {
    fn from(credentials: Credentials) -> Self {
        let Credentials { pid, uid, gid, .. } = credentials;
        Self { pid: pid.map(NonZeroU32::get), uid, gid }
    }
}

impl Peer {
    /// The process, in words.
    pub(crate) fn name(&self) -> String {
        self.pid.map_or_else(|| "an unknown process".to_owned(), |pid| format!("process {pid}"))
    }
}

#[pymethods]
impl Peer {
    fn __repr__(&self) -> String {
        let pid = self.pid.map_or_else(|| "None".to_owned(), |pid| pid.to_string());
        format!("<sealane.Peer pid={pid} uid={} gid={}>", self.uid, self.gid)
    }
}

/// Adds the counts of `stats` to those in `dict`.
pub(crate) fn add_stats(dict: &Bound<'_, PyDict>, stats: &Stats) -> PyResult<()> {
    for (name, count) in [
        ("messages_sent", stats.messages_sent),
        ("messages_received", stats.messages_received),
        ("bytes_sent", stats.bytes_sent),
        ("bytes_received", stats.bytes_received),
        ("packets_sent", stats.packets_sent),
        ("packets_received", stats.packets_received),
        ("fds_sent", stats.fds_sent),
        ("fds_received", stats.fds_received),
        ("doorbells_sent", stats.doorbells_sent),
        ("doorbells_received", stats.doorbells_received),
        ("sleeps", stats.sleeps),
        ("spins_paid", stats.spins_paid),
        ("waits_for_space", stats.waits_for_space),
        ("late_replies", stats.late_replies),
        ("ring_high_water", stats.ring_high_water),
    ] {
        let before: u64 = dict.get_item(name)?.map_or(Ok(0), |before| before.extract())?;
        dict.set_item(name, before.wrapping_add(count))?;
    }
    Ok(())
}

/// Limits as a dictionary.
pub(crate) fn limits<'py>(py: Python<'py>, limits: &Limits) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("max_payload", limits.max_payload)?;
    dict.set_item("max_control", limits.max_control)?;
    dict.set_item("max_fds", limits.max_fds)?;
    dict.set_item("max_requests", limits.max_requests)?;
    Ok(dict)
}
