//! Options of a topic: the same on the command line, for all of its topics, and in a file, for each.

use std::path::PathBuf;

use sealane_bridge::{Role, Settings};
use serde::Deserialize;

use super::units::{ExportBehind, FdsRule, ImportBehind, Size, SlowRule, Time};

/// Options of a topic in one direction.
pub(crate) trait TopicOptions: Default {
    const ROLE: Role;

    /// Options with nothing but a path.
    fn of(path: PathBuf) -> Self;

    /// The path that a file has for the topic.
    fn path(&self) -> Option<PathBuf>;

    fn settings(&self) -> Settings;
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
#[command(next_help_heading = "Topic options")]
pub(crate) struct ExportOptions {
    /// Path in a file: the command line has it beside the topic's name.
    #[arg(skip)]
    path: Option<PathBuf>,
    /// The publisher's rule for a bridge that is slow: `overrun`, `wait` or `wait=TIME`. The publisher may grant less
    /// [default: wait=100ms]
    #[arg(long, value_name = "RULE")]
    slow: Option<SlowRule>,
    /// Rule for messages that the network does not take as fast: `drop-oldest`, `drop-newest`, or `wait=TIME` (the publisher
    /// waits for at most this time, then the newest are dropped) [default: drop-newest]
    #[arg(long, value_name = "RULE")]
    when_behind: Option<ExportBehind>,
    /// Most bytes of each topic that wait in the bridge [default: 64MiB]
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
    /// Rule for messages with file descriptors, which do not cross the network: `refuse` (they count as missed) or `leave-out`
    /// (they are sent without) [default: refuse]
    #[arg(long, value_name = "RULE")]
    fds: Option<FdsRule>,
    /// Sends each message as a sample of Zenoh of its own, for other programs that use Zenoh
    #[arg(long)]
    plain: bool,
    /// Most control bytes of a message [default: 64KiB]
    #[arg(long, value_name = "SIZE")]
    max_control: Option<Size>,
    /// Time between two signs that the publisher is there [default: 200ms]
    #[arg(long, value_name = "TIME")]
    beat: Option<Time>,
}

impl TopicOptions for ExportOptions {
    const ROLE: Role = Role::Export;

    fn of(path: PathBuf) -> Self {
        Self { path: Some(path), ..Self::default() }
    }

    fn path(&self) -> Option<PathBuf> {
        self.path.clone()
    }

    fn settings(&self) -> Settings {
        let mut settings = Settings::default();
        settings.slow = self.slow.map_or(settings.slow, |rule| rule.0);
        settings.when_behind = self.when_behind.map_or(settings.when_behind, |rule| rule.0);
        settings.memory = self.memory.map_or(settings.memory, |size| size.0);
        settings.fds = self.fds.map_or(settings.fds, |rule| rule.0);
        settings.plain = self.plain;
        settings.max_control = self.max_control.map_or(settings.max_control, |size| size.0);
        settings.beat = self.beat.map_or(settings.beat, |time| time.0);
        // Silence is an import's affair, but is checked against the beat.
        settings.silence = settings.silence.max(settings.beat.saturating_mul(2));
        settings
    }
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
#[command(next_help_heading = "Topic options")]
pub(crate) struct ImportOptions {
    /// Path in a file: the command line has it beside the topic's name.
    #[arg(skip)]
    path: Option<PathBuf>,
    /// Rule for slow local subscribers: `overrun`, `wait` or `wait=TIME` [default: wait=100ms]
    #[arg(long, value_name = "RULE")]
    slow: Option<SlowRule>,
    /// Rule for messages that local subscribers do not take as fast: `drop-oldest` or `drop-newest` [default: drop-newest]
    #[arg(long, value_name = "RULE")]
    when_behind: Option<ImportBehind>,
    /// Most bytes of each topic that wait in the bridge [default: 64MiB]
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
    /// Size of the ring of each topic. Messages of up to half of it fit [default: 4MiB]
    #[arg(long, value_name = "SIZE")]
    ring: Option<Size>,
    /// Most control bytes of a message [default: 64KiB]
    #[arg(long, value_name = "SIZE")]
    max_control: Option<Size>,
    /// Most local subscribers of each topic [default: 16]
    #[arg(long, value_name = "COUNT")]
    max_subscribers: Option<usize>,
    /// Time without a sign after which the publisher counts as gone. At least two beats of the export [default: 2s]
    #[arg(long, value_name = "TIME")]
    silence: Option<Time>,
    /// Longest time that a subscriber's request waits for its reply [default: 5s]
    #[arg(long, value_name = "TIME")]
    call_timeout: Option<Time>,
    /// Does not tell subscribers that the publisher is gone or back: they get its messages only
    #[arg(long)]
    no_notices: bool,
}

impl TopicOptions for ImportOptions {
    const ROLE: Role = Role::Import;

    fn of(path: PathBuf) -> Self {
        Self { path: Some(path), ..Self::default() }
    }

    fn path(&self) -> Option<PathBuf> {
        self.path.clone()
    }

    fn settings(&self) -> Settings {
        let mut settings = Settings::default();
        settings.slow = self.slow.map_or(settings.slow, |rule| rule.0);
        settings.when_behind = self.when_behind.map_or(settings.when_behind, |rule| rule.0);
        settings.memory = self.memory.map_or(settings.memory, |size| size.0);
        settings.ring = self.ring.map_or(settings.ring, |size| size.0);
        settings.max_control = self.max_control.map_or(settings.max_control, |size| size.0);
        settings.max_subscribers = self.max_subscribers.unwrap_or(settings.max_subscribers);
        settings.silence = self.silence.map_or(settings.silence, |time| time.0);
        // The beat is an export's affair, but the silence is checked against it.
        settings.beat = settings.beat.min(settings.silence / 2);
        settings.call_timeout = self.call_timeout.map_or(settings.call_timeout, |time| time.0);
        settings.notices = !self.no_notices;
        settings
    }
}
