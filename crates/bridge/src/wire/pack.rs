//! Packs: several small messages in one sample.
//!
//! ```text
//! entry: control_len u32 | payload_len + 1 u32 (0: no payload) | control bytes | payload        (little-endian)
//! ```
//! The highest bit of `control_len` says that the message had descriptors, which were left out.

use super::{Le32, Malformed};

/// Bytes of a pack at most, but for one larger message: as much as Zenoh puts into one batch.
pub const MAX_PACK: usize = 64 << 10;

/// Bytes in front of each message of a pack.
pub const ENTRY_LEN: usize = 8;

const WITHOUT_FDS: u32 = 1 << 31;

/// One message, as it stands in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'p> {
    /// The control bytes.
    pub control: &'p [u8],
    /// The payload, if the message has one.
    pub payload: Option<&'p [u8]>,
    /// It had descriptors, which were left out.
    pub without_fds: bool,
}

/// The fixed part of an entry: what [`push_lens`] writes.
fn lens(control: usize, payload: Option<usize>, without_fds: bool) -> Option<[Le32; 2]> {
    let control = u32::try_from(control).ok().filter(|len| len & WITHOUT_FDS == 0)?;
    let payload = match payload {
        Some(len) => u32::try_from(len).ok()?.checked_add(1)?,
        None => 0,
    };
    Some([(control | if without_fds { WITHOUT_FDS } else { 0 }).into(), payload.into()])
}

/// Appends a message's lengths. False, and nothing is appended, if they cannot be said in an entry. Control bytes and payload follow.
#[must_use]
pub fn push_lens(pack: &mut Vec<u8>, control: usize, payload: Option<usize>, without_fds: bool) -> bool {
    let Some([control, payload]) = lens(control, payload, without_fds) else { return false };
    pack.extend_from_slice(&control.to_bytes());
    pack.extend_from_slice(&payload.to_bytes());
    true
}

/// The messages of a pack, one after the other.
///
/// UNTRUSTED: each length is compared with what is there. After an error there is nothing more.
#[derive(Debug)]
pub struct Entries<'p> {
    rest: &'p [u8],
    len: usize,
    index: u64,
}

impl<'p> Entries<'p> {
    /// Those of a sample's payload.
    #[must_use]
    pub fn of(pack: &'p [u8]) -> Self {
        Self { rest: pack, len: pack.len(), index: 0 }
    }

    /// How many there are, if the whole pack is well formed and has at least one.
    ///
    /// # Errors
    /// [`Malformed::Pack`].
    pub fn count(pack: &'p [u8]) -> Result<u64, Malformed> {
        let mut count = 0;
        for entry in Self::of(pack) {
            entry?;
            count += 1;
        }
        if count == 0 { Err(Malformed::Pack { len: pack.len(), index: 0 }) } else { Ok(count) }
    }

    fn split(&mut self) -> Option<Entry<'p>> {
        let (lens, rest) = self.rest.split_first_chunk::<ENTRY_LEN>()?;
        let [c0, c1, c2, c3, p0, p1, p2, p3] = *lens;
        let control_len = u32::from_le_bytes([c0, c1, c2, c3]);
        let payload_len = u32::from_le_bytes([p0, p1, p2, p3]).checked_sub(1);
        let (control, rest) = rest.split_at_checked(usize::try_from(control_len & !WITHOUT_FDS).ok()?)?;
        let (payload, rest) = match payload_len {
            Some(len) => {
                let (payload, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
                (Some(payload), rest)
            }
            None => (None, rest),
        };
        self.rest = rest;
        Some(Entry { control, payload, without_fds: control_len & WITHOUT_FDS != 0 })
    }
}

impl<'p> Iterator for Entries<'p> {
    type Item = Result<Entry<'p>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let entry = self.split();
        let malformed = Malformed::Pack { len: self.len, index: self.index };
        self.index += 1;
        if entry.is_none() {
            self.rest = &[];
        }
        Some(entry.ok_or(malformed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(entries: &[Entry<'_>]) -> Vec<u8> {
        let mut pack = Vec::new();
        for entry in entries {
            assert!(push_lens(
                &mut pack,
                entry.control.len(),
                entry.payload.map(<[u8]>::len),
                entry.without_fds
            ));
            pack.extend_from_slice(entry.control);
            pack.extend_from_slice(entry.payload.unwrap_or_default());
        }
        pack
    }

    #[test]
    fn messages_come_back_as_they_were() {
        let entries = [
            Entry { control: b"", payload: None, without_fds: false },
            Entry { control: b"gain", payload: Some(b""), without_fds: true },
            Entry { control: b"", payload: Some(b"pixels"), without_fds: false },
        ];
        let pack = pack(&entries);
        assert_eq!(Entries::of(&pack).collect::<Result<Vec<_>, _>>().unwrap(), entries);
        assert_eq!(Entries::count(&pack), Ok(3));
    }

    #[test]
    fn a_pack_that_is_cut_anywhere_is_refused() {
        let whole = pack(&[Entry { control: b"four", payload: Some(b"pixels"), without_fds: false }]);
        for len in 0..whole.len() {
            assert!(Entries::count(&whole[..len]).is_err(), "{len}");
        }
        let mut lies = whole;
        lies[0] = 0xff;
        assert_eq!(Entries::count(&lies), Err(Malformed::Pack { len: lies.len(), index: 0 }));
    }

    #[test]
    fn lengths_that_cannot_be_said_are_refused() {
        let mut pack = Vec::new();
        assert!(!push_lens(&mut pack, 1 << 31, None, false));
        assert!(!push_lens(&mut pack, 0, Some(usize::try_from(u32::MAX).unwrap()), false));
        assert!(pack.is_empty());
    }
}
