//! Files of a recording: whole at every end, refused where they exist, on standard output, and by other readers.

use std::{
    fs::{self, File},
    io::Read,
    process::Stdio,
};

use rustix::process::Signal;
use sealane::{Builder, Control};

use crate::{
    signals::is_ignored,
    support::{
        Place, account, content, fail, messages, metadata, publish, publish_until_alone, read_in_python,
        report, sealane, signal, start, succeed, text, wait_for_subscriber,
    },
};

const MAX: usize = 64 << 10;

#[test]
fn a_publisher_that_ends_ends_the_recording_whole_and_all_is_accounted_for() {
    let place = Place::new();
    let mut publisher = place.publisher();
    let recorder = place.record(&mut publisher, &[]);
    for number in 0..3000 {
        publish(&mut publisher, number, MAX);
    }
    drop(publisher);
    let report = report(recorder);
    assert_eq!(report["reason"], "publisher_ended");
    let found = messages(&place.file);
    for message in &found {
        assert_eq!((message.control.clone(), message.payload.clone()), content(message.sequence, MAX));
    }
    let end = metadata(&place.file, "sealane.end");
    let at_end: u64 = end["missed_at_end"].parse().unwrap();
    assert_eq!(account(&found, 0) + at_end, 3000, "received and missed are what was published");
    let missed = found.iter().map(|message| message.missed).sum::<u64>();
    assert_eq!((&report["missed"], &report["messages"]), (&missed.into(), &found.len().into()));
    assert_eq!((&end["missed"], &end["messages"]), (&missed.to_string(), &found.len().to_string()));
    assert_eq!(report["missed_at_end"], at_end);
    let begin = metadata(&place.file, "sealane.recording");
    assert_eq!(begin["publisher"], text(&place.path));
    assert_eq!(begin["publisher_pid"], std::process::id().to_string());
    read_in_python(std::slice::from_ref(&place.file));
}

#[test]
fn a_signal_ends_the_recording_whole() {
    for wish in [Signal::INT, Signal::TERM, Signal::HUP] {
        if is_ignored(wish) {
            continue;
        }
        let place = Place::new();
        let mut publisher = place.publisher();
        let mut recorder = place.record(&mut publisher, &[]);
        for number in 0..10 {
            publish(&mut publisher, number, MAX);
        }
        // A recorder that has read all has taken its signals, too: it does that before it joins.
        while publisher.subscribers().first().is_some_and(|recorder| recorder.lag() > 0) {
            publisher.wait_event(std::time::Duration::from_millis(1)).unwrap();
        }
        signal(&recorder, wish);
        assert!(recorder.wait().unwrap().success());
        let report = report(recorder);
        assert_eq!(report["reason"], "signal");
        let found = messages(&place.file);
        assert_eq!(account(&found, 0), 10);
        assert_eq!(report["messages"], found.len());
        assert_eq!(metadata(&place.file, "sealane.end")["reason"], "a signal");
    }
}

#[test]
fn existing_files_are_overwritten_only_by_force() {
    let place = Place::new();
    fs::write(&place.file, "precious").unwrap();
    let error = fail(&mut place.recorder(&[]));
    assert!(error.contains("exists") && error.contains("--force"), "{error}");
    // Without a publisher nothing is touched, by force either.
    fail(&mut place.recorder(&["--force"]));
    assert_eq!(fs::read(&place.file).unwrap(), b"precious");

    let mut publisher = place.publisher();
    let recorder = place.record(&mut publisher, &["--force"]);
    publish(&mut publisher, 0, MAX);
    drop(publisher);
    report(recorder);
    assert_eq!(messages(&place.file).len(), 1);
}

#[test]
fn a_recorder_may_come_before_its_publisher() {
    let place = Place::new();
    let error = fail(&mut place.recorder(&[]));
    assert!(error.contains("subscribe to") && error.contains(text(&place.path)), "{error}");
    assert!(!place.file.exists());
    let mut command = place.recorder(&["--wait", "1m"]);
    let recorder = command.spawn().unwrap();
    let mut publisher = place.publisher();
    wait_for_subscriber(&mut publisher);
    publish(&mut publisher, 0, MAX);
    drop(publisher);
    assert_eq!(report(recorder)["messages"], 1);
}

#[test]
fn standard_output_is_a_file_too_and_may_be_closed() {
    let place = Place::new();
    let mut publisher = place.publisher();
    let mut command = sealane(&["record", text(&place.path), "-o", "-"]);
    command.stdout(File::create(&place.file).unwrap());
    let recorder = start(&mut command, &mut publisher);
    publish(&mut publisher, 0, MAX);
    drop(publisher);
    let output = recorder.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(messages(&place.file).len(), 1);
    let summary = String::from_utf8(output.stderr).unwrap();
    assert!(summary.contains("recorded 1 messages"), "the summary is on standard error: {summary}");

    // As with `| head -c 8`.
    let mut publisher = place.publisher();
    let mut command = sealane(&["record", text(&place.path), "-o", "-", "--json"]);
    command.stdout(Stdio::piped());
    let mut recorder = start(&mut command, &mut publisher);
    let mut magic = [0; 8];
    let mut pipe = recorder.stdout.take().unwrap();
    pipe.read_exact(&mut magic).unwrap();
    assert_eq!(&magic, b"\x89MCAP0\r\n");
    drop(pipe);
    publish_until_alone(&mut publisher, MAX);
    let output = recorder.wait_with_output().unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert!(output.status.success());
    assert_eq!(summary["reason"], "reader_ended");
}

#[test]
fn standard_streams_may_be_closed() {
    let place = Place::new();
    let mut publisher = place.publisher();
    let mut command = std::process::Command::new("sh");
    let script = "exec \"$0\" record \"$1\" -o \"$2\" <&- >&- 2>&-";
    command.args(["-c", script, env!("CARGO_BIN_EXE_sealane"), text(&place.path), text(&place.file)]);
    let mut recorder = start(&mut command, &mut publisher);
    publish(&mut publisher, 0, MAX);
    drop(publisher);
    assert!(recorder.wait().unwrap().success());
    assert_eq!(messages(&place.file).len(), 1);
}

#[test]
fn descriptors_are_counted_and_closed() {
    let place = Place::new();
    let mut publisher = Builder::default().max_fds(4).publish(&place.path).unwrap();
    let recorder = place.record(&mut publisher, &[]);
    let null = File::open("/dev/null").unwrap();
    for number in 0..500_u64 {
        // The kernel limits the descriptors that nobody has received yet.
        while publisher
            .send_timeout(Control::new(&number.to_le_bytes()).fds([&null, &null]), crate::support::SOON)
            .is_err()
        {}
    }
    drop(publisher);
    let report = report(recorder);
    let found = messages(&place.file);
    assert!(!found.is_empty());
    assert!(found.iter().all(|message| message.descriptors == 2));
    assert_eq!(report["descriptors"], 2 * found.len());
    assert_eq!(account(&found, 0) + report["missed_at_end"].as_u64().unwrap(), 500);
}

#[test]
fn a_message_that_is_overwritten_while_it_is_copied_is_missed_and_never_recorded() {
    let place = Place::new();
    let mut publisher = Builder::default().ring_capacity(256 << 10).publish(&place.path).unwrap();
    let recorder = place.record(&mut publisher, &[]);
    for number in 0..5000_u64 {
        let mut loan = publisher.loan(60_000).unwrap();
        loan.fill(number.to_le_bytes()[0]);
        loan.send_with(&number.to_le_bytes()).unwrap();
    }
    drop(publisher);
    let report = report(recorder);
    let found = messages(&place.file);
    assert_eq!(account(&found, 0) + report["missed_at_end"].as_u64().unwrap(), 5000);
    for message in &found {
        assert_eq!(message.control, message.sequence.to_le_bytes());
        let payload = message.payload.as_ref().unwrap();
        assert!(payload.len() == 60_000 && payload.iter().all(|byte| *byte == message.control[0]));
    }
}

#[test]
fn a_full_disk_is_an_error_and_the_file_is_good_up_to_there() {
    let place = Place::new();
    let mut publisher = place.publisher();
    let mut command = std::process::Command::new("sh");
    // Twenty MiB, in blocks of 512 bytes.
    let script = "ulimit -f 40960; exec \"$0\" record \"$1\" -o \"$2\" --json";
    command.args(["-c", script, env!("CARGO_BIN_EXE_sealane"), text(&place.path), text(&place.file)]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let recorder = start(&mut command, &mut publisher);
    let number = publish_until_alone(&mut publisher, MAX);
    let output = recorder.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("write") && error.contains("File too large"), "{error}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let len = fs::metadata(&place.file).unwrap().len();
    assert_eq!((&report["reason"], &report["files"][0]["bytes"]), (&"error".into(), &len.into()));
    succeed(&mut sealane(&["record", "--repair", text(&place.file)]));
    let found = messages(&place.file);
    assert!(account(&found, 0) <= number);
    assert_eq!(
        (&report["messages"], &report["files"][0]["messages"]),
        (&found.len().into(), &found.len().into())
    );
    assert!(len > 1 << 20, "{len} bytes were written before");
    read_in_python(std::slice::from_ref(&place.file));
}
