//! The example `viewers`: each policy and each carrier in short, and the options that it refuses.

use std::{fs, process::Command};

use serde_json::Value;

use crate::reports::example;

/// The report of a short run.
fn report(mut viewers: Command, options: &[&str]) -> Value {
    let output = viewers.args(["--viewers", "2", "--frames", "20", "--json"]).args(options).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{options:?}: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Checks that each viewer has all frames in its counts, and returns the frames that were missed.
fn missed(report: &Value) -> u64 {
    let count = |viewer: &Value, name: &str| viewer[name].as_u64().unwrap();
    let mut all = 0;
    for run in report["runs"].as_array().unwrap() {
        let viewers = run["viewers"].as_array().unwrap();
        assert_eq!(viewers.len(), 2);
        for viewer in viewers {
            assert_eq!(count(viewer, "received") + count(viewer, "missed"), 20, "{report}");
            assert_eq!(count(viewer, "torn"), 0);
            all += count(viewer, "missed");
        }
    }
    all
}

#[test]
fn all_frames_are_received_or_told_as_missed() {
    for policy in ["wait", "overrun", "newest"] {
        let Some(viewers) = example("viewers") else { return };
        let report = report(viewers, &["--size", "64KiB", "--policy", policy]);
        let missed = missed(&report);
        assert!(policy != "wait" || missed == 0, "{report}");
    }
}

#[test]
fn channels_are_measured_beside_the_publisher() {
    let Some(viewers) = example("viewers") else { return };
    let report = report(viewers, &["--size", "4KiB", "--fps", "1000", "--carrier", "publisher,channels"]);
    assert_eq!(missed(&report), 0);
    let carriers: Vec<_> =
        report["runs"].as_array().unwrap().iter().map(|run| run["carrier"].clone()).collect();
    assert_eq!(carriers, ["publisher", "channels"]);
}

#[test]
fn a_clip_is_played_from_a_file() {
    let Some(viewers) = example("viewers") else { return };
    let folder = tempfile::tempdir().unwrap();
    let clip = folder.path().join("clip.y4m");
    let picture = |level: u8| [b"FRAME\n", [level; 12].as_slice()].concat();
    fs::write(&clip, [b"YUV4MPEG2 W4 H3 Cmono\n", picture(16).as_slice(), &picture(235)].concat()).unwrap();
    let report = report(viewers, &["--clip", clip.to_str().unwrap()]);
    assert_eq!((missed(&report), report["size"].as_u64()), (0, Some(64)));
}

#[test]
fn wrong_options_are_named_with_what_to_do() {
    for (options, expected) in [
        (&["--size", "65"][..], "expected a multiple of 64 from 64 to 64MiB, found 65: choose"),
        (&["--size", "3MB"], "expected no unit, KiB or MiB, found \"MB\": write"),
        (&["--viewers", "0"], "0 is not in 1..=64"),
        (
            &["--policy", "newest", "--carrier", "channels"],
            "expected --policy wait with --carrier channels, found newest",
        ),
        (&["--clip", "/nowhere/clip.y4m"], "No such file or directory (os error 2): name a file"),
    ] {
        let Some(mut viewers) = example("viewers") else { return };
        let output = viewers.args(options).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(expected), "{options:?}: {said}");
    }
}
