//! The example `camera --publish`: its subscribers come and go, lie and die; buffers come back, and the loop stays converged.

use std::{
    path::{Path, PathBuf},
    process,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use sealane::{Builder, Error, Slow, Subscriber};
use serde_json::Value;
use tempfile::tempdir;

use crate::camera_report::{camera, clip, json, words};

/// How long a pipeline may take to start.
const SOON: Duration = Duration::from_secs(30);

fn subscriber<'r>(report: &'r Value, name: &str) -> &'r Value {
    let mut all = report["subscribers"].as_array().unwrap().iter();
    all.find(|subscriber| subscriber["name"] == name).unwrap_or_else(|| panic!("no {name} in {report:#}"))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn subscribers_come_and_go_and_the_loop_stays_converged() {
    const FRAMES: u64 = 96;
    let options = ["--publish", "--json", "--frames", "96"];
    let Some(output) = camera(&options, Some(clip(1, 0).path())) else { return };
    assert_eq!(words(&output.stderr), "");
    let report = json(&output);

    // Late controls may cost some frames.
    assert!(number(&report["converged_at_frame"]) < 30, "{report:#}");
    assert!(number(&report["frames_converged"]) >= FRAMES - 40, "{report:#}");
    assert_eq!((&report["frames"], &report["frame_buffers_verified"]), (&FRAMES.into(), &FRAMES.into()));

    for one in report["subscribers"].as_array().unwrap() {
        let [published, received, missed, taken_back, held] =
            ["published", "received", "missed", "taken_back", "held_at_most"].map(|name| number(&one[name]));
        let was_killed = one["fate"]["what"] == "killed";
        assert!(received + missed == published || (was_killed && received + missed <= published), "{one:#}");
        assert!(taken_back <= received && (1..=4).contains(&held), "{one:#}");
        if one["policy"] == "wait" {
            assert_eq!((missed, taken_back), (0, 0), "{one:#}");
        }
    }
    let [algorithm, preview, recorder, second, late] =
        ["algorithm", "preview", "recorder", "second recorder", "late preview"]
            .map(|name| subscriber(&report, name));
    assert_eq!(report["subscribers"].as_array().unwrap().len(), 5);
    for (one, from, to) in [
        (algorithm, 0, FRAMES),
        (preview, 0, FRAMES),
        (recorder, 0, 3 * FRAMES / 8 + 1),
        (second, 5 * FRAMES / 8, FRAMES),
        (late, 6 * FRAMES / 8, FRAMES),
    ] {
        assert_eq!(
            (number(&one["joined_at_frame"]), number(&one["published"])),
            (from, to - from),
            "{one:#}"
        );
    }
    // A quarter of the frames was taken while it was stopped, and it goes on with the newest.
    assert_eq!(preview["fate"]["what"], "stopped");
    assert!(number(&preview["missed"]) >= FRAMES / 4 - 1 && number(&preview["received"]) > 0, "{preview:#}");
    assert!(number(&report["buffers_taken_back"]) > 0, "{report:#}");
    assert_eq!((&recorder["fate"]["what"], &recorder["fate"]["at_frame"]), (&"killed".into(), &36.into()));
    assert!(number(&recorder["fate"]["buffers_back"]) > 0, "{recorder:#}");
    for one in [algorithm, second, late] {
        assert_eq!(one["fate"]["what"], "stayed", "{one:#}");
    }
    let path = Path::new(report["published_at"].as_str().unwrap());
    assert!(!path.parent().unwrap().exists(), "{path:?} is left over");
}

#[test]
fn the_report_tells_what_happened_to_each_subscriber() {
    let options = ["--publish", "--sandbox", "--frames", "48"];
    let Some(output) = camera(&options, Some(clip(1, 0).path())) else { return };
    let report = words(&output.stdout);
    for sentence in [
        "48 frames of 129 KiB were published, each once.",
        "The preview was stopped from frame 12 to frame 24; nobody waited for it.",
        "The recorder was killed at frame 18 with ",
        "The second recorder joined at frame 30.",
        "The late preview joined at frame 36.",
        "algorithm waited for 48 48 - -",
        "It tried 240 forbidden acts",
    ] {
        assert!(report.contains(sentence), "{sentence}: {report}");
    }
}

/// Subscribes as soon as there is a pipeline, has `act` do what it will, and then reads to the end without a word.
fn intruder(path: PathBuf, slow: Slow, act: impl Fn(&mut Subscriber) + Send + 'static) -> JoinHandle<Error> {
    thread::spawn(move || {
        let deadline = Instant::now() + SOON;
        let mut subscriber = loop {
            match Builder::default().max_fds(1).slow(slow).subscribe(&path) {
                Ok(subscriber) => break subscriber,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            thread::sleep(Duration::from_millis(1));
        };
        act(&mut subscriber);
        loop {
            if let Err(error) = subscriber.recv() {
                return error;
            }
        }
    })
}

#[test]
fn a_subscriber_that_keeps_buffers_or_lies_costs_the_others_nothing_but_time() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("frames");
    let options = ["--publish", path.to_str().unwrap(), "--json", "--frames", "150", "--fps", "100"];
    let intruders = [
        // Says nothing, and is waited for.
        intruder(path.clone(), Slow::Wait(Duration::MAX), |_| {}),
        // Says nothing, and is not.
        intruder(path.clone(), Slow::Overrun, |_| {}),
        // Gives back a frame that there never was.
        intruder(path.clone(), Slow::Overrun, |subscriber| {
            subscriber.send(&[[u8::MAX; 8], [0; 8], [0; 8]].concat()).unwrap();
        }),
        // Says what is no message.
        intruder(path.clone(), Slow::Overrun, |subscriber| subscriber.send("free all").unwrap()),
    ];
    // Without the example, nobody publishes.
    let Some(output) = camera(&options, Some(clip(1, 0).path())) else { return };
    for intruder in intruders {
        let error = intruder.join().unwrap();
        assert!(matches!(error, Error::Disconnected), "{error}");
    }
    let report = json(&output);
    assert_eq!((&report["frames"], &report["frame_buffers_verified"]), (&150.into(), &150.into()));
    let name = format!("process {}", process::id());
    let fates: Vec<_> = report["subscribers"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|subscriber| subscriber["name"] == name)
        .map(|subscriber| {
            (subscriber["policy"].as_str().unwrap(), subscriber["fate"]["what"].as_str().unwrap())
        })
        .collect();
    assert!(fates.contains(&("wait", "left")), "the one that is waited for is ended: {report:#}");
    assert!(fates.contains(&("overrun", "stayed")), "the one that is not costs nothing: {report:#}");
    for name in ["algorithm", "second recorder", "late preview"] {
        let one = subscriber(&report, name);
        assert_eq!(one["fate"]["what"], "stayed", "{one:#}");
        let sum = number(&one["received"]) + number(&one["missed"]);
        assert_eq!(sum, number(&one["published"]), "{one:#}");
    }
}
