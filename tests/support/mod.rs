//! Other processes for the tests: this program again, in a role of its own; and how thorough a test is to be.
#![allow(clippy::allow_attributes, dead_code, reason = "each test binary uses its part of this")]

use std::process::{Command, Stdio};

/// This program, to run nothing but the ignored test `name`. What that writes to standard error is seen with the output
/// of the test that starts it; its standard output is libtest's, and left out.
///
/// A role that waits should wait in its channel: so it ends with its parent.
pub(crate) fn role(name: &str) -> Command {
    let program = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new(program);
    command.args([name, "--exact", "--ignored", "--nocapture"]).stdout(Stdio::null());
    command
}

/// The measure of a test that finds the more the longer it runs: `short` as a rule, `long` with `SEALANE_NIGHTLY` set.
pub(crate) fn short_or_long<T>(short: T, long: T) -> T {
    if std::env::var_os("SEALANE_NIGHTLY").is_some() { long } else { short }
}
