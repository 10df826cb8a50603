//! serde types in payloads: written to a loan and read from the ring, without a buffer between.

use sealane::{Channel, Message, Result};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Report {
    name: String,
    readings: Vec<u32>,
}

/// A loan takes room for all of its length, so it begins small, and is made twice as long until the value fits.
fn send(channel: &mut Channel, report: &Report) -> Result<usize> {
    let mut len = 256;
    loop {
        let mut writer = channel.loan(len)?.writer();
        if serde_json::to_writer(&mut writer, report).is_ok() {
            let written = writer.written();
            writer.send_with("report")?;
            return Ok(written);
        }
        // Dropped: nothing was sent. A ring that is too small for the value ends this with an error.
        len *= 2;
    }
}

fn receive(mut message: Message) -> Report {
    assert_eq!(message.control(), b"report");
    // Nothing that the peer changes meanwhile is read twice.
    let reader = message.take_payload().unwrap().into_reader();
    serde_json::from_reader(reader).unwrap()
}

#[test]
fn serde_through_writers_and_readers() {
    let (mut a, mut b) = Channel::builder().ring_capacity(1 << 16).pair().unwrap();
    for count in [0, 10, 100, 2000] {
        let report = Report { name: format!("of {count}"), readings: (0..count).collect() };
        let written = send(&mut a, &report).unwrap();
        let message = b.recv().unwrap();
        assert_eq!(message.payload().unwrap().len(), written, "what was written, and no more");
        assert_eq!(receive(message), report);
    }
    assert_eq!(b.receiver.held().count, 0);
    let endless = Report { name: "x".repeat(1 << 17), readings: Vec::new() };
    assert!(matches!(send(&mut a, &endless), Err(sealane::Error::PayloadTooLarge { .. })));
}
