//! The control group of this process: the memory and the CPU time that it may use, in cgroup v1 and v2.
//!
//! A limit of any group above this one holds too. A container sees its own group as the root, or a path of the host that is
//! not mounted: then the top of what is mounted counts.

use std::path::{Component, Path, PathBuf};

use procfs_core::{FromBufRead, ProcessCGroups, process::MountInfo};

use super::files::Files;

/// Groups above this one that are looked at.
const MAX_DEPTH: usize = 32;
/// A limit of cgroup v1 from here on means none: the kernel rounds `LONG_MAX` down to a page.
const UNLIMITED: u64 = 1 << 62;

/// The two interfaces of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

/// The directory of this process's group, and that of the topmost group that is visible.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    version: Version,
    own: PathBuf,
    top: PathBuf,
}

/// The limit that leaves the least memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) version: Version,
    /// Bytes; `None` for no limit.
    pub(super) limit: Option<u64>,
    /// Bytes in use in the group with that limit, with what the kernel keeps of files.
    pub(super) used: Option<u64>,
}

/// Decodes the octal escapes of spaces and the like (`\040`, `proc_pid_mountinfo(5)`).
fn unescape(path: &str) -> PathBuf {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(path.to_owned(), |path, (from, to)| path.replace(from, to)).into()
}

/// Where the group of `controller` is, by `/proc/self/cgroup` and `/proc/self/mountinfo`.
fn locate(cgroups: &str, mounts: &str, controller: &str) -> Option<Place> {
    let groups = ProcessCGroups::from_buf_read(cgroups.as_bytes()).ok()?.0;
    let has = |controllers: &[String]| controllers.iter().any(|name| name == controller);
    let v1 = groups.iter().find(|group| has(&group.controllers)).map(|group| (Version::V1, group));
    let v2 = groups.iter().find(|group| group.hierarchy == 0).map(|group| (Version::V2, group));
    let (version, group) = v1.or(v2)?;
    let fits = |mount: &MountInfo| match version {
        Version::V1 => mount.fs_type == "cgroup" && mount.super_options.contains_key(controller),
        Version::V2 => mount.fs_type == "cgroup2",
    };
    // A line that cannot be read, such as the last one of a list that was cut, hides only itself.
    let mount = mounts.lines().filter_map(|line| MountInfo::from_line(line).ok()).find(fits)?;
    let top = unescape(&mount.mount_point.to_string_lossy());
    let below = Path::new(&group.pathname).strip_prefix(unescape(&mount.root)).unwrap_or(Path::new(""));
    // `/../other` is a group outside of this namespace, whose files are not visible.
    let is_plain = below.components().all(|part| matches!(part, Component::Normal(_)));
    let own = if is_plain { top.join(below) } else { top.clone() };
    Some(Place { version, own, top })
}

/// The directories from this process's group up to the topmost that is visible.
fn groups(files: &Files, controller: &str) -> Option<(Version, Vec<PathBuf>)> {
    let place = locate(&files.text("/proc/self/cgroup")?, &files.text("/proc/self/mountinfo")?, controller)?;
    let own = if files.exists(&place.own) { place.own } else { place.top.clone() };
    let up = own.ancestors().take_while(|dir| dir.starts_with(&place.top)).take(MAX_DEPTH);
    Some((place.version, up.map(Path::to_owned).collect()))
}

/// The memory that this process's group may use; `None` if the machine does not say.
pub(super) fn memory(files: &Files) -> Option<Memory> {
    let (version, dirs) = groups(files, "memory")?;
    let (limit, usage) = match version {
        Version::V1 => ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        Version::V2 => ("memory.max", "memory.current"),
    };
    let limits = dirs.iter().map(|dir| {
        // `max` in v2, and the root group of v2, which has no such file, are without a limit.
        let limit = files.number(dir.join(limit)).filter(|limit| *limit < UNLIMITED);
        Memory { version, limit, used: files.number(dir.join(usage)) }
    });
    limits.min_by_key(|memory| match memory.limit {
        Some(limit) => (0, limit.saturating_sub(memory.used.unwrap_or(0))),
        None => (1, 0),
    })
}

/// The CPUs' worth of time that this process's group may use, in hundredths; `None` without a limit.
pub(super) fn cpu_hundredths(files: &Files) -> Option<u64> {
    let (version, dirs) = groups(files, "cpu")?;
    let quotas = dirs.iter().filter_map(|dir| match version {
        Version::V1 => {
            let number = |name| files.number(dir.join(name));
            // -1, which is no limit, is no number here.
            Some((number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?))
        }
        Version::V2 => {
            let value = files.value(dir.join("cpu.max"))?;
            let (quota, period) = value.split_once(' ')?;
            Some((quota.parse().ok()?, period.parse().ok()?))
        }
    });
    quotas.filter_map(|(quota, period)| quota.checked_mul(100)?.checked_div(period)).min()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const V1: &str = "11:memory:/user.slice/session 1.scope\n9:cpu,cpuacct:/user.slice\n1:name=systemd:/user.slice\n0::/user.slice\n";
    const V1_MOUNTS: &str = "\
30 23 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/systemd rw,nosuid - cgroup cgroup rw,xattr,name=systemd
36 30 0:32 / /sys/fs/cgroup/memory rw,nosuid,nodev,noexec,relatime shared:16 - cgroup cgroup rw,memory
37 30 0:33 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:17 - cgroup cgroup rw,cpu,cpuacct
38 30 0:34 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";
    const V2: &str = "0::/user.slice/user-1000.slice/session-2.scope\n";
    const V2_MOUNTS: &str = "29 22 0:25 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";
    /// cgroup v1 in a container: the paths are those of the host, and the mounts begin at the container's group.
    const DOCKER: &str = "12:memory:/docker/3f1e\n5:cpu,cpuacct:/docker/3f1e\n";
    const DOCKER_MOUNTS: &str = "1290 1285 0:33 /docker/3f1e /sys/fs/cgroup/memory ro,nosuid,nodev,noexec,relatime master:17 - cgroup cgroup rw,memory\n";

    fn place(version: Version, own: &str, top: &str) -> Place {
        Place { version, own: own.into(), top: top.into() }
    }

    #[test]
    fn group_is_found_in_both_versions_and_in_containers() {
        let memory = |cgroups, mounts| locate(cgroups, mounts, "memory").unwrap();
        let found =
            place(Version::V1, "/sys/fs/cgroup/memory/user.slice/session 1.scope", "/sys/fs/cgroup/memory");
        assert_eq!(memory(V1, V1_MOUNTS), found);
        assert_eq!(
            locate(V1, V1_MOUNTS, "cpu").unwrap(),
            place(Version::V1, "/sys/fs/cgroup/cpu,cpuacct/user.slice", "/sys/fs/cgroup/cpu,cpuacct")
        );
        let own = "/sys/fs/cgroup/user.slice/user-1000.slice/session-2.scope";
        assert_eq!(memory(V2, V2_MOUNTS), place(Version::V2, own, "/sys/fs/cgroup"));
        let top = "/sys/fs/cgroup/memory";
        assert_eq!(memory(DOCKER, DOCKER_MOUNTS), place(Version::V1, top, top));
        assert_eq!(memory("0::/\n", V2_MOUNTS), place(Version::V2, "/sys/fs/cgroup", "/sys/fs/cgroup"));
    }

    #[test]
    fn groups_outside_of_what_is_visible_are_the_topmost_one() {
        for text in ["0::/../../other\n", "0::/a/../../etc\n"] {
            assert_eq!(locate(text, V2_MOUNTS, "memory").unwrap().own, Path::new("/sys/fs/cgroup"));
        }
    }

    #[test]
    fn nonsense_is_unknown() {
        for (cgroups, mounts) in
            [("", V2_MOUNTS), ("x:y\n", V2_MOUNTS), (V2, ""), (V2, "1 2 3\n"), ("0::", "0::")]
        {
            assert_eq!(locate(cgroups, mounts, "memory"), None, "{cgroups:?} {mounts:?}");
        }
    }

    #[test]
    fn lines_that_cannot_be_read_hide_only_themselves() {
        let mounts = format!("cut li\n{V2_MOUNTS}29 22 0:2");
        assert!(locate(V2, &mounts, "memory").is_some());
    }

    fn machine(cgroups: &str, mounts: &str, values: &[(&str, &str)]) -> (tempfile::TempDir, Files) {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("/proc/self/cgroup", cgroups);
        put("/proc/self/mountinfo", mounts);
        for (path, text) in values {
            put(path, text);
        }
        let files = Files::below(dir.path());
        (dir, files)
    }

    #[test]
    fn limit_of_a_group_above_holds_too() {
        let slice = "/sys/fs/cgroup/user.slice";
        let own = format!("{slice}/user-1000.slice/session-2.scope");
        let values = [
            (&*format!("{own}/memory.max"), "max\n"),
            (&*format!("{own}/memory.current"), "1048576\n"),
            (&*format!("{slice}/memory.max"), "67108864\n"),
            (&*format!("{slice}/memory.current"), "60000000\n"),
            (&*format!("{own}/cpu.max"), "150000 100000\n"),
            (&*format!("{slice}/cpu.max"), "max 100000\n"),
        ];
        let (_dir, files) = machine(V2, V2_MOUNTS, &values);
        let expected = Memory { version: Version::V2, limit: Some(64 << 20), used: Some(60_000_000) };
        assert_eq!((memory(&files), cpu_hundredths(&files)), (Some(expected), Some(150)));
    }

    #[test]
    fn version_one_is_unlimited_at_its_largest_number() {
        let dir = "/sys/fs/cgroup/memory";
        let values = [
            (&*format!("{dir}/memory.limit_in_bytes"), "9223372036854771712\n"),
            (&*format!("{dir}/memory.usage_in_bytes"), "4096\n"),
        ];
        let (_dir, files) = machine(DOCKER, DOCKER_MOUNTS, &values);
        assert_eq!(memory(&files), Some(Memory { version: Version::V1, limit: None, used: Some(4096) }));
        assert_eq!(cpu_hundredths(&files), None);
    }

    #[test]
    fn quota_of_version_one_may_be_none() {
        let dir = "/sys/fs/cgroup/cpu,cpuacct/user.slice";
        let at = |quota: &str| {
            let values = [
                (&*format!("{dir}/cpu.cfs_quota_us"), quota),
                (&*format!("{dir}/cpu.cfs_period_us"), "100000\n"),
            ];
            let (_dir, files) = machine(V1, V1_MOUNTS, &values);
            cpu_hundredths(&files)
        };
        assert_eq!((at("-1\n"), at("50000\n")), (None, Some(50)));
    }
}
