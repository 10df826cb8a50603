//! What the kernel keeps to itself is counted, with the reason and the remedy; memory of huge pages is shown as any other.

use std::{
    fs::File,
    os::{fd::AsRawFd, unix::process::CommandExt},
    process::{Command, exit},
    time::Duration,
};

use rustix::process::{DumpableBehavior, geteuid, set_dumpable_behavior};
use sealane::{Builder, Channel};
use serde_json::{Value, json};

use super::{Role, hostile_pair, ls, ready, rows_from};

const NOBODY: u32 = 65_534;

/// Runs a script as root in a mount namespace of its own. In it `sealane_as_nobody` is the command that an ordinary user starts, and
/// `$SEALANE` that of root. `None`, said loudly, where that is forbidden.
fn in_namespace(script: &str) -> Option<String> {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: mounting needs root");
        return None;
    }
    // The user may not be able to go to where the program is, but the shell's descriptor leads there.
    let begin = "exec 9<\"$SEALANE\"\n\
        sealane_as_nobody() {\n\
            setpriv --reuid 65534 --regid 65534 --clear-groups --bounding-set -all /proc/self/fd/9 \"$@\"\n\
        }\n\
        mount -t tmpfs none /mnt && setpriv --version >/dev/null || { echo SKIPPED; exit 0; }\n";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", &[begin, script].concat()]);
    let output = command.env("SEALANE", env!("CARGO_BIN_EXE_sealane")).output();
    let Some(output) = output.ok().filter(|output| output.status.success() || output.stdout != b"") else {
        eprintln!("SKIPPED: a mount namespace is forbidden here, or there is no unshare(1)");
        return None;
    };
    let text = String::from_utf8(output.stdout).unwrap();
    if text == "SKIPPED\n" {
        eprintln!("SKIPPED: mount(2) is forbidden here, or there is no setpriv(1)");
        return None;
    }
    assert!(output.status.success(), "{text} {}", String::from_utf8_lossy(&output.stderr));
    Some(text)
}

/// The reports of several runs with `--json`.
fn reports(text: &str) -> Vec<Value> {
    serde_json::Deserializer::from_str(text).into_iter().map(Result::unwrap).collect()
}

/// Processes that are not root's, which root starts as another user.
fn ordinary() -> Option<u32> {
    geteuid().is_root().then_some(NOBODY)
}

#[test]
#[ignore = "the child of another test"]
fn has_huge_pages() {
    let huge = Builder::default().ring_capacity(2 << 20).huge_pages(true);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("published");
    let (Ok((mut one, _other)), Ok(mut publisher)) = (huge.pair(), huge.publish(&path)) else { exit(0) };
    one.loan(1000).unwrap().send().unwrap();
    let joining = std::thread::spawn(move || Builder::default().subscribe(path).unwrap());
    while !joining.is_finished() {
        publisher.wait_event(Duration::from_millis(10)).unwrap();
    }
    let _subscriber = joining.join().unwrap();
    publisher.loan(3000).unwrap().send().unwrap();
    ready();
}

#[test]
fn regions_of_huge_pages_are_listed_as_all_others() {
    let Some(role) = Role::start_as(has_huge_pages, None) else {
        return eprintln!("SKIPPED: there are no huge pages (sysctl vm.nr_hugepages=6)");
    };
    let report = ls();
    let rows = rows_from(&report, role.pid());
    let of = |kind: &str| rows.iter().copied().filter(|row| row["kind"] == kind).collect::<Vec<_>>();
    assert_eq!((rows.len(), of("channel").len(), of("gating").len()), (4, 2, 1), "{rows:#?}");
    let sent = of("channel").into_iter().find(|row| row["messages"] == 1).unwrap();
    assert_eq!((&sent["ring"], &sent["bytes"]), (&json!(2 << 20), &json!(64 + 1024)));
    let publisher = of("publisher")[0];
    assert_eq!((&publisher["ring"], &publisher["messages"]), (&json!(2 << 20), &json!(1)));
    assert_eq!(of("gating")[0]["fill"], 64 + 3008);
}

#[test]
#[ignore = "the child of another test"]
fn is_not_dumpable() {
    let _ends = Channel::pair().unwrap();
    set_dumpable_behavior(DumpableBehavior::NotDumpable).unwrap();
    ready();
}

#[test]
fn processes_that_are_not_dumpable_are_counted_with_the_remedy() {
    let role = Role::start_as(is_not_dumpable, ordinary()).unwrap();
    let program = File::open(env!("CARGO_BIN_EXE_sealane")).unwrap();
    let ls = |arguments: &[&str]| {
        let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
        if let Some(user) = ordinary() {
            command.uid(user).gid(user);
        }
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let report: Value = serde_json::from_str(&ls(&["ls", "--json"])).unwrap();
    assert_eq!(rows_from(&report, role.pid()).len(), 0, "{report:#}");
    assert!(report["unseen"]["processes"].as_u64().unwrap() > 0, "{report:#}");
    for arguments in [&["ls"][..], &["top", "--once", "--interval", "50ms"]] {
        let text = ls(arguments);
        assert!(text.contains("Not seen") && text.contains("Root sees all (sudo)"), "{text}");
    }
}

#[test]
fn memory_that_may_not_be_read_is_listed_with_the_reason() {
    let role = Role::start_as(hostile_pair, ordinary()).unwrap();
    // Yama shows mappings, and keeps memory: so does a file in the place of the process's memory that only root can open.
    let pid = role.pid();
    let script = format!(
        "touch /mnt/none && chmod 0 /mnt/none && mount --bind /mnt/none /proc/{pid}/mem\n\
         sealane_as_nobody ls --json; sealane_as_nobody ls"
    );
    let Some(output) = in_namespace(&script) else { return };
    let (json, text) = output.split_at(output.find("\n}").unwrap() + 2);
    let report = &reports(json)[0];
    let rows = rows_from(report, pid);
    assert_eq!(rows.len(), 2, "{report:#}");
    assert!(rows.iter().all(|row| row["state"] == "forbidden" && row["messages"].is_null()), "{rows:#?}");
    assert!(report["unread"].as_u64().unwrap() >= 2, "{report:#}");
    assert!(text.contains("may not be read: the kernel") && text.contains("CAP_SYS_PTRACE"), "{text}");
}

#[test]
fn processes_that_proc_hides_are_said_to_whom_they_are_hidden_from() {
    let role = Role::start_as(hostile_pair, None).unwrap();
    let script = "mount -t proc -o hidepid=2 proc /proc\n\
        sealane_as_nobody ls --json; $SEALANE ls --json\n\
        mount -t proc proc /proc\n\
        sealane_as_nobody ls --json";
    let Some(output) = in_namespace(script) else { return };
    let [hidden, root, above] = &reports(&output)[..] else { panic!("{output}") };
    assert_eq!((&hidden["unseen"]["hidden"], &hidden["unseen"]["processes"]), (&json!(true), &json!(0)));
    assert_eq!(rows_from(hidden, role.pid()).len(), 0);
    assert_eq!(rows_from(root, role.pid()).len(), 2, "{root:#}");
    // Nothing is hidden from one that sees all, or by a mount below another one.
    let has_right = std::fs::read_to_string("/proc/self/status").unwrap().lines().any(|line| {
        let mask = line.strip_prefix("CapEff:").map(|mask| u64::from_str_radix(mask.trim(), 16).unwrap());
        mask.is_some_and(|mask| mask >> 19 & 1 == 1)
    });
    assert!(!has_right || root["unseen"]["hidden"] == false, "{root:#}");
    assert_eq!(above["unseen"]["hidden"], false, "{above:#}");
    assert!(above["unseen"]["processes"].as_u64().unwrap() > 0);
}
