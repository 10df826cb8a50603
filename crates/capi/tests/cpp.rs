//! Programs in C++ that include `sealane.hpp`, as it is installed.

#[path = "support/installed.rs"]
mod installed;
#[path = "support/programs.rs"]
mod programs;
#[path = "support/tools.rs"]
mod tools;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{
    installed::{ROOT, passes},
    programs::{compiler, limited},
    tools::{example, functions, is_there, link},
};

const COMPILERS: [&str; 2] = ["g++", "clang++"];
const WITHOUT_EXCEPTIONS: [&str; 2] = ["-fno-exceptions", "-fno-rtti"];
const THROWING: [&str; 1] = ["-DSEALANE_EXCEPTIONS"];

/// Functions of the C interface that `sealane.hpp` does not use, with the reason.
const NOT_IN_CPP: [(&str, &str); 0] = [];

fn source(name: &str) -> PathBuf {
    Path::new(ROOT).join("tests/cpp").join(name)
}

/// An object file of `tests/cpp`.
fn object(directory: &TempDir, name: &str, mut compiler: Command) -> PathBuf {
    let path = directory.path().join(name).with_extension("o");
    passes(compiler.arg("-c").arg(source(name)).arg("-o").arg(&path));
    path
}

/// Runs the test in C++, which ends with this sentence.
fn all_is_as_it_should_be(directory: &TempDir, mut linker: Command) {
    let program = directory.path().join("api");
    link(&mut linker, &program);
    let output = passes(limited(program).arg(directory.path()).env("ASAN_OPTIONS", "detect_leaks=1"));
    assert_eq!(output, "every function was called\n");
}

/// With each standard, without and with exceptions. The oldest and the newest setting run, the others compile.
fn every_setting_works(name: &str) {
    if !is_there(name) {
        return;
    }
    let with = |standard, options: &[&str]| {
        let mut compiler = compiler(name, standard);
        compiler.args(["-Wshadow", "-Wconversion"]).args(options);
        compiler
    };
    for (standard, options) in [("-std=c++17", &WITHOUT_EXCEPTIONS[..]), ("-std=c++20", &THROWING[..])] {
        let directory = tempfile::tempdir().unwrap();
        let mut compiler = with(standard, options);
        compiler.args(["api.cpp", "second.cpp"].map(source));
        all_is_as_it_should_be(&directory, compiler);
    }
    for (standard, options) in [("-std=c++17", &THROWING[..]), ("-std=c++20", &WITHOUT_EXCEPTIONS[..])] {
        passes(with(standard, options).arg("-fsyntax-only").arg(source("api.cpp")));
    }
}

#[test]
fn every_function_does_what_the_header_says_with_gcc() {
    every_setting_works("g++");
}

#[test]
fn every_function_does_what_the_header_says_with_clang() {
    every_setting_works("clang++");
}

/// The second file has another standard, and no exceptions.
#[test]
fn files_with_other_settings_are_linked_into_one_program_under_address_leak_and_undefined_behaviour_sanitizers()
 {
    let directory = tempfile::tempdir().unwrap();
    let with = |standard, options: &[&str]| {
        let mut compiler = compiler("c++", standard);
        compiler.args(["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]).args(options);
        compiler
    };
    let mut linker = with("-std=c++17", &[]);
    linker.arg(object(&directory, "api.cpp", with("-std=c++17", &[])));
    linker.arg(object(&directory, "second.cpp", with("-std=c++20", &WITHOUT_EXCEPTIONS)));
    all_is_as_it_should_be(&directory, linker);
}

/// Without optimisation an object file has the inline functions that it uses, and so refers to what these call.
#[test]
fn every_function_of_the_c_interface_is_reached_by_the_test_in_cpp() {
    let directory = tempfile::tempdir().unwrap();
    let mut compiler = compiler("c++", "-std=c++17");
    compiler.arg("-O0");
    let object = object(&directory, "api.cpp", compiler);
    let symbols = passes(Command::new("nm").arg("--undefined-only").arg(object));
    let reached = symbols.lines().filter_map(|line| line.rsplit(' ').next());
    let reached: BTreeSet<_> =
        reached.filter(|name| name.starts_with("sealane_")).map(ToOwned::to_owned).collect();
    let left_out = NOT_IN_CPP.map(|(name, _)| name.to_owned());
    assert_eq!(reached, &functions() - &BTreeSet::from(left_out));
}

/// The text in `docs/c.md` between ```` ```cpp ```` and ```` ``` ````, as one file with this end.
const GUIDE_MAIN: &str = r#"
#include <thread>
int main() {
    auto pair = sealane::Channel::pair().value();
    int served = 1;
    std::thread server([&] { served = serve(pair.second); });
    auto reply = measure(pair.first, std::vector<std::byte>(20000, std::byte{2}), 7).value();
    std::printf("%.*s\n", static_cast<int>(reply.control().size()), reinterpret_cast<const char *>(reply.control().data()));
    pair.first.reset();
    server.join();
    return served;
}
"#;

#[test]
fn examples_of_the_guide_run() {
    let page = fs::read_to_string(Path::new(ROOT).join("../../docs/c.md")).unwrap();
    let blocks = page.split("```cpp\n").skip(1).filter_map(|rest| rest.split("```").next());
    let text: String = blocks.chain([GUIDE_MAIN]).collect();
    let directory = tempfile::tempdir().unwrap();
    let (file, program) = (directory.path().join("guide.cpp"), directory.path().join("guide"));
    fs::write(&file, text).unwrap();
    for name in COMPILERS.into_iter().filter(|name| is_there(name)) {
        link(compiler(name, "-std=c++17").args(WITHOUT_EXCEPTIONS).arg(&file), &program);
        assert_eq!(passes(&mut limited(&program)), "40000\n");
    }
}

#[test]
fn example_converges_and_its_worker_is_started_again() {
    let Some(output) = example("cpp", "all", "./host", &[]) else { return };
    let gone = "the peer is gone, or the channel was closed here";
    let lines = [
        "worker: auto exposure",
        "after 60 frames: exposure 10267 us",
        &format!("call: {gone}"),
        &format!("worker died: {gone}"),
        "worker: auto exposure",
    ];
    assert_eq!(output.lines().collect::<Vec<_>>(), lines);
}

/// The program checks what moves. Its figures are not looked at: a test has no machine of its own.
#[test]
fn measurement_moves_what_it_should_and_prints_each_row() {
    let Some(output) = example("cpp", "measure", "measure/measure", &["--quick"]) else { return };
    let rows: Vec<_> =
        output.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next()).collect();
    let names = [
        "µs (CPU of host + worker)",
        "call of 64 B",
        "call of 64 B with a descriptor",
        "call of 4 KiB",
        "call of 64 KiB",
        "call of 1 MiB",
        "frame: 2 messages of 500 B, 1 back",
        "128 KiB of statistics as a message",
        "128 KiB of statistics as a loan",
        "ms (lowest to highest)",
        "started, until the first answer",
        "the same with rings of 1 MiB",
        "the same with rings of 256 KiB",
        "worker killed during a call, until it returns",
        "messages that fit while the worker is stopped",
        "of 500 B",
        "of 128 KiB",
    ];
    assert_eq!(rows, names);
}
