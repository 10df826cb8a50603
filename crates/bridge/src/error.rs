//! What can go wrong with a bridge: [`Error`].

use std::path::PathBuf;

/// Why a bridge cannot be opened, or a topic cannot be carried.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A topic's name that is no key of Zenoh, or has wildcards, or parts that begin with `@`.
    #[error("`{topic}` cannot be a topic: {why}")]
    Topic {
        /// The name.
        topic: String,
        /// What is wrong with it.
        why: String,
    },
    /// A setting that cannot be.
    #[error("{0}")]
    Setting(String),
    /// Zenoh's configuration, or an endpoint in it.
    #[error("Zenoh's configuration: {0}")]
    Config(String),
    /// Zenoh could not be started, or refused a declaration.
    #[error("Zenoh, {doing}: {why}")]
    Zenoh {
        /// What was asked of it.
        doing: &'static str,
        /// What it said.
        why: String,
    },
    /// A path at which a topic is to be published.
    #[error("publish at {}", path.display())]
    Publish {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: sealane::Error,
    },
    /// A publisher, or its subscription, failed.
    #[error(transparent)]
    Sealane(#[from] sealane::Error),
    /// A call through a bridge has no reply.
    #[error(transparent)]
    Call(#[from] crate::wire::call::CallError),
    /// A descriptor or a thread could not be had.
    #[error("{doing}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// The result of most calls of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn zenoh(doing: &'static str) -> impl FnOnce(zenoh::Error) -> Self {
        move |error| Self::Zenoh { doing, why: without_places(&error.to_string()) }
    }

    pub(crate) fn io(doing: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}

/// What Zenoh says, without the places in its source (`… at /build/zenoh/src/tcp.rs:61.`), which are paths of the machine that built it.
#[must_use]
pub fn without_places(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(" at /") {
        kept.push_str(before);
        let place = after.split_once(".rs:").filter(|(path, _)| !path.contains([' ', ']']));
        let after_line = place.map(|(_, line)| line.trim_start_matches(|digit: char| digit.is_ascii_digit()));
        rest = if let Some(after) = after_line.and_then(|after| after.strip_prefix('.')) {
            after
        } else {
            kept.push_str(" at /");
            after
        };
    }
    kept + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_left_out() {
        for (text, kept) in [
            ("no [a: in use at /r/c-1.0/src/tcp.rs:61.] at /r/unicast.rs:338.", "no [a: in use]"),
            ("nobody listens at /run/x", "nobody listens at /run/x"),
            ("at /run/x at /r/a.rs:1.", "at /run/x"),
            ("file at /a b.rs:1.", "file at /a b.rs:1."),
            ("", ""),
        ] {
            assert_eq!(without_places(text), kept);
        }
    }
}
