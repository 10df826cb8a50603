//! The limits of a file: its size, its time, and another file that follows.

use std::{fs, path::PathBuf};

use crate::support::{
    Place, account, fail, messages, metadata, publish, publish_until_alone, read_in_python, report,
    wait_for_subscriber,
};

const MAX: usize = 64 << 10;

#[test]
fn a_file_is_never_larger_than_its_limit() {
    let place = Place::new();
    let mut publisher = place.publisher();
    let recorder = place.record(&mut publisher, &["--max-size", "5MiB"]);
    let number = publish_until_alone(&mut publisher, MAX);
    let report = report(recorder);
    assert_eq!(report["reason"], "max_size");
    let len = fs::metadata(&place.file).unwrap().len();
    assert!((4 << 20..=5 << 20).contains(&len), "{len}");
    assert_eq!(report["files"][0]["bytes"], len);
    assert!(account(&messages(&place.file), 0) <= number);
}

#[test]
fn files_that_follow_one_another_continue_what_was_counted() {
    let place = Place::new();
    let mut publisher = place.publisher();
    let recorder = place.record(&mut publisher, &["--max-size", "2MiB", "--split"]);
    for number in 0..2000 {
        publish(&mut publisher, number, MAX);
    }
    drop(publisher);
    let report = report(recorder);
    let files: Vec<PathBuf> = report["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["path"].as_str().unwrap().into())
        .collect();
    assert!(files.len() > 3, "{files:?}");
    assert_eq!(files[..2], [place.file.clone(), place.join("f-0001.mcap")]);
    let mut all = Vec::new();
    for (part, file) in files.iter().enumerate() {
        assert!(fs::metadata(file).unwrap().len() <= 2 << 20);
        assert_eq!(metadata(file, "sealane.recording")["part"], part.to_string());
        all.extend(messages(file));
    }
    assert_eq!(report["messages"], all.len());
    assert_eq!(account(&all, 0) + report["missed_at_end"].as_u64().unwrap(), 2000);
    read_in_python(&files);
}

#[test]
fn a_message_that_is_larger_than_a_file_has_one_of_its_own() {
    let place = Place::new();
    let mut publisher = place.publisher();
    let recorder = place.record(&mut publisher, &["--max-size", "100KiB", "--split"]);
    for _ in 0..3 {
        publisher.loan(300 << 10).unwrap().send().unwrap();
    }
    drop(publisher);
    assert_eq!(report(recorder)["files"].as_array().unwrap().len(), 3);
    assert_eq!(messages(&place.join("f-0002.mcap")).len(), 1);
}

#[test]
fn a_recording_ends_after_its_time_though_nothing_comes() {
    // A bare number is one of seconds.
    for time in ["20ms", "0.02"] {
        let place = Place::new();
        let mut publisher = place.publisher();
        let recorder = place.record(&mut publisher, &["--max-duration", time]);
        assert_eq!(report(recorder)["reason"], "max_duration");
        assert_eq!(messages(&place.file), []);
    }
}

#[test]
fn the_whole_recording_ends_after_its_time_however_many_files_there_are() {
    let place = Place::new();
    let mut publisher = place.publisher();
    let options = ["--split", "--max-size", "100KiB", "--max-duration", "1h", "--total-duration", "50ms"];
    let recorder = place.record(&mut publisher, &options);
    let number = publish_until_alone(&mut publisher, MAX);
    let report = report(recorder);
    assert_eq!(report["reason"], "total_duration");
    let files = report["files"].as_array().unwrap();
    let last: PathBuf = files.last().unwrap()["path"].as_str().unwrap().into();
    assert_eq!(metadata(&last, "sealane.end")["reason"], "--total-duration");
    let all: Vec<_> =
        files.iter().flat_map(|file| messages(file["path"].as_str().unwrap().as_ref())).collect();
    assert!(account(&all, 0) <= number);
    assert_eq!(report["messages"], all.len());
}

#[test]
fn a_ring_of_files_keeps_the_last_ones_and_counts_the_others() {
    let place = Place::new();
    let mut publisher = place.publisher();
    let neighbour = place.join("f-0000.mcap");
    fs::write(&neighbour, "precious").unwrap();
    let recorder = place.record(&mut publisher, &["--split", "--max-size", "100KiB", "--keep", "2"]);
    for _ in 0..5 {
        // Each has a file of its own.
        publisher.loan(90 << 10).unwrap().send().unwrap();
    }
    drop(publisher);
    let report = report(recorder);
    assert_eq!((&report["deleted_files"], &report["deleted_messages"]), (&3.into(), &3.into()), "{report}");
    assert_eq!(report["messages"], 5);
    let files: Vec<_> = report["files"].as_array().unwrap().iter().map(|file| file["path"].clone()).collect();
    assert_eq!(
        files,
        ["f-0003.mcap", "f-0004.mcap"].map(|name| place.join(name).to_str().unwrap().to_owned())
    );
    let kept: Vec<_> = messages(&place.join("f-0003.mcap"))
        .into_iter()
        .chain(messages(&place.join("f-0004.mcap")))
        .collect();
    assert_eq!(account(&kept, 3), 2);
    assert!(!place.file.exists() && !place.join("f-0002.mcap").exists());
    assert_eq!(fs::read(neighbour).unwrap(), b"precious");
}

#[test]
fn times_beyond_the_clock_are_no_limit() {
    let place = Place::new();
    let ages = "580000000000years";
    let recorder = place.recorder(&["--max-duration", ages, "--wait", ages]).spawn().unwrap();
    let mut publisher = place.publisher();
    wait_for_subscriber(&mut publisher);
    publish(&mut publisher, 0, MAX);
    drop(publisher);
    assert_eq!(report(recorder)["messages"], 1);
}

#[test]
fn a_limit_below_one_message_leaves_room_for_one() {
    let place = Place::new();
    let mut publisher = place.publisher();
    let recorder = place.record(&mut publisher, &["--max-size", "1"]);
    publish(&mut publisher, 0, MAX);
    publish(&mut publisher, 1, MAX);
    let report = report(recorder);
    assert_eq!((&report["reason"], &report["messages"]), (&"max_size".into(), &1.into()));
    assert_eq!(messages(&place.file).len(), 1);
}

#[test]
fn options_that_do_not_fit_are_errors() {
    let place = Place::new();
    let _publisher = place.publisher();
    for (options, expected) in [
        (&["--keep", "2"][..], "--split"),
        (&["--split", "--max-size", "1MiB", "--keep", "0"][..], "invalid value '0'"),
        (&["--split"][..], "--max-size or --max-duration expected"),
        (&["--split", "--max-size", "1MiB", "--output", "-"][..], "cannot be used multiple times"),
        (&["--split", "--max-duration", "0s"][..], "1s or more expected"),
        (&["--max-size", "abc"][..], "a size expected, as 4096 (bytes)"),
        (&["--max-duration", "soon"][..], "a time expected, as 2 (seconds)"),
        (&["--wait", "-1"][..], "unexpected argument '-1'"),
    ] {
        let output = place.recorder(options).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(expected), "{error}");
        assert!(!place.file.exists());
    }
    let mut command = crate::support::sealane(&[
        "record",
        crate::support::text(&place.path),
        "-o",
        "-",
        "--split",
        "--max-size",
        "1MiB",
    ]);
    let error = fail(&mut command);
    assert!(error.contains("a file expected"), "{error}");
}

#[test]
fn a_part_that_exists_ends_the_recording_and_is_not_touched() {
    let place = Place::new();
    let next = place.join("f-0001.mcap");
    fs::write(&next, "precious").unwrap();
    let mut publisher = place.publisher();
    let recorder = place.record(&mut publisher, &["--max-size", "100KiB", "--split"]);
    publisher.loan(90 << 10).unwrap().send().unwrap();
    publisher.loan(90 << 10).unwrap().send().unwrap();
    drop(publisher);
    let output = recorder.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("f-0001.mcap exists"), "{error}");
    assert_eq!(messages(&place.file).len(), 1);
    assert_eq!(fs::read(next).unwrap(), b"precious");
}
