//! Times and sizes on the command line: one form for all options.

use std::time::Duration;

use anyhow::{Context, Result};
use bytesize::ByteSize;

/// A time: `500ms`, `1h 30m`, or a number of seconds.
pub(crate) fn duration(text: &str) -> Result<Duration> {
    let seconds = text.trim().parse().ok().map(Duration::try_from_secs_f64);
    let time = match seconds {
        Some(seconds) => seconds.ok(),
        None => humantime::parse_duration(text).ok(),
    };
    time.with_context(|| format!("a time expected, as 2 (seconds), 500ms, 10m or \"1h 30m\"; found {text:?}"))
}

/// A size: `500MB`, `1GiB`, or a number of bytes.
pub(crate) fn size(text: &str) -> Result<ByteSize> {
    let size = text.parse().ok();
    size.with_context(|| format!("a size expected, as 4096 (bytes), 64KiB, 500MB or 1GiB; found {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_or_have_units() {
        for (text, milliseconds) in
            [("2", 2000), ("0.5", 500), (" 3 ", 3000), ("0", 0), ("500ms", 500), ("1m 30s", 90_000)]
        {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(milliseconds), "{text}");
        }
        for text in ["", "soon", "-1", "nan", "inf", "1e300", "10 parsecs"] {
            let error = duration(text).unwrap_err().to_string();
            assert!(error.contains("a time expected") && error.contains(text), "{error}");
        }
    }

    #[test]
    fn sizes_are_bytes_or_have_units() {
        for (text, bytes) in [("4096", 4096), ("64KiB", 65_536), ("1 MB", 1_000_000)] {
            assert_eq!(size(text).unwrap().as_u64(), bytes, "{text}");
        }
        for text in ["", "abc", "MB", "12 elephants"] {
            let error = size(text).unwrap_err().to_string();
            assert!(error.contains("a size expected") && error.contains(text), "{error}");
        }
    }
}
