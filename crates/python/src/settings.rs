//! Keyword arguments as the settings of a channel, publisher or subscriber.

use std::time::Duration;

use pyo3::{
    exceptions::{PyTypeError, PyValueError},
    prelude::*,
    types::{PyDict, PyString},
};
use sealane::{Builder, Slow, Start, Wait};

use crate::awaited::Party;

/// Seconds for which the library's own handshakes may take.
const HANDSHAKE: f64 = 5.0;

/// The settings, and the time of a handshake, which is needed for connecting as well.
pub(crate) struct Settings {
    pub(crate) builder: Builder,
    pub(crate) handshake_timeout: f64,
}

impl Settings {
    /// Reads keyword arguments. Each has the name of the method of `Builder` that it stands for.
    pub(crate) fn of(keywords: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let mut settings = Self { builder: Builder::default(), handshake_timeout: HANDSHAKE };
        for (name, value) in keywords.into_iter().flatten() {
            let name: String = name.extract()?;
            settings = settings.with(&name, &value)?;
        }
        Ok(settings)
    }

    /// The party of a handshake with these settings.
    pub(crate) fn party(&self, name: &str) -> Party {
        Party::named(name, self.handshake_timeout)
    }

    fn with(self, name: &str, value: &Bound<'_, PyAny>) -> PyResult<Self> {
        let Self { builder, mut handshake_timeout } = self;
        let builder = match name {
            "ring_capacity" => builder.ring_capacity(number(name, value)?),
            "max_peer_ring_capacity" => builder.max_peer_ring_capacity(number(name, value)?),
            "max_control" => builder.max_control(number(name, value)?),
            "max_fds" => builder.max_fds(number(name, value)?),
            "max_requests" => builder.max_requests(number(name, value)?),
            "max_subscribers" => builder.max_subscribers(number(name, value)?),
            "handshake_timeout" => {
                let time = seconds(name, value)?;
                handshake_timeout = time.as_secs_f64();
                builder.handshake_timeout(time)
            }
            "wait" => builder.wait(wait(value)?),
            "prefault" => builder.prefault(is_on(name, value)?),
            "huge_pages" => builder.huge_pages(is_on(name, value)?),
            "peer_pidfd" => builder.peer_pidfd(is_on(name, value)?),
            "slow" => builder.slow(slow(value)?),
            "start" => builder.start(start(value)?),
            _ => {
                return Err(unexpected(name, value.py())?);
            }
        };
        Ok(Self { builder, handshake_timeout })
    }
}

/// The exception for a name that is no setting, with the setting that was meant, perhaps.
fn unexpected(name: &str, py: Python<'_>) -> PyResult<PyErr> {
    let names = py.import("sealane._settings")?.getattr("Settings")?.getattr("__annotations__")?;
    let near = py.import("difflib")?.call_method1("get_close_matches", (name, names.try_iter()?, 1))?;
    let near: Option<String> = near.extract::<Vec<String>>()?.pop();
    let hint = near.map_or_else(
        || "help(sealane.Settings) has all".to_owned(),
        |near| format!("did you mean {near}? help(sealane.Settings) has all"),
    );
    Ok(PyTypeError::new_err(format!("unexpected setting {name:?}: {hint}")))
}

fn number(name: &str, value: &Bound<'_, PyAny>) -> PyResult<usize> {
    value.extract().map_err(|_| wrong(name, "a number from 0 on", value))
}

fn is_on(name: &str, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    value.extract().map_err(|_| wrong(name, "True or False", value))
}

fn wrong(name: &str, expected: &str, value: &Bound<'_, PyAny>) -> PyErr {
    let shown = value.repr().map(|shown| shown.to_string()).unwrap_or_default();
    PyValueError::new_err(format!("{name}: {expected} expected, {shown} found"))
}

/// Seconds as a time; infinity is for ever.
fn seconds(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let seconds: f64 = value.extract().map_err(|_| wrong(name, "seconds", value))?;
    if seconds == f64::INFINITY {
        return Ok(Duration::MAX);
    }
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| PyValueError::new_err(format!("{name}: seconds from 0 on expected, {seconds} found")))
}

fn text(value: &Bound<'_, PyAny>) -> Option<String> {
    value.cast::<PyString>().ok().map(|text| text.to_string_lossy().into_owned())
}

fn wait(value: &Bound<'_, PyAny>) -> PyResult<Wait> {
    match text(value).as_deref() {
        Some("adaptive") => Ok(Wait::default()),
        Some("block") => Ok(Wait::Block),
        Some("spin") => Ok(Wait::Spin),
        Some(_) => Err(wrong("wait", "'adaptive', 'block', 'spin', or seconds to spin", value)),
        None => Ok(Wait::Adaptive { max_spin: seconds("wait", value)? }),
    }
}

/// A policy that Python has written: see [`policy`].
pub(crate) fn slow(value: &Bound<'_, PyAny>) -> PyResult<Slow> {
    match text(value).as_deref() {
        Some("overrun") => Ok(Slow::Overrun),
        Some(_) => Err(wrong("slow", "'overrun', or seconds to wait (math.inf is for ever)", value)),
        None => Ok(Slow::Wait(seconds("slow", value)?)),
    }
}

fn start(value: &Bound<'_, PyAny>) -> PyResult<Start> {
    match text(value).as_deref() {
        Some("next") => Ok(Start::Next),
        Some("latest") => Ok(Start::Latest),
        _ => Err(wrong("start", "'next' or 'latest'", value)),
    }
}

/// A policy as Python writes it: `"overrun"`, or seconds.
pub(crate) fn policy(py: Python<'_>, slow: Slow) -> Py<PyAny> {
    match slow {
        Slow::Overrun => PyString::new(py, "overrun").into_any().unbind(),
        Slow::Wait(Duration::MAX) => pyo3::types::PyFloat::new(py, f64::INFINITY).into_any().unbind(),
        Slow::Wait(time) => pyo3::types::PyFloat::new(py, time.as_secs_f64()).into_any().unbind(),
    }
}
