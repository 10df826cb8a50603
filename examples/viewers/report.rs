//! The figures, as tables or as one JSON object.

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use crate::{Options, Result, carriers::Counts, name, output, publisher::Run};

/// Two decimals; small figures have four.
fn rounded(value: f64) -> f64 {
    let factor = if value < 1.0 { 1e4 } else { 1e2 };
    (value * factor).round() / factor
}

#[expect(clippy::cast_precision_loss, reason = "figures to look at")]
mod figures {
    use super::{Counts, Run, rounded};

    /// CPU milliseconds of the publisher for each frame that it published.
    pub(super) fn publisher_cpu(run: &Run, frames: u64) -> f64 {
        rounded(run.cpu.as_secs_f64() * 1e3 / frames as f64)
    }

    /// CPU milliseconds of a viewer for each frame that it received.
    pub(super) fn viewer_cpu(counts: &Counts) -> f64 {
        rounded(counts.cpu as f64 / 1e6 / counts.received.max(1) as f64)
    }

    /// Frames a second.
    pub(super) fn rate(run: &Run, frames: u64) -> f64 {
        rounded(frames as f64 / run.seconds)
    }

    pub(super) fn microseconds(nanoseconds: u64) -> f64 {
        rounded(nanoseconds as f64 / 1e3)
    }
}

pub(crate) fn print(options: &Options, size: usize, runs: &[Run]) -> Result<()> {
    if options.json {
        let runs: Vec<Value> = runs.iter().map(|run| object(options, run)).collect();
        let report = json!({
            "size": size,
            "frames": options.frames,
            "policy": name(&options.policy),
            "fps": options.fps,
            "runs": runs,
        });
        return Ok(output::print(format_args!("{report:#}"))?);
    }
    for run in runs {
        output::print(table(options, size, run))?;
    }
    if let [first, second] = runs {
        let [a, b] = [first, second].map(|run| figures::publisher_cpu(run, options.frames));
        let ratio = rounded(b / a);
        let [first, second] = [first, second].map(|run| name(&run.carrier));
        output::print(format_args!("CPU of the publisher a frame, {second} / {first}: {ratio}"))?;
    }
    Ok(())
}

fn table(options: &Options, size: usize, run: &Run) -> Table {
    let frames = options.frames;
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header([
        format!("{}, frames of {size} bytes", name(&run.carrier)),
        "CPU ms/frame".into(),
        "frames/s".into(),
        "received".into(),
        "missed".into(),
        "latency µs".into(),
    ]);
    let (cpu, rate) = (figures::publisher_cpu(run, frames), figures::rate(run, frames));
    table.add_row([
        "publisher".into(),
        cpu.to_string(),
        rate.to_string(),
        String::new(),
        String::new(),
        String::new(),
    ]);
    for (place, counts) in run.viewers.iter().enumerate() {
        table.add_row([
            format!("viewer {}", place + 1),
            figures::viewer_cpu(counts).to_string(),
            figures::rate(run, counts.received).to_string(),
            counts.received.to_string(),
            counts.missed.to_string(),
            figures::microseconds(counts.latency).to_string(),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn object(options: &Options, run: &Run) -> Value {
    let viewers: Vec<Value> = run
        .viewers
        .iter()
        .map(|counts| {
            json!({
                "received": counts.received,
                "missed": counts.missed,
                "torn": counts.torn,
                "latency_us": figures::microseconds(counts.latency),
                "cpu_ms_per_frame": figures::viewer_cpu(counts),
            })
        })
        .collect();
    json!({
        "carrier": name(&run.carrier),
        "frames_per_second": figures::rate(run, options.frames),
        "publisher_cpu_ms_per_frame": figures::publisher_cpu(run, options.frames),
        "viewers": viewers,
    })
}
