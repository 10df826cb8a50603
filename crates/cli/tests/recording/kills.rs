//! Recorders that are killed: their files can be read, repaired, and have all but the last second.

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::support::{
    Place, SOON, account, content, messages, publish, read_in_python, sealane, signal, start, succeed, text,
};

const MAX: usize = 64 << 10;

#[test]
fn recorders_killed_at_random_moments_leave_files_that_are_repaired_and_exact() {
    let place = Place::new();
    let mut publisher = place.publisher();
    let mut random = fastrand::Rng::with_seed(19);
    let (mut number, mut files, mut total) = (0, Vec::new(), 0);
    // A recorder that is killed between joining and making its file leaves none.
    while files.len() < 20 {
        let file = place.join(&format!("{}.mcap", files.len()));
        let mut recorder =
            start(&mut sealane(&["record", text(&place.path), "-o", text(&file)]), &mut publisher);
        let first = number;
        for _ in 0..random.u32(..2000) {
            publish(&mut publisher, number, MAX);
            number += 1;
        }
        recorder.kill().unwrap();
        recorder.wait().unwrap();
        // Its subscription ends.
        while !publisher.subscribers().is_empty() {
            publisher.wait_event(Duration::from_secs(1)).unwrap();
        }
        if !file.exists() {
            continue;
        }
        let before = fs::read(&file).unwrap();
        let whole = succeed(&mut sealane(&["record", "--repair", text(&file)]));
        assert!(whole.contains("is whole now"), "{whole}");
        let repaired = fs::read(&file).unwrap();
        assert!(before.len() < 8 || repaired.starts_with(&before[..8]));

        let found = messages(&file);
        assert!(account(&found, first) <= number - first);
        for message in &found {
            let expected = content(message.sequence, MAX);
            assert!(
                (&message.control, &message.payload) == (&expected.0, &expected.1),
                "{}",
                message.sequence
            );
        }
        total += found.len();

        let again = succeed(&mut sealane(&["record", "--repair", text(&file)]));
        assert!(again.contains("nothing was changed"), "{again}");
        assert_eq!(fs::read(&file).unwrap(), repaired);
        files.push(file);
    }
    assert!(total > 0, "some messages were in a file before the kill");
    let entries = fs::read_dir(place.directory.path()).unwrap();
    assert_eq!(entries.count(), files.len() + 1, "nothing is left but the files and the socket");
    read_in_python(&files);
}

#[test]
fn a_message_is_in_the_file_soon_though_nothing_follows() {
    let place = Place::new();
    let mut publisher = place.publisher();
    let mut recorder = place.record(&mut publisher, &[]);
    publish(&mut publisher, 7, MAX);
    // The message's control bytes are its number.
    let is_there =
        |bytes: Vec<u8>| bytes.windows(10).any(|window| window == [0x2a, 8, 7, 0, 0, 0, 0, 0, 0, 0]);
    let deadline = Instant::now() + SOON;
    while !fs::read(&place.file).is_ok_and(is_there) {
        assert!(Instant::now() < deadline, "the message is not written");
        publisher.wait_event(Duration::from_millis(20)).unwrap();
    }
    recorder.kill().unwrap();
    recorder.wait().unwrap();
    succeed(&mut sealane(&["record", "--repair", text(&place.file)]));
    assert_eq!(messages(&place.file).len(), 1);
}

#[test]
fn a_file_that_is_being_written_is_neither_repaired_nor_overwritten() {
    let place = Place::new();
    let mut publisher = place.publisher();
    let recorder = place.record(&mut publisher, &[]);
    let deadline = Instant::now() + SOON;
    while fs::metadata(&place.file).map_or(0, |file| file.len()) == 0 {
        assert!(Instant::now() < deadline, "the file does not come");
        publisher.wait_event(Duration::from_millis(20)).unwrap();
    }
    for mut command in [sealane(&["record", "--repair", text(&place.file)]), place.recorder(&["--force"])] {
        let error = crate::support::fail(&mut command);
        assert!(error.contains("is being written by another recorder"), "{error}");
    }
    signal(&recorder, Signal::TERM);
    assert_eq!(crate::support::report(recorder)["reason"], "signal");
    assert_eq!(messages(&place.file), []);
}
