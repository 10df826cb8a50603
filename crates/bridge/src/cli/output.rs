//! Writing to the standard output and the standard error, whose readers may be gone.

use std::io::{self, ErrorKind, Write};

use anyhow::{Context, Result};

/// Writes `text` to the standard output. False if the reader has gone (`| head`), which is no error.
pub(crate) fn write(text: &str) -> Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("writing to the standard output"),
    }
}

/// Writes a line to the standard error, with the program's name.
pub(crate) fn complain(text: &str) {
    // There is nobody else to tell.
    let _ = writeln!(io::stderr(), "sealane-bridge: {text}");
}
