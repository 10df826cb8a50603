//! Other processes for the tests: this program again, to run one of its tests and nothing else.
#![allow(clippy::allow_attributes, dead_code, reason = "each test binary uses its part of this")]

use std::{
    any::type_name,
    env::current_exe,
    path::Path,
    process::{Command, Stdio},
};

/// A command that runs the ignored test `test`. Its standard error appears with the output of the test that starts it; its
/// standard output is libtest's, and left out.
///
/// A role that waits should wait in its channel: so it ends with its parent.
pub(crate) fn role<Test: Fn()>(test: Test) -> Command {
    let mut command = run(&current_exe().expect("this program has a path"), test);
    command.arg("--ignored");
    command
}

/// A command that runs `test`, also as a user who may not read this program's path.
pub(crate) fn rerun<Test: Fn()>(test: Test) -> Command {
    run(Path::new("/proc/self/exe"), test)
}

fn run<Test: Fn()>(program: &Path, _: Test) -> Command {
    // A function's type is named by its path: the crate, then libtest's name.
    let (_, name) = type_name::<Test>().split_once("::").expect("a path");
    let mut command = Command::new(program);
    command.args([name, "--exact", "--nocapture"]).stdout(Stdio::null());
    command
}
