//! Signals as the tests themselves have inherited them.

use std::fs;

use rustix::process::Signal;

/// Whether whoever has started the tests ignores a signal, as nohup(1) and a shell's `&` do: what is started here goes on ignoring it. The
/// test that asks says that it leaves the signal out.
pub(crate) fn is_ignored(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
    let is_ignored = u64::from_str_radix(ignored, 16).unwrap() >> (signal.as_raw() - 1) & 1 == 1;
    if is_ignored {
        eprintln!("SKIPPED: {signal:?} is ignored by whatever has started the tests");
    }
    is_ignored
}
