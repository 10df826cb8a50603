//! Writing to the standard output, and how numbers are shown.

use std::{
    io::{self, ErrorKind, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context, Result};
use serde::Serializer;

/// Writes `text`. A reader that has gone (`| head`) is no error.
pub(crate) fn print(text: &str) -> Result<ExitCode> {
    write(text).map(|_| ExitCode::SUCCESS)
}

/// Writes `text`. False if the reader has gone.
pub(crate) fn write(text: &str) -> Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("writing to the standard output"),
    }
}

/// Prints a line to standard output, or to standard error if the former carries data. A reader that is gone is no error.
pub(crate) fn line(text: &str, to_stderr: bool) -> Result<()> {
    if to_stderr {
        // There is nobody else to tell.
        let _ = writeln!(io::stderr(), "{text}");
        return Ok(());
    }
    write(&format!("{text}\n")).map(drop)
}

/// A path in JSON, which has text only: other bytes are shown as `\u{fffd}`.
pub(crate) fn path<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// A number of bytes in binary units; `–` for what is not known.
pub(crate) fn bytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "–".to_owned(), |bytes| bytesize::ByteSize(bytes).display().iec().to_string())
}

/// A count; `–` for what is not known.
pub(crate) fn count(count: Option<u64>) -> String {
    count.map_or_else(|| "–".to_owned(), |count| count.to_string())
}
