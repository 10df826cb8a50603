//! A terminal that a test drives by tmux(1), as a person does.

use std::{
    process::Command,
    time::{Duration, Instant},
};

/// A terminal of its own, ended on drop.
pub(crate) struct Terminal {
    socket: String,
}

impl Terminal {
    /// `None` where there is no tmux(1).
    pub(crate) fn start(command: &str) -> Option<Self> {
        Self::with_width(160, command)
    }

    /// The same, with so many columns.
    pub(crate) fn with_width(width: u16, command: &str) -> Option<Self> {
        let socket = format!("sealane-test-{}-{:?}", std::process::id(), std::thread::current().id());
        let socket = socket.replace(['(', ')'], "");
        let mut tmux = Command::new("tmux");
        let width = width.to_string();
        tmux.args(["-L", &socket, "-f", "/dev/null", "new-session", "-d", "-x", &width, "-y", "20", command]);
        match tmux.status() {
            Ok(status) => assert!(status.success()),
            Err(_) => return None,
        }
        Some(Self { socket })
    }

    pub(crate) fn tmux(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux").args(["-L", &self.socket]).args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Waits until the screen is as `expected`.
    pub(crate) fn shows(&self, expected: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let screen = self.tmux(&["capture-pane", "-p"]);
            if expected(&screen) {
                return screen;
            }
            assert!(Instant::now() < deadline, "{screen}");
            std::thread::yield_now();
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}
