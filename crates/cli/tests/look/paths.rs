//! The paths of publishers, by which others subscribe.

use std::{
    fs::File,
    os::{fd::AsRawFd, unix::process::CommandExt},
    process::{Command, Stdio},
};

use rustix::process::geteuid;
use sealane::{Builder, Listener};
use serde_json::{Value, json};

use super::{Role, ls, ready, rows_from, sealane};

/// A folder that any user may enter, with a path in it.
fn place(name: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let path = directory.path().join(name).to_str().unwrap().to_owned();
    (directory, path)
}

fn publisher(report: &Value, pid: u32) -> &Value {
    let rows = rows_from(report, pid);
    rows.into_iter().find(|row| row["kind"] == "publisher").unwrap_or_else(|| panic!("{report:#}"))
}

#[test]
#[ignore = "the child of another test"]
fn publishes_there() {
    let _publisher = Builder::default().publish(std::env::var("AT").unwrap()).unwrap();
    ready();
}

#[test]
fn publishers_are_listed_with_the_path_that_a_recorder_needs() {
    let (_directory, path) = place("frames");
    let role = Role::start_with(publishes_there, "AT", &path);
    let report = ls();
    let row = publisher(&report, role.pid());
    assert_eq!((&row["path"], &row["paths"]), (&json!(path), &json!([path])));
    let text = String::from_utf8(sealane().arg("ls").output().unwrap().stdout).unwrap();
    assert!(text.contains("PATH") && text.lines().any(|line| line.ends_with(&path)), "{text}");
    let top = sealane().args(["top", "--once", "--json", "--interval", "50ms"]).output().unwrap();
    let top: Value = serde_json::from_slice(&top.stdout).unwrap();
    assert_eq!(publisher(&top, role.pid())["path"], json!(path));
}

#[test]
fn abstract_names_are_shown_as_they_are_given() {
    let name = format!("@sealane-test-{}", std::process::id());
    let role = Role::start_with(publishes_there, "AT", &name);
    assert_eq!(publisher(&ls(), role.pid())["path"], json!(name));
}

#[test]
fn names_of_sockets_are_escaped_and_those_with_a_line_end_are_unknown() {
    let (_directory, path) = place("\u{1b}[31m red");
    let role = Role::start_with(publishes_there, "AT", &path);
    let shown = publisher(&ls(), role.pid())["path"].as_str().unwrap().to_owned();
    assert!(shown.ends_with("\\u{1b}[31m red"), "{shown}");
    let (_directory, path) = place("two\nlines");
    let role = Role::start_with(publishes_there, "AT", &path);
    let report = ls();
    let row = publisher(&report, role.pid());
    assert_eq!((&row["path"], &row["paths"]), (&Value::Null, &json!([])));
    let text = String::from_utf8(sealane().arg("ls").output().unwrap().stdout).unwrap();
    let pid = role.pid().to_string();
    assert!(text.lines().any(|line| line.contains(&pid) && line.ends_with('–')), "{text}");
}

#[test]
#[ignore = "the child of another test"]
fn publishes_and_listens() {
    let path = std::env::var("AT").unwrap();
    let _publisher = Builder::default().publish(&path).unwrap();
    let _listener = Listener::bind(format!("{path}-channels")).unwrap();
    ready();
}

#[test]
fn a_process_that_listens_at_two_paths_has_no_known_one_but_two_possible_ones() {
    let (_directory, path) = place("p");
    let role = Role::start_with(publishes_and_listens, "AT", &path);
    let report = ls();
    let row = publisher(&report, role.pid());
    assert_eq!((&row["path"], &row["paths"]), (&Value::Null, &json!([path, format!("{path}-channels")])));
    let text = String::from_utf8(sealane().arg("ls").output().unwrap().stdout).unwrap();
    assert!(text.contains(&format!("{path} or {path}-channels")), "{text}");
}

#[test]
fn names_are_those_of_the_publishers_own_network_namespace() {
    let name = "@sealane-test-network";
    let others = ["unshare", "--user", "--map-root-user", "--net"];
    let set = |command: &mut Command| {
        command.env("AT", name).stderr(Stdio::null());
    };
    let Some(role) = Role::run_by(&others, publishes_there, set) else {
        return eprintln!("SKIPPED: a network namespace is forbidden here, or there is no unshare(1)");
    };
    assert_eq!(publisher(&ls(), role.pid())["path"], json!(name));
}

#[test]
fn an_ordinary_user_sees_the_paths_of_his_publishers() {
    const NOBODY: u32 = 65_534;
    if !geteuid().is_root() {
        return eprintln!("SKIPPED: the other tests are run by an ordinary user already");
    }
    let program = File::open(env!("CARGO_BIN_EXE_sealane")).unwrap();
    let (_directory, path) = place("his");
    let his = Role::run(publishes_there, |command| {
        command.env("AT", &path).uid(NOBODY).gid(NOBODY);
    })
    .unwrap();
    let mut ls = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
    let output = ls.args(["ls", "--json"]).uid(NOBODY).gid(NOBODY).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = rows_from(&report, his.pid());
    let row = rows.first().unwrap();
    if row["kind"] != "publisher" {
        return eprintln!("SKIPPED: Yama keeps the memory of other processes from anybody but their parents");
    }
    assert_eq!(row["path"], json!(path));
}
