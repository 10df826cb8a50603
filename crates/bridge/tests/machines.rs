//! Bridges on hosts of their own: slow and cut links, a router, and what crosses the network once.

mod hosts;
mod machine;

use std::time::Duration;

use hosts::{Host, Hosts, Quality};
use machine::{Machine, PAYLOAD, exporter, importer, router};

/// 20 ms, 1 % loss, 100 Mbit/s.
const SLOW: Quality = Quality { delay: Duration::from_millis(20), loss: 1, rate: Some(12_500_000) };

const PORT: u16 = 7700;

fn at(host: &Host) -> String {
    format!("tcp/{}:{PORT}", host.address())
}

/// An exporter that listens on `host`.
fn exporting(host: &Host) -> Machine {
    Machine::start(host, exporter, &format!("listen tcp/0.0.0.0:{PORT}"), 0)
}

/// An importer on `host`, with so many local subscribers, that connects to `to`.
fn importing(host: &Host, to: &Host, subscribers: usize) -> Machine {
    Machine::start(host, importer, &format!("connect {}", at(to)), subscribers)
}

/// Bytes that have passed a host's interface.
#[derive(Clone, Copy)]
struct Bytes {
    received: u64,
    sent: u64,
}

impl Bytes {
    /// Those up to now: `proc_pid_net(5)`.
    fn of(host: &Host) -> Self {
        let output = host.command("cat").arg("/proc/net/dev").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().find_map(|line| line.trim().strip_prefix("eth0:")).unwrap();
        let numbers: Vec<u64> = line.split_whitespace().map(|number| number.parse().unwrap()).collect();
        Self { received: numbers[0], sent: numbers[8] }
    }

    fn since(self, before: Self) -> Self {
        Self { received: self.received - before.received, sent: self.sent - before.sent }
    }
}

/// Publishes `rounds` times 50 messages, from the number `from` on, each time when all subscribers have had those before. Returns the next
/// number, and what has passed each of the hosts meanwhile.
fn carry(
    hosts: &[&Host],
    exporter: &mut Machine,
    importers: &mut [Machine],
    from: u64,
    rounds: u64,
) -> (u64, Vec<Bytes>) {
    let mut all: Vec<_> = importers.iter_mut().collect();
    let mut sent = exporter.go_on_until_seen(from, &mut all);
    for importer in &mut all {
        importer.reach(sent);
    }
    let before: Vec<_> = hosts.iter().map(|host| Bytes::of(host)).collect();
    for _ in 0..rounds {
        sent = exporter.publish(sent, 50);
        for importer in &mut all {
            importer.reach(sent);
        }
    }
    let passed = hosts.iter().zip(before).map(|(host, before)| Bytes::of(host).since(before));
    (sent, passed.collect())
}

#[test]
fn a_slow_and_cut_link_does_not_hold_up_the_other_importer() {
    let Some(mut hosts) = Hosts::new_or_skip() else { return };
    let (source, near, (far, link)) = (hosts.near(), hosts.near(), hosts.far());
    link.set(SLOW);
    let mut exporter = exporting(&source);
    let (mut near, mut far) = (importing(&near, &source, 1), importing(&far, &source, 1));
    let sent = exporter.publish_until_seen(&mut [&mut near, &mut far]);
    let sent = exporter.publish(sent, 1_000);
    // Each subscriber compares its numbers with what it was told to have missed.
    near.reach(sent);
    far.reach(sent);

    link.cut();
    let seen = far.seen();
    let sent = exporter.publish(sent, 20_000);
    near.reach(sent);
    assert_eq!(far.seen(), seen, "nothing crosses a link that is cut");

    link.restore();
    let sent = exporter.publish(sent, 100);
    far.reach(sent);
    near.reach(sent);
}

#[test]
fn each_machine_costs_one_crossing_whatever_its_subscribers() {
    let carried = |subscribers| {
        let mut hosts = Hosts::new_or_skip()?;
        let (source, importing_host) = (hosts.near(), hosts.near());
        let mut exporter = exporting(&source);
        let importer = importing(&importing_host, &source, subscribers);
        let (_, bytes) = carry(&[&importing_host], &mut exporter, &mut [importer], 0, 100);
        Some(bytes[0].received)
    };
    let (Some(one), Some(eight)) = (carried(1), carried(8)) else { return };
    println!("5000 messages of {PAYLOAD} bytes: {one} bytes for 1 subscriber, {eight} for 8");
    assert!(one >= 5_000 * u64::try_from(PAYLOAD).unwrap(), "{one}");
    assert!(eight * 10 <= one * 12, "{eight} bytes for 8 subscribers, {one} for 1");
}

/// A source, a router's host, and eight that import.
struct Fleet {
    source: Host,
    middle: Host,
    far: Vec<Host>,
}

impl Fleet {
    const ROUNDS: u64 = 40;
    const PAYLOADS: u64 = 50 * Self::ROUNDS * PAYLOAD as u64;
    const SUBSCRIBERS: usize = 2;

    /// What passes the source, the router's host, and those that import.
    fn carry(&self, exporter: &mut Machine, importers: &mut [Machine], from: u64) -> (u64, Vec<Bytes>) {
        let hosts: Vec<_> = [&self.source, &self.middle].into_iter().chain(&self.far).collect();
        carry(&hosts, exporter, importers, from, Self::ROUNDS)
    }

    /// With direct links: what the source sends to one host alone, and what passes all with eight.
    fn direct(&self) -> (u64, Vec<Bytes>) {
        let mut exporter = exporting(&self.source);
        let import = |host| importing(host, &self.source, Self::SUBSCRIBERS);
        let mut importers = vec![import(&self.far[0])];
        let (sent, one) = self.carry(&mut exporter, &mut importers, 0);
        importers.extend(self.far[1..].iter().map(import));
        let (_, eight) = self.carry(&mut exporter, &mut importers, sent);
        (one[0].sent, eight)
    }

    /// What passes all with eight hosts behind a router.
    fn routed(&self) -> Vec<Bytes> {
        let _router = Machine::start(&self.middle, router, &format!("router;listen tcp/0.0.0.0:{PORT}"), 0);
        let connect = format!("connect {}", at(&self.middle));
        let mut exporter = Machine::start(&self.source, exporter, &connect, 0);
        let import = |host| importing(host, &self.middle, Self::SUBSCRIBERS);
        let mut importers: Vec<_> = self.far.iter().map(import).collect();
        self.carry(&mut exporter, &mut importers, 0).1
    }
}

/// The figures of docs/bridge.md, "Topologies". Each subscriber compares its numbers with what it was told to have missed.
#[test]
fn eight_machines_cost_eight_crossings_and_behind_a_router_the_source_one() {
    let Some(mut hosts) = Hosts::new_or_skip() else { return };
    let (source, middle) = (hosts.near(), hosts.near());
    let fleet = Fleet { source, middle, far: (0..8).map(|_| hosts.near()).collect() };
    let (one, direct) = fleet.direct();
    let routed = fleet.routed();
    println!("{} bytes of payloads; for one host the source sends {one}", Fleet::PAYLOADS);
    for (how, passed) in [("direct", &direct), ("routed", &routed)] {
        let received = passed[2..].iter().map(|link| link.received);
        let (least, most) = (received.clone().min().unwrap(), received.max().unwrap());
        let (source, middle) = (passed[0], passed[1]);
        println!("{how}: the source sends {}, the router {}", source.sent, middle.sent);
        println!("{how}: a host receives from {least} to {most}");
    }
    let are_crossings = |bytes: u64, count: u64| {
        assert!(bytes >= count * Fleet::PAYLOADS, "{bytes} bytes are less than {count} times the payloads");
        assert!(bytes * 10 <= count * one * 12, "{bytes} bytes are more than {count} times {one}");
    };
    are_crossings(direct[0].sent, 8);
    are_crossings(routed[0].sent, 1);
    are_crossings(routed[1].sent, 8);
    for link in direct[2..].iter().chain(&routed[2..]) {
        are_crossings(link.received, 1);
    }
}

/// Zenoh's routers pass nothing on between two peers. So at most one of the two bridges is a peer, which is the default.
#[test]
fn a_router_stands_between() {
    for mode in ["", "router;"] {
        let Some(mut hosts) = Hosts::new_or_skip() else { return };
        let (middle, source, (far, link)) = (hosts.near(), hosts.near(), hosts.far());
        link.set(Quality { delay: Duration::from_millis(5), ..Quality::default() });
        let _router = Machine::start(&middle, router, &format!("router;listen tcp/0.0.0.0:{PORT}"), 0);
        let mut exporter = Machine::start(&source, exporter, &format!("{mode}connect {}", at(&middle)), 0);
        let mut importer = Machine::start(&far, importer, &format!("router;connect {}", at(&middle)), 2);
        let sent = exporter.publish_until_seen(&mut [&mut importer]);
        let sent = exporter.publish(sent, 1_000);
        importer.reach(sent);
        assert_eq!(importer.call(), "echo gain?");
        source.kill_all();
        importer.notice("gone: unreachable");
    }
}

#[test]
fn calls_cross_a_slow_link() {
    let Some(mut hosts) = Hosts::new_or_skip() else { return };
    let (source, (far, link)) = (hosts.near(), hosts.far());
    link.set(SLOW);
    let mut exporter = exporting(&source);
    let mut importer = importing(&far, &source, 1);
    exporter.publish_until_seen(&mut [&mut importer]);
    for _ in 0..10 {
        assert_eq!(importer.call(), "echo gain?");
    }
    exporter.end();
    importer.notice("gone: ended");
}

#[test]
fn a_link_that_is_cut_is_told_and_so_is_its_return() {
    let Some(mut hosts) = Hosts::new_or_skip() else { return };
    let (source, (far, link)) = (hosts.near(), hosts.far());
    let mut exporter = exporting(&source);
    let mut importer = importing(&far, &source, 1);
    let sent = exporter.publish_until_seen(&mut [&mut importer]);
    importer.reach(sent);
    link.cut();
    importer.notice("gone: silent");
    let sent = exporter.publish(sent, 10);
    link.restore();
    importer.notice("here");
    importer.reach(sent);
}
