//! What tests of bridges share: a publisher's side, a far side, and ports.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::{
    net::TcpListener,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use sealane::{Builder, Control, Event, Publisher};
use sealane_bridge::{Bridge, Network, Received, Settings, Subscriber, WhenBehind};

/// Everything is there by then, on a slow machine too.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// A port of the loopback that nobody uses. The kernel gives those who ask for any port, and all who connect, one from 32,768 on
/// (`ip_local_port_range`, `ip(7)`): one below is still free when it is listened at.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let next = std::process::id().wrapping_mul(211).wrapping_add(NEXT.fetch_add(1, Relaxed));
        let port = u16::try_from(10_000 + next % 20_000).expect("a port");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

pub(crate) fn endpoint(port: u16) -> String {
    format!("tcp/127.0.0.1:{port}")
}

/// Settings whose times are short.
pub(crate) fn quick() -> Settings {
    let mut settings = Settings::default();
    settings.beat = Duration::from_millis(10);
    settings.silence = Duration::from_secs(4);
    settings
}

/// The same for an export that drops nothing.
pub(crate) fn waiting() -> Settings {
    let mut settings = quick();
    settings.when_behind = WhenBehind::Wait(LONG);
    settings
}

/// Waits until something holds.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {LONG:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A folder for sockets.
pub(crate) struct Place {
    dir: tempfile::TempDir,
    pub(crate) port: u16,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), port: free_port() }
    }

    pub(crate) fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    pub(crate) fn remote(&self) -> PathBuf {
        self.dir.path().join("remote")
    }

    pub(crate) fn exporter(&self, settings: &Settings) -> Bridge {
        let network = Network::default().listen(&endpoint(self.port));
        Bridge::open(&network).unwrap().export("stats", self.source(), settings).unwrap()
    }

    pub(crate) fn importer(&self, settings: &Settings) -> Bridge {
        self.importer_by(self.port, settings)
    }

    pub(crate) fn importer_by(&self, port: u16, settings: &Settings) -> Bridge {
        let network = Network::default().connect(&endpoint(port));
        Bridge::open(&network).unwrap().import("stats", self.remote(), settings).unwrap()
    }
}

/// Waits until a publisher has so many subscribers.
pub(crate) fn wait_for_subscribers(publisher: &mut Publisher, count: usize) {
    let deadline = Instant::now() + LONG;
    while publisher.subscribers().len() < count {
        assert!(Instant::now() < deadline, "no subscriber within {LONG:?}");
        publisher.wait_event(Duration::from_millis(50)).unwrap();
    }
}

/// The number in a message's control bytes.
pub(crate) fn number(control: &[u8]) -> u64 {
    u64::from_le_bytes(control.try_into().unwrap())
}

/// Publishes the number `number`.
pub(crate) fn publish(publisher: &mut Publisher, number: u64) {
    publisher.send(Control::of(&number)).unwrap();
}

/// The next message at a bridge's path.
pub(crate) fn next(subscriber: &mut Subscriber) -> (Vec<u8>, u64) {
    let deadline = Instant::now() + LONG;
    loop {
        assert!(Instant::now() < deadline, "no message within {LONG:?}");
        if let Some(Received::Message(message)) = subscriber.recv(Duration::from_millis(100)).unwrap() {
            return (message.control().to_vec(), message.missed());
        }
    }
}

/// A bridge whose far side has had a first message, so that nothing is lost from then on by its being late.
pub(crate) struct Pair {
    pub(crate) place: Place,
    pub(crate) publisher: Publisher,
    pub(crate) exporter: Option<Bridge>,
    pub(crate) importer: Option<Bridge>,
    pub(crate) subscriber: Subscriber,
}

impl Pair {
    pub(crate) fn new(export: &Settings, import: &Settings) -> Self {
        Self::with(export, import, &Builder::default())
    }

    pub(crate) fn with(export: &Settings, import: &Settings, publisher: &Builder) -> Self {
        let place = Place::new();
        let mut publisher = publisher.publish(place.source()).unwrap();
        let exporter = place.exporter(export);
        let importer = place.importer(import);
        wait_for_subscribers(&mut publisher, 1);
        let mut subscriber = Subscriber::connect(place.remote(), LONG).unwrap();
        wait_until("the source is seen", || importer.status()[0].is_here);
        wait_until("the link is there", || !exporter.peers().is_empty());
        let deadline = Instant::now() + LONG;
        // Messages before Zenoh's declarations have arrived reach nobody.
        loop {
            publisher.send(b"first").unwrap();
            if let Some(Received::Message(_)) = subscriber.recv(Duration::from_millis(100)).unwrap() {
                break;
            }
            assert!(Instant::now() < deadline);
        }
        Self { place, publisher, exporter: Some(exporter), importer: Some(importer), subscriber }
    }
}

/// Answers every request with its own bytes, until it is dropped.
pub(crate) struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Publisher>>,
}

impl Echo {
    pub(crate) fn start(mut publisher: Publisher) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Relaxed) {
                if let Some(Event::Message(id, message)) =
                    publisher.wait_event(Duration::from_millis(20)).unwrap()
                    && let Some(token) = message.reply_token()
                {
                    let reply = [b"echo ", message.control()].concat();
                    while let Err(why) = publisher.reply(id, token, &reply) {
                        assert!(matches!(why, sealane::Error::Full), "{why}");
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            }
            publisher
        });
        Self { stop, thread: Some(thread) }
    }

    pub(crate) fn stop(mut self) -> Publisher {
        self.stop.store(true, Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}
