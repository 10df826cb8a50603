//! What a person or a machine does to the command by mistake: disks that are full, pipes that nobody reads, names that are no text,
//! paths that are taken.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::ffi::OsStrExt,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use sealane::Publisher;
use serde_json::Value;

use crate::support::{Place, fail, messages, publish, report, sealane, signal, start, succeed, text};

const MAX: usize = 64 << 10;

/// A recording of one message.
fn recording() -> Place {
    let place = Place::new();
    let mut publisher = place.publisher();
    let recorder = place.record(&mut publisher, &[]);
    publish(&mut publisher, 0, MAX);
    drop(publisher);
    assert_eq!(report(recorder)["messages"], 1);
    place
}

#[test]
fn a_disk_without_space_leaves_a_file_that_is_repaired_and_has_what_was_said() {
    let place = Place::new();
    let mut publisher = place.publisher();
    let disk = place.join("disk");
    fs::create_dir(&disk).unwrap();
    let script = "mount -t tmpfs -o size=8m none \"$3\" || exit 77\n\
        status=0; \"$0\" record \"$1\" -o \"$3/f\" --json || status=$?\n\
        cp \"$3/f\" \"$2\"; exit $status";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_sealane")]);
    command.args([text(&place.path), text(&place.file), text(&disk)]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut recorder) = command.spawn() else { return eprintln!("SKIPPED: there is no unshare(1)") };
    let mut number = 0;
    while recorder.try_wait().unwrap().is_none() {
        publish(&mut publisher, number, MAX);
        publisher.wait_event(Duration::from_millis(1)).unwrap();
        number += 1;
    }
    let output = recorder.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    if output.stdout.is_empty() {
        return eprintln!("SKIPPED: a mount namespace is forbidden here: {error}");
    }
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("disk/f") && error.contains("No space left on device"), "{error}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["reason"], "error");
    succeed(&mut sealane(&["record", "--repair", text(&place.file)]));
    assert_eq!(report["messages"], messages(&place.file).len());
}

#[test]
fn a_summary_that_cannot_be_written_is_an_error_and_the_file_is_whole() {
    let place = Place::new();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let mut publisher = place.publisher();
    let recorder = start(place.recorder(&[]).stdout(full()), &mut publisher);
    publish(&mut publisher, 0, MAX);
    drop(publisher);
    let output = recorder.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("writing to the standard output"), "{error}");
    assert_eq!(messages(&place.file).len(), 1);
    let (file, path) = (text(&place.file), place.join("q"));
    for arguments in [&["record", "--repair", file][..], &["replay", file, text(&path), "--wait-for", "0"]] {
        let error = fail(sealane(arguments).stdout(full()));
        assert!(error.contains("writing to the standard output"), "{error}");
    }
}

#[test]
fn names_that_are_no_text_do_not_hinder_json() {
    let place = Place::new();
    let mut publisher = place.publisher();
    let file = place.directory.path().join(OsStr::from_bytes(b"\xff.mcap"));
    let recorder = start(sealane(&["record", text(&place.path), "--json", "-o"]).arg(&file), &mut publisher);
    publish(&mut publisher, 0, MAX);
    drop(publisher);
    let report = report(recorder);
    assert!(report["files"][0]["path"].as_str().unwrap().ends_with("/\u{fffd}.mcap"), "{report}");
    let report = succeed(sealane(&["record", "--json", "--repair"]).arg(&file));
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["was_whole"], &report["messages"]), (&true.into(), &1.into()));
}

#[test]
fn a_pipe_that_has_a_name_is_refused_and_not_waited_for() {
    let place = Place::new();
    let _publisher = place.publisher();
    assert!(Command::new("mkfifo").arg(&place.file).status().unwrap().success());
    let error = fail(&mut place.recorder(&["--force"]));
    assert!(error.contains("a file expected, a pipe found"), "{error}");
    // A replay waits for the pipe's writer, until a signal comes.
    let mut player = sealane(&["replay", text(&place.file), text(&place.join("q"))]).spawn().unwrap();
    signal(&player, Signal::TERM);
    assert!(!player.wait().unwrap().success());
}

#[test]
fn a_replay_of_standard_input_is_refused_by_name() {
    let place = Place::new();
    let error = fail(&mut sealane(&["replay", "-", text(&place.path)]));
    assert!(error.contains("standard input found") && error.contains("cat > FILE.mcap"), "{error}");
    // A file of that name is a file.
    let error = fail(&mut sealane(&["replay", "./-", text(&place.path)]));
    assert!(error.contains("No such file"), "{error}");
}

#[test]
fn a_recorder_says_why_no_publisher_is_there() {
    let place = Place::new();
    let abandoned = |kind| {
        let socket = place.join("abandoned");
        drop(std::os::unix::net::UnixDatagram::bind(&socket).unwrap());
        (socket, kind)
    };
    let (file, folder) = (place.join("file"), place.join("folder"));
    fs::write(&file, "precious").unwrap();
    fs::create_dir(&folder).unwrap();
    let datagrams = place.join("datagrams");
    let _socket = std::os::unix::net::UnixDatagram::bind(&datagrams).unwrap();
    // Nobody can come where something else is: it is not waited for.
    let ages = &["--wait", "1h"][..];
    for ((path, expected), options) in [
        ((file.clone(), "a file that is no socket is there"), ages),
        ((folder, "a folder is there"), ages),
        ((datagrams, "a socket of another kind is there"), ages),
        (abandoned("has ended"), &[]),
        ((place.join("nothing"), "`sealane ls` shows the paths"), &[]),
        (("@sealane-test-nobody".into(), "`sealane ls` shows the paths"), &[]),
    ] {
        let mut command = sealane(&["record", text(&path), "-o", text(&place.file)]);
        let error = fail(command.args(options));
        assert!(error.contains("no publisher is there") && error.contains(expected), "{error}");
        assert!(!place.file.exists());
    }
    assert_eq!(fs::read(file).unwrap(), b"precious");
}

#[test]
fn one_version_is_said_by_all() {
    let version = concat!("sealane ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(succeed(&mut sealane(&["-V"])), version);
    let doctor = succeed(&mut sealane(&["doctor", "--no-test", "--timeout", "1m"]));
    assert!(doctor.starts_with(version.trim()), "{doctor}");
    let help = succeed(&mut sealane(&["top", "--help"]));
    assert!(help.contains("--filter <TEXT>") && !help.contains("[default: \"\"]"), "{help}");
}

#[test]
fn a_path_that_is_taken_is_an_error_and_stays_as_it_is() {
    let place = recording();
    let (file, path) = (text(&place.file), place.join("q"));
    let replay = || sealane(&["replay", file, text(&path), "--wait-for", "0"]);
    fs::write(&path, "precious").unwrap();
    let error = fail(&mut replay());
    assert!(error.contains("a file that is no socket is there"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    fs::remove_file(&path).unwrap();
    let mut publisher = Publisher::bind(&path).unwrap();
    let error = fail(&mut replay());
    assert!(error.contains("another process uses the socket there"), "{error}");
    // The publisher there goes on.
    let recorder =
        start(&mut sealane(&["record", text(&path), "-o", text(&place.join("g")), "--json"]), &mut publisher);
    drop(publisher);
    assert_eq!(report(recorder)["reason"], "publisher_ended");
    assert!(replay().status().unwrap().success(), "a path that was left is taken over");
}

#[test]
fn a_recording_without_messages_is_played_to_its_end() {
    let place = Place::new();
    let mut publisher = place.publisher();
    let recorder = place.record(&mut publisher, &[]);
    drop(publisher);
    assert_eq!(report(recorder)["messages"], 0);
    let path = place.join("q");
    for options in [&["--wait-for", "0"][..], &["--wait-for", "0", "--loop"]] {
        let mut command = sealane(&["replay", text(&place.file), text(&path), "--json"]);
        let report: Value = serde_json::from_str(&succeed(command.args(options))).unwrap();
        assert_eq!((&report["messages"], &report["passes"]), (&0.into(), &1.into()), "{report}");
    }
}
