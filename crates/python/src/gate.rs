//! The way out of the interpreter and back in: code that runs without the interpreter's lock, and does not return too late.
//!
//! A thread that asks for the lock of an interpreter that ends is ended by it, in the middle of its frames. Rust's frames do not
//! survive that. So a handler of `atexit` closes this gate, and daemon threads that come to it afterwards stay here until the
//! process ends.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, ThreadId},
    time::Duration,
};

use pyo3::{
    prelude::*,
    types::{PyCFunction, PyDict},
};

/// The thread that ends the interpreter. It alone passes from then on.
static ENDS: OnceLock<ThreadId> = OnceLock::new();
/// Threads between the gate and the interpreter's lock.
static ENTERING: AtomicUsize = AtomicUsize::new(0);
/// Looks of the ending thread at [`ENTERING`], a millisecond apart. A fork may have copied a number that nobody counts down.
const LOOKS: u32 = 200;

/// Forks between the first process and this one.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// The number of this process among its ancestors that had the module. A value belongs to the process that has used it last; the
/// copy in a fork that has not used it ends nothing elsewhere.
pub(crate) fn generation() -> u64 {
    FORKS.load(SeqCst)
}

/// Runs `act` without the interpreter's lock.
pub(crate) fn detached<R: Send>(py: Python<'_>, act: impl FnOnce() -> R + Send) -> R {
    let result = py.detach(|| {
        let result = act();
        pass();
        result
    });
    ENTERING.fetch_sub(1, SeqCst);
    result
}

/// Returns unless the interpreter ends. The order matters: a thread is counted first, and looks second.
fn pass() {
    ENTERING.fetch_add(1, SeqCst);
    if ENDS.get().is_some_and(|ends| *ends != thread::current().id()) {
        ENTERING.fetch_sub(1, SeqCst);
        loop {
            thread::park();
        }
    }
}

/// Closes the gate when the interpreter ends, and counts forks.
pub(crate) fn install(py: Python<'_>) -> PyResult<()> {
    let close = PyCFunction::new_closure(py, None, None, |arguments, _| {
        let _ = ENDS.set(thread::current().id());
        // Whoever was counted before takes the lock now, while there is one.
        arguments.py().detach(|| {
            for _ in 0..LOOKS {
                if ENTERING.load(SeqCst) == 0 {
                    break;
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
    })?;
    py.import("atexit")?.call_method1("register", (close,))?;
    let forked = PyCFunction::new_closure(py, None, None, |_, _| {
        FORKS.fetch_add(1, SeqCst);
        // The threads that were counted are not here.
        ENTERING.store(0, SeqCst);
    })?;
    let hooks = PyDict::new(py);
    hooks.set_item("after_in_child", forked)?;
    py.import("os")?.getattr("register_at_fork")?.call((), Some(&hooks))?;
    Ok(())
}
