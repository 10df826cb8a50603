//! Output of the examples. A full disk or a closed pipe is an error, where `println!` would panic.

use std::{
    error::Error,
    fmt,
    io::{self, ErrorKind, Write},
    process::ExitCode,
};

/// The status that a shell shows of a program that SIGPIPE has ended (`signal(7)`).
const BROKEN_PIPE: u8 = 128 + 13;

/// Output that went nowhere.
#[derive(Debug)]
pub(crate) struct Lost(io::Error);

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "writing to the standard output failed: {}", self.0)
    }
}

impl Error for Lost {}

/// Prints a line, or several.
pub(crate) fn print(lines: impl fmt::Display) -> Result<(), Lost> {
    let mut output = io::stdout().lock();
    writeln!(output, "{lines}").and_then(|()| output.flush()).map_err(Lost)
}

/// Prints a remark to standard error. It may be lost.
pub(crate) fn note(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Reports why the program, or its part `who`, has failed, and returns its status. A reader of the output that closes
/// it early is no failure: the program ends as others do there.
pub(crate) fn failed(who: &str, error: &(dyn Error + 'static)) -> ExitCode {
    match error.downcast_ref() {
        Some(Lost(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::from(BROKEN_PIPE),
        _ => {
            note(format_args!("{who}: {error}"));
            ExitCode::FAILURE
        }
    }
}
