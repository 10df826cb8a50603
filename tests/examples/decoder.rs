//! The example `decoder`: whatever files and workers do, each file is decoded or reported by name, once.

use std::{
    collections::BTreeMap,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use crate::reports::example;

/// Files in a short run, in which every way of being broken occurs, and in a long one.
const FILES: [usize; 2] = [200, 1000];

/// A run's lines, one for each file, and its summary.
fn run(decoder: &mut Command) -> (Vec<Value>, Value) {
    let output = decoder.arg("--json").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    parse(&output)
}

fn parse(output: &Output) -> (Vec<Value>, Value) {
    let lines = String::from_utf8(output.stdout.clone()).unwrap();
    let mut lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = lines.pop().unwrap();
    (lines, summary)
}

/// What the names of the samples say: number and kind.
fn kind(line: &Value) -> (usize, String) {
    let name = line["file"].as_str().unwrap().rsplit('/').next().unwrap();
    let (number, rest) = name.split_once('-').unwrap();
    (number.parse().unwrap(), rest.split_once('.').unwrap().0.to_owned())
}

/// Limits with which a worker starts quickly.
const SMALL: &str = "--max-pixels=1000000";

#[test]
fn every_file_is_decoded_or_reported_once_whatever_happens() {
    let Some(mut decoder) = example("decoder") else { return };
    let count = FILES[usize::from(std::env::var_os("SEALANE_NIGHTLY").is_some())];
    decoder.args([SMALL, "--workers=4", "--timeout=2", "--attempts=3", "--samples", &count.to_string()]);
    let (files, summary) = run(decoder.args(["--crash-every=7", "--hang-every=13", "--escape-every=5"]));

    let found: BTreeMap<_, _> = files.iter().map(|line| (kind(line), line)).collect();
    let numbers: Vec<_> = found.keys().map(|&(number, _)| number).collect();
    assert_eq!(numbers, (0..count).collect::<Vec<_>>());
    assert_eq!(files.len(), count, "a file was reported twice");
    for ((number, kind), line) in found {
        let (outcome, details) = (line["outcome"].as_str().unwrap(), line["details"].as_str().unwrap());
        // A worker may be lost at all attempts of a file: the crashes do not spare it.
        if outcome == "lost" {
            let named = ["SIGABRT", "SIGSEGV", "exit status: 3", "exit status: 101", "--timeout"];
            assert!(named.iter().any(|name| details.contains(name)) && details.contains("3 times"), "{line}");
            continue;
        }
        let expected: &[&str] = match kind.as_str() {
            "image" => &["decoded"],
            "directory" | "device" | "fifo" | "dangling" => &["not opened"],
            "huge" | "empty" => &["refused"],
            _ => &["decoded", "refused"],
        };
        assert!(expected.contains(&outcome), "file {number}: {line}");
    }
    let workers = &summary["workers"];
    assert!(workers["ended"].as_u64() >= Some(count as u64 / 10), "{summary}");
    assert_ne!(workers["hung"], 0);
    assert_eq!(workers["misbehaved"], 0);
    assert_ne!(workers["acts_tried"], 0);
    assert_eq!(workers["acts_refused"], workers["acts_tried"], "the sandbox");
    assert_eq!(summary["not_tried"], 0);
}

/// Each start takes descriptors, and maps a ring: nothing of it stays. (From file 79 on, one that changes is open.)
#[test]
fn restarts_cost_neither_descriptors_nor_memory() {
    let run = |samples| {
        let mut decoder = example("decoder")?;
        let (_, summary) = run(decoder.args([SMALL, "--workers=1", "--crash-every=2", "--samples", samples]));
        let number = |of: &str, what: &str| summary[of][what].as_u64().unwrap();
        assert!(number("workers", "started") >= samples.parse::<u64>().unwrap() / 3);
        Some((number("descriptors", "most"), number("most_memory_kib", "pool")))
    };
    let (Some((descriptors, memory)), Some((more_descriptors, more_memory))) = (run("20"), run("79")) else {
        return;
    };
    assert_eq!(descriptors, more_descriptors);
    // A ring is 6 MiB, and a thousand of the pool's own allocations are less than one MiB.
    assert!(more_memory < memory + 4096, "{memory} KiB after 10 restarts, {more_memory} KiB after 40");
}

#[test]
fn images_that_are_kept_leave_room_for_the_next() {
    let Some(mut decoder) = example("decoder") else { return };
    let (files, _) = run(decoder.args([SMALL, "--workers=2", "--keep=3", "--samples=9"]));
    assert!(files.iter().all(|line| line["outcome"] == "decoded"), "{files:?}");
}

#[test]
fn workers_are_replaced_after_their_files() {
    let Some(mut decoder) = example("decoder") else { return };
    let (files, summary) = run(decoder.args([SMALL, "--workers=1", "--files-per-worker=3", "--samples=9"]));
    assert!(files.iter().all(|line| line["outcome"] == "decoded"), "{files:?}");
    assert_eq!((&summary["workers"]["started"], &summary["workers"]["ended"]), (&3.into(), &0.into()));
}

/// A crash ends a worker at once, although its sandbox refuses nearly everything: it is not taken for a worker that hangs.
#[test]
fn crashes_in_the_sandbox_have_their_own_status() {
    let Some(mut decoder) = example("decoder") else { return };
    let options = ["--workers=1", "--attempts=1", "--crash-every=1", "--samples=4"];
    let (files, _) = run(decoder.arg(SMALL).args(options));
    let details: Vec<_> = files.iter().map(|line| line["details"].as_str().unwrap()).collect();
    for status in ["exit status: 101", "exit status: 3", "(SIGABRT)"] {
        assert!(details.iter().any(|details| details.contains(status)), "{status}: {details:?}");
    }
    assert_eq!(files.iter().filter(|line| line["outcome"] == "lost").count(), 4);
}

#[test]
fn a_pool_without_workers_says_so_for_each_file() {
    let Some(decoder) = example("decoder") else { return };
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"ulimit -n 8; exec "$0" "$@""#]).arg(decoder.get_program());
    let output =
        shell.args([SMALL, "--json", "--samples=20", "--workers=2"]).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no worker could be started") && said.contains("Too many open files"), "{said}");
    let (files, summary) = parse(&output);
    assert_eq!(files.len(), 20);
    assert_eq!(summary["decoded"], 0);
    assert!(
        files
            .iter()
            .all(|line| ["lost", "not tried", "not opened"].contains(&line["outcome"].as_str().unwrap()))
    );
}
