//! A report as text for people.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use sealane_bridge::Role;

use super::snapshot::{BridgeReport, Report, TopicReport};

const TITLES: [&str; 14] = [
    "TOPIC",
    "ROLE",
    "PATH",
    "STATE",
    "NUMBER",
    "MSG/S",
    "BYTES/S",
    "MISSED",
    "DROPPED",
    "REFUSED",
    "WAITING",
    "LAG",
    "SUBSCRIBERS",
    "RUNS",
];

pub(crate) fn text(report: &Report) -> String {
    if report.bridges.is_empty() {
        return "No bridge of this user runs on this machine.\n".to_owned();
    }
    let bridges: Vec<_> = report.bridges.iter().map(bridge).collect();
    bridges.join("\n")
}

fn bridge(BridgeReport { about, topics: carried }: &BridgeReport) -> String {
    let up = humantime::format_duration(Duration::from_secs_f64(about.uptime.max(0.0).floor()));
    let mut line = vec![format!("Bridge {} ({}), up {up}", about.pid, about.id)];
    for (verb, endpoints) in [("listens at", &about.listen), ("connects to", &about.connect)] {
        if !endpoints.is_empty() {
            line.push(format!("{verb} {}", endpoints.join(", ")));
        }
    }
    if about.router {
        line.push("router".to_owned());
    }
    let peers = if about.peers.is_empty() { "none".to_owned() } else { about.peers.join(", ") };
    let mut text = format!("{}\nPeers: {peers}\n", line.join(", "));
    if !carried.is_empty() {
        text += &topics(carried);
        text.push('\n');
    }
    clean(&text)
}

fn topics(topics: &[TopicReport]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(TITLES);
    for column in 4..TITLES.len() {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for TopicReport { status, rates } in topics {
        let count = &status.count;
        table.add_row([
            status.topic.clone(),
            match status.role {
                Role::Export => "export".to_owned(),
                Role::Import => "import".to_owned(),
            },
            status.path.clone(),
            status.state.clone(),
            status.number.to_string(),
            rates.map_or_else(|| "–".to_owned(), |rates| format!("{:.0}", rates.messages)),
            rates.map_or_else(|| "–".to_owned(), |rates| bytes(rates.bytes)),
            count.missed.to_string(),
            count.dropped.to_string(),
            count.refused.to_string(),
            size(status.waiting),
            size(status.lag),
            match status.role {
                Role::Export => "–".to_owned(),
                Role::Import => status.subscribers.to_string(),
            },
            count.runs.to_string(),
        ]);
    }
    table.trim_fmt()
}

fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is not negative, and `as` saturates"
)]
fn bytes(rate: f64) -> String {
    size(rate as u64)
}

/// Without control characters, which names and paths may have, and terminals obey.
fn clean(text: &str) -> String {
    text.chars()
        .map(|letter| if letter.is_control() && letter != '\n' { '\u{fffd}' } else { letter })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{super::snapshot::tests::snapshot, *};

    #[test]
    fn a_bridge_is_a_line_and_a_table() {
        let report = Report::new(&[snapshot(60.5, 100)], vec![snapshot(61.5, 300)]);
        let text = text(&report);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "Bridge 7 (ab), up 1m 1s, listens at tcp/127.0.0.1:7700");
        assert_eq!(lines[1], "Peers: cd");
        let row: Vec<_> = lines[3].split_whitespace().collect();
        assert_eq!(row.join(" "), "stats export /run/st\u{fffd}ats here 300 200 400.0 KiB 0 0 0 0 B 3 B – 0");
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn no_bridge_is_said() {
        assert!(text(&Report::new(&[], vec![])).starts_with("No bridge"));
    }
}
