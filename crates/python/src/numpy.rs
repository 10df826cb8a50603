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

/// Reads the `shape` of new memory. Returns it with the count of elements.
pub(crate) fn shape_of<'py>(given: &Bound<'py, PyAny>) -> PyResult<(Bound<'py, PyTuple>, usize)> {
    let lengths = lengths_of(given)?;
    if let Some(wrong) = lengths.iter().find(|length| **length < 0) {
        return Err(PyValueError::new_err(format!("shape: 0 or more expected, {wrong} found")));
    }
    let count = product(&lengths).and_then(|count| usize::try_from(count).ok());
    let count = count.ok_or_else(|| PyValueError::new_err("shape: more elements than memory can have"))?;
    Ok((PyTuple::new(given.py(), lengths)?, count))
}

/// Reads the `shape` of a payload of `len` bytes. One length may be -1: the one that fits, as `NumPy` has it.
pub(crate) fn shape_within<'py>(
    given: &Bound<'py, PyAny>,
    elements: &Elements<'py>,
    len: usize,
) -> PyResult<Bound<'py, PyTuple>> {
    let mut lengths = lengths_of(given)?;
    let wrong = |what: String| {
        let text =
            format!("shape: {} of {} {what}, the payload has {len}", given.repr()?, elements.dtype.str()?);
        Err(PyValueError::new_err(text))
    };
    let (size, whole) =
        (i128::try_from(elements.size).unwrap_or(i128::MAX), i128::try_from(len).unwrap_or(i128::MAX));
    let open = lengths.iter().filter(|length| **length == -1).count();
    if open > 1 || lengths.iter().any(|length| *length < -1) {
        let text = format!("shape: lengths from 0 on, and one -1 at most, expected, {} found", given.repr()?);
        return Err(PyValueError::new_err(text));
    }
    let known: Vec<i128> = lengths.iter().copied().filter(|length| *length != -1).collect();
    let Some(bytes) = product(&known).and_then(|count| count.checked_mul(size)) else {
        return wrong("are more bytes than memory can have".to_owned());
    };
    if let Some(length) = lengths.iter_mut().find(|length| **length == -1) {
        if bytes == 0 || whole % bytes != 0 {
            return wrong(format!("are a multiple of {bytes} bytes"));
        }
        *length = whole / bytes;
    } else if bytes != whole {
        return wrong(format!("are {bytes} bytes"));
    }
    PyTuple::new(given.py(), lengths)
}

fn product(lengths: &[i128]) -> Option<i128> {
    lengths.iter().try_fold(1_i128, |product, length| product.checked_mul(*length))
}

/// A number, or a sequence of numbers.
fn lengths_of(given: &Bound<'_, PyAny>) -> PyResult<Vec<i128>> {
    let wrong = || PyTypeError::new_err("shape: a number of elements, or a tuple of such numbers, expected");
    if given.hasattr("__index__")? {
        Ok(vec![given.call_method0("__index__")?.extract()?])
    } else if given.is_instance_of::<PyString>() {
        Err(wrong())
    } else {
        given.extract().map_err(|_| wrong())
    }
}
