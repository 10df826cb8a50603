//! Subscribing as a recorder, and the reasons why nobody publishes there.

use std::{io::ErrorKind, os::unix::fs::FileTypeExt, path::Path, time::Instant};

use anyhow::Result;
use sealane::{Builder, Error, Slow, Subscriber};

use crate::{
    look::comm,
    progress::say,
    record::Options,
    recording::records::MAX_RECORD,
    rows::escape,
    stop::{LOOK, Stop},
};

/// Subscribes, so that the publisher never waits. `None` if a signal came first.
pub(super) fn subscribe(path: &Path, options: &Options, stop: &Stop) -> Result<Option<Subscriber>> {
    // The publisher refuses a subscriber that does not accept as much as it may publish: all that it may is accepted.
    let builder = Builder::default()
        .slow(Slow::Overrun)
        .max_fds(253)
        .max_control(MAX_CONTROL)
        .max_peer_ring_capacity(usize::try_from(MAX_RECORD)?);
    let (start, mut said) = (Instant::now(), false);
    loop {
        if stop.is_asked() {
            return Ok(None);
        }
        let error = match builder.subscribe(path) {
            Ok(subscriber) => return Ok(Some(subscriber)),
            Err(error) => error,
        };
        let left = options.wait.unwrap_or_default().saturating_sub(start.elapsed());
        let absence = Absence::of(path, &error);
        if absence.is_none_or(Absence::stays) || left.is_zero() {
            let error = anyhow::Error::new(error);
            let error = match absence {
                Some(absence) => error.context(absence.describe()),
                None => error,
            };
            return Err(error.context(format!("subscribe to {}", path.display())));
        }
        if !std::mem::replace(&mut said, true) {
            say(
                &format!("waits for a publisher at {} (--wait); Ctrl-C ends it", path.display()),
                options.json,
            );
        }
        // Nothing tells that an abstract name is taken.
        std::thread::sleep(LOOK.min(left));
    }
}

/// The publisher, for a person: its process, where the kernel tells that, or its path.
pub(super) fn source(path: &Path, subscriber: &Subscriber) -> String {
    let pid = subscriber.peer().credentials().pid;
    let named = pid.and_then(|pid| Some(format!("{pid} {}", escape(&comm(pid.get())?))));
    named.unwrap_or_else(|| path.display().to_string())
}

/// The most control bytes that any message can have.
const MAX_CONTROL: usize = 212_928;

/// The reason why nobody publishes at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Absence {
    /// Nothing is there, or nobody has an abstract name.
    Nothing,
    /// A socket that nobody has any more.
    Abandoned,
    /// A socket for streams or datagrams.
    OtherSocket,
    Folder,
    OtherFile,
}

impl Absence {
    /// `None` if somebody may be there.
    fn of(path: &Path, error: &Error) -> Option<Self> {
        let Error::Io { source, .. } = error else { return None };
        match source.kind() {
            ErrorKind::NotFound => Some(Self::Nothing),
            ErrorKind::ConnectionRefused if path.to_string_lossy().starts_with('@') => Some(Self::Nothing),
            ErrorKind::ConnectionRefused => Some(match path.metadata().map(|file| file.file_type()) {
                Ok(kind) if kind.is_socket() => Self::Abandoned,
                Ok(kind) if kind.is_dir() => Self::Folder,
                Ok(_) => Self::OtherFile,
                Err(_) => Self::Nothing,
            }),
            _ if source.raw_os_error() == Some(rustix::io::Errno::PROTOTYPE.raw_os_error()) => {
                Some(Self::OtherSocket)
            }
            _ => None,
        }
    }

    /// Whether no publisher can come as long as the file is there.
    fn stays(self) -> bool {
        !matches!(self, Self::Nothing | Self::Abandoned)
    }

    fn describe(self) -> &'static str {
        match self {
            Self::Nothing => {
                "no publisher is there (`sealane ls` shows the paths of those that run, --wait waits for one)"
            }
            Self::Abandoned => {
                "no publisher is there: the one that made the socket has ended (--wait waits for another one)"
            }
            Self::OtherSocket => "no publisher is there: a socket of another kind is there",
            Self::Folder => "no publisher is there: a folder is there, where a socket is expected",
            Self::OtherFile => "no publisher is there: a file that is no socket is there",
        }
    }
}
