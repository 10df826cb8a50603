//! The processors: how many this process may use, and what makes figures differ from those of the documentation.

use rustix::thread::sched_getaffinity;

use super::{
    cgroup,
    files::{Files, field},
    report::{Check, Family, State},
    text::counted,
};

const CPUS: &str = "/sys/devices/system/cpu";
const CLOCK: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
const WAITING: &str = "docs/tuning.md#waiting";
const METHOD: &str = "docs/benchmarks.md#the-method";
/// Clocks that are read without a system call (`vdso(7)`).
const FAST_CLOCKS: [&str; 6] =
    ["tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "riscv_clocksource", "timebase"];

fn check(name: &'static str, found: impl Into<String>) -> Check {
    Check::new(Family::Processors, name, found)
}

/// CPUs on which this process may run; `None` where the kernel has more of them than can be asked for.
pub(super) fn usable() -> Option<u32> {
    sched_getaffinity(None).ok().map(|cpus| cpus.count())
}

/// The processor's name, by which figures are compared.
pub(super) fn name(files: &Files) -> String {
    let info = files.text("/proc/cpuinfo").unwrap_or_default();
    // `model name` on x86, `cpu` on POWER, `Model` on some ARM boards.
    let name = ["model name", "cpu model", "cpu", "Model"].iter().find_map(|key| field(&info, key));
    let board =
        || files.value("/proc/device-tree/model").map(|name| name.trim_end_matches('\u{fffd}').to_owned());
    name.map(super::files::printable).or_else(board).unwrap_or_else(|| "unknown CPU".to_owned())
}

/// All checks of this family.
pub(super) fn checks(files: &Files, add: &mut dyn FnMut(Check)) {
    add(judge_count(usable(), files.value(format!("{CPUS}/online")).as_deref().and_then(count)));
    add(judge_isolated(files.value(format!("{CPUS}/isolated")).as_deref()));
    add(judge_quota(cgroup::cpu_hundredths(files)));
    add(judge_clock(files.value(CLOCK).as_deref()));
    add(judge_threads(files.value(format!("{CPUS}/smt/active")).as_deref()));
    add(judge_machine(
        files.text("/proc/cpuinfo").as_deref(),
        files.value("/sys/class/dmi/id/product_name").as_deref(),
    ));
    add(judge_governor(files));
}

/// The number of CPUs in a list such as `0-3,8`.
fn count(list: &str) -> Option<u32> {
    let mut ranges = list.split(',').filter(|range| !range.is_empty()).map(|range| {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (from, to): (u32, u32) = (from.parse().ok()?, to.parse().ok()?);
        to.checked_sub(from)?.checked_add(1)
    });
    ranges.try_fold(0_u32, |sum, count| sum.checked_add(count?))
}

fn judge_count(usable: Option<u32>, online: Option<u32>) -> Check {
    const NAME: &str = "CPUs";
    let of_online = online.map_or_else(String::new, |online| format!(" of {online} online"));
    let found = |usable: u32| format!("{}{of_online} for this process", counted(usable.into(), "CPU"));
    let check = match (usable, online) {
        (None, _) => Check::unknown(Family::Processors, NAME, "sched_getaffinity(2)"),
        (Some(usable @ 0..=1), Some(2..)) => check(NAME, found(usable))
            .state(State::Warning)
            .change("taskset --cpu-list --pid 0-1 PID, or CPUAffinity= of the service"),
        (Some(usable @ 0..=1), _) => check(NAME, found(usable)).state(State::Warning),
        (Some(usable), _) => check(NAME, found(usable)),
    };
    check
        .limits(
            "spinning: on one CPU a peer cannot run while the other spins, so each round trip costs two wake-ups; \
             Wait::Adaptive does not spin there, and Wait::Spin must not be used",
        )
        .more(WAITING)
        .value("usable", usable)
        .value("online", online)
}

fn judge_isolated(list: Option<&str>) -> Check {
    const NAME: &str = "isolated CPUs";
    match list.and_then(count) {
        Some(0) => check(NAME, "none"),
        Some(count) => check(NAME, counted(count.into(), "CPU")).state(State::Note),
        None => Check::unknown(Family::Processors, NAME, "/sys/devices/system/cpu/isolated"),
    }
    .limits("Wait::Spin: it is right where each end has an isolated CPU of its own (taskset); the scheduler puts nothing there by itself")
    .more(WAITING)
}

fn judge_quota(hundredths: Option<u64>) -> Check {
    const NAME: &str = "cgroup CPU time";
    let check = match hundredths {
        None => check(NAME, "no limit is known"),
        Some(quota) => {
            let state = if quota < 200 { State::Warning } else { State::Ok };
            check(NAME, format!("{}.{:02} CPUs", quota / 100, quota % 100))
                .state(state)
                .change("docker run --cpus=2; systemctl set-property UNIT CPUQuota=200%; cpu.max")
        }
    };
    check
        .limits("spinning: two ends that spin use two CPUs' time; below that the group is stopped for tens of milliseconds: Wait::Block")
        .more(WAITING)
        .value("hundredths", hundredths)
}

fn judge_clock(clock: Option<&str>) -> Check {
    const NAME: &str = "clock";
    let check = match clock {
        Some(clock) if FAST_CLOCKS.contains(&clock) => check(NAME, clock),
        Some(clock) => check(NAME, clock).state(State::Warning),
        None => Check::unknown(Family::Processors, NAME, CLOCK),
    };
    check
        .limits("every wait: it reads the clock, which is a system call with other clocks than tsc and its like (hpet, acpi_pm: some µs)")
        .change(format!("echo tsc > {CLOCK}"))
        .more("docs/sandbox.md#a-channel")
}

fn judge_threads(active: Option<&str>) -> Check {
    const NAME: &str = "SMT";
    match active {
        Some("0") => check(NAME, "off, or none"),
        Some("1") => check(NAME, "on: two hardware threads share a core").state(State::Note),
        _ => Check::unknown(Family::Processors, NAME, "/sys/devices/system/cpu/smt/active"),
    }
    .limits("figures: two ends on one core share its caches, which shortens round trips, and its units, which slows streams")
    .change("taskset --cpu-list, with CPUs of different cores (lscpu --extended)")
    .more(METHOD)
}

fn judge_machine(cpuinfo: Option<&str>, product: Option<&str>) -> Check {
    const NAME: &str = "virtual machine";
    let flags = cpuinfo.and_then(|text| field(text, "flags"));
    let is_virtual = flags.is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "hypervisor"));
    let product = product.map_or_else(String::new, |product| format!(" ({product})"));
    match (is_virtual, flags) {
        (true, _) => check(NAME, format!("yes{product}")).state(State::Note),
        (false, Some(_)) => check(NAME, format!("no{product}")),
        (false, None) => Check::unknown(Family::Processors, NAME, "/proc/cpuinfo"),
    }
    .limits("figures: virtual CPUs move, and a cache line then takes 0.2 to more than 0.6 µs from one to the other and back")
    .more(METHOD)
}

fn judge_governor(files: &Files) -> Check {
    const NAME: &str = "frequency governor";
    match files.value(format!("{CPUS}/cpu0/cpufreq/scaling_governor")).as_deref() {
        Some("performance") => check(NAME, "performance"),
        Some(other) => check(NAME, other).state(State::Note).change("cpupower frequency-set --governor performance"),
        None if files.exists(CPUS) => check(NAME, "none: the kernel does not set frequencies here"),
        None => Check::unknown(Family::Processors, NAME, CPUS),
    }
    .limits("figures: a CPU that has slept is slow at first, so that the first messages after a pause take longer")
    .more(METHOD)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn lists_of_cpus_are_counted() {
        let lists = [("0-1", 2), ("0", 1), ("0-3,8,10-11", 7), ("", 0), ("0-127", 128)];
        for (list, expected) in lists {
            assert_eq!(count(list), Some(expected), "{list}");
        }
        assert_eq!(
            [
                count("a"),
                count("3-1"),
                count("0-4294967295"),
                count("0-4294967294,0-4294967294"),
                count("1-")
            ],
            [None; 5]
        );
    }

    #[test]
    fn single_cpu_is_a_warning() {
        let state = |usable, online| judge_count(usable, online).state;
        assert_eq!([state(Some(1), Some(8)), state(Some(1), None)], [State::Warning; 2]);
        assert_eq!((state(Some(2), Some(8)), state(None, None)), (State::Ok, State::Unknown));
        assert!(
            judge_count(Some(1), Some(1)).change.is_none(),
            "a machine with one CPU cannot be given a second"
        );
        assert_eq!((judge_quota(Some(150)).state, judge_quota(Some(200)).state), (State::Warning, State::Ok));
        assert_eq!(judge_quota(Some(105)).found, "1.05 CPUs");
    }

    #[test]
    fn machine_is_told_by_its_flags() {
        let state = |text| judge_machine(text, None).state;
        assert_eq!(state(Some("processor\t: 0\nflags\t\t: fpu hypervisor lahf_lm\n")), State::Note);
        assert_eq!(state(Some("processor\t: 0\nflags\t\t: fpu vme\n")), State::Ok);
        // ARM has `Features`, and says nothing about it.
        assert_eq!((state(Some("Features\t: fp asimd\n")), state(None)), (State::Unknown, State::Unknown));
    }

    #[test]
    fn processor_has_a_name_on_several_architectures() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::below(dir.path());
        assert_eq!(name(&files), "unknown CPU");
        fs::create_dir_all(dir.path().join("proc/device-tree")).unwrap();
        let at = |text: &str| {
            fs::write(dir.path().join("proc/cpuinfo"), text).unwrap();
            name(&files)
        };
        assert_eq!(
            at("processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Processor\n"),
            "Intel(R) Xeon(R) Processor"
        );
        assert_eq!(at("processor\t: 0\ncpu\t\t: POWER9\n"), "POWER9");
        fs::write(dir.path().join("proc/device-tree/model"), "Raspberry Pi 5 Model B Rev 1.0\0").unwrap();
        assert_eq!(at("processor\t: 0\nBogoMIPS\t: 108.00\n"), "Raspberry Pi 5 Model B Rev 1.0");
    }

    #[test]
    fn slow_clocks_are_warnings() {
        assert_eq!(
            (judge_clock(Some("tsc")).state, judge_clock(Some("hpet")).state),
            (State::Ok, State::Warning)
        );
        assert_eq!(
            (judge_threads(Some("1")).state, judge_threads(None).state),
            (State::Note, State::Unknown)
        );
    }

    #[test]
    fn governor_may_be_missing() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::below(dir.path());
        assert_eq!(judge_governor(&files).state, State::Unknown);
        let path = dir.path().join("sys/devices/system/cpu/cpu0/cpufreq");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        assert_eq!(judge_governor(&files).state, State::Ok);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("scaling_governor"), "powersave\n").unwrap();
        assert_eq!(judge_governor(&files).state, State::Note);
    }
}
