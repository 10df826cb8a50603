//! Output that nobody may be reading any more.

use std::io::{Write, stderr, stdout};

/// Prints a line to standard output, or to standard error if the former carries data. A reader that is gone is no error.
pub(crate) fn line(text: &str, to_stderr: bool) {
    let _ = if to_stderr { writeln!(stderr(), "{text}") } else { writeln!(stdout(), "{text}") };
}
