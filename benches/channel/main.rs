//! The costs of sealane within one process, piece by piece. Every benchmark first asserts that the bytes it moves are right.
//!
//! ```sh
//! cargo bench --bench channel                        # all of it takes some ten minutes
//! cargo bench --bench channel -- '^stream/'          # one theme: hand_off, stream, step, message, round_trip, sum_of_u64,
//!                                                    # histogram_of_bytes, copy, serial, establish, many
//! cargo bench --bench channel -- --test              # everything once, unmeasured
//! ```
//!
//! An id names its parameters: `stream/threads=2,ring=4MiB/64KiB`. Two threads have a CPU each, if this machine has two.
//! Benchmarks that need more descriptors than the limit are left out, with a message.

mod cpus;
mod endpoints;
mod establishing;
mod event_loop;
mod kernel_floor;
mod many_channels;
mod message_cost;
mod messages;
mod reading;
mod serial;
mod streaming;

use std::time::Duration;

use criterion::{Criterion, criterion_group};

fn settings() -> Criterion {
    Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2))
}

criterion_group! {
    name = benches;
    config = settings();
    targets = streaming::hand_off, streaming::stream, message_cost::steps, messages::kinds, messages::round_trips, reading::sums,
        reading::histograms, reading::copies, serial::streams, establishing::establish, many_channels::channels
}

fn main() {
    if !establishing::work() {
        benches();
        Criterion::default().configure_from_args().final_summary();
    }
}
