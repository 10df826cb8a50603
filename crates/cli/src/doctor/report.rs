//! [`Report`]: all that `sealane doctor` says, independent of how it is printed. Its JSON form is documented in docs/tools.md.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Serialize;
use serde_json::Value;

/// How a fact of the machine stands, from harmless to fatal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// Nothing is to be done.
    Ok,
    /// The machine does not say: a file is missing or cannot be read.
    Unknown,
    /// The fact matters to some programs, or to how figures are read.
    Note,
    /// Programs of usual size meet this limit.
    Warning,
    /// A channel with default settings cannot be made, or its guarantee does not hold.
    Error,
}

impl State {
    /// The word that is printed.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// A group of checks, which has a table of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Family {
    Kernel,
    Limits,
    Memory,
    Isolation,
    Processors,
}

impl Family {
    /// The heading of the family's table.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Kernel => "Kernel",
            Self::Limits => "Limits",
            Self::Memory => "Memory",
            Self::Isolation => "Isolation",
            Self::Processors => "Processors",
        }
    }
}

/// One fact of the machine, and what it means to sealane.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Check {
    pub(super) family: Family,
    pub(super) name: &'static str,
    pub(super) state: State,
    /// The value, in words.
    pub(super) found: String,
    /// The call, error or figure that depends on the value.
    pub(super) limits: Cow<'static, str>,
    /// The command that changes the value; `None` if there is none.
    pub(super) change: Option<Cow<'static, str>>,
    /// The section of the documentation that says more.
    pub(super) more: &'static str,
    /// The value in numbers, for programs.
    pub(super) values: BTreeMap<&'static str, Value>,
}

impl Check {
    /// A check whose value is right.
    pub(super) fn new(family: Family, name: &'static str, found: impl Into<String>) -> Self {
        let (limits, values) = (Cow::Borrowed(""), BTreeMap::new());
        Self { family, name, state: State::Ok, found: found.into(), limits, change: None, more: "", values }
    }

    /// A check whose value the machine does not say.
    pub(super) fn unknown(family: Family, name: &'static str, source: &str) -> Self {
        Self::new(family, name, format!("{source} cannot be read")).state(State::Unknown)
    }

    /// Sets the state.
    pub(super) fn state(self, state: State) -> Self {
        Self { state, ..self }
    }

    /// Says what depends on the value.
    pub(super) fn limits(self, limits: impl Into<Cow<'static, str>>) -> Self {
        Self { limits: limits.into(), ..self }
    }

    /// Says how the value is changed.
    pub(super) fn change(self, change: impl Into<Cow<'static, str>>) -> Self {
        Self { change: Some(change.into()), ..self }
    }

    /// Names the section of the documentation.
    pub(super) fn more(self, more: &'static str) -> Self {
        Self { more, ..self }
    }

    /// Adds a number for programs; `null` for a value without limit.
    pub(super) fn value(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.values.insert(name, value.into());
        self
    }
}

/// How a step of the self-test has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    Passed,
    Failed,
    /// An earlier step has failed.
    Skipped,
}

/// A figure that the self-test has measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) value: f64,
    pub(super) unit: &'static str,
}

/// One step of the self-test.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) outcome: Outcome,
    /// The attempt, or the reason for which it failed or was skipped.
    pub(super) said: String,
    pub(super) figures: Vec<Figure>,
}

/// The machine, in the words that stand beside figures.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Machine {
    pub(super) kernel: String,
    pub(super) architecture: String,
    pub(super) cpu: String,
    /// CPUs on which this process may run.
    pub(super) cpus: Option<u32>,
}

/// Everything that was found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) version: &'static str,
    /// The worst state of all checks; a failed step of the test is an error.
    pub(super) state: State,
    pub(super) machine: Machine,
    pub(super) checks: Vec<Check>,
    /// The steps of the self-test; `None` if it was not asked for.
    pub(super) test: Option<Vec<Step>>,
}

impl Report {
    /// Puts a report together, and judges it.
    pub(super) fn new(machine: Machine, checks: Vec<Check>, test: Option<Vec<Step>>) -> Self {
        let failed = test.iter().flatten().any(|step| step.outcome != Outcome::Passed);
        let worst = checks.iter().map(|check| check.state).max().unwrap_or(State::Ok);
        let state = if failed { State::Error } else { worst };
        Self { version: env!("CARGO_PKG_VERSION"), state, machine, checks, test }
    }

    /// The number of checks and steps in a state.
    pub(super) fn count(&self, state: State) -> usize {
        let failed = |step: &&Step| state == State::Error && step.outcome == Outcome::Failed;
        let steps = self.test.iter().flatten().filter(failed).count();
        steps + self.checks.iter().filter(|check| check.state == state).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine { kernel: "6.1".into(), architecture: "x86_64".into(), cpu: "a CPU".into(), cpus: Some(2) }
    }

    #[test]
    fn report_is_as_bad_as_its_worst_check() {
        let check = |state| Check::new(Family::Kernel, "kernel", "6.1").state(state);
        for state in [State::Ok, State::Note, State::Warning, State::Error] {
            let report =
                Report::new(machine(), vec![check(State::Ok), check(state), check(State::Unknown)], None);
            assert_eq!(report.state, state.max(State::Unknown));
        }
    }

    #[test]
    fn steps_that_fail_or_are_skipped_are_errors() {
        let step = |outcome| Step { name: "channel", outcome, said: String::new(), figures: Vec::new() };
        let state = |outcome| Report::new(machine(), Vec::new(), Some(vec![step(outcome)])).state;
        assert_eq!(state(Outcome::Passed), State::Ok);
        assert_eq!([state(Outcome::Failed), state(Outcome::Skipped)], [State::Error; 2]);
    }
}
