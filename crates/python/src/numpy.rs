//! The questions to `NumPy`, which the package uses only if the program does.

use pyo3::{
    exceptions::{PyException, PyTypeError, PyValueError},
    prelude::*,
    types::{PyDict, PyString, PyTuple},
};

/// Imports `NumPy` if it is installed.
///
/// A subscriber does so before it subscribes: importing takes a tenth of a second or more, in which the publisher would overrun it
/// or end it, if its first array were made while messages come.
pub(crate) fn prepare(py: Python<'_>) -> PyResult<()> {
    match py.import("numpy") {
        // A program without arrays needs none. Others get the error with the first array.
        Err(error) if error.is_instance_of::<PyException>(py) => Ok(()),
        imported => imported.map(drop),
    }
}

/// A type of elements, with `NumPy` itself.
pub(crate) struct Elements<'py> {
    numpy: Bound<'py, PyModule>,
    pub(crate) dtype: Bound<'py, PyAny>,
    pub(crate) size: usize,
}

impl<'py> Elements<'py> {
    /// Reads a `dtype=`: numbers, text, bytes and records of these. Anything with a pointer in it is refused: bytes of a peer would
    /// become addresses. So is a kind that `NumPy` itself does not have.
    pub(crate) fn of(py: Python<'py>, given: &Bound<'py, PyAny>) -> PyResult<Self> {
        let numpy = py.import("numpy")?;
        let dtype = numpy.call_method1("dtype", (given,))?;
        let kind: String = dtype.getattr("kind")?.extract()?;
        let has_objects: bool = dtype.getattr("hasobject")?.extract()?;
        if has_objects || !["b", "i", "u", "f", "c", "m", "M", "S", "U", "V"].contains(&kind.as_str()) {
            let text =
                format!("dtype: numbers, text, bytes or records of these expected, {} found", dtype.str()?);
            return Err(PyTypeError::new_err(text));
        }
        let size: usize = dtype.getattr("itemsize")?.extract()?;
        if size == 0 {
            let text = format!("dtype: elements of one byte or more expected, {} found", dtype.str()?);
            return Err(PyValueError::new_err(text));
        }
        Ok(Self { numpy, dtype, size })
    }

    /// A new array, whose content is whatever was there.
    pub(crate) fn empty(&self, shape: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        self.numpy.call_method1("empty", (shape, &self.dtype))
    }

    /// An array over the memory of `buffer`, which it keeps. `NumPy` keeps the very object that is given here.
    pub(crate) fn over(
        &self,
        buffer: &Bound<'py, PyAny>,
        shape: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.numpy.call_method1("ndarray", (shape, &self.dtype, buffer))
    }
}

/// An array as `numpy.asarray(…, dtype, copy=copy)` wants it.
pub(crate) fn converted<'py>(
    array: &Bound<'py, PyAny>,
    dtype: Option<&Bound<'py, PyAny>>,
    copy: Option<bool>,
) -> PyResult<Bound<'py, PyAny>> {
    if dtype.is_none() && copy != Some(true) {
        return Ok(array.clone());
    }
    let options = PyDict::new(array.py());
    options.set_item("copy", copy)?;
    array.py().import("numpy")?.call_method("array", (array, dtype), Some(&options))
}

/// Reads a `shape`: a number, or a sequence of numbers. Returns it with the count of elements.
pub(crate) fn shape_of<'py>(given: &Bound<'py, PyAny>) -> PyResult<(Bound<'py, PyTuple>, usize)> {
    let py = given.py();
    let wrong = || PyTypeError::new_err("shape: a number of elements, or a tuple of such numbers, expected");
    let lengths: Vec<usize> = if given.hasattr("__index__")? {
        let count: i128 = given.call_method0("__index__")?.extract()?;
        vec![
            usize::try_from(count)
                .map_err(|_| PyValueError::new_err(format!("shape: 0 or more expected, {count} found")))?,
        ]
    } else if given.is_instance_of::<PyString>() {
        return Err(wrong());
    } else {
        given.extract().map_err(|_| wrong())?
    };
    let count = lengths.iter().try_fold(1_usize, |product, length| product.checked_mul(*length));
    let count = count.ok_or_else(|| PyValueError::new_err("shape: more elements than memory can have"))?;
    Ok((PyTuple::new(py, lengths)?, count))
}
