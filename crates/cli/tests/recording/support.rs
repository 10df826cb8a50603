//! Publishers to record, the command, and readers of files that know nothing of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use prost::Message as _;
use rustix::process::{Pid, Signal, kill_process};
use sealane::{Builder, Publisher};

/// A limit for what takes milliseconds.
pub(crate) const SOON: Duration = Duration::from_mins(1);

/// The command.
pub(crate) fn sealane(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sealane"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs the command to its end, which must be a success. What it printed.
pub(crate) fn succeed(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{command:?}: {status}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// Runs the command to its end, which must be an error by its own doing. The error.
pub(crate) fn fail(command: &mut Command) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{command:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    stderr
}

pub(crate) fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// A directory with a publisher and the file of its recorder.
pub(crate) struct Place {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) path: PathBuf,
    pub(crate) file: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (path, file) = (directory.path().join("p"), directory.path().join("f.mcap"));
        Self { directory, path, file }
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn publisher(&self) -> Publisher {
        Builder::default().ring_capacity(16 << 20).publish(&self.path).unwrap()
    }

    /// The command that records, with more options.
    pub(crate) fn recorder(&self, options: &[&str]) -> Command {
        let mut command = sealane(&["record", text(&self.path), "-o", text(&self.file), "--json"]);
        command.args(options);
        command
    }

    /// Starts a recorder, and waits until it has joined.
    pub(crate) fn record(&self, publisher: &mut Publisher, options: &[&str]) -> Child {
        start(&mut self.recorder(options), publisher)
    }
}

/// Starts a command, and waits until it has joined.
pub(crate) fn start(command: &mut Command, publisher: &mut Publisher) -> Child {
    let before = publisher.subscribers().len();
    let child = command.spawn().unwrap();
    let deadline = Instant::now() + SOON;
    while publisher.subscribers().len() == before {
        assert!(Instant::now() < deadline, "the recorder does not come");
        publisher.wait_event(Duration::from_secs(1)).unwrap();
    }
    child
}

/// Waits for the first subscriber: a recorder that was started before its publisher.
pub(crate) fn wait_for_subscriber(publisher: &mut Publisher) {
    while publisher.subscribers().is_empty() {
        publisher.wait_event(SOON).unwrap();
    }
}

/// Waits for a recorder that ends well. Its report.
pub(crate) fn report(child: Child) -> serde_json::Value {
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    assert!(status.success(), "{status}: {}", String::from_utf8_lossy(&stderr));
    serde_json::from_slice(&stdout).unwrap()
}

/// A message in a file, as docs/tools.md describes it.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Recorded {
    #[prost(uint64, tag = "1")]
    pub(crate) sequence: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) missed: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) epoch: u64,
    #[prost(uint32, tag = "4")]
    pub(crate) descriptors: u32,
    #[prost(bytes = "vec", tag = "5")]
    pub(crate) control: Vec<u8>,
    #[prost(bytes = "vec", optional, tag = "6")]
    pub(crate) payload: Option<Vec<u8>>,
}

/// The messages of a whole file, read from begin to end and by its index, which have to be the same.
pub(crate) fn messages(file: &Path) -> Vec<Recorded> {
    let bytes = fs::read(file).unwrap();
    let summary = mcap::Summary::read(&bytes).unwrap().expect("an index");
    let all: Vec<_> = mcap::MessageStream::new(&bytes).unwrap().map(Result::unwrap).collect();
    let statistics = summary.stats.as_ref().unwrap();
    assert_eq!(statistics.message_count, all.len() as u64);
    let chunks = summary.chunk_indexes.iter();
    let indexed = chunks.flat_map(|chunk| summary.stream_chunk(&bytes, chunk).unwrap().map(Result::unwrap));
    assert!(indexed.map(|message| message.sequence).eq(all.iter().map(|message| message.sequence)));
    // The first chunk has descriptions only.
    for chunk in summary.chunk_indexes.iter().filter(|chunk| !chunk.message_index_offsets.is_empty()) {
        let entries = summary.read_message_indexes(&bytes, chunk).unwrap();
        // Each is found by reading all before it: the first and the last are enough.
        let ends =
            entries.values().flat_map(|of_channel| of_channel.first().into_iter().chain(of_channel.last()));
        for entry in ends {
            let message = summary.seek_message(&bytes, chunk, entry).unwrap();
            assert_eq!(message.log_time, entry.log_time);
        }
    }
    let decode = |message: &mcap::Message<'_>| {
        let schema = message.channel.schema.as_ref().unwrap();
        assert_eq!((schema.name.as_str(), schema.encoding.as_str()), ("sealane.Message", "protobuf"));
        assert!(message.channel.topic.starts_with("/sealane/"));
        let recorded = Recorded::decode(&*message.data).unwrap();
        assert_eq!(u64::from(message.sequence), recorded.sequence & u64::from(u32::MAX));
        recorded
    };
    all.iter().map(decode).collect()
}

/// The metadata of a name in a whole file.
pub(crate) fn metadata(file: &Path, name: &str) -> std::collections::BTreeMap<String, String> {
    let bytes = fs::read(file).unwrap();
    let summary = mcap::Summary::read(&bytes).unwrap().expect("an index");
    let index = summary.metadata_indexes.iter().find(|index| index.name == name).expect("metadata");
    mcap::read::metadata(&bytes, index).unwrap().metadata
}

/// What a publisher published that numbered its messages from `first` on is in a file, or missed. Returns how many there are.
pub(crate) fn account(messages: &[Recorded], first: u64) -> u64 {
    let mut next = first;
    for message in messages {
        assert_eq!(message.sequence, next + message.missed, "exactly what is not there was missed");
        next = message.sequence + 1;
    }
    next - first
}

/// Publishes payloads of at most `max` bytes until no subscriber is left. Returns the number of messages.
pub(crate) fn publish_until_alone(publisher: &mut Publisher, max: usize) -> u64 {
    let mut number = 0;
    while !publisher.subscribers().is_empty() {
        publish(publisher, number, max);
        publisher.wait_event(Duration::ZERO).unwrap();
        number += 1;
    }
    number
}

/// Publishes the message of a number: of any length up to `max`, and with bytes that tell it.
pub(crate) fn publish(publisher: &mut Publisher, number: u64, max: usize) {
    let (control, payload) = content(number, max);
    match payload {
        None => publisher.send(&control).unwrap(),
        Some(payload) => {
            let mut loan = publisher.loan(payload.len()).unwrap();
            loan.copy_from_slice(&payload);
            loan.send_with(&control).unwrap();
        }
    }
}

/// Control bytes and payload of the message of a number.
pub(crate) fn content(number: u64, max: usize) -> (Vec<u8>, Option<Vec<u8>>) {
    let mut random = fastrand::Rng::with_seed(number);
    let payload = (random.u8(..) > 25).then(|| {
        let max = max >> random.u32(..10);
        let len = random.usize(..=max);
        // A cycle of 251 bytes, which is no power of two, from anywhere in it.
        (0..251).cycle().skip(random.usize(..251)).take(len).collect()
    });
    (number.to_le_bytes().to_vec(), payload)
}

/// Runs the Python reader, where its package is installed, over whole files.
pub(crate) fn read_in_python(files: &[PathBuf]) {
    let python = std::env::var_os("SEALANE_PYTHON").unwrap_or("python3".into());
    let is_there = Command::new(&python).args(["-c", "import mcap"]).stderr(Stdio::null()).status();
    if !is_there.is_ok_and(|status| status.success()) {
        eprintln!(
            "SKIPPED: reading by Python's mcap.reader: needs python3 with the package mcap (pip install mcap)"
        );
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mcap_reader.py");
    let output = Command::new(python).arg(script).args(files).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout.split(|byte| *byte == b'\n').count(), files.len() + 1);
}
