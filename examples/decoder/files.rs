//! Files of a folder that somebody else filled: opened so that no device, FIFO or socket notices.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::Path,
};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};

/// Opens a regular file for reading, and gives its length in bytes.
///
/// `O_PATH` opens nothing but the name, so that the kind is known first (`open(2)`); then what the name meant then is opened, even if
/// the name means something else by now. Symbolic links are not followed: one could lead to this process's own memory
/// (`/proc/self/mem`), or to a file that only this user can read.
pub(crate) fn open(path: &Path) -> io::Result<(File, u64)> {
    let name = openat(CWD, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let about = fstat(&name)?;
    let kind = match FileType::from_raw_mode(about.st_mode) {
        FileType::RegularFile => {
            let mut options = OpenOptions::new();
            options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
            let file = options.open(format!("/proc/self/fd/{}", name.as_raw_fd()))?;
            return Ok((file, u64::try_from(about.st_size).unwrap_or(0)));
        }
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "of an unknown kind",
    };
    Err(io::Error::other(format!("no file, but {kind}")))
}

/// A name as it is printed: nothing of it is obeyed by a terminal, and no two names look the same.
#[expect(
    clippy::unnecessary_debug_formatting,
    reason = "`display` escapes nothing, and drops what is no text"
)]
pub(crate) fn shown(path: &Path) -> String {
    let quoted = format!("{path:?}");
    quoted[1..quoted.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    use std::{
        ffi::OsStr,
        fs::{self, Permissions},
        os::unix::{ffi::OsStrExt, fs::PermissionsExt, fs::symlink, net::UnixListener},
    };

    use super::*;

    #[test]
    fn names_are_printed_without_control_characters_and_without_loss() {
        for (name, printed) in [
            (&b"plain.jpg"[..], "plain.jpg"),
            (b"two words", "two words"),
            (b"\x1b[2J", "\\u{1b}[2J"),
            ("\u{9b}\u{202e}".as_bytes(), "\\u{9b}\\u{202e}"),
            (b"\xff\n\"", "\\xFF\\n\\\""),
        ] {
            assert_eq!(shown(Path::new(OsStr::from_bytes(name))), printed);
        }
    }

    #[test]
    fn only_files_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "12345").unwrap();
        symlink("file", at("link")).unwrap();
        symlink("/proc/self/mem", at("memory")).unwrap();
        fs::create_dir(at("directory")).unwrap();
        rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let _listener = UnixListener::bind(at("socket")).unwrap();
        assert_eq!(open(&at("file")).unwrap().1, 5);
        assert!(open(Path::new("/dev/zero")).unwrap_err().to_string().contains("a device"));
        for (name, reason) in [
            ("link", "a symbolic link"),
            ("memory", "a symbolic link"),
            ("directory", "a directory"),
            ("fifo", "a FIFO"),
            ("socket", "a socket"),
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
