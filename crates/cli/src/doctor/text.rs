//! A [`Report`] as text of at most 100 columns, and numbers in words.

use std::fmt::Write;

use textwrap::{Options, wrap};

use super::report::{Check, Family, Outcome, Report, State, Step};

/// Columns of the output.
pub(super) const WIDTH: usize = 100;
/// Columns before the value: the state and the name.
const INDENT: &str = "                                 ";
/// Columns before the details of a check: room for commands of some 80 characters.
const DETAIL: &str = "           ";

/// The whole report. With `all`, checks that are ok have their details too.
pub(super) fn render(report: &Report, all: bool) -> String {
    let mut out = String::new();
    let machine = &report.machine;
    let cpus = machine.cpus.map_or_else(|| "unknown CPUs".to_owned(), |count| counted(count.into(), "CPU"));
    let title = format!(
        "sealane {} on Linux {} {}; {}, {cpus}",
        report.version, machine.kernel, machine.architecture, machine.cpu
    );
    paragraph(&mut out, "", "  ", &title);
    for family in Family::ALL {
        let checks = report.checks.iter().filter(|check| check.family == family);
        let mut checks = checks.peekable();
        if checks.peek().is_some() {
            let _ = writeln!(out, "\n{}", family.title());
        }
        checks.for_each(|check| write_check(&mut out, check, all));
    }
    if let Some(steps) = &report.test {
        let _ = writeln!(out);
        let title = format!("Self-test, between this process and a child, on {}", machine.cpu);
        paragraph(&mut out, "", "  ", &title);
        for step in steps {
            write_step(&mut out, step);
        }
    }
    let counts = [
        (State::Error, "error"),
        (State::Warning, "warning"),
        (State::Note, "note"),
        (State::Unknown, "unknown value"),
    ];
    let counts: Vec<_> = counts.map(|(state, word)| counted(report.count(state) as u64, word)).into();
    let _ = writeln!(out, "\n{}", counts.join(", "));
    out
}

fn write_check(out: &mut String, check: &Check, all: bool) {
    let first = format!("  {:<8} {:<20}  ", check.state.word(), check.name);
    paragraph(out, &first, INDENT, &check.found);
    if matches!(check.state, State::Ok | State::Unknown) && !all {
        return;
    }
    if !check.limits.is_empty() {
        paragraph(out, &format!("{DETAIL}limits: "), &format!("{DETAIL}        "), &check.limits);
    }
    if let Some(change) = &check.change {
        // A command stays on one line, so that it can be copied.
        let _ = writeln!(out, "{DETAIL}change: {change}");
    }
    if !check.more.is_empty() {
        let _ = writeln!(out, "{DETAIL}more:   {}", check.more);
    }
}

fn write_step(out: &mut String, step: &Step) {
    let word = match step.outcome {
        Outcome::Passed => "ok",
        Outcome::Failed => "failed",
        Outcome::Skipped => "skipped",
    };
    let figures = step.figures.iter().map(|figure| format!("{} {}", short(figure.value), figure.unit));
    let mut said: Vec<String> = figures.collect();
    said.push(step.said.clone());
    said.retain(|part| !part.is_empty());
    paragraph(out, &format!("  {word:<8} {:<20}  ", step.name), INDENT, &said.join("; "));
}

fn paragraph(out: &mut String, first: &str, later: &str, text: &str) {
    let options = Options::new(WIDTH).initial_indent(first).subsequent_indent(later);
    for line in wrap(text, options) {
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

/// A number of things.
pub(super) fn counted(count: u64, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", grouped(count))
}

/// A number with a comma between groups of three digits.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Bytes in the largest unit of which there is at least one.
#[expect(clippy::cast_precision_loss, reason = "one digit after the point is shown")]
pub(super) fn bytes(bytes: u64) -> String {
    let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) if bytes.is_multiple_of(*unit) => format!("{} {name}", bytes / unit),
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => counted(bytes, "byte"),
    }
}

/// A figure with some three digits.
pub(super) fn short(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::{Figure, Machine};

    fn report(cpu: &str) -> Report {
        let machine =
            Machine { kernel: "6.1".into(), architecture: "x86_64".into(), cpu: cpu.into(), cpus: None };
        let check = Check::new(Family::Limits, "RLIMIT_NOFILE", "16 of 16: ".repeat(30))
            .state(State::Error)
            .limits("channels ".repeat(40))
            .change("ulimit -n 1024")
            .more("docs/guide.md#many-clients");
        let figures = vec![Figure { name: "round_trip", value: 0.961, unit: "µs" }];
        let step = Step { name: "channel", outcome: Outcome::Failed, said: "no ".repeat(90), figures };
        Report::new(
            machine,
            vec![check, Check::new(Family::Kernel, "kernel", "6.1").limits("all")],
            Some(vec![step]),
        )
    }

    #[test]
    fn lines_fit_into_the_width_whatever_is_found() {
        for cpu in ["a CPU", &"x".repeat(120), &"many words ".repeat(10)] {
            let text = render(&report(cpu), true);
            assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        }
    }

    #[test]
    fn details_of_what_is_ok_are_shown_when_asked_for() {
        let report = report("a CPU");
        assert!(
            !render(&report, false).contains("limits: all") && render(&report, true).contains("limits: all")
        );
        assert!(render(&report, false).contains("change: ulimit -n 1024"));
        assert!(render(&report, false).ends_with("2 errors, 0 warnings, 0 notes, 0 unknown values\n"));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            (grouped(0), grouped(212_992), grouped(1000)),
            ("0".into(), "212,992".into(), "1,000".into())
        );
        assert_eq!(
            (bytes(4 << 20), bytes(1), bytes(212_992)),
            ("4 MiB".into(), "1 byte".into(), "208 KiB".into())
        );
        assert_eq!(
            (bytes(24_684_092 << 10), short(0.961), short(13.64)),
            ("23.5 GiB".into(), "0.96".into(), "13.6".into())
        );
    }
}
