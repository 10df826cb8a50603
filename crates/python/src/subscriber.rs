//! `Subscriber`: a reader of a publisher's messages.

use std::os::fd::{AsRawFd, RawFd};

use pyo3::{
    prelude::*,
    types::{PyDict, PyTuple},
};
use sealane::{Closer, Credentials, Error, RequestId};

use crate::{
    awaited::Awaited,
    errors::{closed, no_pickle, raise, until_end},
    facts::{self, Peer},
    message::Message,
    name::Name,
    numpy,
    sending::{Given, duplicate},
    settings::{Settings, policy},
    slot::Slot,
    wait::{Timeout, for_reply, in_slices, in_thread},
};

/// The name of a publisher without a path.
const PUBLISHER: &str = "the publisher, which lets subscribers join in its calls,";

/// Subscribes at a publisher's path.
///
/// ``numpy`` is imported before, if it is installed: the first array would import it while messages come, and lose some.
#[pyfunction]
#[pyo3(signature = (path, **settings))]
pub(crate) fn subscribe(
    py: Python<'_>,
    path: Name,
    settings: Option<&Bound<'_, PyDict>>,
) -> PyResult<Subscriber> {
    let Name(path) = path;
    let settings = Settings::of(settings)?;
    numpy::prepare(py)?;
    let name = format!("the publisher at {}, which lets subscribers join in its calls,", path.display());
    in_thread(py, &settings.party(&name), move || settings.builder.subscribe(path)).map(Subscriber::new)
}

/// Subscribes over a connected ``SOCK_SEQPACKET`` socket, which stays the caller's.
#[pyfunction]
#[pyo3(signature = (socket, **settings))]
pub(crate) fn subscribe_socket(
    py: Python<'_>,
    socket: &Bound<'_, PyAny>,
    settings: Option<&Bound<'_, PyDict>>,
) -> PyResult<Subscriber> {
    let (settings, socket) = (Settings::of(settings)?, duplicate(socket)?);
    numpy::prepare(py)?;
    in_thread(py, &settings.party(PUBLISHER), move || settings.builder.subscribe_on(socket))
        .map(Subscriber::new)
}

/// Subscribes to the parent, in a child that a publisher of another program has spawned.
#[pyfunction]
#[pyo3(signature = (**settings))]
pub(crate) fn subscribe_inherited(
    py: Python<'_>,
    settings: Option<&Bound<'_, PyDict>>,
) -> PyResult<Subscriber> {
    let settings = Settings::of(settings)?;
    numpy::prepare(py)?;
    in_thread(py, &settings.party(PUBLISHER), move || settings.builder.subscribe_inherited())
        .map(Subscriber::new)
}

/// A reader of a publisher's messages. It is for one call at a time.
#[pyclass(frozen, module = "sealane", weakref)]
pub(crate) struct Subscriber {
    slot: Slot<sealane::Subscriber>,
    closer: Closer,
    fd: RawFd,
    /// The descriptor for sending.
    room: RawFd,
    /// What the publisher does when this subscriber is slow: ``"overrun"``, or the seconds for which it waits.
    #[pyo3(get)]
    granted: Py<PyAny>,
    peer: Credentials,
}

impl Subscriber {
    fn new(subscriber: sealane::Subscriber) -> Self {
        let (closer, fd) = (subscriber.closer(), subscriber.as_raw_fd());
        let room = subscriber.room().as_raw_fd();
        let (granted, peer) = (subscriber.granted(), subscriber.peer().credentials());
        let granted = Python::attach(|py| policy(py, granted));
        Self {
            slot: Slot::new(subscriber, "the subscriber is in use by another thread"),
            closer,
            fd,
            room,
            granted,
            peer,
        }
    }

    /// Sends a control message to the publisher. The number is a request's.
    fn post(
        &self,
        py: Python<'_>,
        wants_reply: bool,
        control: Option<&Bound<'_, PyAny>>,
        fds: Option<&Bound<'_, PyAny>>,
        timeout: Timeout,
    ) -> PyResult<u64> {
        let given = Given::of(control, fds)?;
        self.slot.with(|subscriber| {
            in_slices(py, timeout, Awaited::Socket, |time| {
                let control = given.control();
                // Only what never waits arms the descriptor for sending.
                match (wants_reply, time.is_zero()) {
                    (true, true) => subscriber.try_request(control).map(RequestId::number),
                    (true, false) => subscriber.request_timeout(control, time).map(RequestId::number),
                    (false, true) => subscriber.try_send(control).map(|()| 0),
                    (false, false) => subscriber.send_timeout(control, time).map(|()| 0),
                }
            })
        })
    }

    /// Receives the reply to a request. The request stays open if that fails.
    fn receive_reply(&self, py: Python<'_>, number: u64, timeout: Timeout) -> PyResult<Message> {
        let reply = self.slot.with(|subscriber| {
            for_reply(py, timeout, self.fd, || {
                let request = subscriber.request_id(number).ok_or(Error::UnknownRequest)?;
                subscriber.take_reply(request)
            })
        })?;
        Message::new(py, reply)
    }

    fn next(&self, py: Python<'_>, timeout: Timeout) -> PyResult<Message> {
        let received = self.slot.with(|subscriber| {
            in_slices(py, timeout, Awaited::Message, |time| subscriber.recv_timeout(time))
        })?;
        Message::new(py, received)
    }
}

#[pymethods]
impl Subscriber {
    /// Waits for the next message.
    #[pyo3(signature = (timeout=None))]
    fn recv(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Message> {
        self.next(py, Timeout::of(timeout)?)
    }

    /// Waits for the newest message with a payload, and leaves out all before it.
    #[pyo3(signature = (timeout=None))]
    fn recv_latest(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Message> {
        let timeout = Timeout::of(timeout)?;
        let received = self.slot.with(|subscriber| {
            in_slices(py, timeout, Awaited::Message, |time| subscriber.recv_latest_timeout(time))
        })?;
        Message::new(py, received)
    }

    /// Takes the next message if there is one, and never waits. ``None`` arms the descriptor.
    fn try_recv(&self, py: Python<'_>) -> PyResult<Option<Message>> {
        let received =
            self.slot.with(|subscriber| subscriber.try_recv().map_err(|error| raise(py, error)))?;
        received.map(|message| Message::new(py, message)).transpose()
    }

    /// Takes the newest message with a payload if there is one, and never waits. ``None`` arms the descriptor.
    fn try_recv_latest(&self, py: Python<'_>) -> PyResult<Option<Message>> {
        let received =
            self.slot.with(|subscriber| subscriber.try_recv_latest().map_err(|error| raise(py, error)))?;
        received.map(|message| Message::new(py, message)).transpose()
    }

    /// Sends a control message to the publisher.
    #[pyo3(signature = (control=None, *, fds=None, timeout=None))]
    fn send(
        &self,
        py: Python<'_>,
        control: Option<&Bound<'_, PyAny>>,
        fds: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        self.post(py, false, control, fds, Timeout::of(timeout)?).map(drop)
    }

    /// Sends a request to the publisher. Returns its number, which the reply names.
    #[pyo3(signature = (control=None, *, fds=None, timeout=None))]
    fn request(
        &self,
        py: Python<'_>,
        control: Option<&Bound<'_, PyAny>>,
        fds: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<u64> {
        self.post(py, true, control, fds, Timeout::of(timeout)?)
    }

    /// Sends a request to the publisher and waits for its reply. Messages that are published meanwhile are kept for ``recv``.
    #[pyo3(signature = (control=None, *, fds=None, timeout=None))]
    fn call(
        &self,
        py: Python<'_>,
        control: Option<&Bound<'_, PyAny>>,
        fds: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<Message> {
        let timeout = Timeout::of(timeout)?;
        let number = self.post(py, true, control, fds, timeout)?;
        self.receive_reply(py, number, timeout).inspect_err(|_| self.cancel(number))
    }

    /// Waits for the reply to a request.
    #[pyo3(signature = (number, timeout=None))]
    fn wait_reply(&self, py: Python<'_>, number: u64, timeout: Option<f64>) -> PyResult<Message> {
        self.receive_reply(py, number, Timeout::of(timeout)?)
    }

    /// Cancels a request: its reply is dropped. Does nothing if it was answered.
    fn cancel(&self, number: u64) {
        if let Some(request) = self.closer.request_id(number) {
            self.closer.cancel(request);
        }
    }

    /// Messages that were missed, in all.
    #[getter]
    fn missed(&self) -> PyResult<u64> {
        self.slot.with(|subscriber| Ok(subscriber.missed()))
    }

    /// The number, at its source, of the message that follows the last one that was taken. It grows by what is received and missed.
    #[getter]
    fn number(&self) -> PyResult<u64> {
        self.slot.with(|subscriber| Ok(subscriber.number()))
    }

    /// A random number of the publisher's run. Another one says that the publisher was started again.
    #[getter]
    fn run(&self) -> PyResult<u64> {
        self.slot.with(|subscriber| Ok(subscriber.run()))
    }

    /// Bytes of the ring that are published and not read yet.
    #[getter]
    fn lag(&self) -> PyResult<u64> {
        self.slot.with(|subscriber| Ok(subscriber.lag()))
    }

    /// The publisher's process.
    #[getter]
    fn peer(&self) -> Peer {
        self.peer.into()
    }

    /// How large a message may be.
    #[getter]
    fn limits<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.slot.with(|subscriber| facts::limits(py, &subscriber.limits()))
    }

    /// Counts of both directions.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        self.slot.with(|subscriber| facts::add_stats(&dict, &subscriber.stats()))?;
        Ok(dict)
    }

    /// The descriptor: drain ``try_recv`` until ``None``, then wait until it is readable.
    fn fileno(&self) -> PyResult<RawFd> {
        if self.slot.is_closed() { Err(closed()) } else { Ok(self.fd) }
    }

    /// The descriptor for sending: readable when a call that was refused with ``timeout=0`` is worth another attempt.
    fn send_fileno(&self) -> PyResult<RawFd> {
        if self.slot.is_closed() { Err(closed()) } else { Ok(self.room) }
    }

    /// Ends the subscription. A call that waits in another thread ends.
    ///
    /// In a fork that has not used the subscriber it closes the copy, and nothing else.
    fn close(&self) {
        let is_ours = self.slot.is_ours();
        // A call that the closer ends finds that it was closed here.
        self.slot.close();
        if is_ours {
            self.closer.close();
        }
    }

    /// Whether ``close`` was called here.
    #[getter]
    fn closed(&self) -> bool {
        self.slot.is_closed()
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// The next message; the publisher's end ends a loop.
    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Message>> {
        until_end(py, self.next(py, Timeout::of(None)?))
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_reason))]
    fn __exit__(&self, _reason: &Bound<'_, PyTuple>) {
        self.close();
    }

    fn __reduce__(slf: Bound<'_, Self>) -> PyResult<()> {
        Err(no_pickle(slf.as_any(), "another process subscribes by itself"))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let state = if self.slot.is_closed() { "closed" } else { "open" };
        let (peer, granted) = (Peer::from(self.peer).name(), self.granted.bind(py).repr()?);
        Ok(format!("<sealane.Subscriber to {peer}, granted {granted}, {state}>"))
    }
}
