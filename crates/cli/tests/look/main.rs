//! `sealane ls` and `sealane top` as their users run them, beside programs that exchange messages, and programs that would hurt
//! whoever looks at them.

mod honest;
mod hostile;
mod kernel;
mod paths;
mod screen;
#[path = "../terminal/mod.rs"]
mod terminal;

use std::{
    any::type_name,
    io::{Read, Write},
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, Command, Stdio},
};

use serde_json::Value;

use hostile::has_a_pair as hostile_pair;

/// The binary under test.
fn sealane() -> Command {
    Command::new(env!("CARGO_BIN_EXE_sealane"))
}

/// What `sealane ls --json` says.
fn ls() -> Value {
    let output = sealane().args(["ls", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The rows in which `pid` sends.
fn rows_from(report: &Value, pid: u32) -> Vec<&Value> {
    report["rows"].as_array().unwrap().iter().filter(|row| has(row, "from", pid)).collect()
}

/// The rows in which `pid` receives.
fn rows_to(report: &Value, pid: u32) -> Vec<&Value> {
    report["rows"].as_array().unwrap().iter().filter(|row| has(row, "to", pid)).collect()
}

/// Whether a process is at an end of a row. A child that another test starts has copies of all mappings for a moment.
fn has(row: &Value, end: &str, pid: u32) -> bool {
    row[end].as_array().unwrap().iter().any(|one| one["pid"] == pid)
}

/// Another process, which runs an ignored test of this binary until it is dropped.
struct Role {
    child: Child,
    input: Option<ChildStdin>,
}

impl Role {
    /// Starts the role, and waits until it has said [`ready`].
    fn start<Test: Fn()>(test: Test) -> Self {
        Self::start_as(test, None).expect("the role ends only when it is told to")
    }

    /// The same, with a variable in its environment.
    fn start_with<Test: Fn()>(test: Test, name: &str, value: &str) -> Self {
        Self::run(test, |command| {
            command.env(name, value);
        })
        .expect("the role ends only when it is told to")
    }

    /// The same, as another user. `None` if the role has ended without being ready: it could not be played.
    fn start_as<Test: Fn()>(test: Test, user: Option<u32>) -> Option<Self> {
        Self::run(test, |command| {
            if let Some(user) = user {
                command.uid(user).gid(user);
            }
        })
    }

    fn run<Test: Fn()>(test: Test, set: impl FnOnce(&mut Command)) -> Option<Self> {
        Self::run_by(&["/proc/self/exe"], test, set)
    }

    /// The same, by another program that becomes this one. `None` if there is no such program, too.
    fn run_by<Test: Fn()>(by: &[&str], _: Test, set: impl FnOnce(&mut Command)) -> Option<Self> {
        let (_, name) = type_name::<Test>().split_once("::").unwrap();
        let mut command = Command::new(by[0]);
        command.args(&by[1..]);
        if by.len() > 1 {
            command.arg(std::env::current_exe().unwrap());
        }
        set(&mut command);
        command.args([name, "--exact", "--ignored", "--nocapture"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
        let (input, mut output) = (child.stdin.take(), child.stdout.take().unwrap());
        let mut said = Vec::new();
        while !said.ends_with(b"READY\n") {
            let mut byte = [0];
            if output.read(&mut byte).unwrap() == 0 {
                child.wait().unwrap();
                return None;
            }
            said.push(byte[0]);
        }
        Some(Self { child, input })
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says that the role is played, and plays it until the starting process has enough.
fn ready() -> ! {
    std::io::stdout().write_all(b"READY\n").unwrap();
    let _ = std::io::stdin().read(&mut [0]);
    std::process::exit(0)
}
