//! Sizes in bytes, as they are written and read.

use anyhow::{Context, Result, ensure};

pub(crate) fn show(size: usize) -> String {
    match size {
        size if size.is_multiple_of(1 << 20) => format!("{} MiB", size >> 20),
        size if size.is_multiple_of(1 << 10) => format!("{} KiB", size >> 10),
        size => format!("{size} B"),
    }
}

/// `64`, `4K`, `1M`, and the same with `iB`.
pub(crate) fn parse(text: &str) -> Result<usize> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor = match text[digits.len()..].trim_end_matches("iB") {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        unit => anyhow::bail!("expected no unit, K or M, found {unit:?}"),
    };
    let size =
        digits.parse::<usize>().with_context(|| format!("expected a number, found {digits:?}"))? * factor;
    ensure!(size > 0 && size.is_multiple_of(8), "expected a multiple of 8, found {size}");
    Ok(size)
}
