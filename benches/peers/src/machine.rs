//! [`Machine`]: what the figures depend on beside the transports, as the kernel tells it.

use std::{fmt::Write as _, fs};

use serde::{Deserialize, Serialize};

use crate::{cell::Side, size};

const FIRST_CPU: usize = Side::First.cpu();
const SECOND_CPU: usize = Side::Second.cpu();

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    processor: String,
    cpus: usize,
    is_virtual: bool,
    /// The data caches of the CPU of the first process, such as `L2 2 MiB, one each`.
    caches: Vec<String>,
    kernel: String,
    governor: Option<String>,
    /// Whether shared memory is made of huge pages (`transparent_hugepage/shmem_enabled`).
    huge_pages: Option<String>,
}

/// A file's text without the line's end.
fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// The value of a name in `/proc/cpuinfo`, for the CPU that is listed first.
fn field<'a>(cpuinfo: &'a str, name: &str) -> Option<&'a str> {
    let pairs = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    pairs
        .map(|(key, value)| (key.trim(), value.trim()))
        .find_map(|(key, value)| (key == name).then_some(value))
}

fn caches(is_one_core: bool) -> Vec<String> {
    let file = |cpu: usize, index, name| {
        read(&format!("/sys/devices/system/cpu/cpu{cpu}/cache/index{index}/{name}"))
    };
    let describe = |index| {
        let level = file(FIRST_CPU, index, "level")?;
        let bytes = size::parse(&file(FIRST_CPU, index, "size")?).ok()?;
        let is_shared = || {
            Some(file(FIRST_CPU, index, "shared_cpu_list")? == file(SECOND_CPU, index, "shared_cpu_list")?)
        };
        let sharing = match is_shared() {
            _ if is_one_core => "",
            Some(true) => ", shared by both",
            Some(false) => ", one each",
            None => ", perhaps shared",
        };
        Some(format!("L{level} {}{sharing}", size::show(bytes)))
    };
    // The kernel numbers the caches of a CPU without a gap.
    let indices = (0..).take_while(|index| file(FIRST_CPU, *index, "level").is_some());
    let of_data =
        indices.filter(|index| file(FIRST_CPU, *index, "type").is_some_and(|kind| kind != "Instruction"));
    of_data.filter_map(describe).collect()
}

impl Machine {
    pub(crate) fn read(is_one_core: bool) -> Self {
        let cpuinfo = read("/proc/cpuinfo").unwrap_or_default();
        let chosen = |path| {
            let choices = read(path)?;
            let (_, chosen) = choices.split_once('[')?;
            Some(chosen.split_once(']')?.0.to_owned())
        };
        Self {
            processor: field(&cpuinfo, "model name").unwrap_or("unknown").to_owned(),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            is_virtual: field(&cpuinfo, "flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            caches: caches(is_one_core),
            kernel: read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".into()),
            governor: read(&format!("/sys/devices/system/cpu/cpu{FIRST_CPU}/cpufreq/scaling_governor")),
            huge_pages: chosen("/sys/kernel/mm/transparent_hugepage/shmem_enabled"),
        }
    }

    /// The name of the processor's model.
    pub(crate) fn processor(&self) -> &str {
        &self.processor
    }

    /// A list in Markdown.
    pub(crate) fn list(&self) -> String {
        let virtual_or_not = if self.is_virtual { ", virtual" } else { "" };
        let mut list = format!("- CPU: {}; {} CPUs{virtual_or_not}\n", self.processor, self.cpus);
        let _ = writeln!(list, "- data caches of the CPUs used: {}", self.caches.join("; "));
        let _ = writeln!(list, "- kernel: Linux {}", self.kernel);
        if let Some(governor) = &self.governor {
            let _ = writeln!(list, "- frequency governor: {governor}");
        }
        if let Some(setting) = &self.huge_pages {
            let _ = writeln!(list, "- huge pages for shared memory: {setting}");
        }
        list
    }
}
