//! Ways to establish a channel: functions of the module, `Listener`, `Prepared` and `Handshake`.

use std::{
    os::{
        fd::{AsRawFd, RawFd},
        unix::process::ExitStatusExt,
    },
    path::Path,
    process::ExitStatus,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use pyo3::{
    prelude::*,
    types::{PyDict, PyTuple},
};
use sealane::{Error, HandshakeError};

use crate::{
    awaited::{Awaited, Party},
    channel::Channel,
    errors::{closed, of_closed, raise},
    facts::Peer,
    name::Name,
    sending::duplicate,
    settings::Settings,
    slot::Slot,
    wait::{Timeout, in_slices, in_slices_or, in_thread, until_readable},
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
pub(crate) fn connect(py: Python<'_>, path: Name, settings: Option<&Bound<'_, PyDict>>) -> PyResult<Channel> {
    let Name(path) = path;
    let settings = Settings::of(settings)?;
    let timeout = Timeout::of(Some(settings.handshake_timeout))?;
    let party = listener_at(&path, &settings);
    let raise = |py: Python<'_>, error| party.raise(py, error);
    let handshake = in_slices_or(py, timeout, raise, |time| {
        settings.builder.try_connect(&path).inspect_err(|_| until_readable(None, time))
    })?;
    complete(py, handshake, &party)
}

/// Begins to connect, without waiting: for event loops.
#[pyfunction]
#[pyo3(signature = (path, **settings))]
pub(crate) fn begin_connect(
    py: Python<'_>,
    path: Name,
    settings: Option<&Bound<'_, PyDict>>,
) -> PyResult<Handshake> {
    let Name(path) = path;
    let settings = Settings::of(settings)?;
    let party = listener_at(&path, &settings);
    let handshake = settings.builder.try_connect(path).map_err(|error| party.raise(py, error))?;
    Ok(Handshake::new(handshake, party))
}

fn listener_at(path: &Path, settings: &Settings) -> Party {
    settings.party(&format!("the listener at {}", path.display()))
}

/// Establishes a channel over a connected ``SOCK_SEQPACKET`` socket, which stays the caller's.
#[pyfunction]
#[pyo3(signature = (socket, **settings))]
pub(crate) fn from_socket(
    py: Python<'_>,
    socket: &Bound<'_, PyAny>,
    settings: Option<&Bound<'_, PyDict>>,
) -> PyResult<Channel> {
    let (settings, socket) = (Settings::of(settings)?, duplicate(socket)?);
    let handshake = settings.builder.handshake(socket).map_err(|error| raise(py, error))?;
    complete(py, handshake, &settings.party("the other end of the socket"))
}

/// Establishes the channel to the parent, in a child that ``spawn`` has started. Works once in a process.
#[pyfunction]
#[pyo3(signature = (**settings))]
pub(crate) fn inherited(py: Python<'_>, settings: Option<&Bound<'_, PyDict>>) -> PyResult<Channel> {
    let settings = Settings::of(settings)?;
    in_thread(py, &settings.party("the parent"), move || settings.builder.inherited()).map(Channel::new)
}

/// Prepares a channel for a child that other code starts.
#[pyfunction]
#[pyo3(signature = (**settings))]
pub(crate) fn prepare(py: Python<'_>, settings: Option<&Bound<'_, PyDict>>) -> PyResult<Prepared> {
    let settings = Settings::of(settings)?;
    let prepared = settings.builder.prepare().map_err(|error| raise(py, error))?;
    let fault = "the child has not taken its channel by sealane.inherited()".to_owned();
    let party = Party::new(fault, settings.handshake_timeout);
    Ok(Prepared { slot: Slot::new(prepared, "it was started"), party })
}

/// Listens for clients at a path, or at an abstract name (``"@name"``).
#[pyfunction]
#[pyo3(signature = (path, **settings))]
pub(crate) fn listen(py: Python<'_>, path: Name, settings: Option<&Bound<'_, PyDict>>) -> PyResult<Listener> {
    let Name(path) = path;
    let settings = Settings::of(settings)?;
    let party = settings.party(&format!("the client of {}", path.display()));
    let listener = py.detach(|| settings.builder.listen(path)).map_err(|error| raise(py, error))?;
    Ok(Listener { fd: listener.as_raw_fd(), slot: Mutex::new(Some(Arc::new(listener))), party })
}

/// Completes a handshake. It has a deadline of its own.
fn complete(py: Python<'_>, mut handshake: sealane::Handshake, party: &Party) -> PyResult<Channel> {
    let fd = handshake.as_raw_fd();
    let raise = |py: Python<'_>, error| party.raise(py, error);
    let ended = in_slices_or(py, Timeout::FOREVER, raise, |time| match handshake.advance() {
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
    let channel = ended.and_then(|()| handshake.finish()).map_err(|error| party.raise(py, error))?;
    Ok(Channel::new(channel))
}

/// A channel that is being established, for event loops.
#[pyclass(frozen, module = "sealane")]
pub(crate) struct Handshake {
    slot: Slot<sealane::Handshake>,
    fd: RawFd,
    party: Party,
}

impl Handshake {
    fn new(handshake: sealane::Handshake, party: Party) -> Self {
        let fd = handshake.as_raw_fd();
        Self { slot: Slot::new(handshake, "the handshake is in use, or was finished"), fd, party }
    }
}

#[pymethods]
impl Handshake {
    /// Takes the steps that are possible at once. True when ``finish`` will not wait.
    fn advance(&self, py: Python<'_>) -> PyResult<bool> {
        self.slot.with(|handshake| handshake.advance().map_err(|error| self.party.raise(py, error)))
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
        complete(py, *self.slot.take()?, &self.party)
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
    slot: Mutex<Option<Arc<sealane::Listener>>>,
    fd: RawFd,
    /// A client in the midst of its handshake.
    party: Party,
}

impl Listener {
    fn get(&self) -> Option<Arc<sealane::Listener>> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[pymethods]
impl Listener {
    /// Waits for a client, and then for its handshake.
    #[pyo3(signature = (timeout=None))]
    fn accept(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Channel> {
        let fd = self.fd;
        let handshake = in_slices(py, Timeout::of(timeout)?, Awaited::Client, |time| {
            // A listener that is closed meanwhile ends the wait.
            let listener = self.get().ok_or(Error::Disconnected)?;
            if let Some(handshake) = listener.try_accept()? {
                return Ok(handshake);
            }
            until_readable(Some(fd), time);
            listener.try_accept()?.ok_or(Error::Timeout)
        })
        .map_err(|error| of_closed(error, self.closed()))?;
        complete(py, handshake, &self.party)
    }

    /// Takes a client that has connected, if there is one, and begins its handshake: for event loops.
    fn try_accept(&self, py: Python<'_>) -> PyResult<Option<Handshake>> {
        let listener = self.get().ok_or_else(closed)?;
        let client = listener.try_accept().map_err(|error| raise(py, error))?;
        Ok(client.map(|handshake| Handshake::new(handshake, self.party.clone())))
    }

    /// The descriptor, readable when there is a client.
    fn fileno(&self) -> PyResult<RawFd> {
        self.get().map(|_| self.fd).ok_or_else(closed)
    }

    /// Listens no more, and removes the path.
    fn close(&self) {
        let listener = self.slot.lock().unwrap_or_else(PoisonError::into_inner).take();
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

/// The exception for a child that has ended with `returncode`, as ``Popen`` has it, before the packet that was awaited.
#[pyfunction(name = "_child_ended")]
pub(crate) fn child_ended(py: Python<'_>, awaited: &str, returncode: i32) -> Py<PyAny> {
    let awaited = ["Hello", "Ready"].into_iter().find(|name| *name == awaited).unwrap_or("answer");
    // The form of `wait(2)`: a signal's number, or the exit status in the second byte.
    let status =
        ExitStatus::from_raw(if returncode < 0 { returncode.wrapping_neg() } else { returncode << 8 });
    raise(py, HandshakeError::ChildEnded { awaited, status }.into()).into_value(py).into_any()
}

/// A channel whose other end is for a child that is started next: see ``sealane.spawn``.
#[pyclass(frozen, module = "sealane")]
pub(crate) struct Prepared {
    slot: Slot<sealane::Prepared>,
    party: Party,
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
        Ok(Handshake::new(self.slot.take()?.started(), self.party.clone()))
    }

    /// Closes both ends.
    fn close(&self) {
        self.slot.close();
    }
}
