//! The measurements, as a table or as one JSON object.

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Map, Value, json};

use crate::{Options, Result, carriers::CARRIERS, output, sender::Moved};

/// Two decimals; small figures have four.
fn rounded(value: f64) -> f64 {
    let factor = if value < 1.0 { 1e4 } else { 1e2 };
    (value * factor).round() / factor
}

#[expect(clippy::cast_precision_loss, reason = "figures to look at")]
fn figures(size: usize, moved: &Moved) -> [(&'static str, f64); 3] {
    let messages = moved.messages as f64;
    let gib = messages * size as f64 / f64::from(1 << 30);
    [
        ("gib_per_second", rounded(gib / moved.seconds)),
        ("messages_per_second", (messages / moved.seconds).round()),
        // Both processes together, in user mode and in the kernel.
        ("cpu_seconds_per_gib", rounded(moved.cpu_seconds / gib)),
    ]
}

pub(crate) fn print(options: &Options, ring: usize, moved: &[Moved; 3]) -> Result<()> {
    let rows = CARRIERS.into_iter().zip(moved.iter().map(|moved| figures(options.size, moved)));
    if options.json {
        let carriers: Map<_, _> =
            rows.map(|(carrier, figures)| (carrier.into(), Value::Object(object(figures)))).collect();
        let report = json!({ "size": options.size, "ring_capacity": ring, "carriers": carriers });
        return Ok(output::print(format_args!("{report:#}"))?);
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header([
        format!("payloads of {} bytes", options.size),
        "GiB/s".into(),
        "messages/s".into(),
        "CPU s/GiB".into(),
    ]);
    for (carrier, figures) in rows {
        let figures = figures.into_iter().map(|(_, value)| value.to_string());
        table.add_row(std::iter::once(carrier.to_owned()).chain(figures));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    Ok(output::print(table)?)
}

fn object(figures: [(&str, f64); 3]) -> Map<String, Value> {
    figures.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}
