//! `Channel`: both halves, each for one call at a time.

use std::{
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
};

use pyo3::{
    prelude::*,
    types::{PyDict, PyTuple},
};
use sealane::{Closer, Credentials, Error, Limits, Receiver, RecvBatch, Sender};

use crate::{
    awaited::Awaited,
    batch::Batch,
    errors::{Disconnected, closed, no_pickle, raise, until_end},
    facts::{self, Peer},
    lender::Verb,
    loan::Loan,
    message::Message,
    outlet,
    sending::{Given, Lease, Sending},
    slot::Slot,
    wait::{Timeout, for_reply, in_slices, until_readable},
};

/// Most messages that are received together. A list of them is short, and other threads and tasks have their turn soon.
const BATCH: usize = 64;

/// A channel to another process. One thread may send while another receives; two that do the same get ``BusyError``.
#[pyclass(frozen, module = "sealane", weakref)]
pub(crate) struct Channel {
    sending: Arc<Sending<Box<Sender>>>,
    receiver: Slot<Receiver>,
    /// The descriptor of the receiver.
    fd: RawFd,
    closer: Closer,
    peer: Credentials,
    limits: Limits,
}

impl Channel {
    pub(crate) fn new(channel: sealane::Channel) -> Self {
        let (limits, closer) = (channel.limits(), channel.closer());
        let (sender, receiver) = channel.split();
        let peer = receiver.peer().credentials();
        let fd = receiver.as_raw_fd();
        let room = sender.as_raw_fd();
        Self {
            sending: Arc::new(Sending::new(Box::new(sender), room)),
            receiver: Slot::new(receiver, "the receiving side is in use by another thread"),
            fd,
            closer,
            peer,
            limits,
        }
    }

    /// Receives a message, or waits for it.
    fn receive(&self, py: Python<'_>, timeout: Timeout) -> PyResult<sealane::Message> {
        self.receiver
            .with(|receiver| in_slices(py, timeout, Awaited::Message, |time| receiver.recv_timeout(time)))
    }

    /// The objects for messages that were received together.
    fn objects(py: Python<'_>, received: Vec<sealane::Message>) -> PyResult<Vec<Message>> {
        received.into_iter().map(|message| Message::new(py, message)).collect()
    }

    /// Sends a message. The number is a request's.
    fn post(
        &self,
        py: Python<'_>,
        verb: Verb,
        control: Option<&Bound<'_, PyAny>>,
        payload: Option<&Bound<'_, PyAny>>,
        fds: Option<&Bound<'_, PyAny>>,
        timeout: Timeout,
    ) -> PyResult<u64> {
        self.sending.send(py, verb, &Given::of(control, fds)?, payload, timeout)
    }

    /// Receives the reply to a request. The request stays open if that fails.
    fn receive_reply(&self, py: Python<'_>, number: u64, timeout: Timeout) -> PyResult<sealane::Message> {
        self.receiver.with(|receiver| {
            for_reply(py, timeout, self.fd, || {
                let request = receiver.request_id(number).ok_or(Error::UnknownRequest)?;
                receiver.take_reply(request)
            })
        })
    }
}

/// Takes the messages out of a batch. An error behind them is the next call's.
fn take_all(mut batch: RecvBatch<'_>) -> Vec<sealane::Message> {
    let mut taken = Vec::with_capacity(BATCH);
    // The batch is asked for no more messages than are taken: it keeps none that it has lent.
    while taken.len() < BATCH
        && let Some(message) = batch.next()
    {
        taken.push(message.take());
    }
    taken
}

#[pymethods]
impl Channel {
    /// Sends a message: control bytes, descriptors, and a copy of ``payload`` (anything with a buffer).
    #[pyo3(signature = (control=None, *, payload=None, fds=None, timeout=None))]
    fn send(
        &self,
        py: Python<'_>,
        control: Option<&Bound<'_, PyAny>>,
        payload: Option<&Bound<'_, PyAny>>,
        fds: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        self.post(py, Verb::Send, control, payload, fds, Timeout::of(timeout)?).map(drop)
    }

    /// Sends a request. Returns its number, which the reply names.
    #[pyo3(signature = (control=None, *, payload=None, fds=None, timeout=None))]
    fn request(
        &self,
        py: Python<'_>,
        control: Option<&Bound<'_, PyAny>>,
        payload: Option<&Bound<'_, PyAny>>,
        fds: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<u64> {
        self.post(py, Verb::Request, control, payload, fds, Timeout::of(timeout)?)
    }

    /// Sends the reply to a request.
    #[pyo3(signature = (to, control=None, *, payload=None, fds=None, timeout=None))]
    fn reply(
        &self,
        py: Python<'_>,
        to: &Bound<'_, Message>,
        control: Option<&Bound<'_, PyAny>>,
        payload: Option<&Bound<'_, PyAny>>,
        fds: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let verb = Verb::Reply(to.get().token()?);
        self.post(py, verb, control, payload, fds, Timeout::of(timeout)?).map(drop)
    }

    /// Sends a request and waits for its reply. Messages that come meanwhile are kept for ``recv``.
    #[pyo3(signature = (control=None, *, payload=None, fds=None, timeout=None))]
    fn call(
        &self,
        py: Python<'_>,
        control: Option<&Bound<'_, PyAny>>,
        payload: Option<&Bound<'_, PyAny>>,
        fds: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<Message> {
        let timeout = Timeout::of(timeout)?;
        let number = self.post(py, Verb::Request, control, payload, fds, timeout)?;
        let reply = self.receive_reply(py, number, timeout).inspect_err(|_| self.cancel(number))?;
        Message::new(py, reply)
    }

    /// Waits for the reply to a request.
    #[pyo3(signature = (number, timeout=None))]
    fn wait_reply(&self, py: Python<'_>, number: u64, timeout: Option<f64>) -> PyResult<Message> {
        Message::new(py, self.receive_reply(py, number, Timeout::of(timeout)?)?)
    }

    /// Cancels a request: its reply is dropped. Does nothing if it was answered.
    fn cancel(&self, number: u64) {
        if let Some(request) = self.closer.request_id(number) {
            self.closer.cancel(request);
        }
    }

    /// Begins a batch: ``with channel.batch() as batch``. Its messages wake a sleeping receiver once.
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

    /// Waits for the next message.
    #[pyo3(signature = (timeout=None))]
    fn recv(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Message> {
        Message::new(py, self.receive(py, Timeout::of(timeout)?)?)
    }

    /// Takes the next message if there is one, and never waits. ``None`` arms the descriptor.
    fn try_recv(&self, py: Python<'_>) -> PyResult<Option<Message>> {
        let received =
            self.receiver.with(|receiver| receiver.try_recv().map_err(|error| raise(py, error)))?;
        received.map(|message| Message::new(py, message)).transpose()
    }

    /// Waits for the next message, and takes those that are there behind it: a list of 64 at most. It costs less than ``recv`` for each.
    #[pyo3(signature = (timeout=None))]
    fn recv_batch(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Vec<Message>> {
        let timeout = Timeout::of(timeout)?;
        let received = self.receiver.with(|receiver| {
            in_slices(py, timeout, Awaited::Message, |time| receiver.recv_batch_timeout(time).map(take_all))
        })?;
        Self::objects(py, received)
    }

    /// Takes the messages that are there, 64 at most, and never waits. An empty list arms the descriptor.
    fn try_recv_batch(&self, py: Python<'_>) -> PyResult<Vec<Message>> {
        let received = self.receiver.with(|receiver| {
            let batch = receiver.try_recv_batch().map_err(|error| raise(py, error))?;
            Ok(batch.map(take_all).unwrap_or_default())
        })?;
        Self::objects(py, received)
    }

    /// Sends bytes as a payload.
    #[pyo3(signature = (buffer, *, timeout=None))]
    fn send_bytes(&self, py: Python<'_>, buffer: &Bound<'_, PyAny>, timeout: Option<f64>) -> PyResult<()> {
        let (given, timeout) = (Given::of(None, None)?, Timeout::of(timeout)?);
        self.sending.send(py, Verb::Send, &given, Some(buffer), timeout).map(drop)
    }

    /// Receives a message and returns its payload, or its control bytes if it has none.
    #[pyo3(signature = (*, timeout=None))]
    fn recv_bytes<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        let message = Bound::new(py, Message::new(py, self.receive(py, Timeout::of(timeout)?)?)?)?;
        let whole = if message.get().has_payload() {
            message.call_method0("bytes")?
        } else {
            message.getattr("control")?
        };
        message.call_method0("release")?;
        Ok(whole)
    }

    /// Receives a message and copies its payload to a writable buffer, from byte ``offset`` on. Returns the number of bytes.
    #[pyo3(signature = (buffer, offset=0, *, timeout=None))]
    fn recv_bytes_into(
        &self,
        py: Python<'_>,
        buffer: &Bound<'_, PyAny>,
        offset: usize,
        timeout: Option<f64>,
    ) -> PyResult<usize> {
        let message = Message::new(py, self.receive(py, Timeout::of(timeout)?)?)?;
        message.copy_into(py, buffer, offset)
    }

    /// Whether a message is there, or comes within the time. True as well at the end of the channel, which ``recv`` reports.
    #[pyo3(signature = (timeout=Some(0.0)))]
    fn poll(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let (fd, timeout) = (self.fd, Timeout::of(timeout)?);
        let waited = self.receiver.with(|receiver| {
            in_slices(py, timeout, Awaited::Message, |time| {
                if !receiver.arm()? {
                    return Ok(());
                }
                until_readable(Some(fd), time);
                if receiver.arm()? { Err(Error::Timeout) } else { Ok(()) }
            })
        });
        match waited {
            Ok(()) => Ok(true),
            Err(error) if error.is_instance_of::<crate::errors::Timeout>(py) => Ok(false),
            Err(error) if error.is_instance_of::<Disconnected>(py) && !self.receiver.is_closed() => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Whether a loan of this many bytes would not wait. False arms ``send_fileno()``.
    fn has_space(&self, py: Python<'_>, size: usize) -> PyResult<bool> {
        outlet::with(&self.sending.outlet, |sender| sender.has_space(size).map_err(|error| raise(py, error)))
    }

    /// The descriptor for receiving: drain ``try_recv`` until ``None``, then wait until it is readable.
    fn fileno(&self) -> PyResult<RawFd> {
        if self.receiver.is_closed() { Err(closed()) } else { Ok(self.fd) }
    }

    /// The descriptor for sending: readable when a call that was refused with ``timeout=0`` is worth another attempt.
    fn send_fileno(&self) -> PyResult<RawFd> {
        if self.receiver.is_closed() { Err(closed()) } else { Ok(self.sending.fd) }
    }

    /// Ends the channel at once. Calls that wait in other threads end. The ring's memory goes with the last view of a loan.
    ///
    /// In a fork that has not used the channel it closes the copy, and nothing else.
    fn close(&self) {
        let is_ours = self.receiver.is_ours() || self.sending.outlet.is_ours();
        // A call that the closer ends finds that it was closed here.
        self.receiver.close();
        self.sending.outlet.close();
        if is_ours {
            self.closer.close();
        }
    }

    /// Whether ``close`` was called here.
    #[getter]
    fn closed(&self) -> bool {
        self.receiver.is_closed()
    }

    /// The process at the other end.
    #[getter]
    fn peer(&self) -> Peer {
        self.peer.into()
    }

    /// How large a message to the peer may be.
    #[getter]
    fn limits<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        facts::limits(py, &self.limits)
    }

    /// Counts of both directions. A loan must not be open.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        self.receiver.with(|receiver| facts::add_stats(&dict, &receiver.stats()))?;
        outlet::with(&self.sending.outlet, |sender| facts::add_stats(&dict, &sender.stats()))?;
        Ok(dict)
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// The next message; the end of the channel ends a loop.
    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Message>> {
        let message = until_end(py, self.receive(py, Timeout::of(None)?))?;
        message.map(|message| Message::new(py, message)).transpose()
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_reason))]
    fn __exit__(&self, _reason: &Bound<'_, PyTuple>) {
        self.close();
    }

    fn __reduce__(slf: Bound<'_, Self>) -> PyResult<()> {
        let text = "a child gets one by sealane.spawn and inherited, others by listen and connect";
        Err(no_pickle(slf.as_any(), text))
    }

    fn __repr__(&self) -> String {
        let state = if self.receiver.is_closed() { "closed" } else { "open" };
        format!("<sealane.Channel to {}, {state}>", Peer::from(self.peer).name())
    }
}
