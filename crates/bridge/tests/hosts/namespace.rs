//! Network namespaces, each held open by a process that does nothing else.
//!
//! The holder is a shell, with a pipe from this process as its standard input. It is killed when the namespace is dropped. When
//! this process is killed, the holder reads the end of the pipe, and kills what runs in the namespace. The kernel removes a
//! namespace and its interfaces after the last process in it.

use std::{
    any::type_name,
    env::current_exe,
    ffi::OsStr,
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::OwnedFd,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

/// How long an interface or a process may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the holder does: it says that it runs, waits, and kills the others in its namespace.
const HOLD: &str = r#"
echo
read -r _
own=$(readlink /proc/self/ns/net)
for process in /proc/[0-9]*; do
    id=${process#/proc/}
    [ "$id" != $$ ] && [ "$(readlink "$process/ns/net")" = "$own" ] && kill -KILL "$id"
done 2> /dev/null
"#;

/// A network namespace.
#[derive(Debug)]
pub(crate) struct Namespace {
    holder: Child,
    /// Its name as `/proc/PID/ns/net` gives it: `net:[4026532000]`.
    name: PathBuf,
}

impl Namespace {
    /// A network namespace in a new user namespace, of which this user is root.
    pub(crate) fn first() -> Result<Self, String> {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "--", "sh", "-c", HOLD]);
        Self::hold(command)
    }

    /// Another network namespace in the same user namespace.
    pub(crate) fn beside(other: &Self) -> Result<Self, String> {
        let mut command = other.enter(&[]);
        command.args(["unshare", "--net", "--", "sh", "-c", HOLD]);
        Self::hold(command)
    }

    fn hold(mut command: Command) -> Result<Self, String> {
        let program = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut holder = command.spawn().map_err(|error| format!("{program}(1) does not start: {error}"))?;
        // The shell starts after the namespace has been made. If it has not, this is the end of the pipe.
        if holder.stdout.as_mut().expect("piped").read_exact(&mut [0]).is_err() {
            let output = holder.wait_with_output().map_err(|error| error.to_string())?;
            return Err(format!("no namespace can be made here: {}", what_it_said(&output)));
        }
        // From here on, dropping ends the holder.
        let mut namespace = Self { holder, name: PathBuf::new() };
        namespace.name = net_of(namespace.id()).ok_or("/proc does not show the namespace")?;
        Ok(namespace)
    }

    /// The process id of the holder, by which programs name the namespace.
    pub(crate) fn id(&self) -> u32 {
        self.holder.id()
    }

    /// Its name, as `/proc/PID/ns/net` gives it.
    pub(crate) fn name(&self) -> &Path {
        &self.name
    }

    /// A command that runs `program` in this namespace.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.enter(&["--net"]);
        command.arg(program);
        command
    }

    /// A command that runs the ignored test `test` of this test program, and nothing else, in this namespace. Its standard output
    /// begins with lines of libtest's.
    pub(crate) fn role<Test: Fn()>(&self, _: Test) -> Command {
        // A function's type is named by its path: the crate, then libtest's name.
        let (_, name) = type_name::<Test>().split_once("::").expect("a path");
        let mut command = self.command(current_exe().expect("this program has a path"));
        command.args([name, "--exact", "--ignored", "--nocapture"]);
        command
    }

    /// `nsenter`, which replaces itself with the program that is named next. It keeps the user, whom the user namespace calls root.
    fn enter(&self, options: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.id().to_string(), "--user", "--preserve-credentials"]);
        command.args(options).arg("--");
        command
    }

    /// Runs the lines of `batch` as commands of `ip`, up to the first that fails.
    pub(crate) fn ip(&self, batch: &str) -> Result<(), String> {
        let mut command = self.command("ip");
        command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut ip = command.spawn().map_err(|error| format!("nsenter(1) does not start: {error}"))?;
        let written = ip.stdin.take().expect("piped").write_all(batch.as_bytes());
        let output = ip.wait_with_output().map_err(|error| error.to_string())?;
        if output.status.success() && written.is_ok() {
            return Ok(());
        }
        Err(format!("ip(8) cannot do {batch:?}: {}", what_it_said(&output)))
    }

    /// Makes the interface `here` and its peer `there` in the namespace `other`. Both stay down.
    ///
    /// Both ends send frames of the size of the MTU (`gso_max_segs`), so that a loss is the loss of one packet, and get no IPv6
    /// address, so that nothing is sent that the test does not send.
    pub(crate) fn cable(&self, here: &str, other: &Self, there: &str) -> Result<(), String> {
        self.ip(&format!(
            "link add name {here} type veth peer name {there} netns {}\n\
             link set dev {here} addrgenmode none gso_max_segs 1\n",
            other.id()
        ))?;
        other.ip(&format!("link set dev {there} addrgenmode none gso_max_segs 1\n"))
    }

    /// Waits until `ip` shows the interface with `state`.
    pub(crate) fn wait_for(&self, interface: &str, state: &str) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut command = self.command("ip");
            let output = command
                .args(["-o", "-d", "link", "show", "dev", interface])
                .output()
                .map_err(|e| e.to_string())?;
            let shown = String::from_utf8_lossy(&output.stdout);
            if shown.contains(state) {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(format!(
                    "{interface} does not come to {state:?}: {shown}{}",
                    what_it_said(&output)
                ));
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Kills all processes in this namespace but the holder, and waits until they have ended. They may be anybody's children.
    pub(crate) fn kill_all(&self) {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut found = processes_in(&self.name);
            found.retain(|(id, _)| *id != self.id());
            if found.is_empty() {
                return;
            }
            if Instant::now() > end {
                let _ = writeln!(std::io::stderr(), "{found:?} cannot be killed");
                return;
            }
            for (_, process) in &found {
                let _ = pidfd_send_signal(process, Signal::KILL);
            }
            for (_, process) in &found {
                let second = Timespec { tv_sec: 1, tv_nsec: 0 };
                let _ = poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&second));
            }
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if !self.name.as_os_str().is_empty() {
            self.kill_all();
        }
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// The processes in the network namespace `name` that have not ended.
pub(crate) fn processes_in(name: &Path) -> Vec<(u32, OwnedFd)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter_map(|id: u32| {
        // Opened before its namespace is read: should the id be reused between, the signal reaches the process that had it, which
        // has ended.
        let process = pidfd_open(Pid::from_raw(id.try_into().ok()?)?, PidfdFlags::empty()).ok()?;
        (net_of(id)? == name).then_some((id, process))
    })
    .collect()
}

/// The name of the network namespace of a process; none of one that has ended, waited for or not.
fn net_of(id: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{id}/ns/net")).ok()
}

/// What a program wrote before it failed, or its status if it wrote nothing.
fn what_it_said(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().replace('\n', "; ");
    if said.is_empty() { output.status.to_string() } else { said }
}
