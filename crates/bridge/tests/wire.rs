//! Bytes from the network are refused, or are exactly what this version writes.

use proptest::{collection::vec, prelude::*};
use sealane_bridge::wire::{
    Head, Keys, Kind, Place, beat,
    call::{Ask, CallError},
    pack::{self, Entries},
};

/// Bytes that are often nearly right.
fn nearly(good: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (changes, any::<prop::sample::Index>(), any::<bool>()).prop_map(move |(changes, cut, cuts)| {
        let mut bytes = good.clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cuts {
            bytes.truncate(cut.index(bytes.len()));
        }
        bytes
    })
}

fn head() -> Vec<u8> {
    let place = Place { run: 7, number: 9, source: 1 };
    [&Head::new(Kind::Message, place).to_bytes()[..], b"control"].concat()
}

fn packed() -> Vec<u8> {
    let mut bytes = Vec::new();
    for (control, payload) in [(&b"gain"[..], None), (b"", Some(&b"pixels"[..])), (b"x", Some(b""))] {
        assert!(pack::push_lens(&mut bytes, control.len(), payload.map(<[u8]>::len), false));
        bytes.extend_from_slice(control);
        bytes.extend_from_slice(payload.unwrap_or_default());
    }
    bytes
}

fn check_head(bytes: &[u8]) {
    if let Ok((head, rest)) = Head::parse(bytes) {
        assert_eq!([&head.to_bytes()[..], rest].concat(), bytes);
    }
}

fn check_pack(bytes: &[u8]) {
    let entries: Vec<_> = Entries::of(bytes).collect();
    let Ok(count) = Entries::count(bytes) else {
        assert!(entries.is_empty() || entries.last().is_some_and(Result::is_err));
        return;
    };
    assert_eq!(u64::try_from(entries.len()).unwrap(), count);
    let mut again = Vec::new();
    for entry in entries {
        let entry = entry.unwrap();
        let payload = entry.payload.map(<[u8]>::len);
        assert!(pack::push_lens(&mut again, entry.control.len(), payload, entry.without_fds));
        again.extend_from_slice(entry.control);
        again.extend_from_slice(entry.payload.unwrap_or_default());
    }
    assert_eq!(again, bytes);
}

fn check_others(bytes: &[u8]) {
    if let Ok(runs) = beat::parse(bytes) {
        assert_eq!(beat::to_bytes(&runs), bytes);
    }
    if let Ok(ask) = Ask::parse(bytes) {
        assert_eq!(ask.to_bytes(), bytes);
    }
    if let Some(error) = CallError::of(bytes) {
        assert_eq!(error.to_string().as_bytes(), bytes);
    }
    if let Ok(text) = str::from_utf8(bytes) {
        let keys = Keys::new("a/b");
        if let Some(run) = keys.run_of(text) {
            assert_eq!(keys.token(run), text);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_refused_or_come_back(bytes in vec(any::<u8>(), 0..200)) {
        check_head(&bytes);
        check_pack(&bytes);
        check_others(&bytes);
    }

    #[test]
    fn nearly_right_heads_are_refused_or_come_back(bytes in nearly(head())) {
        check_head(&bytes);
    }

    #[test]
    fn nearly_right_packs_are_refused_or_come_back(bytes in nearly(packed())) {
        check_pack(&bytes);
    }

    #[test]
    fn nearly_right_lists_calls_and_tokens_are_refused_or_come_back(
        list in nearly(beat::to_bytes(&[beat::Ended { run: 1, end: 2 }, beat::Ended { run: 3, end: 4 }])),
        ask in nearly(Ask { wants_reply: true, timeout: std::time::Duration::from_secs(1) }.to_bytes()),
        error in nearly(CallError::Refused("no".into()).to_string().into_bytes()),
        token in nearly(Keys::new("a/b").token(0xfe).into_bytes()),
    ) {
        for bytes in [list, ask, error, token] {
            check_others(&bytes);
        }
    }
}
