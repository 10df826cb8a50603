//! [`Fields`]: the fields of an MCAP record, taken one after the other from bytes that nobody vouches for.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

/// The bytes of a record that were not taken yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'d>(&'d [u8]);

impl<'d> Fields<'d> {
    pub(crate) fn new(data: &'d [u8]) -> Self {
        Self(data)
    }

    /// The rest of the record.
    pub(crate) fn rest(self) -> &'d [u8] {
        self.0
    }

    pub(crate) fn bytes(&mut self, len: u64) -> Result<&'d [u8]> {
        let available = self.0.len();
        let taken = usize::try_from(len).ok().and_then(|len| self.0.split_at_checked(len));
        let Some((taken, rest)) = taken else {
            bail!("a field of {len} bytes expected, {available} bytes found");
        };
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.bytes(N as u64)?;
        bytes.try_into().context("a number")
    }

    pub(crate) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Bytes behind their length, of four bytes.
    pub(crate) fn block(&mut self) -> Result<&'d [u8]> {
        let len = self.u32()?;
        self.bytes(len.into())
    }

    pub(crate) fn string(&mut self) -> Result<&'d str> {
        std::str::from_utf8(self.block()?).context("UTF-8 expected")
    }

    pub(crate) fn map(&mut self) -> Result<BTreeMap<String, String>> {
        let mut entries = Self(self.block()?);
        let mut map = BTreeMap::new();
        while !entries.0.is_empty() {
            let (key, value) = (entries.string()?, entries.string()?);
            ensure!(map.insert(key.to_owned(), value.to_owned()).is_none(), "the key {key:?} is there twice");
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_beyond_the_record_are_errors() {
        let long = [&u32::MAX.to_le_bytes()[..], b"abc"].concat();
        for error in [
            Fields::new(&long).string().unwrap_err(),
            Fields::new(&long).map().unwrap_err(),
            Fields::new(&long).bytes(1 << 60).unwrap_err(),
        ] {
            assert!(error.to_string().contains("bytes expected"), "{error}");
        }
        assert!(Fields::new(&[1, 2, 3]).u32().is_err());
    }

    #[test]
    fn maps_with_a_key_twice_are_errors() {
        let entry = [&1_u32.to_le_bytes()[..], b"k", &1_u32.to_le_bytes(), b"v"].concat();
        let map = |entries: &[u8]| {
            let len = u32::try_from(entries.len()).unwrap();
            Fields::new(&[&len.to_le_bytes()[..], entries].concat()).map()
        };
        assert_eq!(map(&entry).unwrap()["k"], "v");
        assert!(map(&entry.repeat(2)).is_err());
    }
}
