//! The means that keep processes apart: namespaces, Yama, seccomp, landlock, and a device that went round the seal.

use std::fs::OpenOptions;

use landlock::{ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope};
use rustix::process::getuid;

use super::{
    files::{Files, field},
    kernel,
    report::{Check, Family, State},
};

const SCOPE: &str = "docs/security.md#out-of-scope";
const IDENTITY: &str = "docs/security.md#identity-and-death";
const SANDBOX: &str = "docs/sandbox.md#what-a-filter-must-not-allow";
/// The first release of the main line in which udmabuf refuses memfds with `F_SEAL_FUTURE_WRITE`.
const UDMABUF_FIXED: (u32, u32) = (6, 13);
/// The user that stands for users without a name in this namespace (`user_namespaces(7)`), unless it was changed.
const OVERFLOW: u64 = 65_534;

fn check(name: &'static str, found: impl Into<String>) -> Check {
    Check::new(Family::Isolation, name, found)
}

/// All checks of this family.
pub(super) fn checks(files: &Files, add: &mut dyn FnMut(Check)) {
    add(namespaces(files));
    add(identity(files, getuid().as_raw().into()));
    add(yama(files));
    add(seccomp(files.text("/proc/self/status").as_deref()));
    add(judge_landlock(landlock_abi()));
    let opened = OpenOptions::new().read(true).write(true).open("/dev/udmabuf").is_ok();
    add(judge_udmabuf(files.exists("/dev/udmabuf"), opened, &kernel::release()));
}

fn namespaces(files: &Files) -> Check {
    const NAME: &str = "user namespaces";
    const MAX: &str = "/proc/sys/user/max_user_namespaces";
    // Distributions add the last two; where they are missing they forbid nothing.
    let debian = files.number("/proc/sys/kernel/unprivileged_userns_clone");
    let apparmor = files.number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns");
    let check = match (files.number(MAX), debian, apparmor) {
        (Some(0), ..) => check(NAME, "none (user.max_user_namespaces is 0)")
            .state(State::Note)
            .change("sysctl user.max_user_namespaces=65536"),
        (_, Some(0), _) => check(NAME, "for root alone")
            .state(State::Note)
            .change("sysctl kernel.unprivileged_userns_clone=1"),
        (_, _, Some(1..)) => check(NAME, "for programs with an AppArmor profile that allows them")
            .state(State::Note)
            .change("sysctl kernel.apparmor_restrict_unprivileged_userns=0"),
        (Some(_), ..) => check(NAME, "for every user"),
        (None, ..) => Check::unknown(Family::Isolation, NAME, MAX),
    };
    check.limits("sandboxes that start a peer in a namespace of its own without root; channels work in and across them").more(IDENTITY)
}

fn identity(files: &Files, user: u64) -> Check {
    const NAME: &str = "own identity";
    const PATH: &str = "/proc/self/uid_map";
    let overflow = files.number("/proc/sys/kernel/overflowuid").unwrap_or(OVERFLOW);
    let check = match files.text(PATH) {
        None => Check::unknown(Family::Isolation, NAME, PATH),
        Some(map) if map.trim().is_empty() => check(NAME, "nobody: this user namespace has no map")
            .state(State::Warning)
            .change("unshare --user --map-current-user"),
        Some(_) if user == overflow => {
            check(NAME, format!("user {user}, which stands for users without a name")).state(State::Note)
        }
        Some(_) => check(NAME, format!("user {user}")),
    };
    check
        .limits("Peer::credentials: a listener refuses clients that the kernel does not name")
        .more(IDENTITY)
        .value("uid", user)
}

fn yama(files: &Files) -> Check {
    const NAME: &str = "Yama ptrace_scope";
    let proc = files.exists("/proc/sys/kernel");
    let scope = files.number("/proc/sys/kernel/yama/ptrace_scope");
    let check = match scope {
        // The kernel's own rule.
        Some(0) => check(NAME, "0: processes of one user may look into each other").state(State::Note),
        None if proc => {
            check(NAME, "no Yama: processes of one user may look into each other").state(State::Note)
        }
        None => Check::unknown(Family::Isolation, NAME, "/proc/sys/kernel/yama"),
        Some(1) => check(NAME, "1: a process may look into its descendants").state(State::Note),
        Some(2) => check(NAME, "2: root alone may look (CAP_SYS_PTRACE)").state(State::Note),
        Some(scope) => check(NAME, format!("{scope}: nobody may look")).state(State::Note),
    };
    let looks_freely = matches!(scope, None | Some(0));
    let check = if looks_freely {
        check
            .limits(
                "safety: a hostile peer of the same user may write to this user's memory (process_vm_writev(2)), \
                 which no seal prevents: run it as another user, or raise this",
            )
            .change(match scope {
                Some(_) => "sysctl kernel.yama.ptrace_scope=1",
                None => "a kernel with CONFIG_SECURITY_YAMA, and lsm=yama,… on its command line",
            })
    } else {
        check
            .limits(
                "sealane ls and top: without sudo they see the channels of fewer processes; channels work",
            )
            .change("sudo sealane ls, or sysctl kernel.yama.ptrace_scope=0 (3 lasts until a restart)")
    };
    check.more(SCOPE).value("scope", scope)
}

fn seccomp(status: Option<&str>) -> Check {
    const NAME: &str = "seccomp";
    let found = match status.and_then(|status| field(status, "Seccomp")) {
        Some("0") => check(NAME, "no filter"),
        Some("1") => check(NAME, "strict").state(State::Error),
        Some("2") => check(NAME, "this process has a filter").state(State::Note),
        _ => Check::unknown(Family::Isolation, NAME, "/proc/self/status"),
    };
    found
        .limits(
            "calls that the filter forbids: EPERM, ENOSYS or SIGSYS in a handshake; containers have filters as a \
             rule, and the self-test shows whether this one allows a channel",
        )
        .more("docs/sandbox.md#a-channel")
}

/// The newest version of landlock of which this kernel knows a restriction; 0 for none. Nothing is restricted.
fn landlock_abi() -> Result<u8, String> {
    let knows = |access: fn(Ruleset) -> Result<Ruleset, landlock::RulesetError>| {
        let rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        // Only the descriptor of a set of rules is made, and closed.
        access(rules).and_then(Ruleset::create).is_ok()
    };
    // Without a descriptor to spare, no kernel seems to know any of them.
    rustix::fs::open("/", rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty())
        .map_err(|error| error.to_string())?;
    let versions: [(u8, bool); 6] = [
        (6, knows(|rules| rules.scope(Scope::from_all(ABI::V6)))),
        (5, knows(|rules| rules.handle_access(AccessFs::from_all(ABI::V5)))),
        (4, knows(|rules| rules.handle_access(AccessNet::from_all(ABI::V4)))),
        (3, knows(|rules| rules.handle_access(AccessFs::from_all(ABI::V3)))),
        (2, knows(|rules| rules.handle_access(AccessFs::from_all(ABI::V2)))),
        (1, knows(|rules| rules.handle_access(AccessFs::from_all(ABI::V1)))),
    ];
    Ok(versions.iter().find(|(_, knows)| *knows).map_or(0, |(version, _)| *version))
}

fn judge_landlock(abi: Result<u8, String>) -> Check {
    const NAME: &str = "landlock";
    let (state, found) = match &abi {
        Ok(0) => (State::Note, "not available".to_owned()),
        Ok(6) => (State::Ok, "version 6 or later".to_owned()),
        Ok(version) => {
            (State::Note, format!("version {version}: signals are not kept in, from 6 on (Linux 6.12)"))
        }
        Err(why) => (State::Unknown, format!("unknown: {why}")),
    };
    check(NAME, found)
        .state(state)
        .limits("sandboxed peers (the example camera --sandbox): files and signals that a peer may reach; channels work without")
        .change("lsm=landlock,… on the kernel's command line, if the kernel has it")
        .more(SANDBOX)
        .value("abi", abi.ok())
}

fn judge_udmabuf(exists: bool, opened: bool, release: &str) -> Check {
    let is_old = kernel::version(release).is_none_or(|version| version < UDMABUF_FIXED);
    let (state, found) = match (exists, is_old, opened) {
        (false, ..) => (State::Ok, "no such device"),
        (true, false, _) => (State::Ok, "present; this kernel has the fix of 2024"),
        (true, true, false) => {
            (State::Note, "present, not for this user; this kernel may lack the fix of 2024")
        }
        (true, true, true) => (State::Warning, "open to this user; this kernel may lack the fix of 2024"),
    };
    check("/dev/udmabuf", found)
        .state(state)
        .limits(
            "the guarantee: before the fix (6.13, and later releases of older lines) a peer that can open the device \
             gets a writable view of a ring",
        )
        .change("chmod 600 /dev/udmabuf, or a newer kernel")
        .more(SCOPE)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn machine(values: &[(&str, &str)]) -> (tempfile::TempDir, Files) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in values {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let files = Files::below(dir.path());
        (dir, files)
    }

    #[test]
    fn each_way_to_forbid_user_namespaces_is_seen() {
        let (max, debian, apparmor) = (
            "proc/sys/user/max_user_namespaces",
            "proc/sys/kernel/unprivileged_userns_clone",
            "proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        );
        let state = |values: &[(&str, &str)]| {
            let (_dir, files) = machine(values);
            namespaces(&files).state
        };
        assert_eq!(state(&[(max, "96365\n")]), State::Ok);
        assert_eq!(state(&[(max, "96365\n"), (debian, "1\n"), (apparmor, "0\n")]), State::Ok);
        assert_eq!(state(&[(max, "0\n")]), State::Note);
        assert_eq!(state(&[(max, "96365\n"), (debian, "0\n")]), State::Note);
        assert_eq!(state(&[(max, "96365\n"), (apparmor, "1\n")]), State::Note);
        assert_eq!(state(&[]), State::Unknown);
    }

    #[test]
    fn namespace_without_a_map_is_a_warning() {
        let at = |map: &str, user| {
            let (_dir, files) = machine(&[("proc/self/uid_map", map)]);
            identity(&files, user).state
        };
        assert_eq!(at("         0          0 4294967295\n", 0), State::Ok);
        assert_eq!((at("", 65_534), at("0 1000 1\n", 65_534)), (State::Warning, State::Note));
        assert_eq!(identity(&machine(&[]).1, 0).state, State::Unknown);
    }

    #[test]
    fn yama_limits_either_tools_or_safety() {
        let at = |values: &[(&str, &str)]| {
            let (_dir, files) = machine(values);
            let check = yama(&files);
            (check.state, check.limits.starts_with("safety"))
        };
        let path = "proc/sys/kernel/yama/ptrace_scope";
        assert_eq!(at(&[(path, "0\n")]), (State::Note, true));
        assert_eq!(at(&[("proc/sys/kernel/osrelease", "6.1\n")]), (State::Note, true));
        for scope in ["1\n", "2\n", "3\n"] {
            assert_eq!(at(&[(path, scope)]), (State::Note, false));
        }
        assert_eq!(at(&[]).0, State::Unknown);
    }

    #[test]
    fn filter_is_seen_in_the_status() {
        let status = |mode| format!("Name:\tdoctor\nNoNewPrivs:\t0\nSeccomp:\t{mode}\nSeccomp_filters:\t1\n");
        let state = |mode| seccomp(Some(&status(mode))).state;
        assert_eq!((state("0"), state("2"), state("1")), (State::Ok, State::Note, State::Error));
        // Linux before 3.8, and gVisor.
        assert_eq!(
            (seccomp(Some("Name:\tx\n")).state, seccomp(None).state),
            (State::Unknown, State::Unknown)
        );
    }

    #[test]
    fn device_that_goes_round_the_seal_is_a_warning_where_it_can_be_opened() {
        let state = |exists, opened, release| judge_udmabuf(exists, opened, release).state;
        assert_eq!(state(false, false, "5.15.0"), State::Ok);
        assert_eq!(
            (state(true, true, "6.12.9"), state(true, false, "6.12.9")),
            (State::Warning, State::Note)
        );
        assert_eq!((state(true, true, "6.13.0"), state(true, true, "odd")), (State::Ok, State::Warning));
    }

    #[test]
    fn landlock_is_judged_by_its_version() {
        let state = |abi| judge_landlock(abi).state;
        assert_eq!(
            (state(Ok(6)), state(Ok(3)), state(Ok(0)), state(Err("x".into()))),
            (State::Ok, State::Note, State::Note, State::Unknown)
        );
    }
}
