//! A whole channel against a peer that owns region and sockets: any words, headers, bytes and packets at any time. What
//! comes out is numbered in order, within its limits and readable; after a violation nothing comes out.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use sealane::{Channel, Error, Message, Wait};

use crate::{
    hostile::{
        CONTROL, DOORBELL, OTHER_HALF, Packet, WANTS_REPLY,
        memory::{
            HEAD, Hostile, PACKETS, RECEIVER_EPOCH, Record, SENDER_EPOCH, SENDER_NEEDS, TAIL, capacity,
        },
    },
    parts::{Value, files},
};

#[derive(Debug, Arbitrary)]
enum Step {
    /// The next record, as an honest peer writes it.
    Record {
        len: u16,
        control: u8,
        heading: Heading,
    },
    /// The next message as a packet.
    Packet {
        len: u8,
        heading: Heading,
        fds: u8,
    },
    /// The next message in both carriers.
    Both {
        len: u16,
        heading: Heading,
    },
    Doorbell {
        space: bool,
    },
    /// Any header, published or not.
    Header {
        at: i8,
        sequence: i8,
        payload_len: u64,
        control_len: u32,
        flags: u32,
        reply_to: u8,
        reserved: u8,
        publish: bool,
    },
    Word {
        which: u8,
        value: Value,
    },
    Scribble {
        at: u16,
        bytes: Vec<u8>,
    },
    /// A packet of which some fields are off.
    Odd {
        kind: u8,
        flags: u16,
        announced: u8,
        sequence: i8,
        reply_to: u64,
        reserved: u64,
        space: bool,
    },
    Receive {
        keep: bool,
    },
    Wait,
    Release(u8),
    Loan {
        len: u16,
        control: u8,
    },
    Send {
        len: u8,
    },
    Request,
    Call,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
struct Heading {
    wants_reply: bool,
    reply_to: u8,
}

/// The state of the peer so far.
struct Play {
    hostile: Hostile,
    words: [u64; 6],
    sequence: u64,
    position: u64,
}

const WORDS: [usize; 6] = [HEAD, PACKETS, TAIL, RECEIVER_EPOCH, SENDER_EPOCH, SENDER_NEEDS];

impl Play {
    fn set(&mut self, word: usize, value: u64) {
        self.words[word] = value;
        self.hostile.set(WORDS[word], value);
    }

    fn packet(&mut self, flags: u16, len: u8, heading: Heading, fds: u8) {
        let flags = flags | if heading.wants_reply { WANTS_REPLY } else { 0 };
        let fds = files(fds);
        let packet = Packet {
            flags,
            reply_to: heading.reply_to.into(),
            body: vec![7; len.into()],
            fds,
            ..Packet::control(self.sequence)
        };
        // Refused once we have hung up.
        if self.hostile.socket.try_send(packet).is_ok() {
            self.set(1, self.words[1].wrapping_add(1));
        }
    }

    fn record(&mut self, flags: u16, len: u16, control: u8, heading: Heading) {
        let flags = flags | if heading.wants_reply { WANTS_REPLY } else { 0 };
        let (payload_len, control_len) = (u64::from(len), u32::from(control));
        let record = Record {
            sequence: self.sequence,
            payload_len,
            control_len,
            flags: flags.into(),
            reply_to: heading.reply_to.into(),
            ..Record::default()
        };
        self.hostile.write(self.position, record);
        let size = 64 + payload_len.next_multiple_of(64) + u64::from(control_len).next_multiple_of(64);
        self.position = self.position.wrapping_add(size);
        self.set(0, self.position);
    }
}

/// Our side: what came out so far.
#[derive(Default)]
struct Taken {
    next: u64,
    kept: Vec<Message>,
}

impl Taken {
    /// Checks the result of receiving. Dropped replies leave out numbers.
    fn take(&mut self, result: sealane::Result<Option<Message>>, keep: bool) {
        if let Ok(Some(message)) = &result {
            assert!(message.sequence() >= self.next, "messages are numbered in order");
            self.next = message.sequence() + 1;
        }
        self.check(result, keep);
    }

    /// Checks the result of a call: its reply may overtake messages that were kept meanwhile.
    fn check(&mut self, result: sealane::Result<Option<Message>>, keep: bool) {
        match result {
            Ok(Some(message)) => {
                assert!(message.control().len() <= 100 && message.fds().len() <= 2);
                if let Some(payload) = message.payload() {
                    assert!(payload.len() as u64 <= capacity() - 64);
                    assert_eq!(payload.to_vec().len(), payload.len());
                }
                if keep {
                    self.kept.push(message);
                }
            }
            Ok(None) | Err(Error::Protocol(_) | Error::Disconnected) => {}
            Err(error) if error.is_timeout() => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

pub(crate) fn run(data: &[u8]) {
    let Ok(steps) = Vec::<Step>::arbitrary(&mut Unstructured::new(data)) else { return };
    let builder = Channel::builder().max_control(100).max_fds(2).wait(Wait::Block);
    let (hostile, mut channel) = Hostile::meet(&builder);
    let mut play = Play { hostile, words: [0, 0, 0, 1, 0, 0], sequence: 0, position: 0 };
    let mut taken = Taken::default();
    for step in steps.into_iter().take(100) {
        turn(&mut play, &mut channel, &mut taken, step);
    }
    let mut rounds = 0;
    while let Ok(Some(message)) = channel.try_recv() {
        taken.take(Ok(Some(message)), false);
        rounds += 1;
        assert!(rounds < 2000, "there is no end to what a hundred steps sent");
    }
    if let Err(Error::Protocol(violation)) = channel.try_recv() {
        for error in [channel.try_recv().map(drop), channel.try_send(b""), channel.try_loan(1).map(drop)] {
            assert!(matches!(error, Err(Error::Protocol(found)) if found == violation), "{error:?}");
        }
    }
    for message in taken.kept {
        if let Some(payload) = message.payload() {
            assert_eq!(payload.to_vec().len(), payload.len());
        }
    }
}

fn turn(play: &mut Play, channel: &mut Channel, taken: &mut Taken, step: Step) {
    match step {
        Step::Record { len, control, heading } => {
            play.record(0, len % 2048, control % 101, heading);
            play.sequence += 1;
        }
        Step::Packet { len, heading, fds } => {
            play.packet(0, len % 101, heading, fds);
            play.sequence += 1;
        }
        Step::Both { len, heading } => {
            play.packet(OTHER_HALF, 3, heading, 0);
            play.record(OTHER_HALF, len % 2048, 0, heading);
            play.sequence += 1;
        }
        Step::Doorbell { space } => {
            let socket = if space { &play.hostile.space } else { &play.hostile.socket };
            let _ = socket.try_send(Packet::new(DOORBELL));
        }
        Step::Header { at, sequence, payload_len, control_len, flags, reply_to, reserved, publish } => {
            let record = Record {
                sequence: play.sequence.wrapping_add_signed(sequence.into()),
                payload_len,
                control_len,
                flags,
                reply_to: reply_to.into(),
                reserved: [reserved.into(), 0, 0, 0],
            };
            play.hostile.write(play.position.wrapping_add_signed(i64::from(at) * 64), record);
            if publish {
                play.set(0, play.position.wrapping_add(64));
            }
        }
        Step::Word { which, value } => {
            let word = usize::from(which) % WORDS.len();
            let value = value.from(play.words[word]);
            play.set(word, value);
        }
        Step::Scribble { at, bytes } => {
            // To the end of the ring, not around it.
            let at = u64::from(at) % capacity();
            let most = usize::try_from(capacity() - at).unwrap();
            play.hostile.scribble(at, &bytes[..bytes.len().min(most)]);
        }
        Step::Odd { kind, flags, announced, sequence, reply_to, reserved, space } => {
            let packet = Packet {
                kind: if kind < 128 { CONTROL } else { (kind - 128).into() },
                flags,
                announced: Some(announced.into()),
                sequence: play.sequence.wrapping_add_signed(sequence.into()),
                reply_to,
                reserved,
                ..Packet::default()
            };
            let socket = if space { &play.hostile.space } else { &play.hostile.socket };
            let _ = socket.try_send(packet);
        }
        Step::Receive { keep } => taken.take(channel.try_recv(), keep),
        Step::Wait => taken.take(channel.recv_timeout(Duration::ZERO).map(Some), false),
        Step::Release(which) => {
            if !taken.kept.is_empty() {
                let which = usize::from(which) % taken.kept.len();
                taken.kept.swap_remove(which);
            }
        }
        Step::Loan { len, control } => {
            if let Ok(Some(loan)) = channel.try_loan(len.into()) {
                let _ = loan.try_send_with(&[0_u8; 256][..control.into()]);
            }
        }
        Step::Send { len } => drop(channel.try_send(&[0_u8; 256][..len.into()])),
        Step::Request => drop(channel.sender.try_request(b"what?")),
        Step::Call => taken.check(channel.call(b"what?", Duration::ZERO).map(Some).or_else(quiet), false),
    }
}

/// Errors of a call that receiving does not have.
fn quiet(error: Error) -> sealane::Result<Option<Message>> {
    match error {
        Error::Backlog | Error::Full => Ok(None),
        error => Err(error),
    }
}
