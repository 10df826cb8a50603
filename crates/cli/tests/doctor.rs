//! `sealane doctor` as its users meet it: with low limits, closed streams, an empty environment, and signals.
//!
//! Limits are set by the shell's `ulimit` in a process of its own, so that the tests keep theirs.

mod signals;

use std::{
    io::{BufRead, BufReader, Read},
    os::unix::process::ExitStatusExt,
    process::{Command, Output, Stdio},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, Signal, kill_process},
};
use serde_json::Value;

use crate::signals::is_ignored;

const SEALANE: &str = env!("CARGO_BIN_EXE_sealane");

/// Runs a script of the shell in which `$0` is the command.
fn shell(script: &str) -> Output {
    Command::new("sh").args(["-c", script, SEALANE]).stdin(Stdio::null()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}, {:?}", stdout(output), output.status))
}

/// The check or step with a name.
fn named<'j>(list: &'j Value, name: &str) -> &'j Value {
    list.as_array()
        .unwrap()
        .iter()
        .find(|item| item["name"] == name)
        .unwrap_or_else(|| panic!("no {name} in {list}"))
}

/// Runs the self-test, unless this machine has what its report says is an error.
fn whole() -> Option<Value> {
    let output = shell("exec \"$0\" doctor --json --timeout 60");
    let report = json(&output);
    let bad: Vec<_> =
        report["checks"].as_array().unwrap().iter().filter(|check| check["state"] == "error").collect();
    if bad.is_empty() {
        return Some(report);
    }
    eprintln!("SKIPPED: errors of this machine: {bad:?}");
    None
}

#[test]
fn report_has_all_families_and_a_self_test_that_passes() {
    let Some(report) = whole() else { return };
    for family in ["kernel", "limits", "memory", "isolation", "processors"] {
        assert!(
            report["checks"].as_array().unwrap().iter().any(|check| check["family"] == family),
            "{family}"
        );
    }
    for step in report["test"].as_array().unwrap() {
        assert_eq!(step["outcome"], "passed", "{step}");
        for figure in step["figures"].as_array().unwrap() {
            assert!(figure["value"].as_f64().unwrap() > 0.0, "{figure}");
        }
    }
    let speed = &named(&report["test"], "speed")["figures"];
    assert_eq!(
        speed.as_array().unwrap().iter().map(|figure| figure["name"].as_str().unwrap()).collect::<Vec<_>>(),
        ["round_trip_64", "stream_64k", "stream_1m"]
    );
    assert_ne!(report["machine"]["cpu"], "");
}

#[test]
fn text_is_within_its_width_and_has_the_same_checks() {
    let report = json(&shell("exec \"$0\" doctor --json --no-test"));
    assert!(report["test"].is_null());
    for options in ["", "--all"] {
        let text = stdout(&shell(&format!("exec \"$0\" doctor --no-test {options}")));
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
        for check in report["checks"].as_array().unwrap() {
            assert!(text.contains(check["name"].as_str().unwrap()), "{check}");
            let limits = check["limits"].as_str().unwrap().split_whitespace().next().unwrap();
            assert!(options.is_empty() || text.contains(&format!("limits: {limits}")), "{check}");
        }
    }
}

#[test]
fn few_descriptors_are_named() {
    let output = shell("ulimit -n 16 && exec \"$0\" doctor --json --timeout 60");
    let check = named(&json(&output)["checks"], "RLIMIT_NOFILE").clone();
    assert_eq!((&check["values"]["soft"], &check["values"]["channels"]), (&16.into(), &3.into()));
    assert_eq!(check["state"], "warning");
    let report = json(&output);
    assert_eq!(named(&report["test"], "channel")["outcome"], "passed", "{report}");
}

#[test]
fn too_few_descriptors_for_anything_are_an_error_with_a_reason() {
    let output = shell("ulimit -n 6 && exec \"$0\" doctor --json --timeout 60");
    let report = json(&output);
    assert_eq!((output.status.code(), &report["state"]), (Some(1), &"error".into()));
    assert_eq!(named(&report["checks"], "RLIMIT_NOFILE")["state"], "error");
    let channel = named(&report["test"], "channel");
    assert!(channel["said"].as_str().unwrap().contains("os error 24"), "{channel}");
    assert_eq!(named(&report["test"], "messages")["outcome"], "skipped");
}

#[test]
fn small_limit_of_files_is_named_by_check_and_step() {
    // In units of 512 bytes (`sh`), or of 1,024 (`bash`): 1 or 2 MiB, less than a ring.
    let output = shell("ulimit -f 2048 && exec \"$0\" doctor --json --timeout 60");
    let report = json(&output);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(named(&report["checks"], "RLIMIT_FSIZE")["state"], "error");
    assert_eq!(named(&report["checks"], "memfd")["state"], "ok");
    let step = named(&report["test"], "channel");
    assert!(step["said"].as_str().unwrap().contains("RLIMIT_FSIZE"), "{step}");
}

#[test]
fn limit_of_files_below_a_page_ends_nothing() {
    let report = json(&shell("ulimit -f 1 && exec \"$0\" doctor --json --timeout 60"));
    assert_eq!(named(&report["checks"], "memfd")["state"], "error");
    assert!(named(&report["checks"], "seals")["found"].as_str().unwrap().contains("RLIMIT_FSIZE"));
}

#[test]
fn small_address_space_is_named() {
    // 32 MiB: room for the program and its thread, and not for both rings.
    let output = shell("ulimit -v 32768 && exec \"$0\" doctor --json --timeout 60");
    let report = json(&output);
    let check = named(&report["checks"], "RLIMIT_AS");
    assert!(["warning", "error"].contains(&check["state"].as_str().unwrap()), "{check}");
    assert_eq!(check["values"]["bytes"], 32 << 20);
}

#[test]
fn empty_environment_and_closed_streams_change_nothing() {
    let Some(_) = whole() else { return };
    let output = Command::new(SEALANE)
        .args(["doctor", "--timeout", "60"])
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success() && stdout(&output).contains("\n0 errors"), "{}", stdout(&output));
    for closed in ["<&-", "2>&-", "<&- >&- 2>&-", "<&- 2>&-"] {
        let output = shell(&format!("exec \"$0\" doctor --timeout 60 {closed}"));
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{closed}");
        assert!(
            closed.contains(">&- 2") || stdout(&output).contains("\n0 errors"),
            "{closed}: {}",
            stdout(&output)
        );
    }
}

#[test]
fn reader_that_leaves_is_no_error() {
    let mut child = Command::new(SEALANE)
        .args(["doctor", "--no-test", "--all"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let status = child.wait().unwrap();
    assert_eq!((said.as_str(), status.signal()), ("", None), "{status}");
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let output = shell("exec \"$0\" doctor --no-test > /dev/full");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.starts_with("sealane: standard output: "), "{said}");
}

#[test]
fn signals_leave_no_child_behind() {
    let Some(_) = whole() else { return };
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        if is_ignored(signal) {
            continue;
        }
        let mut command = Command::new(SEALANE);
        command
            .args(["doctor", "--timeout", "60"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // The first step has made the channel: its child waits for messages.
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.starts_with("  ok       channel ")));
        kill_process(Pid::from_child(&child), signal).unwrap();
        // Both have a copy of the standard error, whose end is the end of both.
        let mut stderr = child.stderr.take().unwrap();
        let timeout = Timespec { tv_sec: 10, tv_nsec: 0 };
        let mut text = [0; 4096];
        loop {
            let ended = poll(&mut [PollFd::new(&stderr, PollFlags::IN)], Some(&timeout));
            assert_eq!(ended, Ok(1), "{signal:?}: a process goes on");
            if stderr.read(&mut text).unwrap() == 0 {
                break;
            }
        }
        assert_eq!(child.wait().unwrap().signal(), Some(signal.as_raw()));
    }
}

#[test]
fn role_without_a_parent_says_so() {
    let output = Command::new(SEALANE)
        .args(["doctor", "--role", "channel"])
        .env_remove("SEALANE_FD")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.starts_with("sealane: the child of the self-test: ") && said.contains("SEALANE_FD"),
        "{said}"
    );
}

#[test]
fn unknown_options_are_refused_with_status_2() {
    for options in ["--nonsense", "--timeout 0", "--timeout 601", "--timeout x", "--all --json"] {
        assert_eq!(shell(&format!("exec \"$0\" doctor {options}")).status.code(), Some(2), "{options}");
    }
}
