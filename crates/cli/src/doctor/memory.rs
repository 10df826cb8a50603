//! Memory: what is free, what the control group leaves, and whether there are huge pages.

use super::{
    cgroup::{self, Memory, Version},
    files::{Files, kib},
    limits::{LARGEST_RING, RING, channel_bytes},
    report::{Check, Family, State},
    text::{bytes, counted},
};

const MEMINFO: &str = "/proc/meminfo";
const SHMEM: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
const POOLS: &str = "/sys/kernel/mm/hugepages";
/// Bytes of the only huge page that `Builder::huge_pages` uses.
const HUGE_PAGE: u64 = 2 << 20;
/// Bytes that the self-test's two processes take, beside the regions of their channel.
const PROCESSES: u64 = 8 << 20;
const TUNING: &str = "docs/tuning.md#memory";
const TOO_LARGE: &str = "docs/guide.md#at-most--bytes-the-machines-memory-and-swap-expected--found";

fn check(name: &'static str, found: impl Into<String>) -> Check {
    Check::new(Family::Memory, name, found)
}

/// All checks of this family.
pub(super) fn checks(files: &Files, add: &mut dyn FnMut(Check)) {
    let meminfo = files.text(MEMINFO);
    add(judge_free(meminfo.as_deref()));
    add(judge_overcommit(files.number("/proc/sys/vm/overcommit_memory"), meminfo.as_deref()));
    add(judge_group(cgroup::memory(files).as_ref()));
    add(judge_shmem(files.value(SHMEM).as_deref()));
    add(pools(files));
}

/// The reason for which the self-test would be ended by the OOM killer, and this process with it; `None` if there is room.
pub(super) fn too_small(files: &Files) -> Option<String> {
    let group = cgroup::memory(files).and_then(|memory| memory.limit);
    let meminfo = files.text(MEMINFO).unwrap_or_default();
    let free = kib(&meminfo, "MemAvailable").or_else(|| kib(&meminfo, "MemFree"));
    let needed = channel_bytes() + PROCESSES;
    let (least, of) = [(group, "the cgroup's limit"), (free, "free memory")]
        .into_iter()
        .filter_map(|(bytes, of)| Some((bytes?, of)))
        .min()?;
    (least < needed).then(|| {
        format!(
            "{of} is {}, and the OOM killer would end this process: {} expected",
            bytes(least),
            bytes(needed)
        )
    })
}

/// The state for memory of which so much is left: a channel with default settings, and the largest ring that they accept.
fn state_of(left: u64) -> State {
    match left {
        left if left < channel_bytes() => State::Error,
        left if left < LARGEST_RING => State::Warning,
        _ => State::Ok,
    }
}

fn judge_free(meminfo: Option<&str>) -> Check {
    const NAME: &str = "free memory";
    let values = meminfo.and_then(|text| {
        // `MemAvailable` came with Linux 3.14, and some containers leave it out.
        let free = kib(text, "MemAvailable").or_else(|| kib(text, "MemFree"))?;
        Some((free, kib(text, "MemTotal")?, kib(text, "SwapTotal").unwrap_or(0)))
    });
    let check = match values {
        None => Check::unknown(Family::Memory, NAME, MEMINFO),
        Some((free, total, swap)) => {
            check(NAME, format!("{} of {}, and {} of swap", bytes(free), bytes(total), bytes(swap)))
                .state(state_of(free))
                .value("available", free)
                .value("total", total)
                .value("swap", swap)
        }
    };
    check
        .limits(
            "rings: each is allocated as a whole when its channel is made, and one beyond memory and swap is an \
             Error::Io; where memory is merely used up, the OOM killer ends a process",
        )
        .change("Builder::ring_capacity, with Builder::ring_for(payload, kept)")
        .more(TOO_LARGE)
}

fn judge_overcommit(mode: Option<u64>, meminfo: Option<&str>) -> Check {
    const NAME: &str = "vm.overcommit_memory";
    let left = meminfo.and_then(|text| kib(text, "CommitLimit")?.checked_sub(kib(text, "Committed_AS")?));
    let check = match (mode, left) {
        (Some(2), Some(left)) => {
            check(NAME, format!("2: strict, {} left", bytes(left))).state(state_of(left).max(State::Note))
        }
        (Some(2), None) => check(NAME, "2: strict").state(State::Note),
        (Some(mode), _) => check(NAME, format!("{mode}: not strict")),
        (None, _) => Check::unknown(Family::Memory, NAME, "/proc/sys/vm/overcommit_memory"),
    };
    check
        .limits("at 2, rings count against CommitLimit (/proc/meminfo): fallocate fails with ENOMEM")
        .change("sysctl vm.overcommit_memory=0")
        .more(TUNING)
        .value("mode", mode)
}

fn judge_group(memory: Option<&Memory>) -> Check {
    const NAME: &str = "cgroup memory";
    let check = match memory {
        None => Check::unknown(Family::Memory, NAME, "the group in /proc/self/cgroup or /sys/fs/cgroup"),
        Some(memory) => judge_known_group(memory),
    };
    check
        .limits(
            "rings: they count for the group of the process that made them, until the peer has ended; beyond the \
             limit the OOM killer ends a process of the group",
        )
        .more(TOO_LARGE)
}

fn judge_known_group(&Memory { version, limit, used }: &Memory) -> Check {
    let (name, change) = match version {
        Version::V1 => {
            ("cgroup v1", "the limit in the container's settings; memory.limit_in_bytes of the group")
        }
        Version::V2 => {
            ("cgroup v2", "systemctl set-property UNIT MemoryMax=…; docker run --memory=…; memory.max")
        }
    };
    let in_use = used.map_or_else(String::new, |used| format!(", {} in use", bytes(used)));
    let (state, found) = match limit {
        None => (State::Ok, format!("{name}, no limit{in_use}")),
        // The kernel's copies of files count as in use, and are freed when a ring needs room: no error.
        Some(limit) => {
            let left = state_of(limit.saturating_sub(used.unwrap_or(0))).min(State::Warning);
            let state = if limit < channel_bytes() { State::Error } else { left };
            (state, format!("{name}, limit {}{in_use}", bytes(limit)))
        }
    };
    check("cgroup memory", found).state(state).change(change).value("limit", limit).value("used", used)
}

/// The word in brackets, of a list such as `always within_size advise [never] deny force`.
fn chosen(list: &str) -> Option<&str> {
    Some(list.split_once('[')?.1.split_once(']')?.0)
}

fn judge_shmem(list: Option<&str>) -> Check {
    const NAME: &str = "shmem huge pages";
    let word = list.and_then(chosen);
    let check = match word {
        Some(word @ ("advise" | "within_size" | "always" | "force")) => check(NAME, word),
        Some(word) => check(NAME, word).state(State::Note),
        None => Check::unknown(Family::Memory, NAME, SHMEM),
    };
    check
        .limits(
            "speed: with advise, streams of 64 KiB to 8 MiB payloads were 8 to 13 % faster, and a pair of 4 MiB took \
             0.72 ms instead of 2.3 ms",
        )
        .change(format!("echo advise > {SHMEM}"))
        .more(TUNING)
        .value("chosen", word)
}

fn pools(files: &Files) -> Check {
    let mut pools = Vec::new();
    for name in files.names(POOLS) {
        let size = name.strip_prefix("hugepages-").and_then(|size| size.strip_suffix("kB"));
        let Some(size) = size.and_then(|size| size.parse::<u64>().ok()?.checked_mul(1024)) else { continue };
        let count = |file| files.number(format!("{POOLS}/{name}/{file}")).unwrap_or(0);
        // Reserved pages are promised to a mapping; surplus ones are made when they are asked for.
        let surplus = count("nr_overcommit_hugepages").saturating_sub(count("surplus_hugepages"));
        let free = count("free_hugepages").saturating_sub(count("resv_hugepages")).saturating_add(surplus);
        pools.push((size, free));
    }
    judge_pools(files.exists(POOLS).then_some(&*pools))
}

fn judge_pools(pools: Option<&[(u64, u64)]>) -> Check {
    const NAME: &str = "hugetlb pools";
    // A ring with default settings, and its control page.
    let needed = RING / HUGE_PAGE + 1;
    let check = match pools {
        None => Check::unknown(Family::Memory, NAME, POOLS),
        Some([]) => check(NAME, "none: this kernel has no huge pages").state(State::Note),
        Some(pools) => {
            let free = pools.iter().find(|(size, _)| *size == HUGE_PAGE).map_or(0, |(_, free)| *free);
            let state = if free < needed { State::Note } else { State::Ok };
            let in_words =
                |(size, free): &(u64, u64)| format!("{} free of {}", counted(*free, "page"), bytes(*size));
            let found: Vec<_> = pools.iter().map(in_words).collect();
            check(NAME, found.join(", ")).state(state).value("free_2mib", free)
        }
    };
    check
        .limits(format!(
            "Builder::huge_pages(true) alone: it takes pages of 2 MiB, {needed} for a ring with default settings on \
             each side, and fails where they are not free"
        ))
        .change(format!("sysctl vm.nr_hugepages={}", 2 * needed))
        .more("docs/guide.md#fallocate-of-huge-pages-vmnr_hugepages")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Linux 6.8.
    const MEMINFO: &str = "MemTotal:       16303428 kB\nMemFree:          512000 kB\nMemAvailable:    8123456 kB\nSwapTotal:       2097148 kB\nCommitLimit:    10248860 kB\nCommitted_AS:    9248860 kB\nHugePages_Total:       0\n";
    /// gVisor, and Linux before 3.14: no `MemAvailable`.
    const OLD: &str = "MemTotal:        2097152 kB\nMemFree:           20480 kB\n";

    #[test]
    fn free_memory_is_what_is_available() {
        let check = judge_free(Some(MEMINFO));
        assert_eq!((check.state, check.values["available"].as_u64()), (State::Ok, Some(8_123_456 << 10)));
        let check = judge_free(Some(OLD));
        assert_eq!((check.state, &*check.found), (State::Warning, "20 MiB of 2 GiB, and 0 bytes of swap"));
        assert_eq!((judge_free(None).state, judge_free(Some("x")).state), (State::Unknown, State::Unknown));
    }

    #[test]
    fn strict_overcommit_is_judged_by_what_is_left() {
        let state = |mode, text| judge_overcommit(Some(mode), Some(text)).state;
        let full = "CommitLimit: 1000000 kB\nCommitted_AS: 999000 kB\n";
        assert_eq!(
            [state(0, full), state(1, full), state(2, MEMINFO), state(2, full)],
            [State::Ok, State::Ok, State::Note, State::Error]
        );
        assert_eq!(judge_overcommit(None, None).state, State::Unknown);
    }

    #[test]
    fn groups_are_judged_by_what_they_leave() {
        let state = |limit, used| {
            let memory = Memory { version: Version::V2, limit: Some(limit), used: Some(used) };
            judge_group(Some(&memory)).state
        };
        assert_eq!(
            [state(4 << 20, 0), state(512 << 20, 511 << 20), state(2 << 30, 1 << 30)],
            [State::Error, State::Warning, State::Ok]
        );
        let unlimited = Memory { version: Version::V1, limit: None, used: Some(1 << 20) };
        assert_eq!(
            (judge_group(Some(&unlimited)).found.as_str(), judge_group(None).state),
            ("cgroup v1, no limit, 1 MiB in use", State::Unknown)
        );
    }

    #[test]
    fn self_test_is_not_tried_where_it_would_be_killed() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::below(dir.path());
        assert_eq!(too_small(&files), None);
        std::fs::create_dir(dir.path().join("proc")).unwrap();
        let at = |free: u64| {
            std::fs::write(dir.path().join("proc/meminfo"), format!("MemFree: {free} kB\n")).unwrap();
            too_small(&files)
        };
        assert!(at(8 << 10).unwrap().starts_with("free memory is 8 MiB, and the OOM killer"));
        assert_eq!(at(17 << 10), None);
    }

    #[test]
    fn word_in_brackets_is_the_one_that_holds() {
        let state = |list| judge_shmem(Some(list)).state;
        assert_eq!(state("always within_size advise [never] deny force"), State::Note);
        assert_eq!(state("always within_size [advise] never deny force"), State::Ok);
        assert_eq!(state("always within_size advise never [deny] force"), State::Note);
        assert_eq!([state(""), state("["), state("never"), judge_shmem(None).state], [State::Unknown; 4]);
    }

    #[test]
    fn huge_pages_of_two_mebibytes_count() {
        assert_eq!(
            (judge_pools(Some(&[])).state, judge_pools(Some(&[(1 << 30, 9)])).state),
            (State::Note, State::Note)
        );
        assert_eq!(
            (judge_pools(Some(&[(2 << 20, 2)])).state, judge_pools(Some(&[(2 << 20, 3)])).state),
            (State::Note, State::Ok)
        );
    }

    #[test]
    fn reserved_huge_pages_are_not_free() {
        let dir = tempfile::tempdir().unwrap();
        let pool = dir.path().join("sys/kernel/mm/hugepages/hugepages-2048kB");
        std::fs::create_dir_all(&pool).unwrap();
        std::fs::create_dir_all(pool.with_file_name("other")).unwrap();
        for (name, value) in
            [("free_hugepages", "8\n"), ("resv_hugepages", "7\n"), ("nr_overcommit_hugepages", "1\n")]
        {
            std::fs::write(pool.join(name), value).unwrap();
        }
        assert_eq!(pools(&Files::below(dir.path())).found, "2 pages free of 2 MiB");
    }
}
