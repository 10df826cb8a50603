//! [`TopicOptions`]: how a topic is carried, as a command line or a file says it.

use std::{fmt, str::FromStr, time::Duration};

use bytesize::ByteSize;
use clap::Args;
use sealane::Slow;
use sealane_bridge::{Fds, Settings, WhenBehind};
use serde::Deserialize;

/// A text or a number of a file.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Word {
    Text(String),
    Whole(u64),
    Number(f64),
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Whole(number) => number.fmt(f),
            Self::Number(number) => number.fmt(f),
        }
    }
}

macro_rules! values {
    ($($(#[$doc:meta])* $name:ident($type:ty),)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Deserialize)]
        #[serde(try_from = "Word")]
        pub(crate) struct $name(pub(crate) $type);

        impl TryFrom<Word> for $name {
            type Error = String;

            fn try_from(word: Word) -> Result<Self, String> {
                word.to_string().parse()
            }
        }
    )*};
}

values! {
    /// A number of seconds, or a time with units.
    Time(Duration),
    /// A number of bytes, or a size with a unit.
    Size(usize),
    /// `wait`, `wait=TIME`, `wait=forever` or `overrun`.
    SlowWord(Slow),
    /// `drop-oldest`, `drop-newest` or `wait=TIME`.
    BehindWord(WhenBehind),
    /// `refuse` or `leave-out`.
    FdsWord(Fds),
}

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let time = seconds.map_or_else(|| humantime::parse_duration(text), Ok);
        time.map(Self)
            .map_err(|why| format!("a time such as 500ms, 10s or 1.5 expected, `{text}` found: {why}"))
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse =
            |why: String| format!("a size such as 4096, 64KiB or 16MiB expected, `{text}` found: {why}");
        let size = text.parse::<ByteSize>().map_err(refuse)?;
        usize::try_from(size.as_u64()).map(Self).map_err(|why| refuse(why.to_string()))
    }
}

impl FromStr for SlowWord {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self(match text.split_once('=') {
            None if text == "overrun" => Slow::Overrun,
            None if text == "wait" => Slow::default(),
            Some(("wait", "forever")) => Slow::Wait(Duration::MAX),
            Some(("wait", time)) => Slow::Wait(time.parse::<Time>()?.0),
            _ => return Err(format!("wait, wait=TIME, wait=forever or overrun expected, `{text}` found")),
        }))
    }
}

impl FromStr for BehindWord {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self(match text.split_once('=') {
            None if text == "drop-oldest" => WhenBehind::DropOldest,
            None if text == "drop-newest" => WhenBehind::DropNewest,
            Some(("wait", time)) => WhenBehind::Wait(time.parse::<Time>()?.0),
            _ => return Err(format!("drop-oldest, drop-newest or wait=TIME expected, `{text}` found")),
        }))
    }
}

impl FromStr for FdsWord {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "refuse" => Ok(Self(Fds::Refuse)),
            "leave-out" => Ok(Self(Fds::LeaveOut)),
            _ => Err(format!("refuse or leave-out expected, `{text}` found")),
        }
    }
}

/// How topics are carried.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TopicOptions {
    /// Export: the bridge's wish to the publisher. Import: the rule for local subscribers. wait, wait=TIME, wait=forever or overrun
    /// [default: wait=100ms]
    #[arg(long, value_name = "POLICY")]
    slow: Option<SlowWord>,
    /// What is dropped when the topic's memory is used up: drop-oldest, drop-newest, or (export) after wait=TIME [default: drop-newest]
    #[arg(long, value_name = "RULE")]
    when_behind: Option<BehindWord>,
    /// Most bytes that wait in the bridge, for each topic [default: 64MiB]
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
    /// Messages with descriptors, which do not cross: refuse or leave-out [default: refuse]
    #[arg(long, value_name = "RULE")]
    fds: Option<FdsWord>,
    /// Export: a sample of Zenoh for each message, for its other users
    #[arg(long)]
    #[serde(default)]
    plain: bool,
    /// Import: bytes of the local publisher's ring [default: 4MiB]
    #[arg(long, value_name = "SIZE")]
    ring: Option<Size>,
    /// Most control bytes of a message [default: 64KiB]
    #[arg(long, value_name = "SIZE")]
    max_control: Option<Size>,
    /// Import: most local subscribers [default: 16]
    #[arg(long, value_name = "N")]
    max_subscribers: Option<usize>,
    /// Export: time between two beats, which say where the source stands [default: 200ms]
    #[arg(long, value_name = "TIME")]
    beat: Option<Time>,
    /// Import: the source counts as gone when nothing was heard for this time [default: 2s]
    #[arg(long, value_name = "TIME")]
    silence: Option<Time>,
    /// Import: the longest that a request waits for its reply [default: 5s]
    #[arg(long, value_name = "TIME")]
    call_timeout: Option<Time>,
    /// Import: subscribers are not told that the source is gone, or back
    #[arg(long)]
    #[serde(default)]
    no_notices: bool,
}

impl TopicOptions {
    /// The settings that they say; the defaults for all else.
    pub(crate) fn settings(&self) -> Settings {
        let mut settings = Settings::default();
        let set_size = |of: &mut usize, size: Option<Size>| *of = size.map_or(*of, |size| size.0);
        let set_time = |of: &mut Duration, time: Option<Time>| *of = time.map_or(*of, |time| time.0);
        settings.slow = self.slow.map_or(settings.slow, |slow| slow.0);
        settings.when_behind = self.when_behind.map_or(settings.when_behind, |rule| rule.0);
        settings.fds = self.fds.map_or(settings.fds, |rule| rule.0);
        settings.max_subscribers = self.max_subscribers.unwrap_or(settings.max_subscribers);
        set_size(&mut settings.memory, self.memory);
        set_size(&mut settings.ring, self.ring);
        set_size(&mut settings.max_control, self.max_control);
        set_time(&mut settings.beat, self.beat);
        set_time(&mut settings.silence, self.silence);
        set_time(&mut settings.call_timeout, self.call_timeout);
        settings.plain = self.plain;
        settings.notices = !self.no_notices;
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_say_what_they_say() {
        let time = |text: &str| text.parse::<Time>().map(|time| time.0);
        assert_eq!(time("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(time("200ms"), Ok(Duration::from_millis(200)));
        assert!(time("soon").unwrap_err().contains("`soon` found"));
        assert_eq!("64KiB".parse::<Size>().unwrap().0, 65536);
        assert!("a lot".parse::<Size>().unwrap_err().contains("64KiB"));
        assert_eq!("wait=forever".parse::<SlowWord>().unwrap().0, Slow::Wait(Duration::MAX));
        assert_eq!("overrun".parse::<SlowWord>().unwrap().0, Slow::Overrun);
        assert_eq!("wait=1s".parse::<BehindWord>().unwrap().0, WhenBehind::Wait(Duration::from_secs(1)));
        assert!("wait".parse::<BehindWord>().unwrap_err().contains("wait=TIME"));
        assert!("keep".parse::<FdsWord>().unwrap_err().contains("leave-out"));
    }

    #[test]
    fn a_file_says_the_same() {
        let text = "{ slow: 'overrun', memory: 1000, beat: 0.5, plain: true }";
        let settings = json5::from_str::<TopicOptions>(text).unwrap().settings();
        assert_eq!((settings.slow, settings.memory, settings.plain), (Slow::Overrun, 1000, true));
        assert_eq!(settings.beat, Duration::from_millis(500));
        assert!(json5::from_str::<TopicOptions>("{ speed: 1 }").unwrap_err().to_string().contains("speed"));
    }
}
