//! The native part of the Python package `sealane`: `docs/python.md` has the whole.
//!
//! Each method reads what Python gave, calls one verb of the library without the interpreter's lock, and turns the result into
//! objects or an exception. `outlet.rs` is the state of a sending side and of its loan; `raw.rs` has the unsafe code; `wait.rs`
//! has the ways in which calls wait.

// Methods of Python have the arguments that Python gives.
#![expect(clippy::needless_pass_by_value, reason = "arguments are extracted for the call")]

mod admission;
mod awaited;
mod batch;
mod channel;
mod errors;
mod establish;
mod facts;
mod format;
mod generation;
mod lender;
mod loan;
mod message;
mod name;
mod numpy;
mod outlet;
mod publisher;
mod raw;
mod sealed;
mod sending;
mod settings;
mod slot;
mod subscriber;
mod wait;

/// Channels between processes that do not trust each other.
#[pyo3::pymodule]
mod _native {
    use pyo3::types::PyModuleMethods;

    #[pymodule_export]
    use crate::{
        admission::Newcomer,
        batch::Batch,
        channel::Channel,
        errors::in_words_of_python,
        establish::{
            Handshake, Listener, Prepared, begin_connect, child_ended, connect, from_socket, inherited,
            listen, pair, prepare,
        },
        facts::Peer,
        loan::{Loan, View},
        message::{Fd, Message},
        publisher::{Publisher, PublisherEvent, SubscriberId, SubscriberInfo, publish},
        sealed::SealedBuffer,
        subscriber::{Subscriber, subscribe, subscribe_inherited, subscribe_socket},
    };

    #[pymodule_init]
    fn init(module: &pyo3::Bound<'_, pyo3::types::PyModule>) -> pyo3::PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        crate::generation::install(module.py())
    }
}
