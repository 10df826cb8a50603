//! [`Files`]: the files of a recording that have ended. With a limit they are a ring: the oldest is deleted when there are more.

use std::{
    collections::VecDeque,
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use bytesize::ByteSize;
use serde::Serialize;

use crate::record::output::Contents;

/// A file that has ended.
#[derive(Debug, Serialize)]
struct FileReport {
    #[serde(serialize_with = "crate::output::path")]
    path: PathBuf,
    bytes: u64,
    messages: u64,
    #[serde(skip)]
    identity: Identity,
}

/// The file that has a name: another one may get it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity(Option<(u64, u64)>);

impl Identity {
    pub(crate) fn of(file: &File) -> Self {
        Self::new(file.metadata())
    }

    fn new(metadata: std::io::Result<fs::Metadata>) -> Self {
        Self(metadata.ok().filter(fs::Metadata::is_file).map(|file| (file.dev(), file.ino())))
    }

    /// Whether the name still leads to it.
    fn is_at(self, path: &Path) -> bool {
        self.0.is_some() && self == Self::new(path.symlink_metadata())
    }
}

/// The files that are kept, and counts of those that are not.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Files {
    #[serde(rename = "files")]
    kept: VecDeque<FileReport>,
    #[serde(rename = "deleted_files")]
    deleted: u64,
    deleted_messages: u64,
}

impl Files {
    pub(crate) fn push(&mut self, path: PathBuf, contents: &Contents, identity: Identity) {
        let (bytes, messages) = (contents.bytes, contents.tally.messages);
        self.kept.push_back(FileReport { path, bytes, messages, identity });
    }

    /// Deletes the oldest ones until there are at most so many. A name that leads to another file by now is left alone.
    pub(crate) fn keep(&mut self, most: usize) -> Result<()> {
        while self.kept.len() > most
            && let Some(oldest) = self.kept.pop_front()
        {
            if oldest.identity.is_at(&oldest.path) {
                fs::remove_file(&oldest.path)
                    .with_context(|| format!("delete {} (--keep)", oldest.path.display()))?;
            }
            self.deleted += 1;
            self.deleted_messages = self.deleted_messages.saturating_add(oldest.messages);
        }
        Ok(())
    }

    /// The lines that tell a person: the first file, the last, and how many are between.
    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |file: &FileReport| {
            format!("{}: {} messages, {}", file.path.display(), file.messages, ByteSize(file.bytes))
        };
        let mut lines = Vec::new();
        if self.deleted > 0 {
            lines.push(format!(
                "{} older files with {} messages were deleted (--keep)",
                self.deleted, self.deleted_messages
            ));
        }
        lines.extend(self.kept.front().map(line));
        match self.kept.len() {
            0..=2 => {}
            3 => lines.extend(self.kept.get(1).map(line)),
            len => lines.push(format!("… {} more files …", len - 2)),
        }
        lines.extend(self.kept.back().filter(|_| self.kept.len() > 1).map(line));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(directory: &Path, count: usize) -> Files {
        let mut files = Files::default();
        for number in 0..count {
            let path = directory.join(number.to_string());
            let file = File::create(&path).unwrap();
            files.push(path, &Contents::default(), Identity::of(&file));
        }
        files
    }

    #[test]
    fn many_files_are_a_few_lines() {
        let directory = tempfile::tempdir().unwrap();
        for (count, lines) in [(0, 0), (1, 1), (2, 2), (3, 3), (4, 3), (3000, 3)] {
            let files = files(directory.path(), count);
            assert_eq!(files.lines().len(), lines, "{count}");
        }
        let lines = files(directory.path(), 3000).lines();
        assert!(lines[0].contains("/0: ") && lines[2].contains("/2999: "), "{lines:?}");
        assert_eq!(lines[1], "… 2998 more files …");
    }

    #[test]
    fn the_oldest_files_are_deleted_and_no_others() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = files(directory.path(), 5);
        let path = |name: &str| directory.path().join(name);
        // One is gone already, and another file has taken the name of one: it is not ours.
        fs::remove_file(path("0")).unwrap();
        fs::rename(path("1"), path("mine")).unwrap();
        fs::write(path("1"), "precious").unwrap();
        files.keep(2).unwrap();
        assert_eq!((files.deleted, files.kept.len()), (3, 2));
        assert_eq!(fs::read(path("1")).unwrap(), b"precious");
        let there = ["0", "1", "2", "3", "4", "mine"].map(|name| path(name).exists());
        assert_eq!(there, [false, true, false, true, true, true]);
        assert!(files.lines()[0].contains("3 older files"));
    }
}
