//! A subscriber against a publisher that owns region and sockets: any words, headers, bytes and packets at any time, whether it is
//! waited for or may be overrun. What comes out is numbered in order, within its limits, and counted; after a violation nothing
//! comes out.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use sealane::{Builder, Error, Message, Subscriber, Wait};

use crate::{
    hostile::{
        DOORBELL, Packet, READY,
        fanout::{
            CLAIMED, DESCRIPTORS, FOREVER, LATEST, MESSAGES, NEVER, RawTerms, WITHOUT_PAYLOAD, publish,
        },
        memory::{HEAD, Hostile, PACKETS, PADDING, RECEIVER_EPOCH, Record, SENDER_EPOCH, SENDER_NEEDS, TAIL},
        page,
    },
    parts::{Value, files},
};

const PAGES: u64 = 4;
const WORDS: [usize; 9] =
    [HEAD, LATEST, CLAIMED, MESSAGES, PACKETS, TAIL, RECEIVER_EPOCH, SENDER_EPOCH, SENDER_NEEDS];

#[derive(Debug, Arbitrary)]
struct Terms {
    is_waited_for: bool,
    position: u64,
    sequence: u64,
    lost: u64,
    steps: Vec<Step>,
}

#[derive(Debug, Arbitrary)]
enum Step {
    /// The next record, as an honest publisher writes it; `skip` messages before it were never sent here.
    Record {
        len: u16,
        control: u8,
        skip: u8,
        lost: u8,
        epoch: u8,
        has_payload: bool,
        /// With descriptors, if there are any: sent, or said to be.
        fds: Option<Fds>,
    },
    /// Any header, published or not.
    Header {
        at: i8,
        sequence: i8,
        payload_len: u64,
        control_len: u32,
        flags: u32,
        reply_to: u8,
        reserved: [u8; 4],
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
    Doorbell {
        space: bool,
    },
    Reply {
        to: u8,
        len: u8,
    },
    Packet {
        kind: u8,
        flags: u16,
        sequence: i8,
        body: Vec<u8>,
        fds: u8,
    },
    Receive(Way),
    Release(u8),
    Request,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Fds {
    Sent(u8),
    Missing,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Way {
    Try { keep: bool },
    Wait,
    Latest,
    InPlace,
    Call,
    Arm,
}

/// The state of the publisher so far.
struct Play {
    raw: Hostile,
    position: u64,
    sequence: u64,
    lost: u64,
    attempt: u64,
}

impl Play {
    /// A record that keeps the rules.
    fn record(&mut self, record: Record) {
        let record = Record { sequence: self.sequence, ..record };
        let lines = |len: u64| len.next_multiple_of(64);
        let size = 64 + lines(record.payload_len) + lines(record.control_len.into());
        let rest = self.raw.capacity - self.position % self.raw.capacity;
        if size > rest {
            let padding = Record { flags: PADDING, payload_len: rest - 64, ..Record::default() };
            self.raw.write(self.position, padding);
            self.position = self.position.wrapping_add(rest);
        }
        let end = self.position.wrapping_add(size);
        self.raw.set(CLAIMED, end);
        self.raw.write(self.position, record);
        self.raw.set(HEAD, end);
        if record.flags & WITHOUT_PAYLOAD == 0 {
            self.raw.set(LATEST, self.position);
        }
        self.sequence = self.sequence.wrapping_add(1);
        self.raw.set(MESSAGES, self.sequence);
        self.position = end;
    }

    fn send(&self, packet: Packet) {
        // Refused once the subscriber has hung up.
        let _ = self.raw.socket.try_send(packet);
    }

    fn turn(&mut self, step: Step, taken: &mut Taken) {
        match step {
            Step::Record { len, control, skip, lost, epoch, has_payload, fds } => {
                self.sequence = self.sequence.wrapping_add(skip.into());
                self.lost = self.lost.wrapping_add(lost.into());
                if let Some(fds) = fds {
                    self.attempt += 1;
                    if let Fds::Sent(count) = fds {
                        let sequence = self.attempt;
                        self.send(Packet { sequence, fds: files(count), ..Packet::new(DESCRIPTORS) });
                    }
                }
                self.record(Record {
                    payload_len: if has_payload { u64::from(len % 4096) } else { 0 },
                    control_len: u32::from(control % 101),
                    flags: if has_payload { 0 } else { WITHOUT_PAYLOAD },
                    reserved: [
                        self.lost,
                        epoch.into(),
                        if fds.is_some() { self.attempt } else { 0 },
                        // Any number at the source, another one for each run.
                        u64::from(epoch).wrapping_mul(u64::MAX / 3),
                    ],
                    ..Record::default()
                });
            }
            Step::Header { at, sequence, payload_len, control_len, flags, reply_to, reserved, publish } => {
                let at = self.position.wrapping_add_signed(i64::from(at) * 64);
                let sequence = self.sequence.wrapping_add_signed(sequence.into());
                let reserved = reserved.map(u64::from);
                let reply_to = reply_to.into();
                self.raw.write(at, Record { sequence, payload_len, control_len, flags, reply_to, reserved });
                if publish {
                    self.raw.set(HEAD, self.position.wrapping_add(64));
                }
            }
            Step::Word { which, value } => {
                let value = value.from(self.position);
                self.raw.set(WORDS[usize::from(which) % WORDS.len()], value);
            }
            Step::Scribble { at, bytes } => {
                let at = u64::from(at) % self.raw.capacity;
                let most = usize::try_from(self.raw.capacity - at).unwrap();
                self.raw.scribble(at, &bytes[..bytes.len().min(most)]);
            }
            Step::Doorbell { space } => {
                let socket = if space { &self.raw.space } else { &self.raw.socket };
                let _ = socket.try_send(Packet::new(DOORBELL));
            }
            Step::Reply { to, len } => {
                self.send(Packet { reply_to: to.into(), body: vec![7; len.into()], ..Packet::control(0) });
            }
            Step::Packet { kind, flags, sequence, body, fds } => {
                let sequence = self.attempt.wrapping_add_signed(sequence.into());
                let (kind, fds) = (u16::from(kind % 8), files(fds));
                self.send(Packet { kind, flags, sequence, body, fds, ..Packet::default() });
            }
            Step::Receive(way) => taken.receive(way),
            Step::Release(which) => {
                if !taken.kept.is_empty() {
                    let which = usize::from(which) % taken.kept.len();
                    taken.kept.swap_remove(which);
                }
            }
            Step::Request => drop(taken.subscriber.try_request("what?")),
        }
    }
}

/// Our side, and what came out so far.
struct Taken {
    subscriber: Subscriber,
    next: u64,
    kept: Vec<Message>,
}

/// Messages received and missed, and the number behind them at the source.
struct Counts {
    received: u64,
    missed: u64,
    number: u64,
}

impl Taken {
    fn counts(&self) -> Counts {
        let subscriber = &self.subscriber;
        let received = subscriber.stats().messages_received;
        Counts { received, missed: subscriber.missed(), number: subscriber.number() }
    }

    fn receive(&mut self, way: Way) {
        let before = self.counts();
        let subscriber = &mut self.subscriber;
        let result = match way {
            Way::Try { .. } => subscriber.try_recv(),
            Way::Wait => subscriber.recv_timeout(Duration::ZERO).map(Some),
            Way::Latest => subscriber.try_recv_latest(),
            Way::Call => subscriber.call("what?", Duration::ZERO).map(Some),
            Way::Arm => subscriber.arm().map(|_| None),
            Way::InPlace => {
                let look = |message: &sealane::Published<'_>| {
                    message.payload().map_or(0, |payload| payload.to_vec().len())
                };
                subscriber.recv_with_timeout(Duration::ZERO, look).map(|_| None)
            }
        };
        let counts = self.counts();
        assert!(counts.missed >= before.missed, "what was missed is never less");
        // The count of what was missed stays at its end, and a message may be lost for want of descriptors.
        if counts.missed < u64::MAX && !matches!(result, Err(Error::FdsLost { .. })) {
            let stays = (before.received, before.missed) == (counts.received, counts.missed);
            assert!(
                !stays || counts.number == before.number,
                "another number, and nothing was received or missed"
            );
        }
        match result {
            Ok(Some(message)) => self.check(message, way),
            Ok(None)
            | Err(
                Error::Timeout
                | Error::TimeoutHolding { .. }
                | Error::Protocol(_)
                | Error::Disconnected
                | Error::TooSlow
                | Error::Backlog
                | Error::Full
                | Error::TooManyRequests { .. }
                | Error::FdsLost { .. },
            ) => {}
            Err(error) => panic!("{error:?}"),
        }
    }

    fn check(&mut self, message: Message, way: Way) {
        assert!(message.control().len() <= 100 && message.fds().len() <= 2);
        if let Some(payload) = message.payload() {
            assert!(payload.len() as u64 <= PAGES * page());
            assert_eq!(payload.to_vec().len(), payload.len());
            assert!(
                payload.try_to_vec().is_ok_and(|bytes| bytes.len() == payload.len()) || !payload.is_whole()
            );
        }
        // Messages that were kept during a call come before newer ones; replies have numbers of their own.
        if message.in_reply_to().is_none() {
            assert!(
                message.sequence() >= self.next,
                "{} or later expected, {} found",
                self.next,
                message.sequence()
            );
            self.next = message.sequence().saturating_add(1);
        }
        if matches!(way, Way::Try { keep: true }) {
            self.kept.push(message);
        }
    }
}

pub(crate) fn run(data: &[u8]) {
    let Ok(terms) = Terms::arbitrary(&mut Unstructured::new(data)) else { return };
    let builder = Builder::default().max_control(100).max_fds(2).wait(Wait::Block);
    // Terms that are refused are the handshake's matter.
    let first_position = (terms.position & (u64::MAX >> 2)) & !63;
    // Numbers start again at 0 behind the last one.
    let first_sequence = terms.sequence >> 1;
    let patience = if terms.is_waited_for { FOREVER } else { NEVER };
    let joined = RawTerms { patience, first_position, first_sequence, lost: terms.lost };
    let ready = Packet { body: joined.bytes(), ..Packet::new(READY) };
    let (raw, result) = publish(&builder, PAGES, ready);
    let subscriber = result.unwrap();
    let mut play =
        Play { raw, position: first_position, sequence: first_sequence, lost: terms.lost, attempt: 0 };
    for word in [HEAD, CLAIMED] {
        play.raw.set(word, first_position);
    }
    play.raw.set(MESSAGES, first_sequence);
    let mut taken = Taken { subscriber, next: first_sequence, kept: Vec::new() };
    for step in terms.steps.into_iter().take(100) {
        play.turn(step, &mut taken);
    }
    for _ in 0..2000 {
        match taken.subscriber.try_recv() {
            Ok(Some(message)) => taken.check(message, Way::Wait),
            Err(Error::FdsLost { .. }) => {}
            _ => break,
        }
    }
    if let Err(Error::Protocol(violation)) = taken.subscriber.try_recv() {
        let again = [taken.subscriber.try_recv().map(drop), taken.subscriber.try_send("").map(drop)];
        for error in again {
            assert!(matches!(error, Err(Error::Protocol(found)) if found == violation), "{error:?}");
        }
    }
}
