//! Examples whose output cannot be written end as programs do: without a panic, and with a status.

use std::{
    env::current_exe,
    fs::OpenOptions,
    process::{Command, Output, Stdio},
};

/// A short run of each example that prints a report.
const REPORTS: [(&str, &[&str]); 9] = [
    ("camera", &["--frames", "3", "--json"]),
    ("camera", &["--frames", "3"]),
    ("hub", &["--clients", "2", "--seconds", "1", "--json"]),
    ("throughput", &["--size", "4KiB", "--seconds", "1", "--json"]),
    ("soak", &["--seconds", "1"]),
    ("soak", &["--fanout", "--seconds", "1"]),
    ("decoder", &["--max-pixels", "1000000", "--samples", "9", "--json"]),
    ("decoder", &["--max-pixels", "1000000", "--samples", "9"]),
    ("viewers", &["--viewers", "2", "--size", "4KiB", "--frames", "20"]),
];

/// An example, as cargo has built it beside the tests; if it has not, its test is left out.
pub(crate) fn example(name: &str) -> Option<Command> {
    let tests = current_exe().unwrap();
    let program = tests.parent().unwrap().parent().unwrap().join("examples").join(name);
    if !program.exists() {
        println!("left out: the example {name} is not built (cargo build --examples)");
        return None;
    }
    Some(Command::new(program))
}

/// Runs each report with this as its output.
fn run(output: impl Fn() -> Stdio, check: impl Fn(&str, &Output)) {
    for (name, options) in REPORTS {
        if let Some(mut example) = example(name) {
            check(name, &example.args(options).stdout(output()).output().unwrap());
        }
    }
}

#[test]
fn a_hub_refuses_a_user_who_has_too_many_clients() {
    for (per_user, refused) in [("4", false), ("3", true)] {
        let Some(mut hub) = example("hub") else { return };
        let output = hub.args(["--clients", "4", "--seconds", "1", "--per-user", per_user]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), !refused, "{said}");
    }
}

#[test]
fn a_full_disk_is_one_line_and_a_failure() {
    let Ok(full) = OpenOptions::new().write(true).open("/dev/full") else {
        return println!("left out: there is no /dev/full");
    };
    run(
        || full.try_clone().unwrap().into(),
        |name, output| {
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{name}: {said}");
            assert_eq!(said.lines().count(), 1, "{name}: {said}");
            assert!(said.starts_with(name) && said.contains("No space left"), "{name}: {said}");
        },
    );
}

#[test]
fn a_reader_that_has_gone_is_no_news() {
    run(
        || rustix::pipe::pipe().unwrap().1.into(),
        |name, output| {
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(128 + 13), "{name}: {said}");
            assert_eq!(said, "", "{name}");
        },
    );
}
