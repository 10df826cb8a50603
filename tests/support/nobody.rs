//! This program again, as a user who may do little.

use std::process::{Child, Command, Stdio};

/// User and group `nobody`.
pub(crate) const NOBODY: u32 = 65534;

/// This program, even where the user may not look for it, to run nothing but the test `name`. What that writes to standard
/// error is seen with the output of the test that starts it; its standard output is libtest's, and left out.
pub(crate) fn this_program(name: &str, options: &[&str]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args([name, "--exact", "--nocapture"]).args(options).stdout(Stdio::null());
    command
}

/// A child that does not outlive its test.
pub(crate) struct Ends(pub(crate) Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
