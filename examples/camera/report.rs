//! The results of a run: collected while it lasts, and reported at the end as sentences ([`story`](crate::story)) or as JSON.

use std::path::PathBuf;
use std::time::Duration;

use console::Term;
use sealane::{Slow, Stats};
use serde_json::{Value, json};

use crate::output::{note, print};
use crate::progress::Progress;
use crate::protocol::{Controls, Observation, Settings};
use crate::sensor::Played;
use crate::story;
use crate::viewers::Counts;

pub(crate) struct Report {
    progress: Progress,
    pub(crate) frames: u32,
    pub(crate) late_controls: u32,
    acts_tried: u32,
    acts_refused: u32,
    round_trips: Vec<Duration>,
    converged_at_frame: Option<u64>,
    frames_converged: u32,
    first: Option<Observation>,
    last: Option<Observation>,
}

/// Facts that only the pipeline knows at the end.
pub(crate) struct Ending {
    pub(crate) elapsed: Duration,
    /// Bytes of statistics a frame.
    pub(crate) statistics_bytes: usize,
    pub(crate) first_settings: Settings,
    pub(crate) settings: Settings,
    pub(crate) has_colour_gains: bool,
    /// Counters of the whole run.
    pub(crate) channel: Stats,
    pub(crate) played: Option<Played>,
    /// Where the first frame and the last are, if that was asked for, or why they are not there.
    pub(crate) saved: Result<Vec<PathBuf>, String>,
    /// Present if the pipeline has published.
    pub(crate) publishing: Option<Publishing>,
}

/// The subscribers of a run.
pub(crate) struct Publishing {
    pub(crate) path: PathBuf,
    /// In the order in which they joined.
    pub(crate) subscribers: Vec<Subscribed>,
    /// Buffers that the camera took back from subscribers that may be overrun.
    pub(crate) buffers_taken_back: u64,
}

/// A subscriber, after the run.
#[derive(Debug)]
pub(crate) struct Subscribed {
    pub(crate) name: String,
    pub(crate) policy: Slow,
    /// The first frame that was published to it.
    pub(crate) joined: u64,
    /// Frames that were published while it was there.
    pub(crate) published: u64,
    /// Its own word; of one that was killed, its last.
    pub(crate) counts: Counts,
    /// Most buffers in which it had a share.
    pub(crate) held_at_most: usize,
    pub(crate) fate: Fate,
}

/// The fate of a subscriber. Frames are given by their numbers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Stayed,
    /// Stopped before the one frame, and continued before the other.
    Stopped {
        from: u64,
        to: u64,
    },
    /// Killed with so many buffers, which came back.
    Killed {
        frame: u64,
        buffers: usize,
    },
    /// Gone before the end, by itself or because it was ended.
    Left {
        frame: u64,
        buffers: usize,
        reason: String,
    },
}

impl Subscribed {
    fn json(&self) -> Value {
        let Counts { received, missed, taken_back } = self.counts;
        let mut value = json!({
            "name": self.name,
            "policy": if self.policy == Slow::Overrun { "overrun" } else { "wait" },
            "joined_at_frame": self.joined,
            "published": self.published,
            "received": received,
            "missed": missed,
            "taken_back": taken_back,
            "held_at_most": self.held_at_most,
        });
        value["fate"] = match &self.fate {
            Fate::Stayed => json!({ "what": "stayed" }),
            Fate::Stopped { from, to } => json!({ "what": "stopped", "from_frame": from, "to_frame": to }),
            Fate::Killed { frame, buffers } => {
                json!({ "what": "killed", "at_frame": frame, "buffers_back": buffers })
            }
            Fate::Left { frame, buffers, reason } => {
                json!({ "what": "left", "at_frame": frame, "buffers_back": buffers, "reason": reason })
            }
        };
        value
    }
}

impl Report {
    pub(crate) fn new(progress: Progress) -> Self {
        Self {
            progress,
            frames: 0,
            late_controls: 0,
            acts_tried: 0,
            acts_refused: 0,
            round_trips: Vec::new(),
            converged_at_frame: None,
            frames_converged: 0,
            first: None,
            last: None,
        }
    }

    /// Takes note of an answer to a frame.
    pub(crate) fn answer(&mut self, controls: &Controls, round_trip: Duration) -> crate::Result<()> {
        if controls.buffer_agrees == 0 {
            return Err(
                format!("frame {}: the statistics are not those of its buffer", controls.frame).into()
            );
        }
        self.acts_tried += controls.acts_tried;
        self.acts_refused += controls.acts_refused;
        if self.acts_refused < self.acts_tried {
            return Err(format!("frame {}: the algorithm's sandbox let it out", controls.frame).into());
        }
        self.round_trips.push(round_trip);
        self.first.get_or_insert(controls.observed);
        self.last = Some(controls.observed);
        if controls.converged != 0 {
            self.converged_at_frame.get_or_insert(controls.frame);
            self.frames_converged += 1;
        }
        self.progress.answered(self.frames, &controls.observed);
        Ok(())
    }

    /// Everything that the run showed.
    pub(crate) fn facts(&self, streaming: Streaming, ending: Ending) -> Facts {
        self.progress.finish();
        let mut sorted = self.round_trips.clone();
        sorted.sort_unstable();
        Facts {
            frames: self.frames,
            streaming,
            round_trip_p50_us: percentile_us(&sorted, 50),
            round_trip_p99_us: percentile_us(&sorted, 99),
            late_controls: self.late_controls,
            frame_buffers_verified: self.round_trips.len() as u64,
            forbidden_acts_tried: self.acts_tried,
            forbidden_acts_refused: self.acts_refused,
            converged_at_frame: self.converged_at_frame,
            frames_converged: self.frames_converged,
            first: self.first,
            last: self.last,
            ending,
        }
    }
}

/// The time that `percent` of the times do not exceed, in microseconds; 0 for no times.
fn percentile_us(sorted: &[Duration], percent: usize) -> f64 {
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).map_or(0.0, |time| time.as_secs_f64() * 1e6)
}

/// The channel's counts from the registration of the buffers to their revocation: the frames and their controls alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Streaming {
    pub(crate) doorbells: u64,
    pub(crate) packets_sent: u64,
    pub(crate) packets_received: u64,
    pub(crate) waits_for_room: u64,
}

impl Streaming {
    /// The difference between two moments.
    pub(crate) fn between(before: &Stats, after: &Stats) -> Self {
        let counted = |count: fn(&Stats) -> u64| count(after).saturating_sub(count(before));
        Self {
            doorbells: counted(|stats| stats.doorbells_sent),
            packets_sent: counted(|stats| stats.packets_sent),
            packets_received: counted(|stats| stats.packets_received),
            waits_for_room: counted(|stats| stats.waits_for_space),
        }
    }
}

/// All results of a run. The channel's counters are those of the pipeline's end.
pub(crate) struct Facts {
    pub(crate) frames: u32,
    pub(crate) streaming: Streaming,
    pub(crate) round_trip_p50_us: f64,
    pub(crate) round_trip_p99_us: f64,
    pub(crate) late_controls: u32,
    pub(crate) frame_buffers_verified: u64,
    /// Attempts of a sandboxed algorithm: opening a file, making a socket, having a signal sent.
    pub(crate) forbidden_acts_tried: u32,
    pub(crate) forbidden_acts_refused: u32,
    pub(crate) converged_at_frame: Option<u64>,
    pub(crate) frames_converged: u32,
    pub(crate) first: Option<Observation>,
    pub(crate) last: Option<Observation>,
    pub(crate) ending: Ending,
}

impl Facts {
    /// Prints the report. A clip's fault goes to the standard error as well, unless the report is on a terminal.
    ///
    /// # Errors
    ///
    /// The report or the pictures could not be written.
    pub(crate) fn print(&self, as_json: bool) -> crate::Result<()> {
        let is_read_elsewhere = as_json || !Term::stdout().is_term();
        if let Some(warning) = story::warning(self).filter(|_| is_read_elsewhere) {
            note(format_args!("{warning}"));
        }
        let text = if as_json { format!("{:#}", self.json()) } else { story::for_stdout(self) };
        print(text)?;
        // Last: the run is not lost with its pictures.
        self.ending.saved.as_ref().map_err(|error| error.as_str().into()).map(|_| ())
    }

    pub(crate) fn frames_per_second(&self) -> f64 {
        f64::from(self.frames) / self.ending.elapsed.as_secs_f64()
    }

    /// How many frames, at least, the pipeline sent without a system call: it rang for none of them, sent no packet, and did
    /// not wait for room.
    pub(crate) fn frames_without_system_call(&self) -> u64 {
        let Streaming { doorbells, packets_sent, waits_for_room, .. } = self.streaming;
        u64::from(self.frames).saturating_sub(doorbells + packets_sent + waits_for_room)
    }

    /// All figures, named.
    pub(crate) fn json(&self) -> Value {
        let Ending { elapsed, settings, channel, played, .. } = &self.ending;
        let seconds = elapsed.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "figures to look at")]
        let gib = channel.bytes_sent as f64 / f64::from(1 << 30);
        let seen = |observation: Option<Observation>, what: fn(Observation) -> f64| {
            observation.map_or(Value::Null, |observation| rounded(what(observation)))
        };
        let (first, last) = (|what| seen(self.first, what), |what| seen(self.last, what));
        let mut value = json!({
            "frames": self.frames,
            "bytes": channel.bytes_sent,
            "statistics_bytes": self.ending.statistics_bytes,
            "seconds": rounded(seconds),
            "gib_per_second": rounded(gib / seconds),
            "frames_per_second": rounded(self.frames_per_second()),
            "round_trip_p50_us": rounded(self.round_trip_p50_us),
            "round_trip_p99_us": rounded(self.round_trip_p99_us),
            "late_controls": self.late_controls,
            "frames_sent_without_system_call": self.frames_without_system_call(),
            // Wake-ups sent, wake-ups received and sleeps: a system call each.
            "doorbells_sent": channel.doorbells_sent,
            "doorbells_received": channel.doorbells_received,
            "sleeps": channel.sleeps,
            // The controls, and the fds: a system call each, too.
            "packets_sent": channel.packets_sent,
            "packets_received": channel.packets_received,
            "frame_buffers_verified": self.frame_buffers_verified,
            "forbidden_acts_tried": self.forbidden_acts_tried,
            "forbidden_acts_refused": self.forbidden_acts_refused,
            "converged_at_frame": self.converged_at_frame,
            "frames_converged": self.frames_converged,
            "first_mean_luma": first(|seen| seen.mean_luma),
            "first_red_to_green": first(|seen| seen.red_to_green),
            "first_blue_to_green": first(|seen| seen.blue_to_green),
            "last_mean_luma": last(|seen| seen.mean_luma),
            "last_red_to_green": last(|seen| seen.red_to_green),
            "last_blue_to_green": last(|seen| seen.blue_to_green),
            "last_focus": last(|seen| seen.focus),
            "exposure_us": rounded(settings.exposure_us),
            "analogue_gain": rounded(settings.analogue_gain),
            "red_gain": rounded(settings.red_gain),
            "blue_gain": rounded(settings.blue_gain),
            "clip": played.as_ref().map(|played| &played.name),
            "clip_frames": played.as_ref().and_then(|played| played.length),
            "clip_damage": played.as_ref().and_then(|played| played.damage.as_ref()),
            "saved": self.ending.saved.iter().flatten().map(|path| path.display().to_string()).collect::<Vec<_>>(),
        });
        if let Some(Publishing { path, subscribers, buffers_taken_back }) = &self.ending.publishing {
            value["published_at"] = path.display().to_string().into();
            value["buffers_taken_back"] = (*buffers_taken_back).into();
            value["subscribers"] = subscribers.iter().map(Subscribed::json).collect();
        }
        value
    }
}

/// Rounded to three decimals.
fn rounded(value: f64) -> Value {
    json!((value * 1000.0).round() / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let times: Vec<_> = (1..=200).map(Duration::from_micros).collect();
        assert_eq!([50, 99].map(|percent| percentile_us(&times, percent).round()), [100.0, 198.0]);
        assert_eq!([percentile_us(&times[..1], 99).round(), percentile_us(&[], 50)], [1.0, 0.0]);
    }

    #[test]
    fn streaming_is_what_was_counted_in_between() {
        let (mut before, mut after) = (Stats::default(), Stats::default());
        (before.packets_sent, before.packets_received) = (1, 2);
        (after.packets_sent, after.packets_received, after.doorbells_sent) = (1, 5, 7);
        let expected = Streaming { packets_received: 3, doorbells: 7, ..Streaming::default() };
        assert_eq!(Streaming::between(&before, &after), expected);
    }
}
