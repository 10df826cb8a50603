//! [`Files`]: what `/proc` and `/sys` say.
//!
//! A file that is missing, unreadable or longer than expected is no error: a container may have any of them, or neither
//! file system. Every read is bounded, and text loses its control characters before anybody prints it.

use std::{
    fs::{self, File, OpenOptions},
    io::Read,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

/// Bytes that are read of a file. The list of mounts of a busy host has some 100 KiB.
const MAX_BYTES: u64 = 1 << 20;
/// Entries that are read of a directory.
const MAX_ENTRIES: usize = 1024;
/// Characters of a single value that are kept.
const MAX_VALUE: usize = 120;

/// The files of a machine, below a root that tests choose.
#[derive(Debug, Clone)]
pub(super) struct Files {
    root: PathBuf,
}

impl Files {
    /// The files below `root`.
    pub(super) fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn path(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn open(&self, path: &Path) -> Option<File> {
        // A pipe or a terminal that somebody has put in the place of a file does not block.
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let flags = i32::try_from(flags.bits()).ok()?;
        OpenOptions::new().read(true).custom_flags(flags).open(self.path(path)).ok()
    }

    /// The start of a text file, with replacement characters for bytes that are no UTF-8.
    pub(super) fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let mut bytes = Vec::new();
        self.open(path.as_ref())?.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The value in a file of one line.
    pub(super) fn value(&self, path: impl AsRef<Path>) -> Option<String> {
        Some(printable(self.text(path)?.trim()))
    }

    /// The number in a file of one line.
    pub(super) fn number(&self, path: impl AsRef<Path>) -> Option<u64> {
        self.value(path)?.parse().ok()
    }

    /// True if there is such a file or directory.
    pub(super) fn exists(&self, path: impl AsRef<Path>) -> bool {
        fs::symlink_metadata(self.path(path.as_ref())).is_ok()
    }

    /// The names in a directory, sorted.
    pub(super) fn names(&self, path: impl AsRef<Path>) -> Vec<String> {
        let entries = fs::read_dir(self.path(path.as_ref())).into_iter().flatten().take(MAX_ENTRIES);
        let mut names: Vec<_> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }
}

/// The value of a key in lines such as `MemAvailable:  24222244 kB` or `model name : …`.
pub(super) fn field<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim())
    })
}

/// Bytes of a value in KiB, in lines such as `MemAvailable:  24222244 kB`.
pub(super) fn kib(text: &str, key: &str) -> Option<u64> {
    let number = field(text, key)?.strip_suffix("kB")?;
    number.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Text that cannot steer a terminal, of bounded length.
pub(super) fn printable(text: &str) -> String {
    let shown = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c });
    let mut shown: String = shown.take(MAX_VALUE + 1).collect();
    if shown.chars().count() > MAX_VALUE {
        shown.pop();
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_missing_are_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::below(dir.path());
        assert_eq!((files.text("/proc/meminfo"), files.number("/proc/x")), (None, None));
        assert!(!files.exists("/sys") && files.names("/sys").is_empty());
    }

    #[test]
    fn pipe_in_the_place_of_a_file_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        assert_eq!(Files::below(dir.path()).text("/fifo").unwrap_or_default(), "");
    }

    #[test]
    fn long_files_are_cut_and_odd_bytes_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("long"), vec![b'x'; 3 << 20]).unwrap();
        fs::write(dir.path().join("odd"), b"a\x1b[31m\xff\n").unwrap();
        let files = Files::below(dir.path());
        assert_eq!(files.text("/long").unwrap().len(), 1 << 20);
        assert_eq!(files.value("/long").unwrap().chars().count(), 121);
        assert_eq!(files.value("/odd").unwrap(), "a\u{fffd}[31m\u{fffd}");
    }

    #[test]
    fn values_are_found_by_their_whole_key() {
        let text =
            "MemTotal:       24684092 kB\nMemFree:        23475048 kB\nHugePages_Total:       0\nOdd\n";
        assert_eq!(kib(text, "MemFree"), Some(23_475_048 * 1024));
        assert_eq!(field(text, "HugePages_Total"), Some("0"));
        assert_eq!(
            (kib(text, "Mem"), kib(text, "HugePages_Total"), kib("A: 99999999999999999999 kB", "A")),
            (None, None, None)
        );
    }
}
