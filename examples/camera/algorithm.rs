//! Auto-exposure and auto-white-balance: from the statistics of a frame and its settings to the next settings.
//!
//! Pure and stateless: an answer that comes late is still right for the frame that it answers.

#![expect(clippy::cast_precision_loss, reason = "sums of at most 2^58, of which a few digits matter")]

use crate::protocol::{Observation, Settings};
use crate::sensor::PLANES;
use crate::statistics::{Histograms, SATURATED, Zone};

/// Middle grey in linear light: 18 % of white.
pub(crate) const TARGET_LUMA: f64 = 0.18 * 255.0;
/// A grey scene's red and blue in relation to its green.
pub(crate) const NEUTRAL: f64 = 1.0;
/// Rec. 601.
const LUMA: [f64; PLANES] = [0.299, 0.587, 0.114];
/// How much of the way to the target one step goes, in logarithms.
const DAMPING: f64 = 0.8;
/// A share of the target.
pub(crate) const EXPOSURE_TOLERANCE: f64 = 0.1;
pub(crate) const COLOUR_TOLERANCE: f64 = 0.03;

/// Grey world over those zones that can be trusted with a colour.
#[derive(Debug, Default)]
pub(crate) struct GreyWorld {
    trusted: [u64; PLANES],
    /// Sums of the zones among them that are nearly grey: a coloured thing that fills the frame is not.
    near_grey: [u64; PLANES],
    near_grey_pixels: u64,
    /// Pixels of all zones.
    pixels: u64,
    focus: u128,
}

impl GreyWorld {
    /// Adds zones; what they say comes from a peer and may be any numbers.
    pub(crate) fn add(&mut self, zones: &[Zone]) {
        for zone in zones {
            self.focus += u128::from(zone.focus);
            self.pixels += u64::from(zone.pixels);
            // Both would pull the balance: clipped pixels towards white, dark ones towards the noise.
            if zone.saturated > zone.pixels / 16 || zone.dark > zone.pixels / 2 {
                continue;
            }
            let sums = zone.sums.map(u64::from);
            add(&mut self.trusted, sums);
            let is_near_grey = |sum: u64| 3 * sum > 2 * sums[1] && 2 * sum < 3 * sums[1];
            if is_near_grey(sums[0]) && is_near_grey(sums[2]) {
                add(&mut self.near_grey, sums);
                self.near_grey_pixels += u64::from(zone.pixels);
            }
        }
    }

    /// Red and blue in relation to green; neutral where nothing can be said.
    fn ratios(&self) -> [f64; 2] {
        let sums = if self.near_grey_pixels > self.pixels / 8 { self.near_grey } else { self.trusted };
        let [red, green, blue] = sums.map(|sum| sum as f64);
        [red, blue].map(|sum| if sum > 0.0 && green > 0.0 { sum / green } else { 1.0 })
    }
}

pub(crate) struct Outcome {
    pub(crate) observed: Observation,
    pub(crate) converged: bool,
    pub(crate) next: Settings,
}

/// One step of both algorithms; of the exposure's alone where the camera has no colour gains.
pub(crate) fn step(
    histograms: &Histograms,
    grey_world: &GreyWorld,
    taken_with: &Settings,
    has_colour_gains: bool,
) -> Outcome {
    let mean_luma = mean_luma(histograms);
    let [red_to_green, blue_to_green] = grey_world.ratios();
    let focus = grey_world.focus as f64 / grey_world.pixels.max(1) as f64;
    let observed = Observation { mean_luma, red_to_green, blue_to_green, focus };

    let exposed = is_exposed(mean_luma);
    let balanced = !has_colour_gains || [red_to_green, blue_to_green].into_iter().all(is_neutral);
    let mut next = *taken_with;
    if !exposed {
        let wanted = (TARGET_LUMA / mean_luma.max(0.5)).powf(DAMPING);
        // The mean does not tell how far above white the clipped pixels were.
        let change = if is_clipped(histograms) { wanted.min(0.5) } else { wanted };
        let total = taken_with.exposure_us * taken_with.analogue_gain * change;
        // Light before amplification: gain only where the frame time is used up.
        next.exposure_us = total.clamp(Settings::MIN_EXPOSURE_US, Settings::MAX_EXPOSURE_US);
        next.analogue_gain = (total / next.exposure_us).clamp(1.0, Settings::MAX_ANALOGUE_GAIN);
    }
    if !balanced {
        next.red_gain = rebalanced(taken_with.red_gain, red_to_green);
        next.blue_gain = rebalanced(taken_with.blue_gain, blue_to_green);
    }
    Outcome { observed, converged: exposed && balanced, next }
}

/// Whether a frame is as bright as it shall be.
pub(crate) fn is_exposed(mean_luma: f64) -> bool {
    (mean_luma / TARGET_LUMA - 1.0).abs() <= EXPOSURE_TOLERANCE
}

/// Whether a colour is balanced, in relation to green.
pub(crate) fn is_neutral(ratio: f64) -> bool {
    (ratio - NEUTRAL).abs() <= COLOUR_TOLERANCE
}

fn add(totals: &mut [u64; PLANES], sums: [u64; PLANES]) {
    for (total, sum) in totals.iter_mut().zip(sums) {
        *total += sum;
    }
}

fn rebalanced(gain: f64, ratio: f64) -> f64 {
    (gain * ratio.powf(-DAMPING)).clamp(Settings::MIN_COLOUR_GAIN, Settings::MAX_COLOUR_GAIN)
}

fn mean_luma(histograms: &Histograms) -> f64 {
    let mean = |histogram: &[u32; 256]| {
        let count: u64 = histogram.iter().map(|&count| u64::from(count)).sum();
        let sum: u64 = (0_u64..).zip(histogram).map(|(value, &count)| value * u64::from(count)).sum();
        sum as f64 / count.max(1) as f64
    };
    histograms.iter().zip(LUMA).map(|(histogram, weight)| weight * mean(histogram)).sum()
}

/// Whether a quarter of the green pixels is saturated.
fn is_clipped(histograms: &Histograms) -> bool {
    let total = |counts: &[u32]| counts.iter().map(|&count| u64::from(count)).sum::<u64>();
    let green = &histograms[1];
    4 * total(&green[usize::from(SATURATED)..]) > total(green)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A flat grey card in this light, through a linear sensor.
    fn card(light: f64, settings: &Settings) -> (Histograms, GreyWorld) {
        let mut histograms = [[0; 256]; PLANES];
        let mut zone = Zone { pixels: 1000, ..Zone::default() };
        let channels = [settings.red_gain, 0.7, 0.4 * settings.blue_gain];
        for (plane, colour) in channels.into_iter().enumerate() {
            let value = (light * colour * settings.exposure_us * settings.analogue_gain).min(255.0);
            let value = (0..=u8::MAX).rev().find(|&level| f64::from(level) <= value).unwrap();
            histograms[plane][usize::from(value)] = 1000;
            zone.sums[plane] = 1000 * u32::from(value);
            zone.saturated |= if value >= SATURATED { 1000 } else { 0 };
        }
        let mut grey_world = GreyWorld::default();
        grey_world.add(&[zone]);
        (histograms, grey_world)
    }

    #[test]
    fn converges_from_the_dark_and_from_the_glare() {
        for light in [0.0002, 0.01, 1.0] {
            let mut settings = Settings::WRONG;
            let converged = (0..40).any(|_| {
                let (histograms, grey_world) = card(light, &settings);
                let outcome = step(&histograms, &grey_world, &settings, true);
                settings = outcome.next;
                outcome.converged
            });
            assert!(converged, "in light {light}: {settings:?}");
        }
    }

    #[test]
    fn no_numbers_of_a_peer_give_settings_that_no_sensor_has() {
        for fill in [0, 1, u32::MAX] {
            let zone = Zone { sums: [fill, fill, 0], pixels: fill, dark: 0, saturated: 0, focus: u64::MAX };
            let mut grey_world = GreyWorld::default();
            grey_world.add(&[zone; 100]);
            let outcome = step(&[[fill; 256]; PLANES], &grey_world, &Settings::WRONG, true);
            assert!(outcome.next.is_valid() && outcome.observed.is_valid());
        }
    }
}
