//! Messages cross between processes, also over a router, and after one of them was killed.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use sealane::{Builder, Event, Publisher, Slow};
use sealane_bridge::{Notice, Received, Subscriber};

use crate::{
    both_topics_arrive,
    common::{LONG, endpoint, free_port, next, wait_until},
    first_message,
    program::{Program, Site},
};

fn export(site: &Site, end: &str, at: &str) -> Program {
    site.start(&["export", "stats=@DIR/stats", "frames=@DIR/frames", end, at])
}

fn import(site: &Site, end: &str, at: &str) -> Program {
    site.start(&["import", "stats=@DIR/far-stats", "frames=@DIR/far-frames", end, at])
}

#[test]
fn topics_cross_from_command_line_to_command_line() {
    let site = Site::new();
    let at = endpoint(free_port());
    let (export, import) = (export(&site, "--listen", &at), import(&site, "--connect", &at));
    both_topics_arrive(&site);
    import.ends_in_order();
    export.ends_in_order();
    assert!(!site.path("far-stats").exists(), "the socket of an import that has ended");
    assert_eq!(fs::read_dir(site.path("sealane-bridge")).unwrap().count(), 0, "sockets of the status");
}

/// Who listens does not matter.
#[test]
fn an_exporter_may_connect_to_an_importer() {
    let site = Site::new();
    let at = endpoint(free_port());
    let (_export, _import) = (export(&site, "--connect", &at), import(&site, "--listen", &at));
    both_topics_arrive(&site);
}

#[test]
fn topics_cross_by_files() {
    let site = Site::new();
    let at = endpoint(free_port());
    let export = format!(
        "{{ listen: ['{at}'], lease: '20s',
            export: {{ stats: '@DIR/stats', frames: {{ path: '@DIR/frames', slow: 'overrun', beat: '50ms' }} }},
            zenoh: {{ transport: {{ link: {{ tx: {{ queue: {{ size: {{ data: 4 }} }} }} }} }} }} }}"
    );
    let import = format!(
        "{{ connect: ['{at}'],
            import: {{ stats: {{ path: '@DIR/far-stats', ring: '1MiB' }}, frames: '@DIR/far-frames' }} }}"
    );
    let _export = site.start(&["run", "--config", &site.file("export.json5", &export)]);
    let _import = site.start(&["run", "--config", &site.file("import.json5", &import)]);
    both_topics_arrive(&site);
}

/// Neither listens: both have only the router, which comes last, is killed, and comes again.
#[test]
fn messages_pass_a_router() {
    let site = Site::new();
    let at = endpoint(free_port());
    let (_export, _import) = (export(&site, "--connect", &at), import(&site, "--connect", &at));
    let router = site.start(&["router", "--listen", &at]);
    both_topics_arrive(&site);
    router.kill();
    let _router = site.start(&["router", "--listen", &at]);
    both_topics_arrive(&site);
}

#[test]
fn a_bridge_can_be_a_router_too() {
    let site = Site::new();
    let at = endpoint(free_port());
    let _router = site.start(&["export", "other=@DIR/other", "--router", "--listen", &at]);
    let (_export, _import) = (export(&site, "--connect", &at), import(&site, "--connect", &at));
    both_topics_arrive(&site);
}

#[test]
fn an_exporter_that_is_killed_and_started_again_goes_on() {
    let site = Site::new();
    let at = endpoint(free_port());
    let exporter = export(&site, "--listen", &at);
    let _import = import(&site, "--connect", &at);
    let mut publisher = Publisher::bind(site.path("stats")).unwrap();
    let mut far = Subscriber::connect(site.path("far-stats"), LONG).unwrap();
    first_message(&mut publisher, &mut far, b"before");
    let killed = exporter.pid();
    assert_eq!(exporter.kill().signal(), Some(libc::SIGKILL));
    let _export = export(&site, "--listen", &at);
    first_message(&mut publisher, &mut far, b"after");
    // The status leaves out the one that was killed, and removes its socket.
    let stale = site.path(&format!("sealane-bridge/{killed}.sock"));
    assert!(stale.exists());
    assert_eq!(site.status().len(), 2);
    assert!(!stale.exists());
}

/// The limits that follow from the options of an import drop what is too large for its ring, and nothing else.
#[test]
fn what_is_too_large_for_the_ring_counts_as_missed() {
    let site = Site::new();
    let at = endpoint(free_port());
    let _export = site.start(&["export", "stats=@DIR/stats", "--listen", &at, "--when-behind", "wait=20s"]);
    let _import = site.start(&["import", "stats=@DIR/far-stats", "--connect", &at, "--ring", "1MiB"]);
    let mut publisher = Builder::default().ring_capacity(32 << 20).publish(site.path("stats")).unwrap();
    let mut far = Subscriber::connect(site.path("far-stats"), LONG).unwrap();
    first_message(&mut publisher, &mut far, b"first");
    let (fits, too_large) = (500 << 10, 10 << 20);
    for size in [fits, too_large, fits] {
        publisher.loan(size).unwrap().send_with(b"sized").unwrap();
    }
    // The loss may be told before the next message: by the next beat.
    let (mut arrived, mut lost) = (0, 0);
    while arrived < 2 {
        match far.recv(LONG).unwrap().unwrap() {
            Received::Message(message) => {
                arrived += usize::from(message.control() == b"sized");
                lost += message.missed();
            }
            Received::Notice(Notice::Missed, missed) => lost += missed,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(lost, 1);
}

/// The reader of the log is gone, or there never was one.
#[test]
fn closed_standard_streams_do_not_end_it() {
    let site = Site::new();
    let at = endpoint(free_port());
    let export = site.start_closed(&["export", "stats=@DIR/stats", "frames=@DIR/frames", "--listen", &at]);
    let import =
        site.start_unread(&["import", "stats=@DIR/far-stats", "frames=@DIR/far-frames", "--connect", &at]);
    both_topics_arrive(&site);
    export.ends_in_order();
    import.ends_in_order();
}

/// The other bridge takes nothing, so what is still to be sent waits for a minute: the first signal lets it, the second does not.
#[test]
fn a_second_signal_ends_it_at_once() {
    let site = Site::new();
    let at = endpoint(free_port());
    let waits = ["--slow", "wait=60s", "--when-behind", "wait=60s"];
    let mut export = site.start(&[&["export", "stats=@DIR/stats", "--listen", &at], &waits[..]].concat());
    let import = import(&site, "--connect", &at);
    let patient = Builder::default().slow(Slow::Wait(Duration::from_secs(2))).ring_capacity(8 << 20);
    let mut publisher = patient.publish(site.path("stats")).unwrap();
    let mut far = Subscriber::connect(site.path("far-stats"), LONG).unwrap();
    first_message(&mut publisher, &mut far, b"first");
    import.signal(Signal::STOP);
    // Until it has taken nothing for two seconds.
    while !publisher.subscribers().is_empty() {
        publisher.loan(1 << 20).unwrap().send().unwrap();
    }
    export.signal(Signal::TERM);
    thread::sleep(Duration::from_millis(500));
    assert_eq!(export.status(), None, "{}", export.log());
    export.signal(Signal::TERM);
    wait_until("it has ended", || export.status().is_some());
    assert_eq!(export.status().unwrap().code(), Some(128 + libc::SIGTERM));
}

/// The asking bridge says how its answers are sent, and waits for them by default.
#[test]
fn a_bridge_that_takes_no_answers_holds_up_no_messages() {
    let site = Site::new();
    let at = endpoint(free_port());
    let _export = export(&site, "--listen", &at);
    let stalled = site.start(&["import", "stats=@DIR/stalled", "--connect", &at]);
    let _import = import(&site, "--connect", &at);
    let mut publisher = Builder::default().ring_capacity(8 << 20).publish(site.path("stats")).unwrap();
    let mut far = Subscriber::connect(site.path("far-stats"), LONG).unwrap();
    first_message(&mut publisher, &mut far, b"first");
    let mut local = sealane::Subscriber::connect(site.path("stalled")).unwrap();
    let mut asked = Vec::new();
    while asked.len() < 50 {
        local.request(b"gain?").unwrap();
        if let Some(Event::Message(id, message)) = publisher.wait_event(Duration::from_millis(100)).unwrap() {
            asked.push((id, message.reply_token().unwrap()));
        }
    }
    stalled.signal(Signal::STOP);
    // More than the kernel's buffers take.
    for _ in 0..48 {
        publisher.loan(1 << 20).unwrap().send().unwrap();
        next(&mut far);
    }
    for (id, token) in asked {
        while let Err(why) = publisher.reply(id, token, &vec![7; 60_000]) {
            assert!(matches!(why, sealane::Error::Full), "{why}");
            thread::sleep(Duration::from_millis(1));
        }
    }
    for _ in 0..20 {
        let sent = Instant::now();
        publisher.send(b"number").unwrap();
        while next(&mut far).0 != b"number" {}
        assert!(sent.elapsed() < Duration::from_secs(2), "{:?}", sent.elapsed());
    }
}
