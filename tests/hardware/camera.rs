//! The example `camera` with the device: the program that docs/camera.md is about.

use std::{env, process::Command};

use serde_json::Value;
use video::{Control, Device};

use crate::machine::Held;

#[test]
#[ignore = "needs the machine that tests/hardware/run boots"]
fn the_example_converges_on_the_device() {
    film(&[]);
}

#[test]
#[ignore = "needs the machine that tests/hardware/run boots"]
fn the_example_converges_on_the_device_from_its_sandbox() {
    let report = film(&["--sandbox"]);
    assert_eq!(report["forbidden_acts_refused"], report["forbidden_acts_tried"]);
    assert_ne!(report["forbidden_acts_tried"], 0);
}

#[test]
#[ignore = "needs the machine that tests/hardware/run boots"]
fn the_example_publishes_frames_of_the_device() {
    let report = film(&["--publish"]);
    let subscribers = report["subscribers"].as_array().unwrap();
    let count = |of: &Value, name: &str| of[name].as_u64().unwrap();
    for one in subscribers.iter().filter(|one| one["fate"]["what"] != "killed") {
        assert_eq!(count(one, "received") + count(one, "missed"), count(one, "published"), "{one}");
    }
    let killed = subscribers.iter().find(|one| one["fate"]["what"] == "killed").unwrap();
    assert!(count(&killed["fate"], "buffers_back") > 0, "{killed}");
}

fn film(options: &[&str]) -> Value {
    let device = Device::of_driver("vivid").unwrap();
    device.set_control(Control::BRIGHTNESS, 99).unwrap();
    let before = Held::now();
    let program = env::var_os("CAMERA").expect("CAMERA names the example's program");
    let mut command = Command::new(program);
    command.args(["--device", "/dev/video0", "--frames", "60", "--json"]).args(options);
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    println!("{report}");
    assert_eq!((&report["frames"], &report["frame_buffers_verified"]), (&60.into(), &60.into()));
    assert!(report["converged_at_frame"].is_u64(), "{report}");
    before.again();
    assert_eq!(device.control(Control::BRIGHTNESS).unwrap(), 99, "the device is left as it was found");
    report
}
