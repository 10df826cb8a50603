//! Bridges on hosts of their own: slow and cut links, a router, and what crosses the network once.

mod hosts;
mod machine;

use std::time::Duration;

use hosts::{Host, Hosts, Quality};
use machine::{Machine, exporter, importer, router};

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

/// Bytes that have arrived at a host's interface.
fn received_bytes(host: &Host) -> u64 {
    let output = host.command("cat").arg("/proc/net/dev").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find_map(|line| line.trim().strip_prefix("eth0:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
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
        let mut importer = importing(&importing_host, &source, subscribers);
        let sent = exporter.publish_until_seen(&mut [&mut importer]);
        importer.reach(sent);
        let before = received_bytes(&importing_host);
        let mut sent = sent;
        for _ in 0..100 {
            sent = exporter.publish(sent, 50);
            importer.reach(sent);
        }
        Some(received_bytes(&importing_host) - before)
    };
    let (Some(one), Some(eight)) = (carried(1), carried(8)) else { return };
    println!("5000 messages of {} bytes: {one} bytes for 1 subscriber, {eight} for 8", machine::PAYLOAD);
    assert!(one >= 5_000 * u64::try_from(machine::PAYLOAD).unwrap(), "{one}");
    assert!(eight * 10 <= one * 12, "{eight} bytes for 8 subscribers, {one} for 1");
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
