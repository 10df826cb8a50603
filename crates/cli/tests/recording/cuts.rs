//! Files that are cut, or have something behind their end: all that is whole is kept, and what is not is named.

use std::{fs, path::PathBuf};

use serde_json::Value;

use crate::support::{Place, content, messages, publish, read_in_python, report, sealane, succeed, text};

const MAX: usize = 1000;

/// A recording of twenty messages in one chunk.
fn recording() -> (Place, Vec<u8>) {
    let place = Place::new();
    let mut publisher = place.publisher();
    let recorder = place.record(&mut publisher, &[]);
    for number in 0..20 {
        publish(&mut publisher, number, MAX);
    }
    drop(publisher);
    assert_eq!(report(recorder)["messages"], 20);
    let bytes = fs::read(&place.file).unwrap();
    (place, bytes)
}

/// Where the records of messages end in a file, in the order of the file.
fn ends_of_messages(bytes: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    for number in 0..20_u64 {
        let (control, payload) = content(number, MAX);
        let key = [&[0x2a, 8][..], &control].concat();
        let from = ends.last().copied().unwrap_or(0);
        let at =
            from + bytes[from..].windows(key.len()).position(|window| window == key).unwrap() + key.len();
        // The key of the payload, its length as a varint, and its bytes.
        ends.push(
            at + payload.map_or(0, |payload| 1 + if payload.len() < 128 { 1 } else { 2 } + payload.len()),
        );
    }
    ends
}

fn repair(arguments: &[&str]) -> Value {
    let mut command = sealane(&["record", "--json", "--repair"]);
    serde_json::from_str(&succeed(command.args(arguments))).unwrap()
}

#[test]
fn files_that_are_cut_anywhere_are_repaired_with_all_messages_that_are_whole() {
    let (place, bytes) = recording();
    let ends = ends_of_messages(&bytes);
    let mut files: Vec<PathBuf> = Vec::new();
    let moments = ends.iter().flat_map(|end| [end - 1, *end]);
    for end in (0..bytes.len()).step_by(137).chain(moments) {
        fs::write(&place.file, &bytes[..end]).unwrap();
        let file = place.join(&format!("{end}.mcap"));
        let report = repair(&[text(&place.file), "-o", text(&file)]);
        let found = messages(&file);
        assert_eq!(found.len(), ends.iter().filter(|other| **other <= end).count(), "{end}");
        for (number, message) in (0..).zip(&found) {
            assert_eq!((message.control.clone(), message.payload.clone()), content(number, MAX));
        }
        assert_eq!(report["messages"], found.len());
        let damages = report["damages"].to_string();
        assert!(damages != "[]" && !damages.contains("\"0 bytes"), "{report}");
        files.push(file);
    }
    read_in_python(&files);
}

#[test]
fn what_is_left_out_of_a_cut_chunk_is_counted_and_what_is_kept_is_said_to_be_unchecked() {
    let (place, bytes) = recording();
    let ends = ends_of_messages(&bytes);
    fs::write(&place.file, &bytes[..ends[12] - 1]).unwrap();
    let cut = repair(&[text(&place.file), "-o", text(&place.join("json.mcap"))]);
    let left_out = ends[12] - 1 - ends[11];
    assert_eq!((&cut["messages"], &cut["messages_unchecked"]), (&12.into(), &12.into()));
    assert_eq!(cut["bytes_left_out"], left_out, "{cut}");
    // A replay plays what a repair keeps.
    let path = place.join("q");
    let mut command = sealane(&["replay", text(&place.file), text(&path), "--wait-for", "0", "--json"]);
    let played: Value = serde_json::from_str(&succeed(&mut command)).unwrap();
    assert_eq!(played["messages"], 12);
    assert!(played["damages"][0].as_str().unwrap().contains("not checked"), "{played}");

    let said = succeed(&mut sealane(&["record", "--repair", text(&place.file)]));
    for expected in [
        "12 messages",
        &format!("left out: {left_out} bytes"),
        "of a message",
        "12 messages before that",
        "not checked",
    ] {
        assert!(said.contains(expected), "{said}");
    }
    assert_eq!(messages(&place.file).len(), 12);
    assert!(repair(&[text(&place.file)])["was_whole"].as_bool().unwrap());
}

#[test]
fn bytes_behind_a_whole_file_are_named() {
    let (place, bytes) = recording();
    // The last looks like the end of a file.
    for garbage in [&b"garbage"[..], &[0; 4096], b"garbage\x89MCAP0\r\n"] {
        fs::write(&place.file, [&bytes, garbage].concat()).unwrap();
        let report = repair(&[text(&place.file)]);
        assert_eq!((&report["was_whole"], &report["messages"]), (&false.into(), &20.into()));
        assert_eq!(
            (&report["bytes_left_out"], &report["messages_unchecked"]),
            (&garbage.len().into(), &0.into())
        );
        let expected =
            format!("{} bytes behind the end of the recording, at byte {}", garbage.len(), bytes.len());
        assert_eq!(report["damages"][0], expected, "{report}");
        assert_eq!(messages(&place.file).len(), 20);
    }
}

#[test]
fn a_damaged_chunk_is_left_out_as_a_whole_and_counted() {
    let (place, mut bytes) = recording();
    let end = ends_of_messages(&bytes)[19];
    bytes[end - 1] ^= 1;
    fs::write(&place.file, &bytes).unwrap();
    let report = repair(&[text(&place.file)]);
    assert_eq!((&report["messages"], &report["messages_unchecked"]), (&0.into(), &0.into()));
    assert!(report["damages"][0].as_str().unwrap().contains("CRC"), "{report}");
    assert!(report["bytes_left_out"].as_u64().unwrap() > 20 * 31, "{report}");
}
