//! The Rust example `camera` with its algorithm in C, `examples/c/camera_algorithm.c`.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use sealane::{Channel, Control};

use crate::{
    installed::{INSTALLED, passes},
    programs::{PATIENCE, limited},
    tools::examples,
};

const SANITIZED: &str = "-g -fsanitize=address,undefined -fno-sanitize-recover=all";

/// The example, built.
fn camera() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let example = ["build", "--locked", "--package", "sealane-camera", "--example", "camera"];
    let mut cargo = Command::new(env!("CARGO"));
    let messages = passes(cargo.args(example).args(["--message-format", "json", "--target-dir"]).arg(target));
    let (_, path) = messages.split_once(r#""executable":""#).unwrap();
    path.split_once('"').unwrap().0.into()
}

/// The report about 60 frames, with these options.
fn report(camera: &Path, options: &[&Path]) -> String {
    let mut camera = limited(camera);
    camera.args(["--frames", "60", "--json"]).args(options).env("LD_LIBRARY_PATH", INSTALLED.join("lib"));
    passes(&mut camera)
}

/// A figure of a report.
fn figure(report: &str, name: &str) -> f64 {
    let start = format!("\"{name}\": ");
    let value = report.lines().find_map(|line| line.trim().strip_prefix(&start));
    value
        .and_then(|value| value.trim_end_matches(',').parse().ok())
        .unwrap_or_else(|| panic!("{name} in {report}"))
}

#[test]
fn camera_converges_with_an_algorithm_in_c_as_with_its_own() {
    let Some(directory) = examples("c", "all", SANITIZED) else { return };
    let algorithm = directory.path().join("camera_algorithm");
    let camera = camera();
    let (in_c, in_rust) =
        (report(&camera, &["--algorithm-program".as_ref(), &algorithm]), report(&camera, &[]));
    // Both have the same first frame.
    for name in ["first_mean_luma", "first_red_to_green", "first_blue_to_green"] {
        assert_eq!(figure(&in_c, name).to_string(), figure(&in_rust, name).to_string(), "{name}");
    }
    assert!(figure(&in_c, "converged_at_frame") < 60.0);
    // The example ends at the first frame that does not agree with its buffer.
    assert_eq!(figure(&in_c, "frame_buffers_verified").to_string(), "60");
    // Controls that are late may change the way there, but not the goal by more than its tolerances.
    for (name, tolerance) in [("exposure_us", 0.2), ("red_gain", 0.06), ("blue_gain", 0.06)] {
        let (found, expected) = (figure(&in_c, name), figure(&in_rust, name));
        assert!((found / expected - 1.0).abs() < tolerance, "{name}: {found} in C, {expected} in Rust");
    }
}

/// A message of the pipeline.
enum Sent<'a> {
    Registration(Vec<u8>, Option<&'a File>),
    Frame(Vec<u8>, Vec<u8>),
    Request(Vec<u8>),
}
use Sent::{Frame, Registration, Request};

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// A frame of 8 by 4 pixels that are 0, in buffer 0, with one zone.
fn frame() -> Vec<u8> {
    let settings = [1000.0, 1.0, 1.0, 1.0].into_iter().flat_map(f64::to_ne_bytes);
    words(&[7, 0, 0, 1, 1, 0]).into_iter().chain(settings).collect()
}

/// The statistics of that frame.
fn statistics() -> Vec<u8> {
    let mut histogram = [0; 256];
    histogram[0] = 32;
    let zone = [0, 0, 0, 32, 0, 32, 0, 0];
    words(&[&histogram[..], &histogram, &histogram, &zone].concat())
}

fn changed(mut bytes: Vec<u8>, offset: usize, value: &[u8]) -> Vec<u8> {
    bytes[offset..offset + value.len()].copy_from_slice(value);
    bytes
}

fn send(channel: &mut Channel, message: &Sent<'_>) {
    match message {
        Registration(control, fd) => channel.send(Control::new(control).fds(*fd)).unwrap(),
        Frame(control, payload) => {
            let mut loan = channel.loan(payload.len()).unwrap();
            loan.copy_from_slice(payload);
            loan.send_with(control).unwrap();
        }
        Request(control) => drop(channel.request(control).unwrap()),
    }
}

fn memfd(len: u64) -> File {
    let file = File::from(memfd_create("frame", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap());
    file.set_len(len).unwrap();
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW).unwrap();
    file
}

/// How many descriptors of frame buffers a process has.
fn memfds(pid: u32) -> usize {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let files = fds.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    files.filter(|file| file.to_string_lossy().contains("memfd:frame")).count()
}

/// The algorithm in C, started as the example starts it.
fn start(algorithm: &Path) -> (Channel, Child) {
    let mut command = Command::new(algorithm);
    command.env("LD_LIBRARY_PATH", INSTALLED.join("lib")).stderr(Stdio::piped());
    Channel::builder().spawn(command).unwrap()
}

#[test]
fn algorithm_in_c_says_what_is_wrong_with_a_message_and_ends() {
    let Some(directory) = examples("c", "all", SANITIZED) else { return };
    let algorithm = directory.path().join("camera_algorithm");
    let (buffer, short, null) = (memfd(96), memfd(95), File::open("/dev/null").unwrap());
    let registration = |width, height, stride, fd| Registration(words(&[width, height, stride, 1]), fd);
    let registered = || registration(8, 4, 0, Some(&buffer));
    // 2^59 + 1 zones, whose bytes are those of one zone in 64 bits.
    let many = words(&[1_824_726_041, 315_916_329]);
    for (messages, sentence) in [
        (
            vec![Registration(vec![0; 15], Some(&buffer))],
            "control bytes of a registration: 16 expected, 15 found",
        ),
        (vec![registration(8, 0, 0, Some(&buffer))], "frames of 1 to 4096x4096 pixels expected, 8x0 found"),
        (
            vec![registration(4097, 4, 0, Some(&buffer))],
            "frames of 1 to 4096x4096 pixels expected, 4097x4 found",
        ),
        (
            vec![registration(8, 4, 16, Some(&buffer))],
            "memfds of planes expected, dmabufs of YUYV found: the algorithm in Rust reads those, this one does not",
        ),
        (vec![registration(8, 4, 0, None)], "1 to 4 frame buffers expected, none found"),
        (
            vec![registration(8, 4, 0, Some(&null))],
            "frame buffer 0: a memfd that keeps its size expected, another file found",
        ),
        (vec![registration(8, 4, 0, Some(&short))], "frame buffer 0: 96 bytes expected, 95 found"),
        (vec![registered(), registered()], "one registration expected, a second one found"),
        (vec![Frame(frame(), statistics())], "a registration expected before a frame, none found"),
        (
            vec![registered(), Frame(frame()[1..].to_vec(), statistics())],
            "control bytes of a frame: 56 expected, 55 found",
        ),
        (
            vec![registered(), Frame(changed(frame(), 8, &[1]), statistics())],
            "a frame buffer below 1 expected, buffer 1 found",
        ),
        (
            vec![registered(), Frame(changed(frame(), 12, &[0]), statistics())],
            "statistics of 0x1 zones expected, 3104 bytes found",
        ),
        (
            vec![registered(), Frame(changed(frame(), 12, &many), statistics())],
            "statistics of 1824726041x315916329 zones expected, 3104 bytes found",
        ),
        (
            vec![registered(), Frame(frame(), statistics()[..3103].to_vec())],
            "statistics of 1x1 zones expected, 3103 bytes found",
        ),
        (
            vec![registered(), Frame(changed(frame(), 24, &f64::NAN.to_ne_bytes()), statistics())],
            "settings of a sensor expected, exposure nan us and gains 1, 1 and 1 found",
        ),
        (
            vec![registered(), Frame(frame(), changed(statistics(), 2048, &[31]))],
            "histogram 2: a count of 32 pixels expected, 31 found",
        ),
        (vec![registered(), Request(words(&[2]))], "1 buffers to revoke expected, 2 found"),
    ] {
        let (mut channel, child) = start(&algorithm);
        for message in &messages {
            send(&mut channel, message);
        }
        // An algorithm that finds nothing wrong then ends with status 0.
        drop(channel);
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((stderr, output.status.code()), (format!("camera_algorithm: {sentence}\n"), Some(1)));
    }
}

#[test]
fn algorithm_in_c_compares_a_frame_with_its_buffer_and_gives_its_buffers_back() {
    let Some(directory) = examples("c", "all", SANITIZED) else { return };
    let (mut channel, child) = start(&directory.path().join("camera_algorithm"));
    let buffer = memfd(96);
    send(&mut channel, &Registration(words(&[8, 4, 0, 1]), Some(&buffer)));
    for (statistics, agrees) in [(statistics(), 1), (changed(statistics(), 3072, &[1]), 0)] {
        send(&mut channel, &Frame(frame(), statistics));
        let controls = channel.recv_timeout(PATIENCE).unwrap();
        assert_eq!(controls.control()[..16], words(&[7, 0, 0, agrees]));
    }
    assert_eq!(memfds(child.id()), 1);
    let reply = channel.call(&words(&[1]), PATIENCE).unwrap();
    assert_eq!(reply.control(), words(&[1]));
    assert_eq!(memfds(child.id()), 0);
    drop(channel);
    let output = child.wait_with_output().unwrap();
    assert_eq!((String::from_utf8_lossy(&output.stderr).as_ref(), output.status.code()), ("", Some(0)));
}
