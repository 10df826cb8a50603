//! A publisher, a bridge, a cable, another bridge, and a subscriber.

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use sealane::Slow;

use crate::{
    common::{LONG, endpoint, free_port},
    far::{Far, check},
    hosts::{Running, TcpRelay},
    roles::{Behind, Carrier, RunningSource, Source},
    times::{Random, secs},
};

/// What a scenario chooses.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    pub(crate) behind: Behind,
    pub(crate) lease: Duration,
    pub(crate) interval: Duration,
    pub(crate) max_payload: usize,
    /// What the publisher grants to the bridge.
    pub(crate) near_slow: Option<Duration>,
    /// What the far bridge grants to the subscriber.
    pub(crate) far_slow: Option<Duration>,
    pub(crate) memory: usize,
    pub(crate) exporters: usize,
}

impl Choice {
    /// Some rate, some payloads; little memory, so that much is lost.
    pub(crate) fn random(random: &Random) -> Self {
        let micros = random.one_of(&[0, 0, 50, 200, 1000]);
        Self {
            behind: random.one_of(&[Behind::Newest, Behind::Oldest]),
            lease: secs(10.0),
            interval: Duration::from_micros(micros),
            max_payload: random.one_of(&[0, 256, 64 << 10]),
            near_slow: random.one_of(&[None, Some(secs(2.0))]),
            far_slow: random.one_of(&[None, Some(secs(2.0))]),
            memory: random.one_of(&[64 << 10, 1 << 20, 16 << 20]),
            exporters: 1,
        }
    }
}

/// Everything, running. What is dropped first ends first.
pub(crate) struct Rig {
    pub(crate) far: Far,
    pub(crate) source: Option<RunningSource>,
    pub(crate) exporters: Vec<Option<Running>>,
    pub(crate) importer: Option<Running>,
    pub(crate) cables: Vec<TcpRelay>,
    choice: Choice,
    ports: Vec<u16>,
    /// The least and the most messages that each earlier run has sent.
    earlier: Vec<(u64, u64)>,
    dir: tempfile::TempDir,
}

impl Rig {
    /// Starts everything, and waits until messages arrive.
    pub(crate) fn start(choice: &Choice) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ports: Vec<u16> = (0..choice.exporters).map(|_| free_port()).collect();
        let cables =
            ports.iter().map(|&port| TcpRelay::new(SocketAddr::from(([127, 0, 0, 1], port)))).collect();
        let slow = choice.far_slow.map_or(Slow::Overrun, |_| Slow::Wait(Duration::MAX));
        let mut rig = Self {
            far: Far::start(dir.path().join("far"), slow, choice.max_payload),
            source: None,
            exporters: Vec::new(),
            importer: None,
            cables,
            choice: choice.clone(),
            ports,
            earlier: Vec::new(),
            dir,
        };
        rig.start_source();
        for index in 0..choice.exporters {
            rig.exporters.push(None);
            rig.start_exporter(index);
        }
        rig.start_importer();
        rig.far.wait_for_more(10);
        rig
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn carrier(&self, imports: bool) -> Carrier {
        let Choice { behind, lease, near_slow, far_slow, memory, .. } = self.choice;
        // An importer never waits.
        let behind = if imports && matches!(behind, Behind::Wait(_)) { Behind::Newest } else { behind };
        Carrier {
            listen: None,
            connect: Vec::new(),
            path: self.path(if imports { "far" } else { "near" }),
            imports,
            behind,
            slow: if imports { far_slow } else { near_slow },
            memory,
            ring: 1 << 20,
            lease,
        }
    }

    pub(crate) fn start_exporter(&mut self, index: usize) {
        let listen = Some(endpoint(self.ports[index]));
        self.exporters[index] = Some(Carrier { listen, ..self.carrier(false) }.start());
    }

    pub(crate) fn start_importer(&mut self) {
        let connect = self.cables.iter().map(|cable| format!("tcp/{}", cable.address())).collect();
        self.importer = Some(Carrier { connect, ..self.carrier(true) }.start());
    }

    pub(crate) fn kill_exporter(&mut self, index: usize) {
        self.exporters[index] = None;
    }

    pub(crate) fn kill_importer(&mut self) {
        self.importer = None;
    }

    pub(crate) fn start_source(&mut self) {
        let run = self.earlier.len() as u64;
        let Choice { interval, max_payload, near_slow, .. } = self.choice;
        let (path, progress) = (self.path("near"), self.path(&format!("run {run}")));
        let source = Source { path, progress, run, interval, max_payload, slow: near_slow };
        self.source = Some(RunningSource::start(&source));
    }

    /// Kills the publisher. A run that no bridge has joined could not be told of.
    pub(crate) fn kill_source(&mut self) {
        let source = self.source.take().unwrap();
        source.wait_for_bridge();
        self.earlier.push(source.kill());
    }

    pub(crate) fn stop_source(&mut self) {
        self.source.as_mut().unwrap().stop();
    }

    /// Stops the publisher, and checks that all that it sent has come, or is told missing. Says how much that was.
    pub(crate) fn finish(mut self) -> String {
        let mut source = self.source.take().unwrap();
        let sent = source.stop();
        let mut runs = self.earlier.clone();
        runs.push((sent, sent));
        self.far.wait_for_all(&runs);
        // What comes now comes at once, and nothing is missing before it, as soon as Zenoh's declarations are there again.
        let deadline = Instant::now() + LONG;
        let all = loop {
            let (received, missing) = self.far.received();
            source.more(3);
            if let Some(last) = runs.last_mut() {
                *last = (last.0 + 3, last.1 + 3);
            }
            let all = self.far.wait_for_all(&runs);
            if self.far.received() == (received + 3, missing) {
                break all;
            }
            assert!(Instant::now() < deadline, "messages still do not come");
        };
        let (received, missing) = self.far.received();
        let last = source.sent();
        let noted = self.far.stop();
        // A publisher that was killed while it published a message has published it, or not.
        let unsure: Vec<_> = self.earlier.iter().filter(|(least, most)| least < most).collect();
        let checks = (0..1_u64 << unsure.len()).map(|bits| {
            let mut bit = 0;
            let mut sent: Vec<u64> = Vec::new();
            for &(least, most) in &self.earlier {
                sent.push(if least < most && bits >> bit & 1 == 1 { most } else { least });
                bit += u32::from(least < most);
            }
            sent.push(last);
            check(&noted, &sent)
        });
        let results: Vec<_> = checks.collect();
        assert!(results.iter().any(Result::is_ok), "{results:#?}");
        format!("{all} sent, {received} received, {missing} missing")
    }
}
