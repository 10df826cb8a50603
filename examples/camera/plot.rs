//! A line of blocks that shows a value moving to its target: one block a frame, three quarters of the line on target.
//!
//! A short run is shown whole. A longer one is shown by its first frames, where the loop finds its way, and its latest.

use std::collections::VecDeque;

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// How high the block on target is, in eighths: there is room to show more than the target.
const ON_TARGET: f64 = 6.0;
/// Stands for the frames between the first and the latest.
const GAP: char = '┊';
/// How many of the first frames a longer run keeps.
const FIRST: usize = 24;
/// The longest line.
const LATEST: usize = 240;

/// One frame's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) value: f64,
    pub(crate) on_target: bool,
}

/// The values of the first frames and of the latest, in bounded memory.
#[derive(Debug)]
pub(crate) struct Series {
    label: &'static str,
    target: f64,
    decimals: usize,
    first: Vec<Sample>,
    latest: VecDeque<Sample>,
    count: usize,
}

impl Series {
    pub(crate) fn new(label: &'static str, target: f64, decimals: usize) -> Self {
        Self { label, target, decimals, first: Vec::new(), latest: VecDeque::new(), count: 0 }
    }

    pub(crate) fn push(&mut self, sample: Sample) {
        self.count += 1;
        if self.first.len() < FIRST {
            self.first.push(sample);
            return;
        }
        if self.latest.len() == LATEST {
            self.latest.pop_front();
        }
        self.latest.push_back(sample);
    }

    /// The line for a terminal of `width` columns: the label, the blocks, the present value, and the target if it fits.
    /// Lines of several series end alike, one below the other. `paint` colours blocks that are alike, on target or not.
    pub(crate) fn line(&self, width: usize, paint: impl Fn(&str, bool) -> String) -> String {
        let Some(now) = self.latest.back().or(self.first.last()) else { return String::new() };
        let decimals = self.decimals;
        let value = format!(" {:>5.decimals$}", now.value);
        let target = format!(" target {:<4.decimals$}", self.target);
        let target = if width >= 60 { target } else { String::new() };
        let label = if width >= 30 { format!("{:<11}", self.label) } else { String::new() };
        let taken = label.len() + value.len() + target.len();
        let mut line = label;
        let (before, after) = self.columns(width.saturating_sub(taken));
        let mut shown = before.len() + after.len();
        line.push_str(&painted(&before, self.target, &paint));
        if !after.is_empty() {
            line.push(GAP);
            shown += 1;
        }
        line.push_str(&painted(&after, self.target, &paint));
        // The values stand below one another, wherever the blocks end.
        line.extend(std::iter::repeat_n(' ', width.saturating_sub(taken + shown)));
        line + &value + &target
    }

    /// At most `width` samples, less one for the gap between the two parts where there is one.
    fn columns(&self, width: usize) -> (Vec<Sample>, Vec<Sample>) {
        let all = self.first.iter().chain(&self.latest).copied();
        let is_whole = self.count == self.first.len() + self.latest.len();
        if is_whole && self.count <= width {
            return (all.collect(), Vec::new());
        }
        let width = width.min(LATEST);
        let before = FIRST.min(width / 3);
        let after = width.saturating_sub(before + 1);
        let known = self.first.len() + self.latest.len();
        (self.first[..before.min(self.first.len())].to_vec(), all.skip(known.saturating_sub(after)).collect())
    }
}

/// Blocks for samples, painted in runs of one colour.
fn painted(samples: &[Sample], target: f64, paint: impl Fn(&str, bool) -> String) -> String {
    let runs = samples.chunk_by(|left, right| left.on_target == right.on_target);
    let blocks = |run: &[Sample]| run.iter().map(|sample| block(sample.value / target)).collect::<String>();
    runs.map(|run| paint(&blocks(run), run[0].on_target)).collect()
}

/// The block for a value in relation to its target.
fn block(ratio: f64) -> char {
    let height = (ON_TARGET * ratio).round();
    let lower = BLOCKS.iter().zip(1_u32..).take_while(|&(_, eighths)| f64::from(eighths) <= height);
    lower.last().map_or(BLOCKS[0], |(block, _)| *block)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: impl IntoIterator<Item = f64>) -> Series {
        let mut series = Series::new("brightness", 46.0, 0);
        for value in values {
            series.push(Sample { value, on_target: (value - 46.0).abs() < 4.6 });
        }
        series
    }

    fn plain(text: &str, _: bool) -> String {
        text.to_owned()
    }

    #[test]
    fn blocks_are_three_quarters_high_on_target_and_never_higher_than_the_line() {
        let ratios = [f64::NAN, -1.0, 0.0, 0.25, 0.5, 0.98, 1.02, 1.5, 2.0, 99.0, f64::INFINITY];
        assert_eq!(String::from_iter(ratios.map(block)), "▁▁▁▂▃▆▆████");
    }

    #[test]
    fn a_short_run_is_shown_whole() {
        let line = series([11.5, 34.0, 46.0, 54.0]).line(60, plain);
        assert_eq!(line, format!("brightness ▂▄▆▇{:27}    54 target 46  ", ""));
    }

    #[test]
    fn a_long_run_is_shown_by_its_first_frames_and_its_latest() {
        let values = [11.5; 8].into_iter().chain([46.0; 1000]).chain([92.0; 3]);
        let line = series(values).line(40, plain);
        let expected = format!("brightness {}┊{}███    92", "▂".repeat(7), "▆".repeat(12));
        assert_eq!(line, expected);
    }

    #[test]
    fn lines_are_as_wide_as_the_terminal() {
        for count in [1, 20, 60, 300, 5000] {
            let series = series((0..count).map(f64::from));
            for width in 12..300 {
                assert_eq!(series.line(width, plain).chars().count(), width, "{count} samples");
            }
        }
    }

    #[test]
    fn each_run_of_one_colour_is_painted_once() {
        let paint = |text: &str, on_target: bool| format!("<{on_target} {text}>");
        let line = series([11.5, 34.0, 46.0, 46.0, 54.0]).line(24, paint);
        assert_eq!(line.trim_end(), "<false ▂▄><true ▆▆><false ▇>                 54");
    }

    #[test]
    fn the_first_line_is_empty_before_the_first_frame() {
        assert_eq!(series([]).line(80, plain), "");
    }
}
