//! A source that is connected and silent: the bridge that imports it connects anew, and nothing else changes.

mod common;
mod foe;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use common::{Echo, LONG, endpoint, free_port, number, publish, quick, wait_for_subscribers, wait_until};
use sealane::Publisher;
use sealane_bridge::{
    Bridge, Network, Received, Settings, Subscriber,
    wire::{
        Head, Keys, Kind, Place,
        notice::{Gone, Notice},
    },
};
use zenoh::{Session, Wait, liveliness::LivelinessToken};

const LEASE: Duration = Duration::from_millis(100);
const RUN: u64 = 7;

/// An exporter made by hand. It sends only what the test tells it to send.
struct Source {
    session: Session,
    keys: Keys,
    sent: u64,
    _token: LivelinessToken,
}

impl Source {
    fn new(topic: &str, at: &str) -> Self {
        let session = foe::open(&[at], &[]);
        let keys = Keys::new(topic);
        let token = session.liveliness().declare_token(keys.token(RUN)).wait().unwrap();
        Self { session, keys, sent: 0, _token: token }
    }

    fn send(&mut self) {
        let head = Head::new(Kind::Message, Place { run: RUN, number: self.sent, source: 0 });
        let attachment = [&head.to_bytes()[..], &self.sent.to_le_bytes()].concat();
        foe::put(&self.session, self.keys.messages(), Some(&attachment), b"pixels");
        self.sent += 1;
    }

    /// Sends until a subscriber of the bridge has had something, and checks that nothing is lost untold.
    fn reach(&mut self, subscriber: &mut Subscriber, expected: &mut u64) {
        let deadline = Instant::now() + LONG;
        loop {
            assert!(Instant::now() < deadline, "nothing arrives");
            self.send();
            match subscriber.recv(Duration::from_millis(100)).unwrap() {
                Some(Received::Message(message)) => {
                    *expected += message.missed();
                    assert_eq!(number(message.control()), *expected);
                    *expected += 1;
                    return;
                }
                Some(Received::Notice(notice, missed)) => {
                    // It is the same run all the time.
                    assert!(matches!(notice, Notice::Here | Notice::Missed | Notice::Gone(_)), "{notice:?}");
                    *expected += missed;
                }
                Some(other) => panic!("{other:?}"),
                None => {}
            }
        }
    }
}

fn settings() -> Settings {
    let mut settings = quick();
    settings.silence = LEASE / 2;
    settings
}

fn import(network: Network, topic: &str, path: &Path) -> Bridge {
    Bridge::open(&network.lease(LEASE)).unwrap().import(topic, path, &settings()).unwrap()
}

fn renewals(bridge: &Bridge, topic: &str) -> u64 {
    bridge.status().iter().find(|status| status.topic == topic).unwrap().count.renewals
}

#[test]
fn all_topics_go_on_in_another_session() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (at, here) = (endpoint(free_port()), endpoint(free_port()));
    let mut source = Source::new("stats", &at);
    let _calls = source
        .session
        .declare_queryable(source.keys.calls())
        .complete(true)
        .callback(|query| query.reply(query.key_expr(), "answer").wait().unwrap())
        .wait()
        .unwrap();
    let mut publisher = Publisher::bind(path("near")).unwrap();
    let bridge = import(Network::default().listen(&here).connect(&at), "stats", &path("stats"));
    let bridge = bridge.export("own", path("near"), &common::waiting()).unwrap();
    let far = Network::default().connect(&here);
    let far = Bridge::open(&far).unwrap().import("own", path("own"), &quick()).unwrap();
    wait_for_subscribers(&mut publisher, 1);
    let mut own = Subscriber::connect(path("own"), LONG).unwrap();
    let mut stats = Subscriber::connect(path("stats"), LONG).unwrap();
    wait_until("the exported source is seen", || far.status()[0].is_here);
    let mut expected = 0;
    source.reach(&mut stats, &mut expected);
    let old = bridge.id();

    // From here on the source is silent.
    let mut is_silent = false;
    let (mut sent, mut came) = (0_u64, 0);
    let deadline = Instant::now() + LONG;
    while renewals(&bridge, "stats") == 0
        || bridge.id() == old
        || far.peers().is_empty()
        || !far.status()[0].is_here
    {
        assert!(Instant::now() < deadline, "it does not connect anew");
        // It can be asked at any moment.
        let _ = bridge.peers();
        publish(&mut publisher, sent);
        sent += 1;
        if let Some(received) = stats.recv(Duration::from_millis(1)).unwrap() {
            is_silent |= matches!(received, Received::Notice(Notice::Gone(Gone::Silent), _));
        }
    }
    assert!(is_silent);
    // What was exported has come, or is told as missed. What is sent before Zenoh's declarations are there again reaches nobody.
    while came < sent {
        assert!(Instant::now() < deadline, "{came} of {sent} have come");
        match own.recv(LONG).unwrap().expect("a message") {
            Received::Message(message) => {
                came += message.missed();
                assert_eq!(number(message.control()), came);
                came += 1;
            }
            Received::Notice(_, missed) => came += missed,
            other => panic!("{other:?}"),
        }
    }
    source.reach(&mut stats, &mut expected);
    assert_eq!(stats.call(b"a question", LONG).unwrap().control(), b"answer");
    let echo = Echo::start(publisher);
    wait_until("calls of the exported topic are answered", || {
        own.call(b"still there?", Duration::from_secs(1))
            .is_ok_and(|reply| reply.control() == b"echo still there?")
    });
    drop(echo.stop());
}

#[test]
fn a_source_beside_one_that_is_heard_is_waited_for_longer() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let ats = [(); 2].map(|()| endpoint(free_port()));
    let [mut silent, mut loud] =
        [("silent", &ats[0]), ("loud", &ats[1])].map(|(topic, at)| Source::new(topic, at));
    let network = Network::default().connect(&ats[0]).connect(&ats[1]);
    let bridge =
        import(network, "silent", &path("silent")).import("loud", path("loud"), &settings()).unwrap();
    let [mut from_silent, mut from_loud] =
        ["silent", "loud"].map(|topic| Subscriber::connect(path(topic), LONG).unwrap());
    let (mut ignored, mut expected) = (0, 0);
    loud.reach(&mut from_loud, &mut expected);
    silent.reach(&mut from_silent, &mut ignored);
    let begun = Instant::now();
    while renewals(&bridge, "silent") == 0 {
        assert!(begun.elapsed() < LONG, "it does not connect anew");
        loud.reach(&mut from_loud, &mut expected);
    }
    assert!(begun.elapsed() >= LEASE * 20, "{:?}", begun.elapsed());
    assert_eq!(renewals(&bridge, "loud"), 0);
    loud.reach(&mut from_loud, &mut expected);
}

#[test]
fn a_bridge_that_was_given_its_identifier_keeps_its_session() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let at = endpoint(free_port());
    let mut source = Source::new("stats", &at);
    let network = || Network::default().connect(&at);
    let named = import(network().zenoh("{ id: 'a1b2c3' }"), "stats", &path("named"));
    let usual = import(network(), "stats", &path("usual"));
    for bridge in ["named", "usual"] {
        source.reach(&mut Subscriber::connect(path(bridge), LONG).unwrap(), &mut { source.sent });
    }
    wait_until("the usual bridge connects anew", || renewals(&usual, "stats") > 0);
    assert_eq!((renewals(&named, "stats"), named.id()), (0, "a1b2c3".to_owned()));
}
