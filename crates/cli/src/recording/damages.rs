//! [`Damages`]: what of a file could not be read, and why.

use serde::Serialize;

/// Damages in the order of the file. Of a hostile file, which may have any number, the first ones.
#[derive(Debug, Default, Clone, Serialize)]
pub(crate) struct Damages {
    damages: Vec<String>,
    /// Damages that are counted only.
    more_damages: u64,
}

impl Damages {
    /// Most damages that are kept.
    const MAX: usize = 10;

    pub(crate) fn add(&mut self, error: &anyhow::Error) {
        if self.damages.len() < Self::MAX {
            self.damages.push(format!("{error:#}"));
        } else {
            self.more_damages += 1;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.damages.is_empty()
    }

    pub(crate) fn first(&self) -> Option<&str> {
        self.damages.first().map(String::as_str)
    }

    /// The lines that tell a person.
    pub(crate) fn lines(&self) -> Vec<String> {
        let first = self.damages.iter().map(|damage| format!("left out: {damage}"));
        let more = (self.more_damages > 0).then(|| format!("left out: {} more", self.more_damages));
        first.chain(more).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damages_beyond_the_first_are_counted() {
        let mut damages = Damages::default();
        for number in 0..1000 {
            damages.add(&anyhow::anyhow!("damage {number}"));
        }
        assert_eq!(damages.first(), Some("damage 0"));
        assert_eq!(damages.lines().len(), Damages::MAX + 1);
        assert_eq!(damages.lines().last().unwrap(), "left out: 990 more");
    }
}
