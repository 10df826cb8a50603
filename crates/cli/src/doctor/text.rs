//! A [`Report`] as text of at most 100 columns, and numbers in words.

use std::fmt::Write;

use textwrap::{Options, wrap};

use super::report::{Check, Family, Machine, Outcome, Report, State, Step};

/// Columns of the output.
pub(super) const WIDTH: usize = 100;
/// Columns before the value: the state and the name.
const INDENT: &str = "                                 ";
/// Columns before the details of a check: room for commands of some 80 characters.
const DETAIL: &str = "           ";

/// A report in text, piece by piece as it comes about. With `all`, checks that are ok have their details too.
#[derive(Debug)]
pub(super) struct Text {
    all: bool,
    /// The family of the last check, whose heading is there.
    family: Option<Family>,
    /// The processor's name, for the heading of the self-test; `None` once that is there.
    cpu: Option<String>,
}

impl Text {
    /// The start of a text.
    pub(super) fn new(all: bool) -> Self {
        Self { all, family: None, cpu: None }
    }

    /// The line at the top.
    pub(super) fn machine(&mut self, machine: &Machine) -> String {
        let cpus =
            machine.cpus.map_or_else(|| "unknown CPUs".to_owned(), |count| counted(count.into(), "CPU"));
        let Machine { kernel, architecture, cpu, .. } = machine;
        let version = env!("CARGO_PKG_VERSION");
        let mut out = String::new();
        let title = format!("sealane {version} on Linux {kernel} {architecture}; {cpu}, {cpus}");
        paragraph(&mut out, "", "  ", &title);
        self.cpu = Some(cpu.clone());
        out
    }

    /// A check, below the heading of its family.
    pub(super) fn check(&mut self, check: &Check) -> String {
        let mut out = String::new();
        if self.family != Some(check.family) {
            let _ = writeln!(out, "\n{}", check.family.title());
            self.family = Some(check.family);
        }
        write_check(&mut out, check, self.all);
        out
    }

    /// A step, below the heading of the self-test.
    pub(super) fn step(&mut self, step: &Step) -> String {
        let mut out = String::new();
        if let Some(cpu) = self.cpu.take() {
            out.push('\n');
            let title = format!("Self-test, between this process and a child, on {cpu}");
            paragraph(&mut out, "", "  ", &title);
        }
        write_step(&mut out, step);
        out
    }
}

/// The last line: how many there are of each state.
pub(super) fn counts(report: &Report) -> String {
    let counts = [
        (State::Error, "error"),
        (State::Warning, "warning"),
        (State::Note, "note"),
        (State::Unknown, "unknown value"),
    ];
    let counts = counts.map(|(state, word)| counted(report.count(state) as u64, word));
    format!("\n{}\n", counts.join(", "))
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
    use crate::doctor::report::Figure;

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

    fn render(report: &Report, all: bool) -> String {
        let mut text = Text::new(all);
        let mut out = text.machine(&report.machine);
        report.checks.iter().for_each(|check| out.push_str(&text.check(check)));
        report.test.iter().flatten().for_each(|step| out.push_str(&text.step(step)));
        out + &counts(report)
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
    fn each_family_and_the_self_test_has_one_heading() {
        let check = |family, name| Check::new(family, name, "found");
        let checks = vec![check(Family::Kernel, "a"), check(Family::Kernel, "b"), check(Family::Limits, "c")];
        let step = |name| Step { name, outcome: Outcome::Passed, said: String::new(), figures: Vec::new() };
        let report = Report::new(report("a CPU").machine, checks, Some(vec![step("d"), step("e")]));
        let text = render(&report, false);
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with(' ') && !line.is_empty()).collect();
        assert_eq!(
            lines[1..4],
            ["Kernel", "Limits", "Self-test, between this process and a child, on a CPU"]
        );
        assert_eq!(lines.len(), 5, "{text}");
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
