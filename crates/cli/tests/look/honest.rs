//! Programs that exchange messages: both ends are found, and the figures are theirs.

use std::{
    fs,
    io::Write,
    os::{fd::AsRawFd, unix::process::CommandExt},
    process::Stdio,
    time::Duration,
};

use sealane::{Builder, Channel, Publisher, Slow};
use serde_json::{Value, json};

use super::{Role, has, ls, ready, rows_from, sealane};

const RING: usize = 64 << 10;

fn row<'r>(rows: &'r [&Value], inode: impl Fn(&Value) -> bool) -> &'r Value {
    rows.iter().copied().find(|row| inode(row)).unwrap_or_else(|| panic!("{rows:#?}"))
}

/// A channel between two roles would need a third process to drive it: the child echoes.
fn echoing() -> (Channel, std::process::Child) {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["honest::echoes", "--exact", "--ignored", "--nocapture"]).stdout(Stdio::null());
    Channel::builder().ring_capacity(RING).spawn(command).unwrap()
}

#[test]
#[ignore = "the child of another test"]
fn echoes() {
    let mut channel = Builder::default().ring_capacity(2 * RING).inherited().unwrap();
    while let Ok(message) = channel.recv() {
        channel.send(message.control()).unwrap();
    }
    std::process::exit(0);
}

#[test]
fn channel_shows_both_ends_and_what_they_sent() {
    let (mut channel, mut child) = echoing();
    for number in 0..5_u8 {
        let mut loan = channel.loan(1000).unwrap();
        loan.fill(number);
        loan.send_with(&[number][..]).unwrap();
        assert_eq!(channel.recv_timeout(Duration::from_secs(20)).unwrap().control(), [number]);
    }
    channel.send(b"and one without a payload").unwrap();
    channel.recv_timeout(Duration::from_secs(20)).unwrap();
    let report = ls();
    let ours = std::process::id();
    let rows = rows_from(&report, ours);
    let out = row(&rows, |row| has(row, "to", child.id()));
    assert_eq!((&out["kind"], &out["messages"], &out["ring"]), (&json!("channel"), &json!(6), &json!(RING)));
    // Each record has a header, a payload and control bytes, each rounded up to 64.
    assert_eq!(out["bytes"], json!(5 * (64 + 1024 + 64)));
    assert_eq!((&out["fill"], &out["waits"]), (&json!(0), &json!(0)));
    let back = rows_from(&report, child.id());
    let back = row(&back, |row| row["group"] == out["group"]);
    assert_eq!((&back["messages"], &back["ring"], &back["bytes"]), (&json!(6), &json!(2 * RING), &json!(0)));
    assert!(has(back, "to", ours), "{back:#}");
    drop(channel);
    child.wait().unwrap();
}

#[test]
#[ignore = "the child of another test"]
fn is_full() {
    let (mut sender, _receiver) = Channel::builder().ring_capacity(RING).pair().unwrap();
    while let Some(loan) = sender.try_loan(30_000).unwrap() {
        loan.send().unwrap();
    }
    ready();
}

#[test]
fn sender_without_space_is_shown_as_held_up() {
    let role = Role::start(is_full);
    let report = ls();
    let rows = rows_from(&report, role.pid());
    assert_eq!(rows.len(), 2, "{rows:#?}");
    let busy = row(&rows, |row| row["messages"] == 2);
    assert_eq!((&busy["state"], &busy["waits"]), (&json!("held-up"), &json!(1)));
    let (fill, mark) = (busy["fill"].as_u64().unwrap(), busy["high_water"].as_u64().unwrap());
    assert!(fill >= 40_000 && mark == fill && mark <= RING as u64, "{busy:#}");
    let empty = row(&rows, |row| row["messages"] == 0);
    assert_eq!((&empty["fill"], &empty["waits"]), (&json!(0), &json!(0)));
}

#[test]
#[ignore = "the child of another test"]
fn publishes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("published");
    let mut publisher =
        Builder::default().ring_capacity(RING).slow(Slow::Wait(Duration::MAX)).publish(&path).unwrap();
    for number in 0..3 {
        // Nobody listens yet: a subscriber that joins later counts from where it joined.
        publisher.loan(5000 + number).unwrap().send().unwrap();
    }
    let join = |publisher: &mut Publisher, slow| {
        let path = path.clone();
        let joining = std::thread::spawn(move || Builder::default().slow(slow).subscribe(path).unwrap());
        while !joining.is_finished() {
            publisher.wait_event(Duration::from_millis(10)).unwrap();
        }
        joining.join().unwrap()
    };
    let mut gating = join(&mut publisher, Slow::Wait(Duration::MAX));
    let mut overrun = join(&mut publisher, Slow::Overrun);
    publisher.loan(10_000).unwrap().send().unwrap();
    gating.recv().unwrap();
    overrun.recv().unwrap();
    let mut count = 4;
    while let Ok(Some(loan)) = publisher.try_loan(10_000) {
        loan.send().unwrap();
        count += 1;
        // It is read by one of the two only.
        overrun.recv().unwrap();
    }
    gating.send(b"back").unwrap();
    assert!(count > 4);
    ready();
}

#[test]
fn publisher_shows_its_subscribers_with_lag_and_who_holds_it_up() {
    let role = Role::start(publishes);
    let report = ls();
    let rows = rows_from(&report, role.pid());
    let publisher = row(&rows, |row| row["kind"] == "publisher");
    assert_eq!(publisher["ring"], json!(RING));
    assert_eq!(publisher["state"], "held-up", "{publisher:#}");
    let gating = row(&rows, |row| row["kind"] == "gating");
    let lag = gating["fill"].as_u64().unwrap();
    assert!(lag > RING as u64 / 2 && lag <= RING as u64, "{gating:#}");
    assert_eq!((&gating["state"], &gating["missed"]), (&json!("holds-up"), &json!(0)));
    let overrun = row(&rows, |row| row["kind"] == "overrunning");
    assert_eq!(overrun["fill"], 0, "{overrun:#}");
    assert!(rows.iter().all(|row| row["group"] == publisher["group"]), "{rows:#?}");
    assert_eq!(publisher["fill"], gating["fill"]);
}

#[test]
#[ignore = "the child of another test"]
fn has_a_strange_name() {
    fs::write("/proc/self/comm", "\x1b[31m\nred\u{9b}").unwrap();
    let _ends = Channel::pair().unwrap();
    ready();
}

#[test]
fn names_are_escaped_in_every_form() {
    let role = Role::start(has_a_strange_name);
    let report = ls();
    let rows = rows_from(&report, role.pid());
    assert_eq!(rows[0]["from"][0]["name"], "\\u{1b}[31m\\nred\\u{9b}");
    for arguments in [&["ls"][..], &["ls", "--json"], &["top", "--once", "--interval", "50ms"]] {
        let output = sealane().args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("[31m"), "{text}");
        assert!(!text.contains(['\x1b', '\u{9b}']), "{text:?}");
    }
}

#[test]
fn another_pid_namespace_is_seen_with_numbers_of_this_one() {
    let inner = ["honest::has_a_pair_of_its_own", "--exact", "--ignored", "--nocapture"];
    let mut command = std::process::Command::new("unshare");
    command.args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child"]);
    command.arg(std::env::current_exe().unwrap()).args(inner);
    let Ok(mut child) = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
    else {
        return eprintln!("SKIPPED: there is no unshare(1)");
    };
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while std::io::BufRead::read_line(&mut output, &mut line).unwrap() > 0 && !line.ends_with("READY\n") {}
    if !line.ends_with("READY\n") {
        child.wait().unwrap();
        return eprintln!("SKIPPED: a pid namespace is forbidden here");
    }
    let report = ls();
    let of_child = |row: &&Value| {
        let Some(pid) = row["from"][0]["pid"].as_u64() else { return false };
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line == format!("PPid:\t{}", child.id()))
    };
    let rows: Vec<_> = report["rows"].as_array().unwrap().iter().filter(of_child).collect();
    assert_eq!(rows.len(), 2, "{report:#}");
    drop(child.stdin.take().map(|mut input| input.write_all(b"x")));
    child.wait().unwrap();
}

#[test]
#[ignore = "the child of another test"]
fn has_a_pair_of_its_own() {
    let _ends = Channel::pair().unwrap();
    ready();
}

#[test]
fn ordinary_user_sees_what_is_his_and_is_told_of_the_rest() {
    const NOBODY: u32 = 65_534;
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: the other tests are run by an ordinary user already");
    }
    // The user may not be able to go to where the programs are.
    let program = fs::File::open(env!("CARGO_BIN_EXE_sealane")).unwrap();
    let his = Role::start_as(has_a_pair_of_its_own, Some(NOBODY)).unwrap();
    let ours = Role::start(has_a_pair_of_its_own);
    let mut ls = std::process::Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
    let output = ls.args(["ls", "--json"]).uid(NOBODY).gid(NOBODY).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    // Yama may keep the memory of other processes from anybody but their parents.
    let state = &rows_from(&report, his.pid())[0]["state"];
    assert!(state == "asleep" || state == "forbidden", "{report:#}");
    assert_eq!(rows_from(&report, ours.pid()).len(), 0);
    assert!(report["unseen"]["processes"].as_u64().unwrap() > 0);
}

#[test]
fn readers_that_go_away_are_no_error() {
    let mut child = sealane().arg("ls").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]));
}
