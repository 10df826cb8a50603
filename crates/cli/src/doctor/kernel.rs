//! The kernel, and whether it keeps its part: memfds, their seals, and the refusal of another writer.
//!
//! The version says what to expect; the memfds that are made here say what is.

use std::os::fd::OwnedFd;

use rustix::{
    fs::{
        FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals, ftruncate,
        memfd_create,
    },
    io::{Errno, pwrite},
    param::page_size,
    process::{Resource, getrlimit},
    system::uname,
};
use sealane::{Channel, Error, SealedBufferMut};

use super::{
    files::{Files, printable},
    report::{Check, Family, State},
    text::bytes,
};

/// The oldest kernel: `MADV_POPULATE_READ`.
const OLDEST: (u32, u32) = (5, 14);
/// The additions of newer kernels, and their versions.
const NEWER: [((u32, u32), &str); 4] = [
    ((6, 3), "memfds that cannot be executed (MFD_NOEXEC_SEAL)"),
    ((6, 5), "Builder::peer_pidfd (SO_PASSPIDFD)"),
    ((6, 15), "deaths of peers that are no children (PIDFD_GET_INFO)"),
    ((6, 16), "max_fds(0) that the kernel enforces (SO_PASSRIGHTS)"),
];
const GUIDE: &str = "docs/guide.md#compatibility";
const SECURITY: &str = "docs/security.md#the-threat-model";

fn check(name: &'static str, found: impl Into<String>) -> Check {
    Check::new(Family::Kernel, name, found)
}

/// The version in a release such as `5.15.0-113-generic`.
pub(super) fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// All checks of this family.
pub(super) fn checks(files: &Files, add: &mut dyn FnMut(Check)) {
    let release = release();
    add(judge_version(&release));
    add(judge_newer(&release));
    add(judge_architecture(&machine()));
    add(judge_page(page_size()));
    add(noexec(files));
    let memfd = memfd();
    add(judge_memfd(&memfd));
    add(judge_seals(memfd.and_then(|memfd| seals(&memfd).map(|()| memfd)).and_then(|memfd| refuses(&memfd))));
    add(judge_region(Channel::builder().ring_capacity(page_size()).pair().map(drop)));
    add(judge_buffer(SealedBufferMut::new(page_size()).and_then(SealedBufferMut::seal).map(drop)));
}

/// The kernel's release, as `uname -r` prints it.
pub(super) fn release() -> String {
    printable(&uname().release().to_string_lossy())
}

/// The processor's architecture, as `uname -m` prints it.
pub(super) fn machine() -> String {
    printable(&uname().machine().to_string_lossy())
}

fn judge_version(release: &str) -> Check {
    let (major, minor) = OLDEST;
    let (state, found) = match version(release) {
        Some(version) if version >= OLDEST => (State::Ok, format!("Linux {release}")),
        Some(_) => (State::Error, format!("Linux {release}; {major}.{minor} or later is needed")),
        None => (State::Unknown, format!("Linux {release}: a version such as {major}.{minor} expected")),
    };
    check("kernel", found)
        .state(state)
        .limits("everything: older kernels cannot fill page tables ahead (MADV_POPULATE_READ), and nothing is tested there")
        .more(GUIDE)
}

fn judge_newer(release: &str) -> Check {
    let found = version(release).unwrap_or(OLDEST);
    let missing = NEWER.iter().filter(|(since, _)| found < *since);
    let missing: Vec<_> =
        missing.map(|((major, minor), what)| format!("{what}, from {major}.{minor} on")).collect();
    let (state, found) = if missing.is_empty() {
        (State::Ok, "all that sealane uses".to_owned())
    } else {
        (State::Note, format!("without {}", missing.join("; ")))
    };
    check("newer features", found).state(state).limits("the named calls; all others work without").more(GUIDE)
}

fn judge_architecture(machine: &str) -> Check {
    let (state, found) = match machine {
        "x86_64" => (State::Ok, machine.to_owned()),
        "aarch64" => (State::Note, format!("{machine}: checked to compile, not tested")),
        _ => (State::Warning, format!("{machine}: never tried")),
    };
    check("architecture", found)
        .state(state)
        .limits("sealane needs 64 bits and the little-endian order of bytes")
        .more(GUIDE)
}

fn judge_page(page: usize) -> Check {
    let state = if page == 4096 { State::Ok } else { State::Note };
    check("page size", bytes(page as u64))
        .state(state)
        .limits("rings and control pages: Builder::ring_capacity is rounded up to pages")
        .more("docs/tuning.md#the-rings-capacity")
        .value("bytes", page)
}

fn noexec(files: &Files) -> Check {
    const PATH: &str = "/proc/sys/vm/memfd_noexec";
    const NAME: &str = "vm.memfd_noexec";
    let limits =
        "memfds of programs that do not ask for MFD_NOEXEC_SEAL: at 2 they get EACCES; sealane asks for it";
    match (files.number(PATH), version(&release())) {
        (Some(value @ 0..=1), _) => check(NAME, value.to_string()),
        (Some(value), _) => check(NAME, format!("{value}: executable memfds are refused"))
            .state(State::Note)
            .change("sysctl vm.memfd_noexec=1"),
        (None, Some(version)) if version < (6, 3) => check(NAME, "none: it came with Linux 6.3"),
        (None, _) => Check::unknown(Family::Kernel, NAME, PATH),
    }
    .limits(limits)
    .more(GUIDE)
}

/// A memfd of one page.
fn memfd() -> Result<OwnedFd, String> {
    // `ftruncate(2)` above this limit would end this process by SIGXFSZ.
    let page = page_size() as u64;
    if let Some(limit) = getrlimit(Resource::Fsize).current
        && limit < page
    {
        return Err(format!("a file of one page is above RLIMIT_FSIZE, {}", bytes(limit)));
    }
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = match memfd_create("sealane-doctor", flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create("sealane-doctor", flags),
        result => result,
    };
    let memfd = memfd.map_err(|error| failed("memfd_create(2)", error))?;
    ftruncate(&memfd, page).map_err(|error| failed("ftruncate(2) of a memfd", error))?;
    fallocate(&memfd, FallocateFlags::empty(), 0, page)
        .map_err(|error| failed("fallocate(2) of a memfd", error))?;
    Ok(memfd)
}

fn failed(call: &str, error: Errno) -> String {
    format!("{call} failed: {}", std::io::Error::from(error))
}

/// Seals a memfd as a region is sealed, and reads the seals back.
fn seals(memfd: &OwnedFd) -> Result<(), String> {
    let wanted = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
    fcntl_add_seals(memfd, wanted).map_err(|error| failed("fcntl(F_ADD_SEALS)", error))?;
    let found = fcntl_get_seals(memfd).map_err(|error| failed("fcntl(F_GET_SEALS)", error))?;
    if found.contains(wanted) {
        Ok(())
    } else {
        Err(format!("expected the seals {wanted:?}, found {found:?}"))
    }
}

/// Tries to change a sealed memfd, in the ways that need no mapping.
fn refuses(memfd: &OwnedFd) -> Result<(), String> {
    let page = page_size() as u64;
    let tries = [
        ("pwrite(2)", pwrite(memfd, b"x", 0).map(drop)),
        ("ftruncate(2)", ftruncate(memfd, page / 2)),
        (
            "fallocate(FALLOC_FL_PUNCH_HOLE)",
            fallocate(memfd, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, page),
        ),
    ];
    match tries.iter().find(|(_, result)| *result != Err(Errno::PERM)) {
        None => Ok(()),
        Some((call, Ok(()))) => Err(format!("{call} has changed a sealed memfd")),
        Some((call, Err(error))) => Err(format!("expected EPERM from {call}, found {error:?}")),
    }
}

fn judge_memfd(memfd: &Result<OwnedFd, String>) -> Check {
    let (state, found) = match memfd {
        Ok(_) => (State::Ok, "made, with MFD_ALLOW_SEALING".to_owned()),
        Err(why) => (State::Error, why.clone()),
    };
    check("memfd", found)
        .state(state)
        .limits("everything: each side of a channel makes its ring in a memfd; Error::Io names the call")
        .more("docs/sandbox.md#the-handshake")
}

fn judge_seals(sealed: Result<(), String>) -> Check {
    let (state, found) = match sealed {
        Ok(()) => (State::Ok, "set; writing, shrinking and punching holes are refused".to_owned()),
        Err(why) => (State::Error, why),
    };
    check("seals", found)
        .state(state)
        .limits("the guarantee itself: F_SEAL_FUTURE_WRITE and three more keep a peer from changing a ring")
        .more(SECURITY)
}

fn lacks_descriptors(error: &Error) -> bool {
    match error {
        Error::FdsLost { .. } => true,
        Error::Io { source, .. } => source.raw_os_error() == Some(Errno::MFILE.raw_os_error()),
        _ => false,
    }
}

/// The library maps each region that it has sealed once more for writing, and makes no channel unless that is refused.
fn judge_region(made: sealane::Result<()>) -> Check {
    let (state, found) = match made {
        Ok(()) => (State::Ok, "refused, as it must be".to_owned()),
        // Both ends are in this process, which one end alone may have room for.
        Err(error) if lacks_descriptors(&error) => {
            (State::Unknown, "not shown: too few descriptors for both ends (RLIMIT_NOFILE)".to_owned())
        }
        Err(error) => (State::Error, format!("not shown: no channel of one page was made: {error}")),
    };
    check("a second writer", found)
        .state(state)
        .limits("the guarantee itself: a writable mapping of a sealed ring; where it is not refused, no channel is made")
        .more(SECURITY)
}

fn judge_buffer(sealed: sealane::Result<()>) -> Check {
    let (state, found) = match sealed {
        Ok(()) => (State::Ok, "made and sealed (F_SEAL_WRITE)".to_owned()),
        Err(error) => (State::Error, error.to_string()),
    };
    check("SealedBuffer", found)
        .state(state)
        .limits("SealedBufferMut::seal: memory that nobody can change any more")
        .more("docs/sandbox.md#a-sealedbuffer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_many_distributions_have_a_version() {
        let releases = [
            ("6.18.44-fc-v657", (6, 18)),
            ("5.15.0-113-generic", (5, 15)),
            ("4.18.0-477.10.1.el8_8.x86_64", (4, 18)),
            ("3.10.0-1160.el7.x86_64", (3, 10)),
            ("6.1.0-rc3+", (6, 1)),
            ("6.6.87.2-microsoft-standard-WSL2", (6, 6)),
            ("5.10.209-android12-9", (5, 10)),
            ("4.4.0", (4, 4)),
        ];
        for (release, expected) in releases {
            assert_eq!(version(release), Some(expected), "{release}");
        }
        assert_eq!([version(""), version("linux"), version("6"), version("99999999999.1")], [None; 4]);
    }

    #[test]
    fn old_kernels_are_errors_and_new_ones_say_what_they_lack() {
        let state = |release| judge_version(release).state;
        assert_eq!([state("5.13.19"), state("4.4.0"), state("3.10.0-1160.el7")], [State::Error; 3]);
        assert_eq!([state("5.14.0-427.el9"), state("6.18.1")], [State::Ok; 2]);
        assert_eq!(state("odd"), State::Unknown);
        assert!(judge_newer("6.5.0").found.starts_with("without deaths of peers"));
        assert_eq!((judge_newer("6.16.0").state, judge_newer("6.1.0").state), (State::Ok, State::Note));
    }

    #[test]
    fn memfd_without_a_seal_is_no_guarantee() {
        let memfd = memfd().unwrap();
        assert_eq!(refuses(&memfd), Err("pwrite(2) has changed a sealed memfd".into()));
        fcntl_add_seals(&memfd, SealFlags::FUTURE_WRITE).unwrap();
        assert_eq!(refuses(&memfd), Err("ftruncate(2) has changed a sealed memfd".into()));
        assert_eq!(judge_seals(refuses(&memfd)).state, State::Error);
        let memfd = self::memfd().unwrap();
        assert_eq!(seals(&memfd).and_then(|()| refuses(&memfd)), Ok(()));
    }

    #[test]
    fn limits_of_memfds_are_known_from_old_kernels_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("proc/sys/vm");
        std::fs::create_dir_all(&path).unwrap();
        for (text, state) in [("0\n", State::Ok), ("1\n", State::Ok), ("2\n", State::Note)] {
            std::fs::write(path.join("memfd_noexec"), text).unwrap();
            assert_eq!(noexec(&Files::below(dir.path())).state, state, "{text}");
        }
    }

    #[test]
    fn failures_keep_their_reason() {
        assert_eq!(judge_memfd(&Err("memfd_create(2) failed: x".into())).found, "memfd_create(2) failed: x");
        let check = judge_region(Err(Error::Timeout));
        assert_eq!((check.state, check.found.ends_with("the deadline passed")), (State::Error, true));
        let lost = Error::FdsLost { expected: 2, received: 1 };
        assert_eq!(judge_region(Err(lost)).state, State::Unknown);
    }
}
