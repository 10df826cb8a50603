//! The results of a run, as a table or as one JSON object.

use comfy_table::{Table, presets};
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::{Result, measure::Round, output::print};

pub(crate) struct Facts(Vec<(&'static str, Value)>);

impl Facts {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn add(&mut self, name: &'static str, value: impl Into<Value>) {
        self.0.push((name, value.into()));
    }

    /// A number to look at: to two decimals.
    pub(crate) fn add_number(&mut self, name: &'static str, value: f64) {
        self.add(name, json!((value * 100.0).round() / 100.0));
    }

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

/// Latencies of one kind of rounds: quantiles of each round, of which the median counts.
#[derive(Default)]
pub(crate) struct Rounds {
    p50: Vec<f64>,
    p99: Vec<f64>,
    missed: u64,
}

impl Rounds {
    pub(crate) fn add(&mut self, round: &Round) {
        self.p50.push(micros(&round.latencies, 0.5));
        self.p99.push(micros(&round.latencies, 0.99));
        self.missed += round.outcome.missed;
    }

    pub(crate) fn report(&self, [p50, p99, missed]: [&'static str; 3], facts: &mut Facts) {
        facts.add_number(p50, median(&self.p50));
        facts.add_number(p99, median(&self.p99));
        facts.add(missed, self.missed);
    }
}

pub(crate) fn micros(latencies: &Histogram<u64>, quantile: f64) -> f64 {
    number(latencies.value_at_quantile(quantile)) / 1e3
}

#[expect(clippy::cast_precision_loss, reason = "figures to look at")]
pub(crate) fn number(value: u64) -> f64 {
    value as f64
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
