//! The limit of one process alone: `memcpy(3)` from one place to another, over as much memory as a ring has.

use std::{hint::black_box, time::Instant};

use crate::cell::{Cell, Part, Side};

/// Copies every payload of one region to its place in another, for the cell's time; the second process has nothing to do.
pub(super) fn run(side: Side, cell: &Cell) -> Part {
    if side == Side::Second {
        return Part::default();
    }
    let (from, mut to) = (vec![1_u8; cell.depth * cell.size], vec![0_u8; cell.depth * cell.size]);
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
