//! [`Name`]: a path, or an abstract name, as Python gives it.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf};

use pyo3::{Borrowed, prelude::*};

/// The path of a socket: `str`, `bytes` or an `os.PathLike`, as the standard library takes them.
pub(crate) struct Name(pub(crate) PathBuf);

impl<'py> FromPyObject<'_, 'py> for Name {
    type Error = PyErr;

    fn extract(given: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let bytes = given.py().import("os")?.call_method1("fsencode", (given,))?;
        Ok(Self(OsString::from_vec(bytes.extract()?).into()))
    }
}
