//! [`Tally`]: the counts of a recording, or of one of its files.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::record::batch::Staged;

/// The counts of messages that were written.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Tally {
    pub(crate) messages: u64,
    pub(crate) payload_bytes: u64,
    pub(crate) control_bytes: u64,
    /// Messages that were missed before those that were written.
    pub(crate) missed: u64,
    /// Descriptors that came along, and were closed.
    pub(crate) descriptors: u64,
    pub(crate) first_sequence: Option<u64>,
    pub(crate) last_sequence: Option<u64>,
}

impl Tally {
    /// Counts a message, and those that were missed just before it.
    pub(crate) fn add(&mut self, message: &Staged) {
        self.messages += 1;
        self.payload_bytes += message.payload_bytes;
        self.control_bytes += message.control_bytes;
        self.missed = self.missed.saturating_add(message.missed);
        self.descriptors += message.descriptors;
        self.first_sequence.get_or_insert(message.sequence);
        self.last_sequence = Some(message.sequence);
    }

    /// Adds the counts of the file that follows.
    pub(crate) fn append(&mut self, next: &Self) {
        self.messages += next.messages;
        self.payload_bytes += next.payload_bytes;
        self.control_bytes += next.control_bytes;
        self.missed = self.missed.saturating_add(next.missed);
        self.descriptors += next.descriptors;
        self.first_sequence = self.first_sequence.or(next.first_sequence);
        self.last_sequence = next.last_sequence.or(self.last_sequence);
    }

    /// The counts as a metadata record has them.
    pub(crate) fn to_metadata(&self) -> BTreeMap<String, String> {
        let sequence = |sequence: Option<u64>| sequence.map(|sequence| sequence.to_string());
        let values = [
            ("messages", Some(self.messages.to_string())),
            ("payload_bytes", Some(self.payload_bytes.to_string())),
            ("control_bytes", Some(self.control_bytes.to_string())),
            ("missed", Some(self.missed.to_string())),
            ("descriptors", Some(self.descriptors.to_string())),
            ("first_sequence", sequence(self.first_sequence)),
            ("last_sequence", sequence(self.last_sequence)),
        ];
        values.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }
}
