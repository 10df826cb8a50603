//! The subscribers' processes of a run, and the script of what happens to them.

use std::env;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::viewers::Counts;
use crate::{Options, Result};

/// How long a process may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// An event of the script. They come in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    StopPreview,
    KillRecorder,
    ContinuePreview,
    RestartRecorder,
    JoinLate,
}

/// The acts that are to come, each with its frame.
pub(crate) struct Script(Vec<(u64, Act)>);

impl Script {
    /// A script for that many frames. Each act has its eighth, as the loop has converged after the first one.
    pub(crate) fn new(frames: u64) -> Self {
        let acts = [
            (2, Act::StopPreview),
            (3, Act::KillRecorder),
            (4, Act::ContinuePreview),
            (5, Act::RestartRecorder),
            (6, Act::JoinLate),
        ];
        Self(acts.into_iter().rev().map(|(eighth, act)| (frames * eighth / 8, act)).collect())
    }

    /// The next act that is due before this frame.
    pub(crate) fn next(&mut self, frame: u64) -> Option<Act> {
        self.0.pop_if(|(due, _)| *due <= frame).map(|(_, act)| act)
    }
}

/// A subscriber's process. It does not outlive this.
pub(crate) struct Actor {
    child: Child,
    is_stopped: bool,
}

impl Actor {
    /// This program again.
    pub(crate) fn command(options: &Options) -> Result<Command> {
        let mut command = Command::new(env::current_exe()?);
        command.args(["--json", "--attached"]).stdin(Stdio::null()).stdout(Stdio::piped());
        if let Some(capacity) = options.ring_capacity {
            command.args(["--ring-capacity", &capacity.to_string()]);
        }
        Ok(command)
    }

    /// Starts a process that subscribes at `path`.
    pub(crate) fn subscribe(role: &str, path: &Path, options: &Options) -> Result<Self> {
        Ok(Self::new(Self::command(options)?.arg(role).arg(path).spawn()?))
    }

    pub(crate) fn new(child: Child) -> Self {
        Self { child, is_stopped: false }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops the process (SIGSTOP), and waits until it has stopped.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::STOP)?;
        self.is_stopped =
            waitpid(Some(pid), WaitOptions::UNTRACED)?.is_some_and(|(_, status)| status.stopped());
        if self.is_stopped { Ok(()) } else { Err("a subscriber ended before it could be stopped".into()) }
    }

    pub(crate) fn resume(&mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::CONT)?;
        self.is_stopped = false;
        Ok(())
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        self.is_stopped = false;
        Ok(())
    }

    /// How the process has ended, if it has.
    pub(crate) fn ending(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for the process, which ends when the pipeline's publisher does, and reads what it has counted.
    pub(crate) fn see_off(&mut self) -> Result<Counts> {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait()? {
                Some(status) => break status,
                None if Instant::now() > deadline => return Err("a subscriber did not end by itself".into()),
                None => thread::sleep(Duration::from_millis(1)),
            }
        };
        if !status.success() {
            return Err(format!("a subscriber ended with {status}").into());
        }
        let mut said = Vec::new();
        if let Some(output) = &mut self.child.stdout {
            output.read_to_end(&mut said)?;
        }
        Counts::from_json(&said)
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.kill();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_has_its_acts_in_their_order_in_any_number_of_frames() {
        for frames in [0, 1, 7, 40, 300] {
            let mut script = Script::new(frames);
            let acts: Vec<_> = (0..=frames)
                .flat_map(|frame| std::iter::from_fn(|| script.next(frame)).collect::<Vec<_>>())
                .collect();
            let expected = [
                Act::StopPreview,
                Act::KillRecorder,
                Act::ContinuePreview,
                Act::RestartRecorder,
                Act::JoinLate,
            ];
            assert_eq!(acts, expected, "{frames} frames");
        }
    }
}
