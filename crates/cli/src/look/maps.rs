//! Regions among the lines of `/proc/PID/maps` (`proc_pid_maps(5)`).

use std::collections::HashSet;

use memchr::memmem;
use rustix::fs::{Dev, major, minor};

/// The name that sealane gives its memfds. The name alone proves nothing: any program can take it.
pub(super) const NAME: &[u8] = b"/memfd:sealane (deleted)";

/// A file of this machine: its device and its number there, which all that have mapped it share, in any namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileId {
    device: (u32, u32),
    pub(crate) inode: u64,
}

/// A region's mapping in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) start: u64,
    /// Bytes.
    pub(crate) len: u64,
    pub(crate) writable: bool,
    pub(crate) file: FileId,
}

/// The mappings of regions in the text of a `maps`. `devices` are those of memfds of our own: a file elsewhere is none.
///
/// A region is mapped from its first byte on. Mappings that begin elsewhere, or are not shared, are not of sealane's making. A second
/// mapping of a file with the same rights says nothing new.
pub(super) fn regions(text: &[u8], devices: &[Dev]) -> Vec<Mapping> {
    let (mut found, mut known) = (Vec::new(), HashSet::new());
    for at in memmem::find_iter(text, NAME) {
        // A name with a line's end in it is escaped by the kernel, so that lines are lines.
        let line = memchr::memrchr(b'\n', &text[..at]).map_or(0, |end| end + 1);
        let end = at + NAME.len();
        let ends_there = text.get(end).is_none_or(|byte| *byte == b'\n');
        if let (true, Some(mapping)) = (ends_there, parse(&text[line..at], devices))
            && known.insert((mapping.file, mapping.writable))
        {
            found.push(mapping);
        }
    }
    found
}

/// The fields of a line before its name: `start-end perms offset major:minor inode`, all but the last in hexadecimal.
fn parse(fields: &[u8], devices: &[Dev]) -> Option<Mapping> {
    let fields = std::str::from_utf8(fields).ok()?;
    let mut fields = fields.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let (start, end) = (hex(start)?, hex(end)?);
    let permissions = fields.next()?.as_bytes();
    let offset = hex(fields.next()?)?;
    let (high, low) = fields.next()?.split_once(':')?;
    let device = (u32::from_str_radix(high, 16).ok()?, u32::from_str_radix(low, 16).ok()?);
    let inode = fields.next()?.parse().ok()?;
    let is_ours = devices.iter().any(|dev| (major(*dev), minor(*dev)) == device);
    let is_shared = permissions.first() == Some(&b'r') && permissions.get(3) == Some(&b's');
    if !is_ours || !is_shared || offset != 0 || fields.next().is_some() {
        return None;
    }
    let writable = permissions.get(1) == Some(&b'w');
    Some(Mapping { start, len: end.checked_sub(start)?, writable, file: FileId { device, inode } })
}

#[cfg(test)]
mod tests {
    use rustix::fs::makedev;

    use super::*;

    #[test]
    fn regions_are_found_by_name_device_offset_and_sharing() {
        let dev = makedev(0, 1);
        let good = "7f12a0000000-7f12a0401000 rw-s 00000000 00:01 5134 ";
        let name = "/memfd:sealane (deleted)\n";
        let others = [
            format!("{good}/memfd:other (deleted)\n"),
            format!("{good}/memfd:sealane (deleted) (deleted)\n"),
            format!("{good}/tmp/memfd:sealane (deleted)\n"),
            format!("{}{name}", good.replace("00:01", "08:01")),
            format!("{}{name}", good.replace("00000000 ", "00001000 ")),
            format!("{}{name}", good.replace("rw-s", "rw-p")),
            format!("{}{name}", good.replace("7f12a0401000", "zz")),
            format!("{}{name}", good.replace("7f12a0401000", "7f1200000000")),
            name.to_owned(),
        ];
        for other in &others {
            assert_eq!(regions(other.as_bytes(), &[dev]), [], "{other}");
        }
        let text = format!("{}{good}{name}{}", others.concat(), good.replace("rw-s", "r--s") + name);
        let found = regions(text.as_bytes(), &[dev]);
        let file = FileId { device: (0, 1), inode: 5134 };
        let mapping = Mapping { start: 0x7f12_a000_0000, len: 0x40_1000, writable: true, file };
        assert_eq!(found, [mapping, Mapping { writable: false, ..mapping }]);
        // The text may be cut anywhere.
        for cut in 0..text.len() {
            assert!(regions(&text.as_bytes()[..cut], &[dev]).len() <= 2);
        }
    }
}
