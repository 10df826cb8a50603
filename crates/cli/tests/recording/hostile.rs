//! Files that nobody vouches for: errors, or copied as far as they are whole; never a panic, and no memory for what is only claimed.

use std::{fs, process::Command};

use crate::support::{Place, fail, messages, sealane, succeed, text};

/// A command in at most 256 MiB of memory.
fn in_little_memory(arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -v 262144; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_sealane")])
        .args(arguments);
    command
}

fn record(opcode: u8, len: u64, data: &[u8]) -> Vec<u8> {
    [&[opcode][..], &len.to_le_bytes(), data].concat()
}

fn whole(opcode: u8, data: &[u8]) -> Vec<u8> {
    record(opcode, data.len() as u64, data)
}

const MAGIC: &[u8] = b"\x89MCAP0\r\n";

fn header() -> Vec<u8> {
    [MAGIC, &whole(1, &[0; 8])].concat()
}

fn chunk(size: u64, compressed_size: u64, compression: &[u8], records: &[u8]) -> Vec<u8> {
    let name_len = u32::try_from(compression.len()).unwrap().to_le_bytes();
    let head =
        [&[0; 16][..], &size.to_le_bytes(), &[0; 4], &name_len, compression, &compressed_size.to_le_bytes()];
    whole(6, &[&head.concat(), records].concat())
}

#[test]
fn lengths_that_are_only_claimed_take_no_memory() {
    let huge = u32::MAX.to_le_bytes();
    let place = Place::new();
    for (what, tail) in [
        ("a record", record(5, 1 << 60, b"abc")),
        ("a record within the limit", record(5, 1 << 30, b"abc")),
        ("a chunk", record(6, u64::MAX, b"")),
        ("a chunk's contents", chunk(1 << 60, 3, b"", b"abc")),
        ("a chunk's contents, compressed", chunk(1 << 30, 3, b"zstd", b"abc")),
        ("a chunk's bytes", chunk(3, 1 << 60, b"lz4", b"abc")),
        ("a record in a chunk", chunk(12, 12, b"", &record(5, u64::MAX - 8, b"abc"))),
        (
            "a record in a chunk that is cut",
            record(6, 1 << 29, &chunk(1 << 60, 1 << 60, b"", &record(5, 1 << 28, b"abc"))[9..]),
        ),
        ("a string", whole(12, &huge)),
        ("a map", whole(12, &[&[0; 4], &huge[..]].concat())),
        ("an attachment", whole(9, &[&[0; 24][..], &(1_u64 << 60).to_le_bytes()].concat())),
        ("an attachment without a sum", whole(9, &[0; 32])),
        ("a schema", whole(3, &[&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0], &huge[..]].concat())),
    ] {
        fs::write(&place.file, [header(), tail].concat()).unwrap();
        let output = in_little_memory(&["record", "--repair", text(&place.file)]).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{what}: {}: {error}", output.status);
        assert_eq!(messages(&place.file), [], "{what}");
        fs::remove_file(&place.file).unwrap();
    }
}

#[test]
fn other_files_are_refused_and_stay_as_they_are() {
    let place = Place::new();
    for bytes in [&b"#!/bin/sh\necho hello\n"[..], b"\x89PNG", &[0; 5000], &[MAGIC, &whole(5, b"")].concat()]
    {
        fs::write(&place.file, bytes).unwrap();
        let error = fail(&mut sealane(&["record", "--repair", text(&place.file)]));
        assert!(error.contains("expected") && error.contains(text(&place.file)), "{error}");
        assert_eq!(fs::read(&place.file).unwrap(), bytes);
        fail(&mut sealane(&["replay", text(&place.file), text(&place.path)]));
    }
    let directory = place.directory.path();
    let error = fail(&mut sealane(&["record", "--repair", text(directory)]));
    assert!(error.contains("a file expected"), "{error}");
    fail(&mut sealane(&["replay", text(directory), text(&place.path)]));
    fail(&mut sealane(&["record", "--repair", "/dev/null"]));
    fail(&mut sealane(&["record", "--repair", "/nowhere"]));
}

#[test]
fn a_repair_is_where_it_is_told_and_keeps_links_and_rights() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let place = Place::new();
    let bytes = header();
    fs::write(&place.file, &bytes).unwrap();
    let other = place.join("other.mcap");
    fs::write(&other, "precious").unwrap();
    let error = fail(&mut sealane(&["record", "--repair", text(&place.file), "-o", text(&other)]));
    assert!(error.contains("exists"), "{error}");
    assert_eq!(fs::read(&other).unwrap(), b"precious");
    succeed(&mut sealane(&["record", "--repair", text(&place.file), "-o", text(&other), "--force"]));
    assert_eq!(fs::read(&place.file).unwrap(), bytes, "the file itself is as it was");
    assert_eq!(messages(&other), []);

    fs::set_permissions(&place.file, fs::Permissions::from_mode(0o640)).unwrap();
    let link = place.join("link.mcap");
    symlink("f.mcap", &link).unwrap();
    succeed(&mut sealane(&["record", "--repair", text(&link)]));
    assert!(link.symlink_metadata().unwrap().is_symlink());
    assert_eq!(messages(&place.file), []);
    assert_eq!(fs::metadata(&place.file).unwrap().permissions().mode() & 0o777, 0o640);
}

#[test]
fn foreign_messages_are_kept_by_a_repair_and_refused_by_a_replay() {
    let place = Place::new();
    let mut bytes = Vec::new();
    {
        let mut writer = mcap::Writer::new(std::io::Cursor::new(&mut bytes)).unwrap();
        let schema = writer.add_schema("a/Schema", "jsonschema", b"{}").unwrap();
        let channel =
            writer.add_channel(schema, "/theirs", "json", &std::collections::BTreeMap::new()).unwrap();
        for sequence in 0..100 {
            let header =
                mcap::records::MessageHeader { channel_id: channel, sequence, log_time: 1, publish_time: 1 };
            writer.write_to_known_channel(&header, b"{}").unwrap();
        }
        writer
            .attach(&mcap::Attachment {
                log_time: 1,
                create_time: 2,
                name: "notes".into(),
                media_type: "text/plain".into(),
                data: b"a note"[..].into(),
            })
            .unwrap();
        writer.finish().unwrap();
    }
    fs::write(&place.file, &bytes).unwrap();
    let answer = succeed(&mut sealane(&["record", "--repair", text(&place.file)]));
    assert!(answer.contains("100 messages") && answer.contains("nothing was changed"), "{answer}");
    let error = fail(&mut sealane(&["replay", text(&place.file), text(&place.path)]));
    assert!(error.contains("100 of other kinds found") && error.contains("/theirs"), "{error}");

    fs::write(&place.file, &bytes[..bytes.len() - 20]).unwrap();
    succeed(&mut sealane(&["record", "--repair", text(&place.file)]));
    let repaired = fs::read(&place.file).unwrap();
    let summary = mcap::Summary::read(&repaired).unwrap().unwrap();
    assert_eq!(summary.stats.as_ref().unwrap().message_count, 100);
    assert_eq!(mcap::MessageStream::new(&repaired).unwrap().flatten().count(), 100);
    let attachment = mcap::read::attachment(&repaired, &summary.attachment_indexes[0]).unwrap();
    assert_eq!((attachment.name.as_str(), &*attachment.data), ("notes", &b"a note"[..]));
    crate::support::read_in_python(std::slice::from_ref(&place.file));
}
