//! Ways to establish a channel: functions of the module, `Listener`, `Prepared` and `Handshake`.

use std::{
    os::fd::{AsRawFd, RawFd},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use pyo3::{
    prelude::*,
    types::{PyDict, PyTuple},
};
use sealane::Error;

use crate::{
    channel::Channel,
    errors::raise,
    facts::Peer,
    sending::duplicate,
    settings::Settings,
    slot::{Slot, closed},
    wait::{Timeout, in_slices, in_thread, until_readable},
};

/// Establishes a channel with both ends in this process: for threads, and for tests.
#[pyfunction]
#[pyo3(signature = (**settings))]
pub(crate) fn pair(py: Python<'_>, settings: Option<&Bound<'_, PyDict>>) -> PyResult<(Channel, Channel)> {
    let builder = Settings::of(settings)?.builder;
    let (a, b) = py.detach(|| builder.pair()).map_err(|error| raise(py, error))?;
    Ok((Channel::new(a), Channel::new(b)))
}

/// Connects to a listener at a path, or at an abstract name (``"@name"``).
#[pyfunction]
#[pyo3(signature = (path, **settings))]
pub(crate) fn connect(
    py: Python<'_>,
    path: PathBuf,
    settings: Option<&Bound<'_, PyDict>>,
) -> PyResult<Channel> {
    let settings = Settings::of(settings)?;
    let timeout = Timeout::of(Some(settings.handshake_timeout))?;
    let handshake = in_slices(py, timeout, |time| {
        settings.builder.try_connect(&path).inspect_err(|_| until_readable(None, time))
    })?;
    complete(py, handshake)
}

/// Begins to connect, without waiting: for event loops.
#[pyfunction]
#[pyo3(signature = (path, **settings))]
pub(crate) fn begin_connect(
    py: Python<'_>,
    path: PathBuf,
    settings: Option<&Bound<'_, PyDict>>,
) -> PyResult<Handshake> {
    let handshake = Settings::of(settings)?.builder.try_connect(path).map_err(|error| raise(py, error))?;
    Ok(Handshake::new(handshake))
}

/// Establishes a channel over a connected ``SOCK_SEQPACKET`` socket, which stays the caller's.
#[pyfunction]
#[pyo3(signature = (socket, **settings))]
pub(crate) fn from_socket(
    py: Python<'_>,
    socket: &Bound<'_, PyAny>,
    settings: Option<&Bound<'_, PyDict>>,
) -> PyResult<Channel> {
    let (builder, socket) = (Settings::of(settings)?.builder, duplicate(socket)?);
    complete(py, builder.handshake(socket).map_err(|error| raise(py, error))?)
}

/// Establishes the channel to the parent, in a child that ``spawn`` has started. Works once in a process.
#[pyfunction]
#[pyo3(signature = (**settings))]
pub(crate) fn inherited(py: Python<'_>, settings: Option<&Bound<'_, PyDict>>) -> PyResult<Channel> {
    let builder = Settings::of(settings)?.builder;
    in_thread(py, move || builder.inherited()).map(Channel::new)
}

/// Prepares a channel for a child that other code starts.
#[pyfunction]
#[pyo3(signature = (**settings))]
pub(crate) fn prepare(py: Python<'_>, settings: Option<&Bound<'_, PyDict>>) -> PyResult<Prepared> {
    let prepared = Settings::of(settings)?.builder.prepare().map_err(|error| raise(py, error))?;
    Ok(Prepared { slot: Slot::new(prepared, "it was started") })
}

/// Listens for clients at a path, or at an abstract name (``"@name"``).
#[pyfunction]
#[pyo3(signature = (path, **settings))]
pub(crate) fn listen(
    py: Python<'_>,
    path: PathBuf,
    settings: Option<&Bound<'_, PyDict>>,
) -> PyResult<Listener> {
    let builder = Settings::of(settings)?.builder;
    let listener = py.detach(|| builder.listen(path)).map_err(|error| raise(py, error))?;
    Ok(Listener { fd: listener.as_raw_fd(), listener: Mutex::new(Some(Arc::new(listener))) })
}

/// Completes a handshake. It has a deadline of its own.
fn complete(py: Python<'_>, mut handshake: sealane::Handshake) -> PyResult<Channel> {
    let fd = handshake.as_raw_fd();
    let ended = in_slices(py, Timeout::of(None)?, |time| match handshake.advance() {
        Ok(true) => Ok(Ok(())),
        Ok(false) if handshake.needs_advance() => Err(Error::Full),
        Ok(false) => {
            until_readable(Some(fd), time);
            Err(Error::Full)
        }
        Err(error @ (Error::Full | Error::FdsInFlight)) => {
            until_readable(None, time);
            Err(error)
        }
        // A timeout is the handshake's end.
        Err(error) => Ok(Err(error)),
    })?;
    let channel = ended.and_then(|()| handshake.finish()).map_err(|error| raise(py, error))?;
    Ok(Channel::new(channel))
}

/// A channel that is being established, for event loops.
#[pyclass(frozen, module = "sealane")]
pub(crate) struct Handshake {
    slot: Slot<sealane::Handshake>,
    fd: RawFd,
}

impl Handshake {
    fn new(handshake: sealane::Handshake) -> Self {
        let fd = handshake.as_raw_fd();
        Self { slot: Slot::new(handshake, "the handshake is in use, or was finished"), fd }
    }
}

#[pymethods]
impl Handshake {
    /// Takes the steps that are possible at once. True when ``finish`` will not wait.
    fn advance(&self, py: Python<'_>) -> PyResult<bool> {
        self.slot.with(|handshake| handshake.advance().map_err(|error| raise(py, error)))
    }

    /// Whether ``advance`` has more to do at once.
    #[getter]
    fn needs_advance(&self) -> PyResult<bool> {
        self.slot.with(|handshake| Ok(handshake.needs_advance()))
    }

    /// Seconds until the handshake fails.
    #[getter]
    fn seconds_left(&self) -> PyResult<f64> {
        self.slot.with(|handshake| {
            Ok(handshake.deadline().saturating_duration_since(Instant::now()).as_secs_f64())
        })
    }

    /// The other side, once it has said who it is.
    #[getter]
    fn peer(&self) -> PyResult<Option<Peer>> {
        self.slot.with(|handshake| Ok(handshake.peer_credentials().map(Peer::from)))
    }

    /// Completes the handshake; waits until its deadline at most.
    fn finish(&self, py: Python<'_>) -> PyResult<Channel> {
        complete(py, *self.slot.take()?)
    }

    /// Refuses the peer.
    fn refuse(&self) -> PyResult<()> {
        self.slot.take()?.refuse();
        Ok(())
    }

    /// The descriptor, readable when ``advance`` has something to do.
    fn fileno(&self) -> RawFd {
        self.fd
    }
}

/// A socket that accepts clients.
#[pyclass(frozen, module = "sealane", weakref)]
pub(crate) struct Listener {
    listener: Mutex<Option<Arc<sealane::Listener>>>,
    fd: RawFd,
}

impl Listener {
    fn get(&self) -> Option<Arc<sealane::Listener>> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[pymethods]
impl Listener {
    /// Waits for a client, and then for its handshake.
    #[pyo3(signature = (timeout=None))]
    fn accept(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Channel> {
        let fd = self.fd;
        let handshake = in_slices(py, Timeout::of(timeout)?, |time| {
            // A listener that is closed meanwhile ends the wait.
            let listener = self.get().ok_or(Error::Disconnected)?;
            if let Some(handshake) = listener.try_accept()? {
                return Ok(handshake);
            }
            until_readable(Some(fd), time);
            listener.try_accept()?.ok_or(Error::Timeout)
        })?;
        complete(py, handshake)
    }

    /// Takes a client that has connected, if there is one, and begins its handshake: for event loops.
    fn try_accept(&self, py: Python<'_>) -> PyResult<Option<Handshake>> {
        let listener = self.get().ok_or_else(closed)?;
        Ok(listener.try_accept().map_err(|error| raise(py, error))?.map(Handshake::new))
    }

    /// The descriptor, readable when there is a client.
    fn fileno(&self) -> PyResult<RawFd> {
        self.get().map(|_| self.fd).ok_or_else(closed)
    }

    /// Listens no more, and removes the path.
    fn close(&self) {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(listener);
    }

    /// Whether ``close`` was called.
    #[getter]
    fn closed(&self) -> bool {
        self.get().is_none()
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_reason))]
    fn __exit__(&self, _reason: &Bound<'_, PyTuple>) {
        self.close();
    }
}

/// A channel whose other end is for a child that is started next: see ``sealane.spawn``.
#[pyclass(frozen, module = "sealane")]
pub(crate) struct Prepared {
    slot: Slot<sealane::Prepared>,
}

#[pymethods]
impl Prepared {
    /// The descriptor that the child inherits under the same number.
    fn fileno(&self) -> PyResult<RawFd> {
        self.slot.with(|prepared| Ok(std::os::fd::AsFd::as_fd(prepared).as_raw_fd()))
    }

    /// The value of the variable ``SEALANE_FD`` in the child's environment.
    #[getter]
    fn name(&self) -> PyResult<String> {
        self.slot.with(|prepared| Ok(prepared.to_string()))
    }

    /// Closes this process's copy of the child's end, and begins the handshake. Call it when the child runs.
    fn started(&self) -> PyResult<Handshake> {
        Ok(Handshake::new(self.slot.take()?.started()))
    }

    /// Closes both ends.
    fn close(&self) {
        self.slot.close();
    }
}
