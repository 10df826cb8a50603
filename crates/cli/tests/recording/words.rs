//! What a recorder and a replay say while they run: a line when they begin, and on a terminal the counts.

use std::{process::Stdio, thread, time::Duration};

use sealane::{Builder, Error, Slow};

use crate::{
    support::{Place, SOON, publish, report, sealane, start, text, wait_for_subscriber},
    terminal::Terminal,
};

const MAX: usize = 1000;
const PROGRAM: &str = env!("CARGO_BIN_EXE_sealane");

/// The name of this process, as the kernel has it.
fn own_name() -> String {
    std::fs::read_to_string("/proc/self/comm").unwrap().trim().to_owned()
}

#[test]
fn a_recorder_on_a_terminal_says_what_it_does_and_how_far_it_is() {
    let place = Place::new();
    let (path, file) = (text(&place.path), text(&place.file));
    let command = format!("'{PROGRAM}' record {path} -o {file} --wait 1m; echo after $?; cat");
    let Some(terminal) = Terminal::start(&command) else {
        return eprintln!("SKIPPED: there is no tmux(1)");
    };
    terminal.shows(|screen| screen.contains(&format!("waits for a publisher at {path} (--wait)")));
    let mut publisher = place.publisher();
    wait_for_subscriber(&mut publisher);
    for number in 0..3 {
        publish(&mut publisher, number, MAX);
    }
    let begin = format!("recording from {} {} to {file}; Ctrl-C ends it", std::process::id(), own_name());
    terminal.shows(|screen| screen.contains(&begin) && screen.contains(": 3 messages, "));
    publish(&mut publisher, 3, MAX);
    let screen = terminal.shows(|screen| screen.contains(": 4 messages, "));
    assert!(!screen.contains(": 3 messages"), "the line is written again: {screen}");
    terminal.keys(&["C-c"]);
    let screen = terminal.shows(|screen| screen.contains("after 0"));
    assert!(screen.contains("recorded 4 messages"), "{screen}");
    assert!(!screen.contains(" s: 4 messages"), "the line is taken away: {screen}");
}

#[test]
fn a_replay_on_a_terminal_says_for_whom_it_waits_and_how_far_it_is() {
    let place = recording();
    let path = place.join("q");
    // The second message would be due in years.
    let (file, at) = (text(&place.file), text(&path));
    let command = format!("'{PROGRAM}' replay {file} {at} --rate 0.0000000001; echo after $?; cat");
    let Some(terminal) = Terminal::start(&command) else {
        return eprintln!("SKIPPED: there is no tmux(1)");
    };
    terminal.shows(|screen| {
        screen.contains(&format!("waits for 1 subscriber at {at} (--wait-for); Ctrl-C ends it"))
    });
    let mut subscriber = Builder::default().slow(Slow::Wait(Duration::MAX)).subscribe(&path).unwrap();
    subscriber.recv_timeout(SOON).unwrap();
    terminal.shows(|screen| {
        screen.contains(&format!("publishes {file} at {at}")) && screen.contains(": 1 messages, ")
    });
    terminal.keys(&["C-c"]);
    let screen = terminal.shows(|screen| screen.contains("after 0"));
    assert!(screen.contains("published 1 messages") && !screen.contains(" s: 1 messages"), "{screen}");
}

#[test]
fn where_no_terminal_is_a_line_is_said_and_with_json_nothing() {
    let place = recording();
    for (options, lines) in [(&[][..], 1), (&["--json"][..], 0)] {
        let mut publisher = place.publisher();
        let file = place.join(&format!("{lines}.mcap"));
        let mut command = sealane(&["record", text(&place.path), "-o", text(&file)]);
        let recorder = start(command.args(options), &mut publisher);
        publish(&mut publisher, 0, MAX);
        drop(publisher);
        let said = String::from_utf8(recorder.wait_with_output().unwrap().stderr).unwrap();
        assert_eq!((said.lines().count(), said.contains(['\r', '\x1b'])), (lines, false), "{said}");

        let path = place.join("q");
        let mut command = sealane(&["replay", text(&place.file), text(&path), "--wait-for", "0"]);
        let output = command.args(options).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((said.lines().count(), said.contains(['\r', '\x1b'])), (lines, false), "{said}");
    }
    // Standard error that nobody reads any more ends nothing.
    let mut command = sealane(&["replay", text(&place.file), text(&place.join("q"))]);
    let mut player = command.stderr(Stdio::piped()).spawn().unwrap();
    drop(player.stderr.take());
    let mut subscriber = loop {
        match Builder::default().slow(Slow::Wait(Duration::MAX)).subscribe(place.join("q")) {
            Ok(subscriber) => break subscriber,
            Err(Error::Io { .. }) => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    while subscriber.recv_timeout(SOON).is_ok() {}
    assert!(player.wait().unwrap().success());
}

/// A recording of two messages.
fn recording() -> Place {
    let place = Place::new();
    let mut publisher = place.publisher();
    let recorder = place.record(&mut publisher, &[]);
    for number in 0..2 {
        publish(&mut publisher, number, MAX);
        while publisher.subscribers()[0].lag() > 0 {
            publisher.wait_event(Duration::from_millis(1)).unwrap();
        }
    }
    drop(publisher);
    assert_eq!(report(recorder)["messages"], 2);
    place
}
