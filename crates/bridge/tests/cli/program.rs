//! Runs the program in a folder of its own: paths, files, and the sockets of its status.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::wait_until;

/// A folder. In arguments and files `@DIR` stands for it.
pub(crate) struct Site {
    dir: tempfile::TempDir,
}

/// What a program that has ended has left.
pub(crate) struct Done {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) errors: String,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn fill_in(&self, text: &str) -> String {
        text.replace("@DIR", self.dir.path().to_str().unwrap())
    }

    /// Writes a file. Returns its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, self.fill_in(text)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args.iter().map(|arg| self.fill_in(arg)));
        command.env("XDG_RUNTIME_DIR", self.dir.path()).env_remove("RUST_LOG");
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Done {
        let output = self.command(env!("CARGO_BIN_EXE_sealane-bridge"), args).output().unwrap();
        Done {
            status: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            errors: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The bridges that `status --json` knows.
    pub(crate) fn status(&self) -> Vec<Value> {
        let done = self.run(&["status", "--json", "--interval", "10ms"]);
        assert_eq!((done.status, done.errors.as_str()), (0, ""));
        serde_json::from_str(&done.out).unwrap()
    }

    /// The first lines of a program that goes on until its reader is gone. It ends with success then.
    pub(crate) fn first_lines(&self, args: &[&str], count: usize) -> Vec<String> {
        let mut command = self.command(env!("CARGO_BIN_EXE_sealane-bridge"), args);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().take(count);
        let lines = lines.map(Result::unwrap).collect();
        assert!(child.wait().unwrap().success());
        lines
    }

    /// Starts the program, and waits until its log says that it has begun.
    pub(crate) fn start(&self, args: &[&str]) -> Program {
        let log = tempfile::NamedTempFile::new_in(self.dir.path()).unwrap().into_temp_path().keep().unwrap();
        let mut command = self.command(env!("CARGO_BIN_EXE_sealane-bridge"), args);
        command.stderr(File::create(&log).unwrap());
        let mut program = Program { child: command.spawn().unwrap(), log };
        wait_until("it has begun", || {
            let ended = program.child.try_wait().unwrap();
            assert!(ended.is_none(), "{args:?} has ended: {}", program.log());
            program.log().contains("its identifier in Zenoh is")
        });
        program
    }

    /// Starts it without standard streams.
    pub(crate) fn start_closed(&self, args: &[&str]) -> Program {
        let script = "exec \"$0\" \"$@\" <&- >&- 2>&-";
        let program = env!("CARGO_BIN_EXE_sealane-bridge");
        let mut command = self.command("sh", &[&["-c", script, program], args].concat());
        Program { child: command.spawn().unwrap(), log: PathBuf::new() }
    }

    /// Starts it with a log that nobody reads.
    pub(crate) fn start_unread(&self, args: &[&str]) -> Program {
        let mut command = self.command(env!("CARGO_BIN_EXE_sealane-bridge"), args);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stderr.take());
        Program { child, log: PathBuf::new() }
    }
}

/// A program that runs until it is dropped.
pub(crate) struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn kill(mut self) -> ExitStatus {
        self.child.kill().unwrap();
        self.child.wait().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Asks it to end, and sees that it does, with success.
    pub(crate) fn ends_in_order(mut self) {
        self.signal(Signal::TERM);
        let mut status = None;
        wait_until("it has ended", || {
            status = self.status();
            status.is_some()
        });
        assert!(status.unwrap().success(), "{status:?}: {}", self.log());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
