//! [`Server`]: tells `sealane-bridge status` how this bridge does.

use std::{
    os::unix::net::UnixStream,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};
use sealane::{Builder, Error, Handshake, Listener};
use sealane_bridge::Bridge;

use super::{
    REQUEST, folder,
    snapshot::{About, Snapshot},
};
use crate::cli::plan::Plan;

/// Answers until it is dropped. Then its socket is removed.
#[derive(Debug)]
pub(crate) struct Server {
    /// Its end is the thread's sign to end.
    sign: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

/// The time that a client has for each of: its handshake, its request, and room for the reply. One client is served after the other: the
/// folder lets in none but this user's.
const PATIENCE: Duration = Duration::from_secs(2);

impl Server {
    pub(crate) fn start(bridge: &Arc<Bridge>, plan: &Plan) -> Result<Self> {
        let path = folder::socket_of(std::process::id())?;
        let builder = Builder::default().max_fds(0).prefault(false).handshake_timeout(PATIENCE);
        let listener = builder.listen(path)?;
        let (end, sign) = UnixStream::pair().context("socketpair(2)")?;
        let source = Source {
            bridge: Arc::clone(bridge),
            since: Instant::now(),
            listen: plan.listen.clone(),
            connect: plan.connect.clone(),
            router: plan.router,
        };
        let run = move || serve(&listener, &end, &source);
        let thread =
            std::thread::Builder::new().name("status".to_owned()).spawn(run).context("starting a thread")?;
        Ok(Self { sign: Some(sign), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.sign.take();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the thread that tells the status has panicked");
        }
    }
}

struct Source {
    bridge: Arc<Bridge>,
    since: Instant,
    listen: Vec<String>,
    connect: Vec<String>,
    router: bool,
}

impl Source {
    fn snapshot(&self) -> Snapshot {
        Snapshot {
            about: About {
                pid: std::process::id(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                id: self.bridge.id(),
                uptime: self.since.elapsed().as_secs_f64(),
                router: self.router,
                listen: self.listen.clone(),
                connect: self.connect.clone(),
                peers: self.bridge.peers(),
            },
            topics: self.bridge.status(),
        }
    }
}

fn serve(listener: &Listener, end: &UnixStream, source: &Source) {
    loop {
        let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(end, PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            Err(error) => return log::error!("the status is not told any more: poll(2): {error}"),
            Ok(_) => {}
        }
        if !fds[1].revents().is_empty() {
            return;
        }
        match listener.try_accept() {
            Ok(None) => {}
            Ok(Some(handshake)) => {
                if let Err(why) = answer(handshake, source) {
                    log::debug!("a client that asked for the status: {why:#}");
                }
            }
            Err(why) => {
                log::debug!("a client that asked for the status was not accepted: {why}");
                // It is still there, and would be refused again at once.
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

fn answer(handshake: Handshake, source: &Source) -> Result<()> {
    let mut channel = handshake.finish()?;
    let request = channel.recv_timeout(PATIENCE)?;
    let Some(token) = request.reply_token() else { bail!("a request expected, a message found") };
    if request.control() != REQUEST {
        bail!("the request `status` expected, another one found");
    }
    let json = serde_json::to_vec(&source.snapshot())?;
    let mut loan = channel.sender.loan_timeout(json.len(), PATIENCE)?;
    loan.copy_from_slice(&json);
    loan.reply_timeout(token, b"", PATIENCE)?;
    // The client closes when it has the reply.
    match channel.recv_timeout(PATIENCE) {
        Err(Error::Disconnected) => Ok(()),
        other => bail!("the client's end expected, something else found: {other:?}"),
    }
}
