//! The example `camera`, run as a person or a script runs it: clips, pictures and reports.

use std::{
    env::current_exe,
    fs::File,
    io::BufReader,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::{NamedTempFile, TempDir, tempdir};

const WIDTH: usize = 64;
const HEIGHT: usize = 48;

/// How long a run may take: one that loops for ever is ended.
const BOUND: Duration = Duration::from_mins(1);

/// Runs the example, as cargo has built it beside the tests; if it has not, its test is left out.
fn run(options: &[&str], clip: Option<&Path>) -> Option<Output> {
    let tests = current_exe().unwrap();
    let program = tests.parent().unwrap().parent().unwrap().join("examples/camera");
    if !program.exists() {
        println!("left out: the example camera is not built (cargo build --examples)");
        return None;
    }
    let mut command = Command::new(program);
    command.args(options).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(clip) = clip {
        command.arg("--input").arg(clip);
    }
    let child = command.spawn().unwrap();
    let pid = Pid::from_child(&child);
    let (ended, end) = mpsc::channel();
    thread::spawn(move || ended.send(child.wait_with_output().unwrap()));
    let output = end.recv_timeout(BOUND);
    if output.is_err() {
        kill_process(pid, Signal::KILL).unwrap();
    }
    Some(output.expect("the example ends"))
}

/// Runs the example, which must succeed.
pub(crate) fn camera(options: &[&str], clip: Option<&Path>) -> Option<Output> {
    let output = run(options, clip)?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(output)
}

/// A clip of grey frames, each lighter than the one before it, less this many bytes at its end.
pub(crate) fn clip(frames: u8, missing: usize) -> NamedTempFile {
    let mut bytes = format!("YUV4MPEG2 W{WIDTH} H{HEIGHT} F30:1 Cmono\n").into_bytes();
    for frame in 0..frames {
        bytes.extend(b"FRAME\n");
        bytes.extend([100 + 10 * frame; WIDTH * HEIGHT]);
    }
    bytes.truncate(bytes.len() - missing);
    let file = NamedTempFile::new().unwrap();
    std::fs::write(&file, bytes).unwrap();
    file
}

pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The words of the output, wherever its lines are broken.
pub(crate) fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_clip_is_played_once_unless_more_frames_are_asked_for() {
    let clip = clip(5, 0);
    for (options, frames) in
        [(&["--json"][..], 5), (&["--json", "--frames", "3"], 3), (&["--json", "--frames", "12"], 12)]
    {
        let Some(output) = camera(options, Some(clip.path())) else { return };
        let report = json(&output);
        assert_eq!(
            (&report["frames"], &report["clip_damage"]),
            (&frames.into(), &Value::Null),
            "{options:?}"
        );
        assert_eq!(words(&output.stderr), "", "{options:?}");
    }
}

#[test]
fn a_truncated_clip_is_said_and_its_whole_frames_are_used() {
    let clip = clip(5, 72);
    let found = format!("is truncated: expected {} bytes for frame 4, found 3000", WIDTH * HEIGHT);
    for (options, frames) in [(&[][..], 4), (&["--json"], 4), (&["--json", "--frames", "9"], 9)] {
        let Some(output) = camera(options, Some(clip.path())) else { return };
        let said = words(&output.stderr);
        let name = clip.path().display();
        assert_eq!(
            said,
            format!("camera: {name} {found}; 4 whole frames before that were used"),
            "{options:?}"
        );
        if options.is_empty() {
            let report = words(&output.stdout);
            assert!(report.contains(&format!("The clip {found}.")), "{report}");
        } else {
            let report = json(&output);
            assert_eq!((&report["frames"], &report["clip_frames"]), (&frames.into(), &4.into()));
        }
    }
}

#[test]
fn the_first_frame_and_the_last_are_saved_as_the_camera_took_them() {
    let folder = tempdir().unwrap();
    let options = ["--json", "--frames", "40", "--save", folder.path().to_str().unwrap()];
    let Some(output) = camera(&options, Some(clip(1, 0).path())) else { return };
    let report = json(&output);
    let [first, last] = ["first.png", "last.png"].map(|name| mean_colour(&folder, name));
    let saved = ["first.png", "last.png"].map(|name| folder.path().join(name).display().to_string());
    assert_eq!(report["saved"], Value::from(saved.to_vec()));
    // A grey card under tungsten light, taken too dark; then as bright as middle grey, and grey.
    assert!(first[0] > first[1] && first[1] > first[2] && first[0] < 90, "{first:?}");
    assert!(last.iter().all(|&mean| (108..=124).contains(&mean)), "{last:?}");
}

/// The mean of each colour of a picture.
fn mean_colour(folder: &TempDir, name: &str) -> [usize; 3] {
    let file = File::open(folder.path().join(name)).unwrap();
    let mut picture = png::Decoder::new(BufReader::new(file)).read_info().unwrap();
    let mut bytes = vec![0; picture.output_buffer_size().unwrap()];
    let info = picture.next_frame(&mut bytes).unwrap();
    assert_eq!((info.width as usize, info.height as usize), (WIDTH, HEIGHT), "{name}");
    let colours = bytes.as_chunks::<3>().0;
    [0, 1, 2]
        .map(|plane| colours.iter().map(|colour| usize::from(colour[plane])).sum::<usize>() / colours.len())
}

#[test]
fn a_folder_that_cannot_be_made_fails_before_the_run() {
    let file = NamedTempFile::new().unwrap();
    let Some(output) = run(&["--save", file.path().to_str().unwrap()], None) else { return };
    assert_eq!(output.status.code(), Some(1));
    assert!(words(&output.stderr).contains(file.path().to_str().unwrap()), "{output:?}");
    assert!(output.stdout.is_empty());
}

#[test]
fn algorithm_program_that_is_missing_or_to_be_sandboxed_is_refused() {
    let Some(output) = run(&["--algorithm-program", "no/such/program"], None) else { return };
    assert_eq!(output.status.code(), Some(1));
    assert!(
        words(&output.stderr).contains("no/such/program failed: No such file"),
        "{}",
        words(&output.stderr)
    );
    let Some(output) = run(&["--algorithm-program", "any", "--sandbox"], None) else { return };
    assert_eq!(output.status.code(), Some(2));
    assert!(words(&output.stderr).contains("cannot be used with"), "{}", words(&output.stderr));
}

#[test]
fn a_picture_that_cannot_be_written_fails_after_the_report() {
    let folder = tempdir().unwrap();
    if !Path::new("/dev/full").exists() {
        return println!("left out: there is no /dev/full");
    }
    symlink("/dev/full", folder.path().join("last.png")).unwrap();
    let options = ["--json", "--frames", "3", "--save", folder.path().to_str().unwrap()];
    let Some(output) = run(&options, None) else { return };
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(json(&output)["frames"], 3);
    let said = words(&output.stderr);
    assert!(said.contains("last.png: ") && said.contains("No space left"), "{said}");
}

#[test]
fn output_that_is_no_terminal_is_plain_text() {
    let Some(output) = camera(&["--frames", "20", "--sandbox"], None) else { return };
    assert!(!output.stdout.contains(&0x1b));
    let report = words(&output.stdout);
    for sentence in [
        "Exposure and white balance The loop converged at frame ",
        "20 frames of 129 KiB were sent",
        "with 20 system calls.",
        "It tried 100 forbidden acts (open a file, make a socket, have a signal sent, send one, start a program); its sandbox refused all.",
    ] {
        assert!(report.contains(sentence), "{sentence}: {report}");
    }
}
