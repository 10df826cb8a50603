//! A publisher with three subscribers in hostile hands and an honest one: any words and packets, from handshakes on, while messages
//! are published. The honest one receives all of them, in order; each hostile one ends at most itself.

use std::{fs::File, os::fd::AsFd, time::Duration};

use arbitrary::{Arbitrary, Unstructured};
use sealane::{Builder, Control, Error, Event, Publisher, Slow, Subscriber, SubscriberId, Wait};

use crate::{
    hostile::{
        DOORBELL, HELLO, Hello, LONG, Packet, Player, READY, WANTS_REPLY,
        fanout::{MISSED, greet, subscriber_hello},
        memory::{HEAD, Hostile, PACKETS, RECEIVER_EPOCH, SENDER_EPOCH, SENDER_NEEDS, TAIL},
        readable, seqpacket_pair,
    },
    parts::{Value, files},
};

const RING: usize = 8 << 10;
const LANES: usize = 3;
const WORDS: [usize; 7] = [TAIL, MISSED, RECEIVER_EPOCH, HEAD, PACKETS, SENDER_EPOCH, SENDER_NEEDS];

#[derive(Debug, Arbitrary)]
struct Input {
    wishes: [u64; LANES],
    starts: [u32; LANES],
    steps: Vec<(u8, Step)>,
}

#[derive(Debug, Arbitrary)]
enum Step {
    Ready,
    Word {
        which: u8,
        value: Value,
    },
    /// Releases what an honest subscriber may release.
    Release {
        lines: u8,
    },
    Doorbell {
        space: bool,
    },
    Message {
        wants_reply: bool,
        len: u8,
        fds: u8,
    },
    Packet {
        kind: u8,
        flags: u16,
        sequence: u64,
        reply_to: u64,
        body: Vec<u8>,
        fds: u8,
        space: bool,
    },
    Raw(Vec<u8>),
    /// Reads packets, or does not.
    Read,
    Leave,
    Publish {
        len: u16,
        fds: bool,
    },
    Turn,
}

/// A subscriber in hostile hands.
struct Lane {
    raw: Hostile,
    tail: u64,
    sequence: u64,
}

impl Lane {
    fn turn(&mut self, step: Step) {
        // All of it is refused once the publisher has hung up.
        match step {
            Step::Ready => drop(self.raw.socket.try_send(Packet::new(READY))),
            Step::Word { which, value } => {
                let value = value.from(self.tail);
                self.raw.set(WORDS[usize::from(which) % WORDS.len()], value);
            }
            Step::Release { lines } => {
                self.tail += u64::from(lines) * 64;
                self.raw.set(TAIL, self.tail);
            }
            Step::Doorbell { space } => {
                let socket = if space { &self.raw.space } else { &self.raw.socket };
                let _ = socket.try_send(Packet::new(DOORBELL));
            }
            Step::Message { wants_reply, len, fds } => {
                let flags = if wants_reply { WANTS_REPLY } else { 0 };
                let body = vec![7; (len % 101).into()];
                let packet = Packet { flags, body, fds: files(fds), ..Packet::control(self.sequence) };
                if self.raw.socket.try_send(packet).is_ok() {
                    self.sequence += 1;
                    self.raw.set(PACKETS, self.sequence);
                }
            }
            Step::Packet { kind, flags, sequence, reply_to, body, fds, space } => {
                let (kind, fds) = (u16::from(kind % 8), files(fds));
                let socket = if space { &self.raw.space } else { &self.raw.socket };
                let _ = socket.try_send(Packet {
                    kind,
                    flags,
                    sequence,
                    reply_to,
                    body,
                    fds,
                    ..Packet::default()
                });
            }
            Step::Raw(bytes) => {
                if !bytes.is_empty() {
                    let _ = self.raw.socket.try_send(Packet::raw(&bytes));
                }
            }
            Step::Read => {
                if readable([self.raw.socket.as_fd()], Duration::ZERO) == [true] {
                    drop(self.raw.socket.hear());
                }
            }
            Step::Leave | Step::Publish { .. } | Step::Turn => {}
        }
    }
}

/// A publisher and its honest subscriber.
struct Scene {
    publisher: Publisher,
    honest: Subscriber,
    honest_id: SubscriberId,
}

impl Scene {
    fn new() -> Self {
        let builder = Builder::default()
            .ring_capacity(RING)
            .max_control(100)
            .max_fds(2)
            .slow(Slow::Wait(Duration::from_micros(500)))
            .wait(Wait::Block);
        let mut publisher = builder.publisher().unwrap();
        let (ours, theirs) = seqpacket_pair();
        let honest_id = publisher.add(ours).unwrap();
        let joining = std::thread::spawn(move || builder.subscribe_on(theirs).unwrap());
        while publisher.subscribers().is_empty() {
            publisher.wait_event(LONG).unwrap();
        }
        Self { publisher, honest: joining.join().unwrap(), honest_id }
    }

    /// A subscriber in hostile hands, behind its `Hello`. `None` if it is refused.
    fn greet(&mut self, patience: u64, start: u32) -> Option<Lane> {
        let (socket, ours) = Player::pair();
        self.publisher.add(ours).unwrap();
        let (memory, own_space) = greet(&socket, &Hello { start, ..subscriber_hello(patience) });
        self.hear();
        let mut hello = socket.hear().filter(|heard| heard.kind == HELLO)?;
        let space = hello.fds.remove(1).into();
        Some(Lane { raw: Hostile { socket, space, own_space, memory, capacity: 0 }, tail: 0, sequence: 0 })
    }

    /// Hears all that has happened.
    fn hear(&mut self) {
        // A hundred steps cause few events.
        for _ in 0..1000 {
            match self.publisher.next_event().unwrap() {
                None => return,
                Some(Event::Left(id, error)) => assert_ne!(id, self.honest_id, "{error}"),
                Some(Event::Message(id, message)) => {
                    assert!(message.control().len() <= 100 && message.fds().len() <= 2);
                    if let Some(token) = message.reply_token() {
                        let _ = self.publisher.reply(id, token, "so");
                    }
                }
                Some(_) => {}
            }
        }
        panic!("there is no end to what a hundred steps sent");
    }

    fn publish(&mut self, len: u16, with_fds: bool) {
        let file = File::open("/dev/null").unwrap();
        let control = if with_fds { Control::new(b"it").fd(&file) } else { Control::new(b"it") };
        let len = usize::from(len % 2048);
        let result = match self.publisher.try_loan(len) {
            Ok(Some(loan)) => loan.try_send_with(control).map_err(sealane::Unsent::into_error),
            Ok(None) => Err(Error::Full),
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => {
                let message = self.honest.try_recv().unwrap().expect("all that is published is received");
                assert_eq!(message.sequence(), self.publisher.stats().messages_sent - 1);
                assert_eq!((message.control(), message.missed()), (&b"it"[..], 0));
                assert_eq!(message.fds().len(), usize::from(with_fds));
                assert_eq!(message.payload().unwrap().len(), len);
            }
            Err(Error::Full | Error::FdsInFlight) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

pub(crate) fn run(data: &[u8]) {
    let Ok(Input { wishes, starts, steps }) = Input::arbitrary(&mut Unstructured::new(data)) else { return };
    let mut scene = Scene::new();
    let mut lanes: Vec<_> =
        wishes.into_iter().zip(starts).map(|(wish, start)| scene.greet(wish, start)).collect();
    for (at, step) in steps.into_iter().take(100) {
        let lane = &mut lanes[usize::from(at) % LANES];
        match step {
            Step::Publish { len, fds } => scene.publish(len, fds),
            Step::Turn => scene.hear(),
            Step::Leave => *lane = None,
            step => {
                if let Some(lane) = lane {
                    lane.turn(step);
                }
            }
        }
    }
    scene.hear();
    drop(lanes);
    scene.hear();
    assert_eq!(scene.publisher.subscribers().len(), 1, "those who are gone have left");
    scene.publish(100, true);
    assert_eq!(scene.honest.missed(), 0);
}
