//! [`Rights`]: what the kernel lets this process see of others, for the reasons why something was not seen.

use std::{
    fs::{self, File},
    os::{fd::AsRawFd, unix::fs::MetadataExt},
};

use procfs_core::{
    FromBufRead,
    process::{MountInfo, Status},
};

/// The rights of this process to look at others.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Rights {
    /// It has `CAP_SYS_PTRACE`, in the user namespace of the machine.
    pub(crate) traces_all: bool,
    /// `/proc` does not even list processes of other users to it (`hidepid`, `proc(5)`).
    pub(crate) hidden: bool,
    /// The value of `/proc/sys/kernel/yama/ptrace_scope`; 0 without Yama.
    pub(crate) ptrace_scope: u8,
}

/// The bit of `CAP_SYS_PTRACE` (`capabilities(7)`).
const SYS_PTRACE: u32 = 19;

/// The file number of the user namespace of the machine: `PROC_USER_INIT_INO` of the kernel.
const FIRST_USER_NAMESPACE: u64 = 0xefff_fffd;

impl Rights {
    pub(super) fn new() -> Self {
        let status = File::open("/proc/self/status")
            .ok()
            .and_then(|file| Status::from_buf_read(std::io::BufReader::new(file)).ok());
        let has_right = status.as_ref().is_some_and(|status| status.capeff >> SYS_PTRACE & 1 == 1);
        let namespace = fs::metadata("/proc/self/ns/user").map(|namespace| namespace.ino());
        let traces_all = has_right && namespace.is_ok_and(|number| number == FIRST_USER_NAMESPACE);
        let groups = status.map(|status| [vec![status.fgid], status.groups].concat()).unwrap_or_default();
        let hidden = !traces_all && mount().is_some_and(|mount| hides(&mount, &groups));
        let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
        let ptrace_scope = scope.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        Self { traces_all, hidden, ptrace_scope }
    }
}

/// The mount of `/proc` that is seen: others may lie below it.
fn mount() -> Option<MountInfo> {
    let proc = File::open("/proc").ok()?;
    let about = fs::read_to_string(format!("/proc/self/fdinfo/{}", proc.as_raw_fd())).ok()?;
    let id: i32 = about.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().filter_map(|line| MountInfo::from_line(line).ok()).find(|mount| mount.mnt_id == id)
}

/// Whether a mount of `/proc` hides processes of other users from members of these groups.
fn hides(mount: &MountInfo, groups: &[u32]) -> bool {
    let option = |name: &str| mount.super_options.get(name)?.as_deref();
    match option("hidepid") {
        Some("2" | "invisible") => {
            // The members of one group see all.
            let seeing = option("gid").and_then(|group| group.parse().ok()).unwrap_or(0);
            !groups.contains(&seeing)
        }
        Some("4" | "ptraceable") => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_proc_hide_by_their_options() {
        let hides = |options: &str| {
            let line = format!("63 45 0:39 / /proc rw,relatime - proc proc {options}");
            hides(&MountInfo::from_line(&line).unwrap(), &[7, 20])
        };
        for options in
            ["rw", "rw,hidepid=1", "rw,hidepid=noaccess", "rw,gid=20,hidepid=invisible", "rw,gid=7,hidepid=2"]
        {
            assert!(!hides(options), "{options}");
        }
        for options in [
            "rw,hidepid=2",
            "rw,hidepid=invisible",
            "rw,gid=8,hidepid=2",
            "rw,gid=7,hidepid=4",
            "rw,hidepid=ptraceable",
        ] {
            assert!(hides(options), "{options}");
        }
    }

    #[test]
    fn the_mount_of_proc_is_found() {
        assert_eq!(mount().unwrap().fs_type, "proc");
    }
}
