//! `Publisher`: one ring, written once for any number of subscribers.

use std::{
    os::fd::{AsRawFd, RawFd},
    path::PathBuf,
    sync::Arc,
};

use pyo3::{
    PyTraverseError, PyVisit,
    prelude::*,
    types::{PyDict, PyTuple},
};
use sealane::{Error, Event};

use crate::{
    admission::Admission,
    awaited::Awaited,
    batch::Batch,
    errors::{closed, no_pickle, raise},
    facts::{self, Peer},
    lender::Verb,
    loan::Loan,
    message::Message,
    name::Name,
    outlet,
    sending::{Given, Lease, Sending, duplicate},
    settings::{Settings, policy},
    wait::{Timeout, in_slices, until_readable},
};

/// Publishes at a path, or at an abstract name (``"@name"``); without either, to subscribers that are added.
#[pyfunction]
#[pyo3(signature = (path=None, **settings))]
pub(crate) fn publish(
    py: Python<'_>,
    path: Option<Name>,
    settings: Option<&Bound<'_, PyDict>>,
) -> PyResult<Publisher> {
    let builder = Settings::of(settings)?.builder;
    let path = path.map(|Name(path)| path);
    let publisher = py.detach(|| match &path {
        Some(path) => builder.publish(path),
        None => builder.publisher(),
    });
    let publisher = publisher.map_err(|error| raise(py, error))?;
    let fd = publisher.as_raw_fd();
    let sending = Arc::new(Sending::new(Box::new(publisher), fd));
    Ok(Publisher { sending, admission: Admission::default(), path })
}

/// A subscriber's name, which no other subscriber of the same publisher has.
#[pyclass(frozen, eq, hash, module = "sealane")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SubscriberId(sealane::SubscriberId);

#[pymethods]
impl SubscriberId {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "an object of Python")]
    fn __repr__(&self) -> String {
        format!("<sealane.{:?}>", self.0)
    }
}

/// A subscriber, as its publisher sees it now.
#[pyclass(frozen, get_all, module = "sealane")]
pub(crate) struct SubscriberInfo {
    /// Its name.
    id: Py<SubscriberId>,
    /// Its process.
    peer: Py<Peer>,
    /// What it was granted: ``"overrun"``, or seconds.
    policy: Py<PyAny>,
    /// Bytes that it has not released.
    lag: u64,
    /// Seconds for which it would still be waited for.
    account: f64,
    /// Times that the publisher began to lack it.
    waits: u64,
    /// Messages that it says that it has missed.
    missed: u64,
}

impl SubscriberInfo {
    pub(crate) fn new(py: Python<'_>, info: &sealane::SubscriberInfo) -> PyResult<Py<Self>> {
        let found = Self {
            id: Py::new(py, SubscriberId(info.id()))?,
            peer: Py::new(py, Peer::from(info.credentials()))?,
            policy: policy(py, info.policy()),
            lag: info.lag(),
            account: info.account().as_secs_f64(),
            waits: info.waits(),
            missed: info.missed(),
        };
        Py::new(py, found)
    }
}

/// What a subscriber has brought about: ``kind`` is ``"joined"``, ``"message"`` or ``"left"``.
#[pyclass(frozen, get_all, name = "Event", module = "sealane")]
pub(crate) struct PublisherEvent {
    /// ``"joined"``, ``"message"`` or ``"left"``.
    kind: &'static str,
    /// The subscriber.
    subscriber: Py<SubscriberId>,
    /// Its message.
    message: Option<Py<Message>>,
    /// Why it left, as an exception.
    reason: Option<Py<PyAny>>,
}

impl PublisherEvent {
    fn new(py: Python<'_>, event: Event) -> PyResult<Option<Self>> {
        let name = |id| Py::new(py, SubscriberId(id));
        Ok(Some(match event {
            Event::Joined(id) => Self { kind: "joined", subscriber: name(id)?, message: None, reason: None },
            Event::Message(id, message) => {
                let message = Some(Py::new(py, Message::new(py, message)?)?);
                Self { kind: "message", subscriber: name(id)?, message, reason: None }
            }
            Event::Left(id, error) => {
                let reason = Some(raise(py, error).into_value(py).into_any());
                Self { kind: "left", subscriber: name(id)?, message: None, reason }
            }
            // A kind that a later version adds.
            _ => return Ok(None),
        }))
    }
}

#[pymethods]
impl SubscriberInfo {
    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let (peer, policy) = (self.peer.bind(py).repr()?, self.policy.bind(py).repr()?);
        let Self { lag, waits, missed, .. } = self;
        Ok(format!(
            "<sealane.SubscriberInfo {:?} {peer}: policy {policy}, lag {lag} bytes, {waits} waits, {missed} missed>",
            self.id.get().0
        ))
    }
}

#[pymethods]
impl PublisherEvent {
    fn __repr__(&self) -> String {
        format!("<sealane.Event {} of {:?}>", self.kind, self.subscriber.get().0)
    }
}

/// One writer of a ring that any number of subscribers read. It is for one call at a time.
#[pyclass(frozen, module = "sealane", weakref)]
pub(crate) struct Publisher {
    sending: Arc<Sending<Box<sealane::Publisher>>>,
    admission: Admission,
    path: Option<PathBuf>,
}

impl Publisher {
    fn with<R>(&self, act: impl FnOnce(&mut sealane::Publisher) -> PyResult<R>) -> PyResult<R> {
        outlet::with(&self.sending.outlet, |publisher| act(publisher))
    }
}

#[pymethods]
impl Publisher {
    /// Publishes a message: control bytes, descriptors, and a copy of ``payload`` (anything with a buffer).
    #[pyo3(signature = (control=None, *, payload=None, fds=None, timeout=None))]
    fn send(
        &self,
        py: Python<'_>,
        control: Option<&Bound<'_, PyAny>>,
        payload: Option<&Bound<'_, PyAny>>,
        fds: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let (given, timeout) = (Given::of(control, fds)?, Timeout::of(timeout)?);
        self.sending.send(py, Verb::Send, &given, payload, timeout).map(drop)
    }

    /// Begins a batch: ``with publisher.batch() as batch``. Its messages wake sleeping subscribers once.
    fn batch(&self) -> Batch {
        Batch::new(self.sending.lease())
    }

    /// Lends a part of the ring, to be filled in place: waits for room.
    #[pyo3(signature = (shape, dtype=None, *, timeout=None))]
    fn loan(
        &self,
        shape: &Bound<'_, PyAny>,
        dtype: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<Loan> {
        Loan::lend(self.sending.lease(), None, shape, dtype, timeout)
    }

    /// The next thing that subscribers have brought about, if there is one; never waits.
    fn next_event(&self, py: Python<'_>) -> PyResult<Option<PublisherEvent>> {
        let event =
            self.with(|publisher| py.detach(|| publisher.next_event()).map_err(|error| raise(py, error)))?;
        event.map_or(Ok(None), |event| PublisherEvent::new(py, event))
    }

    /// Waits for the next event; ``None`` if there was none in time.
    #[pyo3(signature = (timeout=None))]
    fn wait_event(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<PublisherEvent>> {
        let (fd, timeout) = (self.sending.fd, Timeout::of(timeout)?);
        let waited = self.with(|publisher| {
            in_slices(py, timeout, Awaited::Message, |time| {
                if self.sending.outlet.is_closed() {
                    return Err(Error::Disconnected);
                }
                if let Some(event) = publisher.next_event()? {
                    return Ok(event);
                }
                until_readable(Some(fd), time);
                publisher.next_event()?.ok_or(Error::Timeout)
            })
        });
        match waited {
            Ok(event) => PublisherEvent::new(py, event),
            Err(error) if error.is_instance_of::<crate::errors::Timeout>(py) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replies to a request of a subscriber, and to it alone; never waits.
    #[pyo3(signature = (subscriber, to, control=None, *, fds=None))]
    fn reply(
        &self,
        py: Python<'_>,
        subscriber: &Bound<'_, SubscriberId>,
        to: &Bound<'_, Message>,
        control: Option<&Bound<'_, PyAny>>,
        fds: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let (given, token, id) = (Given::of(control, fds)?, to.get().token()?, subscriber.get().0);
        self.with(|publisher| publisher.reply(id, token, given.control()).map_err(|error| raise(py, error)))
    }

    /// All subscribers, as they stand now.
    fn subscribers(&self, py: Python<'_>) -> PyResult<Vec<Py<SubscriberInfo>>> {
        self.with(|publisher| {
            publisher.subscribers().iter().map(|info| SubscriberInfo::new(py, info)).collect()
        })
    }

    /// Sets the function that decides who may subscribe at the path, in place of the publisher's rule.
    ///
    /// ``decide(newcomer)`` returns a policy (``"overrun"``, or seconds to wait), or ``None`` to refuse. ``newcomer.wish`` grants what
    /// is wished, and no subscriber gets more. The function runs in the calls of this publisher, and cannot use the publisher itself.
    /// An exception refuses.
    fn admit(&self, decide: Bound<'_, PyAny>) -> PyResult<()> {
        self.with(|publisher| self.admission.install(publisher, decide))
    }

    /// Adds a subscriber by a connected ``SOCK_SEQPACKET`` socket, whose other end is given to ``subscribe_socket``.
    fn add(&self, py: Python<'_>, socket: &Bound<'_, PyAny>) -> PyResult<SubscriberId> {
        let socket = duplicate(socket)?;
        self.with(|publisher| publisher.add(socket).map(SubscriberId).map_err(|error| raise(py, error)))
    }

    /// Ends a subscription. False if there is no such subscriber.
    fn disconnect(&self, subscriber: &Bound<'_, SubscriberId>) -> PyResult<bool> {
        self.with(|publisher| Ok(publisher.disconnect(subscriber.get().0)))
    }

    /// Says that ``count`` messages were lost before they came here: for whoever passes on a stream.
    fn lost(&self, count: u64) -> PyResult<()> {
        self.with(|publisher| {
            publisher.lost(count);
            Ok(())
        })
    }

    /// Says which run of the source the next messages come from: for whoever passes on a stream.
    fn epoch(&self, epoch: u64) -> PyResult<()> {
        self.with(|publisher| {
            publisher.epoch(epoch);
            Ok(())
        })
    }

    /// Says which number the next message has at its source: for whoever passes on a stream. Those after it, and what was lost, count on.
    fn number(&self, number: u64) -> PyResult<()> {
        self.with(|publisher| {
            publisher.number(number);
            Ok(())
        })
    }

    /// How large a message may be.
    #[getter]
    fn limits<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.with(|publisher| facts::limits(py, &publisher.limits()))
    }

    /// Counts of this publisher.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        self.with(|publisher| facts::add_stats(&dict, &publisher.stats()))?;
        Ok(dict)
    }

    /// The descriptor, readable when ``next_event`` has something to do.
    fn fileno(&self) -> PyResult<RawFd> {
        if self.sending.outlet.is_closed() { Err(closed()) } else { Ok(self.sending.fd) }
    }

    /// Ends all subscriptions. The subscribers still read what was published.
    fn close(&self) {
        self.sending.outlet.close();
    }

    /// Whether ``close`` was called.
    #[getter]
    fn closed(&self) -> bool {
        self.sending.outlet.is_closed()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.admission.traverse(&visit)
    }

    fn __clear__(&self) {
        self.admission.clear();
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_reason))]
    fn __exit__(&self, _reason: &Bound<'_, PyTuple>) {
        self.close();
    }

    fn __reduce__(slf: Bound<'_, Self>) -> PyResult<()> {
        Err(no_pickle(slf.as_any(), "another process subscribes at its path"))
    }

    fn __repr__(&self) -> String {
        let state = if self.sending.outlet.is_closed() { "closed" } else { "open" };
        match &self.path {
            Some(path) => format!("<sealane.Publisher at {}, {state}>", path.display()),
            None => format!("<sealane.Publisher without a path, {state}>"),
        }
    }
}
