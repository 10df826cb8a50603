//! The example `decoder`: whatever files and workers do, each file is decoded or reported by name, once.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    process::{Command, Output, Stdio},
    thread,
};

use serde_json::Value;

use crate::reports::example;

/// Files in a short run, in which every way of being broken occurs, and in a long one.
const FILES: [usize; 2] = [200, 1000];

/// A run's lines, one for each file, and its summary. The status says whether there are files that were neither decoded nor refused.
fn run(decoder: &mut Command) -> (Vec<Value>, Value) {
    let output = decoder.arg("--json").output().unwrap();
    let (files, summary) = parse(&output);
    let is_whole = ["lost", "not_tried", "not_saved"].iter().all(|outcome| summary[outcome] == 0);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(i32::from(!is_whole)), "{said}");
    (files, summary)
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
            "directory" | "device" | "fifo" | "link" => &["not opened"],
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

/// Each misbehaviour is named, costs the file that was in flight, and no other.
#[test]
fn misbehaviour_is_told_from_crashes() {
    for (way, outcome, details, ended, misbehaved) in [
        ("close", "lost", "closed its channel", 0, 9),
        ("babble", "lost", "a message that nobody asked for", 0, 9),
        ("lie", "lost", "bytes of pixels for", 0, 9),
        ("exit", "lost", "exit status: 3", 9, 0),
        ("overflow", "lost", "signal: 6 (SIGABRT)", 9, 0),
    ] {
        let Some(mut decoder) = example("decoder") else { return };
        decoder.args([
            SMALL,
            "--workers=1",
            "--attempts=1",
            "--samples=9",
            "--crash-every=1",
            "--crash-by",
            way,
        ]);
        let (files, summary) = run(&mut decoder);
        let is_expected = |line: &Value| {
            line["outcome"] == outcome && line["details"].as_str().is_some_and(|said| said.contains(details))
        };
        assert!(files.len() == 9 && files.iter().all(is_expected), "{way}: {files:?}");
        let workers = &summary["workers"];
        assert_eq!((&workers["ended"], &workers["misbehaved"]), (&ended.into(), &misbehaved.into()), "{way}");
    }
}

/// A worker that answers and then ends has answered. The next file may have been sent to it already, so that costs an attempt at most.
#[test]
fn answers_of_workers_that_end_afterwards_count() {
    let Some(mut decoder) = example("decoder") else { return };
    decoder.args([
        SMALL,
        "--workers=1",
        "--attempts=2",
        "--samples=9",
        "--crash-every=1",
        "--crash-by=leave",
    ]);
    let (files, _) = run(&mut decoder);
    assert!(files.len() == 9 && files.iter().all(|line| line["outcome"] == "decoded"), "{files:?}");
}

/// A link could lead to the pool's own memory, and a thumbnail through one to any file.
#[test]
fn links_are_followed_neither_for_reading_nor_for_writing() {
    let Some(mut decoder) = example("decoder") else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["in", "out"] {
        fs::create_dir(at(name)).unwrap();
    }
    fs::write(at("precious"), "precious").unwrap();
    fs::write(at("in/a.ppm"), b"P6 1 1 255 abc").unwrap();
    symlink(at("precious"), at("out/a.ppm.png")).unwrap();
    symlink("/proc/self/mem", at("in/memory")).unwrap();
    let (files, _) = run(decoder.arg(SMALL).arg("--input").arg(at("in")).arg("--save").arg(at("out")));
    assert_eq!(files.iter().filter(|line| line["outcome"] == "decoded").count(), 1, "{files:?}");
    assert!(files.iter().any(|line| line["details"] == "no file, but a symbolic link"), "{files:?}");
    assert_eq!(fs::read_to_string(at("precious")).unwrap(), "precious");
    assert!(fs::symlink_metadata(at("out/a.ppm.png")).unwrap().is_file());

    let mut decoder = example("decoder").unwrap();
    let same = decoder.arg("--input").arg(at("in")).arg("--save").arg(at("out/../in")).output().unwrap();
    assert_eq!(same.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&same.stderr).contains("the same folder"));
}

/// Descriptors that the pool has inherited stay its own: a worker that is taken over could write to them.
#[test]
fn workers_inherit_no_descriptors() {
    let Some(decoder) = example("decoder") else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"exec "$0" "$@" 9>>"$FILE""#]).arg(decoder.get_program()).env("FILE", &file);
    shell.args([SMALL, "--workers=1", "--samples=1", "--hang-every=1", "--attempts=1", "--timeout=30"]);
    let mut pool = shell.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let worker = loop {
        let threads = fs::read_dir(format!("/proc/{}/task", pool.id())).unwrap();
        let mut all = threads.map(|thread| thread.unwrap().path().join("children"));
        let children = all.find_map(|path| {
            let children = fs::read_to_string(path).unwrap_or_default();
            children.split_whitespace().next().map(str::to_owned)
        });
        match children {
            Some(worker) if is_locked_in(&worker) => break worker,
            _ => assert_eq!(pool.try_wait().unwrap(), None, "no worker"),
        }
        thread::yield_now();
    };
    let open = fs::read_dir(format!("/proc/{worker}/fd")).unwrap();
    let open: Vec<_> = open.map(|fd| fs::read_link(fd.unwrap().path()).unwrap()).collect();
    pool.kill().unwrap();
    pool.wait().unwrap();
    assert!(!open.contains(&file), "{open:?}");
}

/// Whether a process has a filter for its system calls.
fn is_locked_in(process: &str) -> bool {
    fs::read_to_string(format!("/proc/{process}/status")).is_ok_and(|status| status.contains("Seccomp:\t2"))
}

#[test]
fn a_pool_without_workers_says_so_for_each_file() {
    let Some(decoder) = example("decoder") else { return };
    let mut shell = Command::new("sh");
    // A worker needs more descriptors than its pool: three of its own, and a file.
    shell.args(["-c", r#"ulimit -n 9; exec "$0" "$@""#]).arg(decoder.get_program());
    shell.args([SMALL, "--json", "--samples=20", "--workers=1", "--give-up=0.2", "--timeout=0.2"]);
    let output = shell.stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no worker could be started") && said.contains("Too many open files"), "{said}");
    let (files, summary) = parse(&output);
    assert_eq!((files.len(), &summary["decoded"]), (20, &0.into()));
    assert!(
        files.iter().all(|line| ["not tried", "not opened"].contains(&line["outcome"].as_str().unwrap()))
    );
}

#[test]
fn a_pool_that_could_not_reap_its_workers_does_not_begin() {
    let Some(decoder) = example("decoder") else { return };
    let mut ignoring = Command::new("env");
    ignoring.arg("--ignore-signal=CHLD").arg(decoder.get_program()).args([SMALL, "--samples=1"]);
    let output = ignoring.output().unwrap();
    if output.status.code() == Some(125) {
        return println!("left out: this env(1) ignores no signals");
    }
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("SIGCHLD is ignored"));
}
