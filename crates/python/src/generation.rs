//! [`generation`]: the number of this process among its ancestors that had the module.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use pyo3::{
    prelude::*,
    types::{PyCFunction, PyDict},
};

/// Forks between the first process and this one.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// The number of this process. A value belongs to the process that has used it last; the copy in a fork that has not used it ends
/// nothing elsewhere.
pub(crate) fn generation() -> u64 {
    FORKS.load(SeqCst)
}

/// Counts forks from now on.
pub(crate) fn install(py: Python<'_>) -> PyResult<()> {
    let forked = PyCFunction::new_closure(py, None, None, |_, _| {
        FORKS.fetch_add(1, SeqCst);
    })?;
    let hooks = PyDict::new(py);
    hooks.set_item("after_in_child", forked)?;
    py.import("os")?.getattr("register_at_fork")?.call((), Some(&hooks))?;
    Ok(())
}
