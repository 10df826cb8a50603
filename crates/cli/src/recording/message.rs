//! [`Recorded`]: one published message in a file, in Protocol Buffers, which other tools of MCAP decode by the schema that comes along.

use anyhow::{Context, Result, ensure};
use bytes::{BufMut, Bytes};
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet, OneofDescriptorProto,
    field_descriptor_proto::{Label, Type},
};
use sealane::SharedSlice;

/// The encoding of messages and of their schema, as MCAP names it.
pub(crate) const ENCODING: &str = "protobuf";
/// The name of the schema.
pub(crate) const SCHEMA: &str = "sealane.Message";

const CONTROL: u32 = 5;
const PAYLOAD: u32 = 6;

/// A message as a recording has it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Recorded {
    /// The publisher's number of the message.
    #[prost(uint64, tag = "1")]
    pub(crate) sequence: u64,
    /// Messages that the recorder missed just before it.
    #[prost(uint64, tag = "2")]
    pub(crate) missed: u64,
    /// The source's run.
    #[prost(uint64, tag = "3")]
    pub(crate) epoch: u64,
    /// Descriptors that came along, and were not recorded.
    #[prost(uint32, tag = "4")]
    pub(crate) descriptors: u32,
    #[prost(bytes = "bytes", tag = "5")]
    pub(crate) control: Bytes,
    /// `None` for a message without a payload, which differs from one with an empty payload.
    #[prost(bytes = "bytes", optional, tag = "6")]
    pub(crate) payload: Option<Bytes>,
}

/// A message that came, where it lies.
#[derive(Debug)]
pub(crate) struct Received<'m> {
    pub(crate) sequence: u64,
    pub(crate) missed: u64,
    pub(crate) epoch: u64,
    pub(crate) descriptors: u32,
    pub(crate) control: &'m [u8],
    pub(crate) payload: Option<SharedSlice<'m>>,
}

impl Received<'_> {
    /// The fields with numbers.
    fn numbers(&self) -> Recorded {
        let &Self { sequence, missed, epoch, descriptors, .. } = self;
        Recorded { sequence, missed, epoch, descriptors, ..Recorded::default() }
    }

    /// The lengths of the control bytes and of the payload, as far as they are written.
    fn lens(&self) -> (Option<usize>, Option<usize>) {
        (Some(self.control.len()).filter(|len| *len > 0), self.payload.map(|payload| payload.len()))
    }

    /// Bytes of the message in a file.
    pub(crate) fn encoded_len(&self) -> usize {
        let field = |tag: u32, len: Option<usize>| {
            len.map_or(0, |len| key_len(tag) + encoded_len_varint(len as u64) + len)
        };
        let (control, payload) = self.lens();
        self.numbers().encoded_len() + field(CONTROL, control) + field(PAYLOAD, payload)
    }

    /// Writes the message into its place, which is as long as it is. The payload is copied once.
    pub(crate) fn encode(&self, mut place: &mut [u8]) -> Result<()> {
        self.numbers().encode(&mut place)?;
        let (control, payload) = self.lens();
        if let Some(len) = control {
            put_heading(CONTROL, len, &mut place);
            place.put_slice(self.control);
        }
        if let (Some(len), Some(payload)) = (payload, self.payload) {
            put_heading(PAYLOAD, len, &mut place);
            payload.copy_to_slice(place)?;
        }
        Ok(())
    }
}

/// Writes the key and the length of a field that has bytes.
fn put_heading(tag: u32, len: usize, place: &mut impl BufMut) {
    encode_key(tag, WireType::LengthDelimited, place);
    encode_varint(len as u64, place);
}

impl Recorded {
    /// Decodes a message. Nothing is copied.
    pub(crate) fn decode_from(data: Bytes) -> Result<Self> {
        let len = data.len() as u64;
        ensure!(len <= super::records::MAX_RECORD, "a message of {len} bytes");
        Self::decode(data).context("a sealane.Message expected")
    }
}

/// The schema, as MCAP wants it for Protocol Buffers: a serialized `FileDescriptorSet`.
pub(crate) fn schema() -> Vec<u8> {
    let field = |name: &str, number: u32, r#type: Type| FieldDescriptorProto {
        name: Some(name.into()),
        json_name: Some(name.into()),
        number: i32::try_from(number).ok(),
        label: Some(Label::Optional.into()),
        r#type: Some(r#type.into()),
        ..FieldDescriptorProto::default()
    };
    // Protocol Buffers tell an empty field from none by a group of its own.
    let payload = FieldDescriptorProto {
        oneof_index: Some(0),
        proto3_optional: Some(true),
        ..field("payload", PAYLOAD, Type::Bytes)
    };
    let message = DescriptorProto {
        name: Some("Message".into()),
        field: vec![
            field("sequence", 1, Type::Uint64),
            field("missed", 2, Type::Uint64),
            field("epoch", 3, Type::Uint64),
            field("descriptors", 4, Type::Uint32),
            field("control", CONTROL, Type::Bytes),
            payload,
        ],
        oneof_decl: vec![OneofDescriptorProto { name: Some("_payload".into()), options: None }],
        ..DescriptorProto::default()
    };
    let file = FileDescriptorProto {
        name: Some("sealane.proto".into()),
        package: Some("sealane".into()),
        syntax: Some("proto3".into()),
        message_type: vec![message],
        ..FileDescriptorProto::default()
    };
    FileDescriptorSet { file: vec![file] }.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn received_messages_round_trip_with_and_without_payload() {
        let (mut a, mut b) = sealane::Channel::pair().unwrap();
        a.send(b"control only").unwrap();
        a.loan(0).unwrap().send().unwrap();
        let mut loan = a.loan(3).unwrap();
        loan.copy_from_slice(b"abc");
        loan.send_with(b"both").unwrap();
        for (missed, control, payload) in
            [(0, &b"control only"[..], None), (1, b"", Some(&b""[..])), (u64::MAX, b"both", Some(b"abc"))]
        {
            let message = b.recv().unwrap();
            let received = Received {
                sequence: message.sequence(),
                missed,
                epoch: message.epoch(),
                descriptors: 0,
                control: message.control(),
                payload: message.payload().map(sealane::Payload::bytes),
            };
            let mut data = vec![0; received.encoded_len()];
            received.encode(&mut data).unwrap();
            let expected = Recorded {
                sequence: message.sequence(),
                missed,
                epoch: 0,
                descriptors: 0,
                control: Bytes::copy_from_slice(control),
                payload: payload.map(Bytes::copy_from_slice),
            };
            assert_eq!(data, expected.encode_to_vec(), "as the library encodes it");
            assert_eq!(Recorded::decode_from(data.into()).unwrap(), expected);
        }
    }

    #[test]
    fn foreign_bytes_are_errors() {
        for data in [&b"\xff"[..], b"\x32\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01abc", b"\x08"] {
            assert!(Recorded::decode_from(Bytes::copy_from_slice(data)).is_err());
        }
    }
}
