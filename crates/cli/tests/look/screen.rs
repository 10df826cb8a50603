//! `sealane top` in a terminal, driven by tmux(1) as a person drives it.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{Role, rows_from, sealane};
use crate::terminal::Terminal;

#[test]
fn keys_sort_filter_and_quit_and_leave_the_terminal_as_it_was() {
    let role = Role::start(super::hostile_pair);
    let program = env!("CARGO_BIN_EXE_sealane");
    let Some(terminal) =
        Terminal::start(&format!("echo before; '{program}' top --interval 50ms; echo after $?; cat"))
    else {
        return eprintln!("SKIPPED: there is no tmux(1)");
    };
    let pid = role.pid().to_string();
    terminal.shows(|screen| [&pid, "MSG/S", "q quit"].iter().all(|text| screen.contains(text)));
    terminal.keys(&["s"]);
    terminal.shows(|screen| screen.contains("sorted by messages/s"));
    terminal.keys(&["r"]);
    terminal.shows(|screen| screen.contains("reversed"));
    terminal.keys(&["/", "nobody", "Enter"]);
    terminal
        .shows(|screen| screen.contains("filter: nobody") && screen.contains("no row contains \"nobody\""));
    terminal.keys(&["Escape"]);
    terminal.shows(|screen| !screen.contains("nobody") && screen.contains(&pid));
    terminal.keys(&["?"]);
    terminal.shows(|screen| screen.contains("FROM, TO ") && !screen.contains(&pid));
    terminal.keys(&["Escape"]);
    terminal.shows(|screen| screen.contains(&pid));
    terminal.keys(&["/", &pid, "Enter"]);
    terminal.shows(|screen| screen.contains(&format!("filter: {pid}")) && screen.contains("asleep"));
    terminal.keys(&["p"]);
    terminal.shows(|screen| screen.contains("paused"));
    terminal.keys(&["q"]);
    let screen = terminal.shows(|screen| screen.contains("after 0"));
    assert!(screen.contains("before") && !screen.contains("MSG/S"), "{screen}");
}

#[test]
fn order_to_end_leaves_the_terminal_as_it_was() {
    let program = env!("CARGO_BIN_EXE_sealane");
    let number = tempfile::NamedTempFile::new().unwrap();
    let path = number.path().display();
    let command = format!("sh -c 'echo $$ > \"{path}\"; exec \"{program}\" top'; echo ended $?; cat");
    let Some(terminal) = Terminal::start(&command) else {
        return eprintln!("SKIPPED: there is no tmux(1)");
    };
    terminal.shows(|screen| screen.contains("q quit"));
    let pid = std::fs::read_to_string(number.path()).unwrap();
    let status = Command::new("kill").args(["-TERM", pid.trim()]).status().unwrap();
    assert!(status.success());
    terminal.shows(|screen| screen.contains("ended 0") && !screen.contains("q quit"));
}

#[test]
fn shell_stops_and_continues_it() {
    let program = env!("CARGO_BIN_EXE_sealane");
    let Some(terminal) = Terminal::start("bash --norc -i") else {
        return eprintln!("SKIPPED: there is no tmux(1)");
    };
    terminal.keys(&[&format!("'{program}' top"), "Enter"]);
    terminal.shows(|screen| screen.contains("q quit"));
    terminal.keys(&["C-z"]);
    terminal.shows(|screen| screen.contains("Stopped") && !screen.contains("q quit"));
    terminal.keys(&["fg", "Enter"]);
    terminal.shows(|screen| screen.contains("q quit") && screen.contains("MSG/S"));
    terminal.keys(&["q"]);
    terminal.shows(|screen| !screen.contains("q quit"));
}

#[test]
fn terminal_that_goes_away_ends_it() {
    let program = env!("CARGO_BIN_EXE_sealane");
    for ignoring in ["", "trap '' HUP; "] {
        let Some(terminal) = Terminal::start(&format!("{ignoring}exec '{program}' top --interval 50ms"))
        else {
            return eprintln!("SKIPPED: there is no tmux(1)");
        };
        terminal.shows(|screen| screen.contains("q quit"));
        let pid = terminal.tmux(&["display-message", "-p", "#{pane_pid}"]);
        drop(terminal);
        let process = format!("/proc/{}", pid.trim());
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::fs::read_to_string(format!("{process}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(Instant::now() < deadline, "{process} goes on: {ignoring}");
            std::thread::yield_now();
        }
    }
}

#[test]
fn processes_that_have_ended_since_the_last_walk_are_left_out() {
    let mut top = sealane();
    let mut top = top.args(["top", "--json", "--interval", "50ms"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(top.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    // Some of them end shortly behind a walk, which comes every two seconds.
    for _ in 0..5 {
        let mut role = Role::start(super::hostile_pair);
        let pid = role.pid();
        while rows_from(&next(), pid).is_empty() {}
        // It stays a zombie until it is waited for.
        role.child.kill().unwrap();
        loop {
            let report = next();
            let rows = rows_from(&report, pid);
            assert!(rows.iter().all(|row| row["kind"] == "channel"), "{rows:#?}");
            if rows.is_empty() {
                break;
            }
        }
    }
    top.kill().unwrap();
    top.wait().unwrap();
}

#[test]
fn once_prints_rates_and_a_pipe_gets_no_screen() {
    let role = Role::start(super::hostile_pair);
    let output = sealane().args(["top", "--once", "--interval", "50ms"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("MSG/S") && text.contains(&role.pid().to_string()), "{text}");
    let output = sealane().arg("top").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("--once"));
}
