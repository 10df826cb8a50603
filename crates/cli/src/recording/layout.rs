//! The records that a recording consists of: what is read of each of them, and names that writer and reader share.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::recording::fields::Fields;

/// The metadata record at the begin of a recording.
pub(crate) const BEGIN: &str = "sealane.recording";
/// The metadata record at the end of a recording.
pub(crate) const END: &str = "sealane.end";
/// The metadata record of a file that was repaired.
pub(crate) const REPAIRED: &str = "sealane.repaired";

/// The key in [`BEGIN`] of the longest payload that the publisher could publish.
pub(crate) const MAX_PAYLOAD: &str = "max_payload";
/// The key in [`END`] of messages that were missed behind the last one.
pub(crate) const MISSED_AT_END: &str = "missed_at_end";

/// A description of messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schema<'d> {
    pub(crate) id: u16,
    pub(crate) name: &'d str,
    pub(crate) encoding: &'d str,
}

impl<'d> Schema<'d> {
    pub(crate) fn parse(data: &'d [u8]) -> Result<Self> {
        let mut fields = Fields::new(data);
        let parsed = Self { id: fields.u16()?, name: fields.string()?, encoding: fields.string()? };
        fields.block()?;
        Ok(parsed)
    }
}

/// A channel of MCAP: messages of one topic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Channel<'d> {
    pub(crate) id: u16,
    pub(crate) schema: u16,
    pub(crate) topic: &'d str,
    pub(crate) encoding: &'d str,
}

impl<'d> Channel<'d> {
    pub(crate) fn parse(data: &'d [u8]) -> Result<Self> {
        let mut fields = Fields::new(data);
        let (id, schema) = (fields.u16()?, fields.u16()?);
        let parsed = Self { id, schema, topic: fields.string()?, encoding: fields.string()? };
        fields.map()?;
        Ok(parsed)
    }
}

/// A message of MCAP.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'d> {
    pub(crate) channel: u16,
    /// Nanoseconds since 1970.
    pub(crate) log_time: u64,
    pub(crate) data: &'d [u8],
}

impl<'d> Entry<'d> {
    pub(crate) fn parse(data: &'d [u8]) -> Result<Self> {
        let mut fields = Fields::new(data);
        let channel = fields.u16()?;
        fields.u32()?;
        let log_time = fields.u64()?;
        fields.u64()?;
        Ok(Self { channel, log_time, data: fields.rest() })
    }
}

/// Names and values.
#[derive(Debug)]
pub(crate) struct Metadata<'d> {
    pub(crate) name: &'d str,
    pub(crate) values: BTreeMap<String, String>,
}

impl<'d> Metadata<'d> {
    pub(crate) fn parse(data: &'d [u8]) -> Result<Self> {
        let mut fields = Fields::new(data);
        Ok(Self { name: fields.string()?, values: fields.map()? })
    }

    pub(crate) fn number(&self, key: &str) -> Result<Option<u64>> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        let number = value.parse();
        number
            .map(Some)
            .with_context(|| format!("{key} in {}: a number expected, {value:?} found", self.name))
    }
}
