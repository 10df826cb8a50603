//! Files of a folder that somebody else filled: opened so that no device, FIFO or socket notices.

use std::{
    fs::{File, OpenOptions},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::Path,
};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};

use crate::Result;

/// Opens a regular file for reading, and gives its length in bytes.
///
/// `O_PATH` opens nothing but the name, so that the kind is known first (`open(2)`); then what the name meant then is opened, even if
/// the name means something else by now.
pub(crate) fn open(path: &Path) -> Result<(File, u64)> {
    let name = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let about = fstat(&name)?;
    let kind = match FileType::from_raw_mode(about.st_mode) {
        FileType::RegularFile => {
            let mut options = OpenOptions::new();
            options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
            let file = options.open(format!("/proc/self/fd/{}", name.as_raw_fd()))?;
            return Ok((file, u64::try_from(about.st_size)?));
        }
        FileType::Directory => "a directory",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "of an unknown kind",
    };
    Err(format!("no file, but {kind}").into())
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::{fs::PermissionsExt, fs::symlink, net::UnixListener},
    };

    use super::*;

    #[test]
    fn only_files_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "12345").unwrap();
        symlink("file", at("link")).unwrap();
        symlink("/dev/zero", at("device")).unwrap();
        symlink("nothing", at("dangling")).unwrap();
        fs::create_dir(at("directory")).unwrap();
        rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let _listener = UnixListener::bind(at("socket")).unwrap();
        for name in ["file", "link"] {
            assert_eq!(open(&at(name)).unwrap().1, 5);
        }
        for (name, reason) in [
            ("device", "a device"),
            ("directory", "a directory"),
            ("fifo", "a FIFO"),
            ("socket", "a socket"),
            ("dangling", "No such file"),
            ("missing", "No such file"),
        ] {
            let error = open(&at(name)).unwrap_err().to_string();
            assert!(error.contains(reason), "{name}: {error}");
        }
        fs::set_permissions(at("file"), Permissions::from_mode(0)).unwrap();
        match open(&at("file")) {
            Err(error) => assert!(error.to_string().contains("Permission denied"), "{error}"),
            Ok(_) => println!("left out: this user may read every file"),
        }
    }
}
