//! What one process can do alone: `memcpy(3)` from one place to another, over as much memory as a ring has.

use std::{hint::black_box, time::Instant};

use crate::{cell::Cell, child::Part};

/// Copies between every payload of one region and its place in another, for the cell's time.
pub(super) fn measure(cell: &Cell) -> Part {
    let (from, mut to) = (vec![1_u8; cell.slots() * cell.size], vec![0_u8; cell.slots() * cell.size]);
    let (mut messages, start) = (0, Instant::now());
    while start.elapsed().as_secs_f64() < cell.seconds {
        for (from, to) in from.chunks_exact(cell.size).zip(to.chunks_exact_mut(cell.size)) {
            to.copy_from_slice(black_box(from));
            black_box(to);
            messages += 1;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    Part { messages, seconds, cpu_seconds: seconds, ..Part::default() }
}
