//! The folder of this user's bridges, with a socket for each: `PID.sock`.

use std::{
    env, fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use rustix::{
    io::Errno,
    process::{Pid, geteuid, test_kill_process},
};

/// The socket of a process.
pub(crate) fn socket_of(pid: u32) -> Result<PathBuf> {
    let folder = place();
    match fs::DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| folder.display().to_string());
        }
        _ => check(&folder)?,
    }
    Ok(folder.join(format!("{pid}.sock")))
}

/// The sockets that are there, with their processes.
pub(crate) fn sockets() -> Result<Vec<(u32, PathBuf)>> {
    let folder = place();
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| folder.display().to_string())?,
    };
    check(&folder)?;
    let mut sockets = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| folder.display().to_string())?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(pid) = name.strip_suffix(".sock").and_then(|pid| pid.parse().ok()) {
            sockets.push((pid, path));
        }
    }
    sockets.sort();
    Ok(sockets)
}

/// Removes the socket of a process that is no more. False if the process is there.
pub(crate) fn remove_if_dead(pid: u32, path: &Path) -> bool {
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let is_dead = process.is_none_or(|pid| test_kill_process(pid) == Err(Errno::SRCH));
    if is_dead {
        // Another `status` may have been faster.
        let _ = fs::remove_file(path);
    }
    is_dead || !path.exists()
}

/// `$XDG_RUNTIME_DIR/sealane-bridge`, or `/tmp/sealane-bridge-UID`.
fn place() -> PathBuf {
    match env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute()) {
        Some(path) => path.join("sealane-bridge"),
        None => format!("/tmp/sealane-bridge-{}", geteuid().as_raw()).into(),
    }
}

/// Refuses a folder that somebody else made, or can write to: in `/tmp` anybody may be first.
fn check(folder: &Path) -> Result<()> {
    let name = folder.display();
    let found = fs::symlink_metadata(folder).with_context(|| name.to_string())?;
    if !found.is_dir() {
        bail!("{name}: a folder expected, something else found");
    }
    if found.uid() != geteuid().as_raw() {
        bail!(
            "{name}: a folder of this user (uid {}) expected, one of uid {} found",
            geteuid().as_raw(),
            found.uid()
        );
    }
    if found.mode() & 0o077 != 0 {
        bail!(
            "{name}: a folder that is closed to others (mode 0700) expected, mode {:04o} found",
            found.mode() & 0o7777
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn folders_that_are_open_to_others_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("folder");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        check(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(check(&folder).unwrap_err().to_string().ends_with("(mode 0700) expected, mode 0755 found"));
        let link = dir.path().join("link");
        symlink("/root", &link).unwrap();
        assert!(check(&link).unwrap_err().to_string().contains("a folder expected, something else found"));
    }

    #[test]
    fn sockets_of_dead_processes_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.sock");
        fs::write(&path, "").unwrap();
        assert!(!remove_if_dead(std::process::id(), &path) && path.exists());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert!(remove_if_dead(child.id(), &path) && !path.exists());
    }
}
