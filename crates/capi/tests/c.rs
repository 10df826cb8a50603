//! Programs in C and C++, built by the system's compilers against the library as it is installed.

#[path = "c/camera.rs"]
mod camera;
#[path = "c/decoder.rs"]
mod decoder;
#[path = "support/installed.rs"]
mod installed;
#[path = "support/programs.rs"]
mod programs;
#[path = "support/tools.rs"]
mod tools;

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    os::{fd::AsFd, unix::process::ExitStatusExt},
    path::{Path, PathBuf},
    process::Command,
};

use sealane::{Channel, Control, Error};
use tempfile::TempDir;

use crate::{
    installed::{INSTALLED, ROOT, passes},
    programs::{PATIENCE, compiler, limited},
    tools::{example, functions, is_there, link},
};

/// A program of `tests/c`, with the static library.
fn program(directory: &TempDir, name: &str, options: &[&str]) -> PathBuf {
    let path = directory.path().join(name);
    let source = Path::new(ROOT).join("tests/c").join(name).with_extension("c");
    link(compiler("cc", "-std=c11").args(options).arg(source), &path);
    path
}

#[test]
fn every_function_does_what_the_header_says_under_address_leak_and_undefined_behaviour_sanitizers() {
    let directory = tempfile::tempdir().unwrap();
    let options = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
    let program = program(&directory, "api", &options);
    let output = passes(limited(program).arg(directory.path()).env("ASAN_OPTIONS", "detect_leaks=1"));
    assert_eq!(output, "every function was called\n");
}

#[test]
fn every_function_does_what_the_header_says_under_valgrind() {
    if !is_there("valgrind") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    // A pipe's test executes itself, when it has an argument.
    for (name, argument) in [("api", Some(directory.path())), ("pipe", None)] {
        let program = program(&directory, name, &[]);
        passes(
            limited("valgrind")
                .args([
                    "--fair-sched=yes",
                    "--error-exitcode=9",
                    "--leak-check=full",
                    "--child-silent-after-fork=yes",
                ])
                .arg(program)
                .args(argument)
                .env("WITHOUT_LIMITS", "valgrind keeps the limit of open files to itself"),
        );
    }
}

#[test]
fn pipe_does_what_the_header_says_under_address_leak_and_undefined_behaviour_sanitizers() {
    let directory = tempfile::tempdir().unwrap();
    let options = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
    let program = program(&directory, "pipe", &options);
    let output = passes(limited(program).env("ASAN_OPTIONS", "detect_leaks=1"));
    assert_eq!(output, "a pipe does what the header says\n");
}

#[test]
fn ordinary_life_changes_nothing_under_address_leak_and_undefined_behaviour_sanitizers() {
    let directory = tempfile::tempdir().unwrap();
    let options = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
    let program = program(&directory, "processes", &options);
    let output = limited(program).arg(directory.path()).output().unwrap();
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    eprint!("{stderr}");
    assert_eq!(stdout, "ordinary life changes nothing\n", "{}", output.status);
}

#[test]
fn a_panic_ends_the_program_and_never_unwinds() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("panic");
    let lib = INSTALLED.join("lib");
    passes(
        compiler("c++", "-std=c++17")
            .arg(Path::new(ROOT).join("tests/c/panic.cpp"))
            .arg("-L")
            .arg(&lib)
            .args(["-lsealane", "-rdynamic", "-o"])
            .arg(&path),
    );
    let output = limited(path).env("LD_LIBRARY_PATH", lib).output().unwrap();
    assert_eq!(output.stdout, b"");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("panicked at"), "{stderr}");
    // timeout(1) tells of a program that was ended by a signal as a shell does, 128 + SIGABRT, or ends in the same way.
    let status = output.status;
    assert!(status.code() == Some(134) || status.signal() == Some(6), "{status}");
}

/// The tests above call every function, so that they are complete.
#[test]
fn every_function_is_called_by_a_test_in_c() {
    let test = ["api.c", "pipe.c"]
        .map(|file| fs::read_to_string(Path::new(ROOT).join("tests/c").join(file)).unwrap());
    let test = test.concat();
    for function in functions() {
        assert!(test.contains(&format!("{function}(")), "{function} is not called");
    }
}

#[test]
fn header_is_c11_and_cpp17_without_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("only_the_header");
    for (name, standard, language) in [
        ("cc", "-std=c11", "c"),
        ("c++", "-std=c++17", "c++"),
        ("clang", "-std=c11", "c"),
        ("clang++", "-std=c++17", "c++"),
    ] {
        if !is_there(name) {
            continue;
        }
        fs::write(&source, "#include <sealane.h>\nint main(void) { return sealane_version() == 0; }\n")
            .unwrap();
        passes(compiler(name, standard).args(["-fsyntax-only", "-x", language]).arg(&source));
    }
}

#[test]
fn shared_library_has_the_functions_of_the_header_and_nothing_else() {
    let library = INSTALLED.join("lib/libsealane.so");
    let symbols = passes(Command::new("nm").args(["-D", "--defined-only"]).arg(&library));
    let exported: BTreeSet<String> =
        symbols.lines().filter_map(|line| line.split(' ').next_back()).map(ToOwned::to_owned).collect();
    assert!(exported.len() > 50, "{exported:?}");
    assert_eq!(exported, functions());
    let dynamic = passes(Command::new("readelf").arg("-d").arg(&library));
    assert!(dynamic.contains("[libsealane.so.0.1]"), "{dynamic}");
}

#[test]
fn program_that_asks_pkg_config_runs_with_the_shared_library() {
    if !is_there("pkg-config") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let lib = INSTALLED.join("lib");
    let flags = passes(
        Command::new("pkg-config")
            .args(["--cflags", "--libs", "sealane"])
            .env("PKG_CONFIG_PATH", lib.join("pkgconfig")),
    );
    let (source, program) = (directory.path().join("version.c"), directory.path().join("version"));
    let text =
        "#include <sealane.h>\n#include <stdio.h>\nint main(void) { puts(sealane_version()); return 0; }\n";
    fs::write(&source, text).unwrap();
    passes(Command::new("cc").arg(&source).args(flags.split_whitespace()).arg("-o").arg(&program));
    let version = passes(Command::new(program).env("LD_LIBRARY_PATH", lib));
    assert_eq!(version, format!("{}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn example_converges() {
    if let Some(output) = example("c", "all", "./pipeline", &[]) {
        assert_eq!(output, "algorithm: auto exposure\nafter 60 frames: exposure 10267 us\n");
    }
}

#[test]
fn rust_and_c_exchange_all_that_both_allow_and_learn_what_one_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let peer = program(&directory, "peer", &["-fsanitize=address,undefined"]);
    let (mut channel, mut child) = Channel::builder().spawn(Command::new(peer)).unwrap();
    for (control, payload, fds) in [(0, 0, 0), (1000, 10, 3), (5, 500_000, 1), (999, 524_288 - 1088, 0)] {
        let control = vec![7; control];
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut loan = channel.loan(payload).unwrap();
        loan.fill(3);
        let given = Control::new(&control).fds((0..fds).map(|_| writer.as_fd()));
        let id = loan.request(given).unwrap();
        drop(writer);
        let mut reply = channel.receiver.wait_reply(id, PATIENCE).unwrap();
        assert_eq!(reply.control(), control);
        assert_eq!(reply.payload().unwrap().to_vec(), vec![3; payload]);
        let returned = reply.take_fds();
        assert_eq!(returned.len(), fds);
        for fd in &returned {
            fs::File::from(fd.try_clone().unwrap()).write_all(b"x").unwrap();
        }
        drop(returned);
        let mut text = Vec::new();
        reader.read_to_end(&mut text).unwrap();
        assert_eq!(text, vec![b'x'; fds]);
    }
    // The limits that the C end has set.
    let null = fs::File::open("/dev/null").unwrap();
    let error = channel.send(Control::default().fds((0..4).map(|_| null.as_fd()))).unwrap_err();
    assert!(matches!(error, Error::TooManyFds { count: 4, max: 3 }), "{error}");
    let error = channel.send(&[0; 1001]).unwrap_err();
    assert!(matches!(error, Error::ControlTooLarge { len: 1001, max: 1000 }), "{error}");
    channel.send(b"not a request").unwrap();
    assert!(!child.wait().unwrap().success(), "the C end expects requests");
}
