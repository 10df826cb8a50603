//! Programs in C: how they are built and run.

use std::{ffi::OsStr, process::Command, time::Duration};

use crate::installed::INSTALLED;

pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// A program that fails if it hangs.
pub(crate) fn limited(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command.arg(PATIENCE.as_secs().to_string()).arg(program);
    command
}

/// A compiler of the system, with warnings as errors.
pub(crate) fn compiler(name: &str, standard: &str) -> Command {
    let mut compiler = Command::new(name);
    compiler.args([standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-g", "-I"]);
    compiler.arg(INSTALLED.join("include"));
    compiler
}
