//! A decoder that may crash: `examples/c/decoder.c`.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Child, Command},
    thread::sleep,
    time::{Duration, Instant},
};

use jpeg_encoder::{ColorType, Encoder};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{CWD, FileType, Mode, mknodat},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use tempfile::TempDir;

use crate::{
    installed::{INSTALLED, passes},
    programs::{PATIENCE, limited},
    tools::{examples, is_there},
};

/// A PNG up to its header.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0:~\x9bU";
const NOT_REGULAR: &str = "no regular file of at most 16 MiB";
/// Milliseconds that no decoding takes.
const LONG: &str = "110000";

/// Files, by name, and what the decoder prints for each.
const FILES: [(&str, &str); 14] = [
    ("grey.jpg", "32x24, mean brightness 100.0"),
    ("garbage", "Not a JPEG file: starts with 0x6e 0x6f"),
    ("colours.jpg", "64x48, mean brightness 60.0"),
    ("directory", NOT_REGULAR),
    ("truncated.jpg", "Premature end of JPEG file"),
    ("progressive.jpg", "48x16, mean brightness 200.0"),
    ("fifo", NOT_REGULAR),
    // The decoder's own memory.
    ("memory", NOT_REGULAR),
    ("empty", "Empty input file"),
    ("halves.jpg", "128x8, mean brightness 127.5"),
    ("picture.png", "Not a JPEG file: starts with 0x89 0x50"),
    ("huge.jpg", "Image too wide for this implementation"),
    ("missing", "No such file or directory"),
    ("a\n\x1b[2J\\\u{85}.jpg", "16x40, mean brightness 50.0"),
];

/// The name as it is printed.
fn escaped(name: &str) -> String {
    let escape = |byte: u8| match byte {
        b' '..=b'~' if byte != b'\\' => char::from(byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    };
    name.bytes().map(escape).collect()
}

/// An image without losses, if its edges lie between blocks of 8 pixels.
fn jpeg(
    width: u16,
    height: u16,
    progressive: bool,
    color: ColorType,
    pixel: impl Fn(usize) -> u8,
) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, 100);
    encoder.set_progressive(progressive);
    let samples = usize::from(width) * usize::from(height) * if color == ColorType::Rgb { 3 } else { 1 };
    let pixels: Vec<u8> = (0..samples).map(pixel).collect();
    encoder.encode(&pixels, width, height, color).unwrap();
    file
}

fn make_files(directory: &Path) {
    let grey = ColorType::Luma;
    let noise = jpeg(64, 64, false, grey, |i| (i * i * 31 / 8).to_le_bytes()[0]);
    // The size stands 5 bytes behind the marker of a frame.
    let mut huge = noise.clone();
    let frame = huge.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
    huge[frame + 5..frame + 9].fill(0xff - 1);
    for (name, bytes) in [
        ("grey.jpg", &jpeg(32, 24, false, grey, |_| 100)[..]),
        ("garbage", b"no image".repeat(100).as_slice()),
        ("colours.jpg", &jpeg(64, 48, false, ColorType::Rgb, |_| 60)),
        ("truncated.jpg", &noise[..noise.len() / 2]),
        ("progressive.jpg", &jpeg(48, 16, true, grey, |_| 200)),
        ("empty", b""),
        ("halves.jpg", &jpeg(128, 8, false, grey, |i| if i % 128 < 64 { 0 } else { 255 })),
        ("picture.png", PNG),
        ("huge.jpg", &huge),
        ("a\n\x1b[2J\\\u{85}.jpg", &jpeg(16, 40, false, grey, |_| 50)),
    ] {
        fs::write(directory.join(name), bytes).unwrap();
    }
    fs::create_dir(directory.join("directory")).unwrap();
    symlink("/proc/self/mem", directory.join("memory")).unwrap();
    mknodat(CWD, directory.join("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

/// The decoder, built, with the files beside it.
fn decoder() -> Option<TempDir> {
    if !is_there("pkg-config")
        || !Command::new("pkg-config").args(["--exists", "libjpeg"]).status().unwrap().success()
    {
        eprintln!("SKIPPED: libjpeg is not installed");
        return None;
    }
    let directory = examples("c", "decoder", "")?;
    make_files(directory.path());
    Some(directory)
}

/// Decodes these files, and returns what is printed for each: one line, in their order.
fn decode<'a>(
    directory: &TempDir,
    options: &[&str],
    names: impl Iterator<Item = &'a str> + Clone,
) -> Vec<String> {
    let mut decoder = limited("./decoder");
    decoder.args(options).args(names.clone()).env("LD_LIBRARY_PATH", INSTALLED.join("lib"));
    let output = passes(decoder.current_dir(directory));
    let (found, results): (Vec<_>, Vec<_>) =
        output.lines().map(|line| line.split_once('\t').unwrap()).unzip();
    assert_eq!(found, names.map(escaped).collect::<Vec<_>>(), "{output}");
    results.into_iter().map(ToOwned::to_owned).collect()
}

fn names() -> impl Iterator<Item = &'static str> + Clone {
    FILES.iter().map(|(name, _)| *name)
}

/// Whether the worker sees the file.
fn is_asked_for(result: &str) -> bool {
    result != NOT_REGULAR && !result.starts_with("No such file")
}

#[test]
fn decoder_prints_the_size_and_brightness_of_each_jpeg_or_a_reason() {
    let Some(directory) = decoder() else { return };
    let expected = FILES.map(|(_, result)| result);
    assert_eq!(decode(&directory, &["--timeout", LONG], names()), expected);
}

#[test]
fn files_whose_worker_crashed_are_decoded_by_the_next_worker() {
    let Some(directory) = decoder() else { return };
    let expected = FILES.map(|(_, result)| result);
    assert_eq!(decode(&directory, &["--timeout", LONG, "--crash-every", "2"], names()), expected);
}

#[test]
fn files_whose_workers_all_crash_or_hang_are_reported_once() {
    let Some(directory) = decoder() else { return };
    let crashed = decode(&directory, &["--timeout", LONG, "--crash-every", "1"], names());
    for ((_, expected), result) in FILES.iter().zip(crashed) {
        if is_asked_for(expected) {
            assert!(result.ends_with("(worker: Aborted)"), "{result}");
        } else {
            assert_eq!(result, *expected);
        }
    }
    let hung = decode(&directory, &["--timeout", "50", "--hang-every", "1"], names().take(2));
    assert!(hung.iter().all(|result| result.ends_with("(worker: Killed)")), "{hung:?}");
}

/// A machine that is slow now and then makes a timeout of any request, so that another one crashes.
#[test]
fn no_file_is_lost_or_printed_twice_while_workers_crash_and_hang() {
    let Some(directory) = decoder() else { return };
    let options = ["--timeout", "300", "--crash-every", "3", "--hang-every", "5"];
    let results = decode(&directory, &options, names().chain(names()));
    for ((name, expected), result) in FILES.iter().cycle().zip(&results) {
        let failed = result.ends_with("(worker: Aborted)") || result.ends_with("(worker: Killed)");
        assert!(result == expected || failed && is_asked_for(expected), "{name}: {result}");
    }
    // The fifth request hangs, and the sixth crashes.
    assert!(results.iter().any(|result| result.contains("(worker: ")), "{results:?}");
}

/// A line of `/proc/PID/status`.
fn status(pid: &OsStr, name: &str) -> Option<u32> {
    let status = fs::read_to_string(Path::new("/proc").join(pid).join("status")).ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"))?;
    value.parse().ok()
}

/// A decoder that ends with its test.
struct Host(Child);

impl Drop for Host {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// The worker, once it is in its sandbox: it has a filter more than its host.
fn sandboxed_worker(Host(host): &Host) -> u32 {
    let end = Instant::now() + PATIENCE;
    let filters = status(host.id().to_string().as_ref(), "Seccomp_filters");
    assert!(filters.is_some(), "/proc shows no filters");
    while Instant::now() < end {
        let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
        let worker = processes
            .filter(|process| status(process, "PPid") == Some(host.id()))
            .find(|process| status(process, "Seccomp_filters") > filters);
        if let Some(worker) = worker {
            return worker.to_str().unwrap().parse().unwrap();
        }
        sleep(Duration::from_millis(1));
    }
    panic!("no worker in a sandbox");
}

#[test]
fn worker_is_in_a_sandbox_and_ends_with_its_host() {
    let Some(directory) = decoder() else { return };
    let host = Command::new(directory.path().join("decoder"))
        .args(["--timeout", LONG, "--hang-every", "1", "grey.jpg"])
        .env("LD_LIBRARY_PATH", INSTALLED.join("lib"))
        .current_dir(&directory)
        .spawn()
        .unwrap();
    let host = Host(host);
    let worker = sandboxed_worker(&host);
    let pid = Pid::from_raw(worker.try_into().unwrap()).unwrap();
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    assert_eq!(status(worker.to_string().as_ref(), "NoNewPrivs"), Some(1));
    let limits = fs::read_to_string(format!("/proc/{worker}/limits")).unwrap();
    for (name, limit) in
        [("Max address space", "268435456"), ("Max open files", "16"), ("Max core file size", "0")]
    {
        let values = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        assert_eq!(values.split_whitespace().take(2).collect::<Vec<_>>(), [limit, limit], "{name}");
    }
    drop(host);
    let mut end = [PollFd::new(&pidfd, PollFlags::IN)];
    let ended = poll(&mut end, Some(&PATIENCE.try_into().unwrap()));
    // It would hang for ever.
    let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    assert_eq!(ended, Ok(1), "the worker outlives its host");
}
