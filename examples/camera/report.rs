//! What a run showed: a progress bar while it lasts, its facts as a table or as one JSON object at the end.

use std::time::Duration;

use comfy_table::{Table, presets};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use crate::protocol::{Controls, Observation, Settings};
use crate::{Options, Result, output::print};

/// One minute: longer ones count as one minute.
const MAX_ROUND_TRIP_NS: u64 = 60_000_000_000;

pub(crate) struct Report {
    progress: ProgressBar,
    pub(crate) frames: u32,
    pub(crate) late_controls: u32,
    acts_tried: u32,
    acts_refused: u32,
    round_trips: Histogram<u64>,
    converged_at_frame: Option<u64>,
    frames_converged: u32,
    first: Option<Observation>,
    last: Option<Observation>,
}

impl Report {
    /// Shows a bar if this is a terminal.
    pub(crate) fn new(options: &Options) -> Self {
        let progress = match options.frame_limit() {
            _ if options.json => ProgressBar::hidden(),
            None => ProgressBar::new_spinner(),
            Some(limit) => ProgressBar::new(limit.into()),
        };
        let template = "{spinner} {wide_bar} {pos} frames, {per_sec}, {msg}";
        let style = ProgressStyle::with_template(template).expect("a valid template");
        Self {
            progress: progress.with_style(style),
            frames: 0,
            late_controls: 0,
            acts_tried: 0,
            acts_refused: 0,
            round_trips: Histogram::new_with_max(MAX_ROUND_TRIP_NS, 3).expect("a valid range"),
            converged_at_frame: None,
            frames_converged: 0,
            first: None,
            last: None,
        }
    }

    /// Takes note of an answer to a frame.
    pub(crate) fn answer(&mut self, controls: &Controls, round_trip: Duration) -> Result<()> {
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
        self.round_trips.saturating_record(u64::try_from(round_trip.as_nanos())?);
        self.first.get_or_insert(controls.observed);
        self.last = Some(controls.observed);
        if controls.converged != 0 {
            self.converged_at_frame.get_or_insert(controls.frame);
            self.frames_converged += 1;
        }
        if !self.progress.is_hidden() {
            self.progress.set_position(self.frames.into());
            self.progress.set_message(format!("luma {:.0}", controls.observed.mean_luma));
        }
        Ok(())
    }

    /// Everything that the run showed, named. Of the channel, what the pipeline's end saw.
    pub(crate) fn facts(&self, elapsed: Duration, settings: &Settings, channel: &sealane::Stats) -> Facts {
        self.progress.finish_and_clear();
        let (seconds, frames) = (elapsed.as_secs_f64(), f64::from(self.frames));
        #[expect(clippy::cast_precision_loss, reason = "figures to look at")]
        let (gib, micros) = (channel.bytes_sent as f64 / f64::from(1 << 30), |nanos: u64| nanos as f64 / 1e3);
        let round_trip = |quantile| rounded(micros(self.round_trips.value_at_quantile(quantile)));
        let observed = |observation: Option<Observation>, what: fn(Observation) -> f64| {
            observation.map_or(Value::Null, |observation| rounded(what(observation)))
        };
        Facts(vec![
            ("frames", self.frames.into()),
            ("bytes", channel.bytes_sent.into()),
            ("seconds", rounded(seconds)),
            ("gib_per_second", rounded(gib / seconds)),
            ("frames_per_second", rounded(frames / seconds)),
            ("round_trip_p50_us", round_trip(0.5)),
            ("round_trip_p99_us", round_trip(0.99)),
            ("late_controls", self.late_controls.into()),
            // What it took to wake the other side, to be woken and to sleep: a system call each.
            ("doorbells_sent", channel.doorbells_sent.into()),
            ("doorbells_received", channel.doorbells_received.into()),
            ("sleeps", channel.sleeps.into()),
            // The controls, and the fds: a system call each, too.
            ("packets_sent", channel.packets_sent.into()),
            ("packets_received", channel.packets_received.into()),
            ("frame_buffers_verified", self.round_trips.len().into()),
            // What a sandboxed algorithm tried: opening a file, making a socket, having a signal sent.
            ("forbidden_acts_tried", self.acts_tried.into()),
            ("forbidden_acts_refused", self.acts_refused.into()),
            ("converged_at_frame", self.converged_at_frame.into()),
            ("frames_converged", self.frames_converged.into()),
            ("first_mean_luma", observed(self.first, |seen| seen.mean_luma)),
            ("first_red_to_green", observed(self.first, |seen| seen.red_to_green)),
            ("first_blue_to_green", observed(self.first, |seen| seen.blue_to_green)),
            ("last_mean_luma", observed(self.last, |seen| seen.mean_luma)),
            ("last_red_to_green", observed(self.last, |seen| seen.red_to_green)),
            ("last_blue_to_green", observed(self.last, |seen| seen.blue_to_green)),
            ("last_focus", observed(self.last, |seen| seen.focus)),
            ("exposure_us", rounded(settings.exposure_us)),
            ("analogue_gain", rounded(settings.analogue_gain)),
            ("red_gain", rounded(settings.red_gain)),
            ("blue_gain", rounded(settings.blue_gain)),
        ])
    }
}

/// To three decimals: nobody reads more.
fn rounded(value: f64) -> Value {
    json!((value * 1000.0).round() / 1000.0)
}

pub(crate) struct Facts(Vec<(&'static str, Value)>);

impl Facts {
    pub(crate) fn print(self, as_json: bool) -> Result<()> {
        if as_json {
            let object: Map<_, _> =
                self.0.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            print(format_args!("{:#}", Value::Object(object)))?;
        } else {
            let mut table = Table::new();
            table.load_style(presets::UTF8_BORDERS_ONLY);
            table.add_rows(self.0.iter().map(|(name, value)| [name.replace('_', " "), value.to_string()]));
            print(table)?;
        }
        Ok(())
    }
}
