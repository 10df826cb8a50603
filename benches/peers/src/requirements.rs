//! The requirements on sealane's speed, as data, and their comparison with the samples of a run.
//!
//! A ratio is the median over rounds of the ratios of one round. The cells of a round are measured within seconds of each
//! other, and so share the state of the machine, which differs by a factor of two from one minute to the next.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};

use crate::{
    cell::{Sample, Transport, Work, Writer},
    report::{show, spread},
    size,
};

/// On which side of a limit a ratio has to be.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

use Bound::{AtLeast, AtMost};

#[derive(Debug, Clone)]
struct Requirement {
    name: String,
    work: Work,
    size: usize,
    writer: Writer,
    /// Which of the work's figures is compared.
    figure: usize,
    /// The size by whose figure each transport's own is divided first.
    relative_to: Option<usize>,
    ours: Transport,
    /// The best of these is the measure. Without any, the bound is one of the figure itself.
    theirs: &'static [Transport],
    bound: Bound,
}

use Transport as T;

const SLOTS: &[Transport] = &[T::LimitSpin, T::LimitHybrid];
const SHMEM_IPC: &[Transport] = &[T::ShmemIpcSpin, T::ShmemIpc];
const SEQPACKET: &[Transport] = &[T::SeqpacketPoll, T::Seqpacket];
const PEERS: &[Transport] = &[
    T::Iceoryx2,
    T::Iceoryx2Event,
    T::ShmemIpcSpin,
    T::ShmemIpc,
    T::IpcChannel,
    T::IpcChannelShm,
    T::SeqpacketPoll,
    T::Seqpacket,
    T::Stream,
    T::Pipe,
];

/// The list of requirements.
fn requirements() -> Vec<Requirement> {
    let of = |work: Work, size, name: &str, ours, theirs, bound| Requirement {
        name: format!("{work}: {name}"),
        work,
        size,
        writer: Writer::Fast,
        figure: 0,
        relative_to: None,
        ours,
        theirs,
        bound,
    };
    let mut list = Vec::new();
    for &writer in Work::Stream.writers() {
        let stream = |bytes, figure, name: &str, theirs, bound| {
            let name = format!("{}, {writer} writer: {name}", size::show(bytes));
            Requirement { writer, figure, ..of(Work::Stream, bytes, &name, T::Sealane, theirs, bound) }
        };
        for &bytes in Work::Stream.sizes() {
            list.push(stream(bytes, 0, "the better bare slots", SLOTS, AtLeast(0.95)));
            list.push(stream(bytes, 0, "the best peer", PEERS, AtLeast(0.97)));
        }
        list.push(stream(1 << 20, 1, "CPU time, the best peer", PEERS, AtMost(1.0)));
    }
    for &bytes in Work::Handoff.sizes() {
        let name = format!("{}, the best peer", size::show(bytes));
        list.push(of(Work::Handoff, bytes, &name, T::Sealane, PEERS, AtLeast(1.0)));
    }
    for bytes in [8 << 20, 16 << 20] {
        let name = format!("{} against 64 KiB, the same of bare slots", size::show(bytes));
        let growth = of(Work::Handoff, bytes, &name, T::Sealane, SLOTS, AtLeast(1.0 / 1.25));
        list.push(Requirement { relative_to: Some(64 << 10), ..growth });
    }
    list.extend([
        of(Work::Small, 64, "shmem-ipc", T::Sealane, SHMEM_IPC, AtLeast(2.0)),
        of(Work::Small, 64, "SEQPACKET", T::Sealane, SEQPACKET, AtLeast(15.0)),
        of(Work::Roundtrip, 64, "awake, bare slots", T::Sealane, SLOTS, AtMost(1.3)),
        of(Work::Roundtrip, 64, "asleep, SEQPACKET", T::SealaneBlock, &[T::Seqpacket], AtMost(1.1)),
    ]);
    for work in [Work::Control, Work::Fd] {
        list.push(of(work, 64, "awake, SEQPACKET", T::SealaneSpin, &[T::SeqpacketPoll], AtMost(1.1)));
        list.push(of(work, 64, "asleep, SEQPACKET", T::SealaneBlock, &[T::Seqpacket], AtMost(1.1)));
    }
    list.push(of(Work::Idle, 64, "CPU ms", T::Sealane, &[], AtMost(1.0)));
    list
}

/// The result of comparing the samples with one requirement.
#[derive(Debug, PartialEq)]
struct Finding {
    ratio: f64,
    ours: f64,
    /// The measure, and its figure.
    theirs: Option<(Transport, f64)>,
}

impl Bound {
    fn holds(self, ratio: f64) -> bool {
        match self {
            AtLeast(limit) => ratio >= limit,
            AtMost(limit) => ratio <= limit,
        }
    }
}

fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let values: Vec<f64> = values.into_iter().collect();
    (!values.is_empty()).then(|| spread(values)[1])
}

impl Requirement {
    /// The transport's figure of each round.
    fn figures(&self, samples: &[Sample], transport: Transport) -> BTreeMap<usize, f64> {
        let (_, figure) = self.work.figures()[self.figure];
        let of_size = |size| {
            let same = move |sample: &&Sample| {
                let cell = &sample.cell;
                (cell.work, cell.size, cell.writer, cell.transport)
                    == (self.work, size, self.writer, transport)
            };
            samples.iter().filter(same).map(|sample| (sample.round, figure(sample)))
        };
        let Some(base) = self.relative_to else { return of_size(self.size).collect() };
        let base: BTreeMap<usize, f64> = of_size(base).collect();
        let relative = |(round, value)| Some((round, value / base.get(&round)?));
        of_size(self.size).filter_map(relative).collect()
    }

    /// Nothing if a cell of it was not measured.
    fn find(&self, samples: &[Sample]) -> Option<Finding> {
        let ours = self.figures(samples, self.ours);
        let our_median = median(ours.values().copied())?;
        if self.theirs.is_empty() {
            return Some(Finding { ratio: our_median, ours: our_median, theirs: None });
        }
        let medians = self.theirs.iter().filter_map(|&transport| {
            Some((transport, median(self.figures(samples, transport).into_values())?))
        });
        let (best, their_median) = match self.bound {
            AtLeast(_) => medians.max_by(|a, b| a.1.total_cmp(&b.1)),
            AtMost(_) => medians.min_by(|a, b| a.1.total_cmp(&b.1)),
        }?;
        let theirs = self.figures(samples, best);
        let ratio = median(ours.iter().filter_map(|(round, value)| Some(value / theirs.get(round)?)))?;
        Some(Finding { ratio, ours: our_median, theirs: Some((best, their_median)) })
    }

    fn row(&self, samples: &[Sample]) -> [String; 6] {
        let limit = match self.bound {
            AtLeast(limit) => format!("≥ {}", show(limit)),
            AtMost(limit) => format!("≤ {}", show(limit)),
        };
        let Some(Finding { ratio, ours, theirs }) = self.find(samples) else {
            let [found, ours, theirs] = std::array::from_fn(|_| "–".into());
            return [self.name.clone(), limit, found, ours, theirs, "not measured in this run".into()];
        };
        let theirs =
            theirs.map_or("–".into(), |(transport, median)| format!("{} ({transport})", show(median)));
        let verdict = if self.bound.holds(ratio) { "holds" } else { "DOES NOT HOLD" };
        [self.name.clone(), limit, format!("{ratio:.3}"), show(ours), theirs, verdict.into()]
    }
}

/// A row for each requirement, in Markdown.
pub(crate) fn table(samples: &[Sample]) -> String {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header(["must hold: sealane against", "limit", "found", "sealane", "other", "verdict"]);
    for requirement in requirements() {
        table.add_row(requirement.row(samples));
    }
    for column in table.column_iter_mut().skip(1).take(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\n")
}

#[cfg(test)]
mod tests {
    use crate::{
        cell::{Cell, Part, Sample, Transport, Work, Writer},
        requirements::{PEERS, SLOTS, requirements, table},
    };

    /// A round in which the transport took `seconds` for the work: a thousand messages, or a round trip.
    fn sample(transport: Transport, work: Work, size: usize, round: usize, seconds: f64) -> Sample {
        let cell = Cell { transport, work, size, writer: Writer::Fast, depth: 4, seconds, one_core: false };
        let time = (seconds * 1e9) as u64;
        let part = Part { messages: 1000, seconds, cpu_seconds: seconds, sleeps: 0, p50: time, p99: time };
        Sample { round, cell, first: part, second: part }
    }

    /// The verdict on the first requirement whose name has these words.
    fn verdict(samples: &[Sample], name: &str) -> [String; 2] {
        let requirements = requirements();
        let requirement = requirements.iter().find(|requirement| requirement.name.contains(name)).unwrap();
        let [_, _, found, _, _, verdict] = requirement.row(samples);
        [found, verdict]
    }

    #[test]
    fn a_slower_stream_than_the_better_slots_does_not_hold() {
        let with_hybrid_at = |seconds| {
            let of = |transport, seconds| sample(transport, Work::Stream, 65536, 0, seconds);
            [of(Transport::Sealane, 1.0), of(Transport::LimitSpin, 1.5), of(Transport::LimitHybrid, seconds)]
        };
        let name = "stream: 64 KiB, fast writer: the better bare slots";
        assert_eq!(verdict(&with_hybrid_at(0.96), name), ["0.960", "holds"]);
        assert_eq!(verdict(&with_hybrid_at(0.94), name), ["0.940", "DOES NOT HOLD"]);
    }

    #[test]
    fn a_longer_round_trip_than_the_better_slots_does_not_hold() {
        let with_ours_at = |seconds| {
            let of = |transport, seconds| sample(transport, Work::Roundtrip, 64, 0, seconds);
            [
                of(Transport::Sealane, seconds),
                of(Transport::LimitSpin, 1e-6),
                of(Transport::LimitHybrid, 2e-6),
            ]
        };
        assert_eq!(verdict(&with_ours_at(1.25e-6), "roundtrip: awake"), ["1.250", "holds"]);
        assert_eq!(verdict(&with_ours_at(1.35e-6), "roundtrip: awake"), ["1.350", "DOES NOT HOLD"]);
    }

    #[test]
    fn a_hand_off_that_grows_more_than_the_slots_does_not_hold() {
        let with_ours_at = |seconds| {
            let of = |transport, size, seconds| sample(transport, Work::Handoff, size, 0, seconds);
            [
                of(Transport::Sealane, 64 << 10, 5.0),
                of(Transport::Sealane, 8 << 20, seconds),
                of(Transport::LimitSpin, 64 << 10, 1.0),
                of(Transport::LimitSpin, 8 << 20, 1.1),
            ]
        };
        assert_eq!(verdict(&with_ours_at(6.5), "handoff: 8 MiB against"), ["0.846", "holds"]);
        assert_eq!(verdict(&with_ours_at(7.0), "handoff: 8 MiB against"), ["0.786", "DOES NOT HOLD"]);
    }

    #[test]
    fn idle_cpu_time_does_not_hold() {
        let idle = |seconds| [sample(Transport::Sealane, Work::Idle, 64, 0, seconds)];
        assert_eq!(verdict(&idle(0.0005), "idle"), ["0.500", "holds"]);
        assert_eq!(verdict(&idle(0.0015), "idle"), ["1.500", "DOES NOT HOLD"]);
    }

    #[test]
    fn rounds_are_compared_with_themselves() {
        // Both transports are twice as slow in two rounds, and one of them is measured once more.
        let times = [(0, 1.0, 0.99), (1, 2.0, 1.98), (2, 2.0, 1.98)];
        let mut samples = vec![sample(Transport::LimitSpin, Work::Stream, 4096, 3, 0.1)];
        for (round, ours, theirs) in times {
            samples.push(sample(Transport::Sealane, Work::Stream, 4096, round, ours));
            samples.push(sample(Transport::LimitSpin, Work::Stream, 4096, round, theirs));
        }
        assert_eq!(verdict(&samples, "stream: 4 KiB, fast writer: the better"), ["0.990", "holds"]);
    }

    #[test]
    fn requirements_without_samples_are_not_measured() {
        let one_side = [sample(Transport::Sealane, Work::Stream, 4096, 0, 1.0)];
        for samples in [&[][..], &one_side] {
            for requirement in requirements() {
                let [.., verdict] = requirement.row(samples);
                assert_eq!(verdict, "not measured in this run", "{}", requirement.name);
            }
        }
        assert_eq!(table(&[]).lines().count(), requirements().len() + 2);
    }

    #[test]
    fn every_cell_of_a_requirement_is_measured_by_default() {
        for requirement in requirements() {
            let (work, size) = (requirement.work, requirement.size);
            assert!(work.sizes().contains(&size) && work.writers().contains(&requirement.writer));
            let is_measured =
                |transport: &Transport| transport.does(work, size) && transport.is_default(work);
            assert!(is_measured(&requirement.ours), "{}", requirement.name);
            if requirement.theirs == PEERS || requirement.theirs.is_empty() {
                continue;
            }
            assert!(requirement.theirs.iter().all(is_measured), "{}", requirement.name);
        }
        assert!(SLOTS.iter().all(|transport| !PEERS.contains(transport)));
    }
}
