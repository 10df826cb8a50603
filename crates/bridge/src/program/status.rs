//! `sealane-bridge status`: each bridge answers its own user, over sealane.

use std::{
    fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use bytesize::ByteSize;
use comfy_table::{CellAlignment, Table, presets};
use sealane::{Builder, Channel};
use sealane_bridge::{Bridge, Role, StatusReader, TopicStatus};
use serde::{Deserialize, Serialize};

/// Longest wait of either side for the other.
const PATIENCE: Duration = Duration::from_secs(1);

/// What one bridge says of itself.
#[derive(Debug, Serialize, Deserialize)]
struct Report {
    pid: u32,
    version: String,
    /// Other bridges and routers that it is connected to.
    peers: Vec<String>,
    topics: Vec<TopicStatus>,
}

/// A topic with its rates, since the look before.
#[derive(Debug, Serialize)]
struct Rated {
    #[serde(flatten)]
    topic: TopicStatus,
    messages_per_second: f64,
    bytes_per_second: f64,
}

#[derive(Debug, Serialize)]
struct RatedReport {
    pid: u32,
    version: String,
    peers: Vec<String>,
    topics: Vec<Rated>,
}

/// The folder of this user's bridges. Nobody else may enter it.
fn folder() -> Result<PathBuf> {
    let uid = rustix::process::getuid().as_raw();
    let folder = match std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty()) {
        Some(folder) => PathBuf::from(folder).join("sealane-bridge"),
        None => PathBuf::from(format!("/tmp/sealane-bridge-{uid}")),
    };
    if let Err(why) = fs::DirBuilder::new().mode(0o700).create(&folder)
        && why.kind() != std::io::ErrorKind::AlreadyExists
    {
        return Err(why).with_context(|| folder.display().to_string());
    }
    let found = fs::symlink_metadata(&folder).with_context(|| folder.display().to_string())?;
    if !found.is_dir() || found.uid() != uid || found.mode() & 0o077 != 0 {
        let (mode, owner) = (found.mode() & 0o7777, found.uid());
        bail!(
            "{}: a folder of user {uid} with mode 0700 expected, mode {mode:04o} of user {owner} found",
            folder.display()
        );
    }
    Ok(folder)
}

fn builder() -> Builder {
    Builder::default().ring_capacity(1 << 20).handshake_timeout(PATIENCE)
}

/// Answers whoever asks, until it is dropped.
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(bridge: &Bridge) -> Result<Self> {
        let path = folder()?.join(std::process::id().to_string());
        let listener = builder().listen(&path).with_context(|| path.display().to_string())?;
        let (stop, reader) = (Arc::new(AtomicBool::new(false)), bridge.status_reader());
        let stopped = Arc::clone(&stop);
        let serve = move || {
            while !stopped.load(Relaxed) {
                match listener.accept_timeout(Duration::from_millis(200)) {
                    Ok(mut asker) => {
                        answer(&mut asker, &reader).unwrap_or_else(|why| log::debug!("status: {why:#}"));
                    }
                    Err(why) if why.is_timeout() => {}
                    Err(why) => log::debug!("status: {why}"),
                }
            }
        };
        let thread = std::thread::Builder::new().name("status".into()).spawn(serve)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(asker: &mut Channel, reader: &StatusReader) -> Result<()> {
    let request = asker.recv_timeout(PATIENCE)?;
    let token = request.reply_token().context("a request expected")?;
    let report = Report {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        peers: reader.peers(),
        topics: reader.topics(),
    };
    let text = serde_json::to_vec(&report)?;
    let mut loan = asker.sender.loan_timeout(text.len(), PATIENCE)?;
    loan.copy_from_slice(&text);
    loan.send_with(sealane::Control::default().in_reply_to(token))?;
    Ok(())
}

/// All bridges that answer. What a dead one has left is removed.
fn ask_all() -> Result<Vec<Report>> {
    let folder = folder()?;
    let mut reports = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let Some(pid) = path.file_name().and_then(|name| name.to_str()?.parse::<i32>().ok()) else {
            continue;
        };
        let ask = || -> Result<Report> {
            let mut channel = builder().connect(&path)?;
            let reply = channel.call(b"status", PATIENCE)?;
            Ok(serde_json::from_slice(&reply.payload().context("no payload")?.to_vec())?)
        };
        match ask() {
            Ok(report) => reports.push(report),
            Err(_) if rustix::process::Pid::from_raw(pid).is_none_or(is_dead) => {
                let _ = fs::remove_file(&path);
            }
            Err(why) => log::warn!("the bridge with process {pid} does not answer: {why:#}"),
        }
    }
    reports.sort_by_key(|report| report.pid);
    Ok(reports)
}

fn is_dead(pid: rustix::process::Pid) -> bool {
    matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH))
}

/// Shows the bridges of this user.
pub(crate) fn show(json: bool, interval: Duration) -> Result<()> {
    let start = Instant::now();
    let before = ask_all()?;
    if before.is_empty() {
        bail!("no bridge of this user runs on this machine");
    }
    std::thread::sleep(interval);
    let seconds = start.elapsed().as_secs_f64();
    let reports: Vec<_> = ask_all()?.into_iter().map(|report| rate(report, &before, seconds)).collect();
    let mut stdout = std::io::stdout().lock();
    let text = if json { serde_json::to_string_pretty(&reports)? } else { tables(&reports) };
    match writeln!(stdout, "{text}") {
        // Whoever reads has had enough.
        Err(why) if why.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

fn rate(report: Report, before: &[Report], seconds: f64) -> RatedReport {
    let Report { pid, version, peers, topics } = report;
    let earlier = before.iter().find(|before| before.pid == pid);
    let rated = topics.into_iter().map(|topic| {
        let same = |other: &&TopicStatus| other.topic == topic.topic && other.role == topic.role;
        let count = earlier.and_then(|report| report.topics.iter().find(same)).map(|before| before.count);
        let rate =
            |now: u64, before: Option<u64>| before.map_or(0.0, |before| per_second(now, before, seconds));
        Rated {
            messages_per_second: rate(topic.count.messages, count.map(|count| count.messages)),
            bytes_per_second: rate(topic.count.bytes, count.map(|count| count.bytes)),
            topic,
        }
    });
    RatedReport { pid, version, peers, topics: rated.collect() }
}

#[expect(clippy::cast_precision_loss, reason = "a rate that is shown")]
fn per_second(now: u64, before: u64, seconds: f64) -> f64 {
    now.saturating_sub(before) as f64 / seconds
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate that is shown")]
fn whole(rate: f64) -> u64 {
    rate.round() as u64
}

fn tables(reports: &[RatedReport]) -> String {
    use std::fmt::Write;

    let mut text = String::new();
    for RatedReport { pid, version, peers, topics } in reports {
        let peers = if peers.is_empty() { "nobody".to_owned() } else { peers.join(", ") };
        let _ = writeln!(text, "sealane-bridge {version}, process {pid}, connected to {peers}");
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header([
            "TOPIC", "", "PATH", "MSG/S", "BYTES/S", "NUMBER", "MISSED", "DROPPED", "REFUSED", "WAITING",
            "LAG", "READERS", "STATE",
        ]);
        for Rated { topic, messages_per_second, bytes_per_second } in topics {
            let size = |bytes: u64| ByteSize::b(bytes).display().iec().to_string();
            let count = &topic.count;
            let refused = count.refused + count.malformed + count.foreign;
            let (role, readers) = match topic.role {
                Role::Export => ("export", "–".to_owned()),
                Role::Import => ("import", topic.subscribers.to_string()),
            };
            table.add_row([
                topic.topic.clone(),
                role.to_owned(),
                topic.path.clone(),
                whole(*messages_per_second).to_string(),
                size(whole(*bytes_per_second)),
                topic.number.to_string(),
                count.missed.to_string(),
                count.dropped.to_string(),
                refused.to_string(),
                size(topic.waiting),
                size(topic.lag),
                readers,
                topic.state.clone(),
            ]);
        }
        for column in 3..12 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let _ = writeln!(text, "{table}\n");
    }
    text.trim_end().to_owned()
}
