//! The terminal's view of a running loop: a bar, and above it how brightness and colour move to their targets.
//!
//! Nothing is shown where the standard error is no terminal. The loop pays for a sample; lines are made when they are drawn.

use std::sync::{Arc, Mutex, PoisonError};

use console::{Style, Term};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::algorithm::{NEUTRAL, TARGET_LUMA, is_exposed, is_neutral};
use crate::output::note;
use crate::plot::{Sample, Series};
use crate::protocol::Observation;

/// How often a second the terminal is drawn to, at most.
const DRAWS_PER_SECOND: u8 = 15;
/// The line of the bar, for terminals that are wide enough and for others.
const WIDE_BAR: &str = "{spinner} {wide_bar:.dim} {pos} of {len} frames, {rate}/s";
const NARROW_BAR: &str = "{spinner} {wide_bar:.dim} {pos} of {len}";
const SPINNER: &str = "{spinner} {pos} frames, {rate}/s";
const NARROW: usize = 50;

pub(crate) struct Progress {
    bar: ProgressBar,
    plots: Arc<Mutex<Vec<Series>>>,
}

impl Progress {
    /// Shows the progress of a run of `frames` frames, if their number is known. Colour is plotted if the loop sets it.
    pub(crate) fn new(frames: Option<u64>, has_colour: bool) -> Self {
        let bar = ProgressBar::with_draw_target(frames, ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND));
        let mut plots = vec![Series::new("brightness", TARGET_LUMA, 0)];
        if has_colour {
            plots.extend(["red/green", "blue/green"].map(|label| Series::new(label, NEUTRAL, 2)));
        }
        let bar_line = match frames {
            None => SPINNER,
            Some(_) if columns() < NARROW => NARROW_BAR,
            Some(_) => WIDE_BAR,
        };
        let this = Self { bar, plots: Arc::new(Mutex::new(plots)) };
        this.bar.set_style(this.style(has_colour, &format!("\n{bar_line}")));
        this
    }

    pub(crate) fn hidden() -> Self {
        Self { bar: ProgressBar::hidden(), plots: Arc::default() }
    }

    /// Notes the observation of a frame, and the number of frames taken.
    pub(crate) fn answered(&self, frames: u32, seen: &Observation) {
        if self.bar.is_hidden() {
            return;
        }
        let samples = [
            Sample { value: seen.mean_luma, on_target: is_exposed(seen.mean_luma) },
            Sample { value: seen.red_to_green, on_target: is_neutral(seen.red_to_green) },
            Sample { value: seen.blue_to_green, on_target: is_neutral(seen.blue_to_green) },
        ];
        let mut plots = self.plots.lock().unwrap_or_else(PoisonError::into_inner);
        for (series, sample) in plots.iter_mut().zip(samples) {
            series.push(sample);
        }
        drop(plots);
        self.bar.set_position(frames.into());
    }

    /// Leaves the plots on the terminal, without the bar.
    pub(crate) fn finish(&self) {
        if self.bar.is_hidden() {
            return;
        }
        let has_colour = self.plots.lock().unwrap_or_else(PoisonError::into_inner).len() > 1;
        self.bar.set_style(self.style(has_colour, ""));
        self.bar.abandon();
        note(format_args!("\n"));
    }

    /// The lines of the plots, and then `end`.
    fn style(&self, has_colour: bool, end: &str) -> ProgressStyle {
        let lines = if has_colour { "{brightness}\n{red}\n{blue}" } else { "{brightness}" };
        let style = ProgressStyle::with_template(&format!("{lines}{end}")).expect("a valid template");
        let line = |index: usize| {
            let plots = Arc::clone(&self.plots);
            move |_: &ProgressState, text: &mut dyn std::fmt::Write| {
                let plots = plots.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = plots.get(index).map(|series| text.write_str(&series.line(columns(), paint)));
            }
        };
        let rate = |state: &ProgressState, text: &mut dyn std::fmt::Write| {
            let _ = write!(text, "{:.0}", state.per_sec());
        };
        style
            .with_key("brightness", line(0))
            .with_key("red", line(1))
            .with_key("blue", line(2))
            .with_key("rate", rate)
    }
}

/// Green on target, yellow off it; plain where colours are not wanted (`NO_COLOR`).
fn paint(blocks: &str, on_target: bool) -> String {
    let style = Style::new().for_stderr();
    let style = if on_target { style.green() } else { style.yellow() };
    style.apply_to(blocks).to_string()
}

/// The terminal's width.
fn columns() -> usize {
    Term::stderr().size().1.into()
}
