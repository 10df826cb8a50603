//! Values that are written as text, on the command line and in files alike.

use std::{fmt, str::FromStr, time::Duration};

use anyhow::{Context, Result, bail};
use sealane::Slow;
use sealane_bridge::{Fds, WhenBehind};
use serde::{Deserialize, Deserializer, de};

/// A time: `500ms`, `1h 30m`, or a number of seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Time(pub(crate) Duration);

impl FromStr for Time {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let seconds = text.trim().parse().ok().map(Duration::try_from_secs_f64);
        let time = match seconds {
            Some(seconds) => seconds.ok(),
            None => humantime::parse_duration(text).ok(),
        };
        let time = time.with_context(|| {
            format!("a time expected, as 2 (seconds), 500ms, 10m or \"1h 30m\"; found {text:?}")
        });
        time.map(Self)
    }
}

/// A size: `500MB`, `1GiB`, or a number of bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Size(pub(crate) usize);

impl FromStr for Size {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let size = text.parse().ok().and_then(|size: bytesize::ByteSize| size.as_u64().try_into().ok());
        let size = size.with_context(|| {
            format!("a size expected, as 4096 (bytes), 64KiB, 500MB or 1GiB; found {text:?}")
        });
        size.map(Self)
    }
}

/// [`Slow`]: `overrun`, `wait` or `wait=TIME`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SlowRule(pub(crate) Slow);

impl FromStr for SlowRule {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once('=') {
            None if text == "overrun" => Ok(Self(Slow::Overrun)),
            None if text == "wait" => Ok(Self(Slow::default())),
            Some(("wait", time)) => Ok(Self(Slow::Wait(time.parse::<Time>()?.0))),
            _ => bail!("overrun, wait, or wait=TIME expected; found {text:?}"),
        }
    }
}

/// [`WhenBehind`] of an export: `drop-oldest`, `drop-newest` or `wait=TIME`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ExportBehind(pub(crate) WhenBehind);

impl FromStr for ExportBehind {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match (which_to_drop(text), text.split_once('=')) {
            (Some(which), _) => Ok(Self(which)),
            (None, Some(("wait", time))) => Ok(Self(WhenBehind::Wait(time.parse::<Time>()?.0))),
            _ => bail!("drop-oldest, drop-newest, or wait=TIME (wait=500ms) expected; found {text:?}"),
        }
    }
}

/// [`WhenBehind`] of an import: `drop-oldest` or `drop-newest`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ImportBehind(pub(crate) WhenBehind);

impl FromStr for ImportBehind {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let which = which_to_drop(text).with_context(|| {
            let why = match text.split('=').next() {
                Some("wait") => ": an import that waited would hold up the network for all other topics",
                _ => "",
            };
            format!("drop-oldest or drop-newest expected; found {text:?}{why}")
        });
        which.map(Self)
    }
}

fn which_to_drop(text: &str) -> Option<WhenBehind> {
    match text {
        "drop-oldest" => Some(WhenBehind::DropOldest),
        "drop-newest" => Some(WhenBehind::DropNewest),
        _ => None,
    }
}

/// [`Fds`]: `refuse` or `leave-out`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct FdsRule(pub(crate) Fds);

impl FromStr for FdsRule {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "refuse" => Ok(Self(Fds::Refuse)),
            "leave-out" => Ok(Self(Fds::LeaveOut)),
            _ => bail!("refuse or leave-out expected; found {text:?}"),
        }
    }
}

/// Reads a value that has a form of text from a file: text, or a number, in place of its text.
fn read<'de, D: Deserializer<'de>, T: FromStr<Err = anyhow::Error>>(from: D) -> Result<T, D::Error> {
    struct Text;

    impl de::Visitor<'_> for Text {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("text or a number")
        }

        fn visit_str<E>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }

        fn visit_i64<E>(self, number: i64) -> Result<String, E> {
            Ok(number.to_string())
        }

        fn visit_u64<E>(self, number: u64) -> Result<String, E> {
            Ok(number.to_string())
        }

        fn visit_f64<E>(self, number: f64) -> Result<String, E> {
            Ok(number.to_string())
        }
    }

    from.deserialize_any(Text)?.parse().map_err(de::Error::custom)
}

macro_rules! deserialize_text {
    ($($type:ty),*) => {
        $(impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                read(from)
            }
        })*
    };
}

deserialize_text!(Time, Size, SlowRule, ExportBehind, ImportBehind, FdsRule);

#[cfg(test)]
mod tests {
    use super::*;

    fn error<T: FromStr<Err = anyhow::Error> + fmt::Debug>(text: &str) -> String {
        text.parse::<T>().unwrap_err().to_string()
    }

    #[test]
    fn times_are_seconds_or_have_units() {
        for (text, milliseconds) in
            [("2", 2000), ("0.5", 500), (" 3 ", 3000), ("0", 0), ("500ms", 500), ("1m 30s", 90_000)]
        {
            assert_eq!(text.parse::<Time>().unwrap().0, Duration::from_millis(milliseconds), "{text}");
        }
        for text in ["", "soon", "-1", "nan", "inf", "1e300", "10 parsecs"] {
            let error = error::<Time>(text);
            assert!(error.contains("a time expected") && error.contains(text), "{error}");
        }
    }

    #[test]
    fn sizes_are_bytes_or_have_units() {
        for (text, bytes) in [("4096", 4096), ("64KiB", 65_536), ("1 MB", 1_000_000)] {
            assert_eq!(text.parse::<Size>().unwrap().0, bytes, "{text}");
        }
        for text in ["", "abc", "MB", "12 elephants"] {
            let error = error::<Size>(text);
            assert!(error.contains("a size expected") && error.contains(text), "{error}");
        }
    }

    #[test]
    fn rules_have_one_form() {
        let second = Duration::from_secs(1);
        for (text, slow) in [
            ("overrun", Slow::Overrun),
            ("wait", Slow::default()),
            ("wait=1s", Slow::Wait(second)),
            ("wait=0", Slow::Wait(Duration::ZERO)),
        ] {
            assert_eq!(text.parse::<SlowRule>().unwrap().0, slow);
        }
        for (text, behind) in [
            ("drop-oldest", WhenBehind::DropOldest),
            ("drop-newest", WhenBehind::DropNewest),
            ("wait=1000ms", WhenBehind::Wait(second)),
        ] {
            assert_eq!(text.parse::<ExportBehind>().unwrap().0, behind);
            assert_eq!(text.parse::<ImportBehind>().is_ok(), !text.contains("wait"));
        }
        assert_eq!("leave-out".parse::<FdsRule>().unwrap().0, Fds::LeaveOut);
        assert!(error::<SlowRule>("overrun=1s").starts_with("overrun, wait, or wait=TIME expected"));
        assert!(error::<ExportBehind>("wait").contains("wait=TIME (wait=500ms) expected; found \"wait\""));
        assert!(error::<ExportBehind>("wait=soon").starts_with("a time expected"));
        assert!(error::<ImportBehind>("wait=1s").contains("hold up the network"));
        assert!(error::<FdsRule>("").starts_with("refuse or leave-out expected"));
    }
}
