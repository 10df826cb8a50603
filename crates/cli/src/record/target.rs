//! [`Target`]: the files of a recording, by name, or standard output.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{ErrorKind, IsTerminal, stdout},
    os::{fd::AsFd, unix::fs::FileTypeExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail, ensure};

/// Where a recording goes.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    path: PathBuf,
    /// Overwrites files that exist.
    force: bool,
}

impl Target {
    pub(crate) fn new(path: PathBuf, force: bool) -> Self {
        Self { path, force }
    }

    pub(crate) fn is_stdout(&self) -> bool {
        self.path == Path::new("-")
    }

    /// Whether it is refused before anything was begun, so that nobody has to be disturbed for that.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_stdout() {
            ensure!(!stdout().is_terminal(), "-o -: a file or a pipe expected, a terminal found");
        } else if self.path.symlink_metadata().is_ok() {
            ensure!(self.force, exists(&self.path));
            refuse_pipe(&self.path)?;
            if let Ok(file) = OpenOptions::new().write(true).open(&self.path) {
                lock(&file, &self.path)?;
            }
        }
        Ok(())
    }

    /// The name of a part: `FILE.mcap`, then `FILE-0001.mcap` and so on.
    pub(crate) fn part(&self, number: u32) -> PathBuf {
        if number == 0 {
            return self.path.clone();
        }
        let mut name = self.path.file_stem().unwrap_or_default().to_owned();
        name.push(format!("-{number:04}"));
        if let Some(extension) = self.path.extension() {
            name.push(".");
            name.push(extension);
        }
        self.path.with_file_name(name)
    }

    /// Opens a part, which is empty then, and locks it, so that nobody repairs or overwrites what is being written.
    pub(crate) fn open(&self, number: u32) -> Result<File> {
        if self.is_stdout() {
            return Ok(File::from(stdout().as_fd().try_clone_to_owned().context("dup")?));
        }
        let path = self.part(number);
        refuse_pipe(&path)?;
        let mut options = OpenOptions::new();
        options.write(true);
        let file = if self.force { options.create(true).truncate(false) } else { options.create_new(true) }
            .open(&path);
        let file = file.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => exists(&path),
            _ => anyhow!(error).context(format!("open {}", path.display())),
        })?;
        lock(&file, &path)?;
        // A device has no length.
        if file.metadata().context("fstat")?.is_file() {
            file.set_len(0).with_context(|| format!("ftruncate {}", path.display()))?;
        }
        Ok(file)
    }
}

/// Refuses a pipe that has a name: to open it is to wait for a reader, for ever.
fn refuse_pipe(path: &Path) -> Result<()> {
    let is_pipe = path.metadata().is_ok_and(|file| file.file_type().is_fifo());
    ensure!(!is_pipe, "{0}: a file expected, a pipe found (`-o - > {0}` writes into it)", path.display());
    Ok(())
}

pub(crate) fn exists(path: &Path) -> anyhow::Error {
    anyhow!("{} exists: choose another name, or overwrite it by --force", path.display())
}

/// Locks a file for as long as it is open. Some file systems have no locks, which is no reason to refuse.
pub(crate) fn lock(file: &File, path: &Path) -> Result<()> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => bail!("{} is being written by another recorder", path.display()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_numbers_before_the_extension() {
        for (file, part) in
            [("a/b.mcap", "a/b-0001.mcap"), ("b", "b-0001"), (".b", ".b-0001"), ("x.y.mcap", "x.y-0001.mcap")]
        {
            let target = Target::new(file.into(), false);
            assert_eq!((target.part(0), target.part(1)), (file.into(), part.into()));
        }
        assert_eq!(Target::new("b.mcap".into(), false).part(12_345), Path::new("b-12345.mcap"));
    }
}
