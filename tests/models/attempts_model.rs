//! Every interleaving of a publisher that sends descriptors and of three subscribers: two that are waited for, and one that may be
//! overrun or left out. No message gets the descriptors of another attempt, whatever fails; a subscriber that is waited for gets
//! those of each message; the other one gets them, or misses the message as a whole.
//!
//! src/protocol/attempts.rs is the library's own. The model owns sockets and ring, and each access to them is a step of its own:
//! `Lanes::send_fds_to` for each lane, then `Frame::publish`; `Feed::find` looks at the ring, `Feed::fds_of` and `Feed::read_packet`
//! read the socket. A change of these is a change here too. A socket may be full: then the publisher waits, leaves the lane out if it
//! may, or gives the attempt up, and tries the same message again, or another one, with descriptors or without. Each subscriber may
//! die at every step. The last tests show that a flaw is found.

use std::collections::HashSet;

use attempts::{Attempts, Taken};

#[path = "../../src/protocol/attempts.rs"]
mod attempts;

/// The type that the library's file imports.
mod error {
    pub(crate) use sealane::ProtocolError;
}

/// Messages that are published.
const MESSAGES: usize = 2;
/// Packets that a socket holds.
const SOCKET: usize = 2;
/// The lane that is not waited for.
const OVERRUNNING: usize = 2;

/// A mistake of the implementation, each of which the model must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    /// Packets are numbered by the message's sequence.
    NumbersBySequence,
    /// The record comes before the packets.
    RecordFirst,
    /// The ring is not looked at between two packets.
    ReadsOn,
    /// Lanes that have the packet of an attempt get it again.
    SendsAgain,
    /// A full socket of any lane leaves that lane out.
    LeavesOut,
}

/// A record: the number of its attempt, and whose descriptors belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Record {
    attempt: u64,
    fds: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Reading {
    /// `Feed::find`
    Look,
    /// The ring had nothing.
    MayRead,
    /// `Feed::fds_of`
    Fds(Record),
    Dead,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Lane {
    /// Packets: the number of the attempt, and whose descriptors they are.
    socket: Vec<(u64, u64)>,
    /// The last attempt whose packet was sent here.
    attempt: u64,
    reading: Reading,
    attempts: Attempts<u64>,
    position: usize,
    /// Records that it knows of.
    head: usize,
    /// Its socket was empty when it knew of so many.
    drained: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Publishing {
    Choose,
    /// The packet of an attempt goes to this lane next.
    Send(usize, Record),
    /// It was given up; the same message may be tried again.
    Failed(u64),
    Publish(Record),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    publishing: Publishing,
    lanes: Vec<Lane>,
    ring: Vec<Record>,
    /// Attempts so far, and how many are left; messages with descriptors.
    attempt: u64,
    left: u64,
    contents: u64,
}

impl Lane {
    fn new() -> Self {
        let (socket, attempts) = (Vec::new(), Attempts::new());
        Self { socket, attempt: 0, reading: Reading::Look, attempts, position: 0, head: 0, drained: 0 }
    }
}

impl State {
    fn new(left: u64) -> Self {
        let lanes = vec![Lane::new(); 3];
        Self { publishing: Publishing::Choose, lanes, ring: Vec::new(), attempt: 0, left, contents: 0 }
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut next = self.clone();
        change(&mut next);
        next
    }

    /// Begins an attempt to send the descriptors `fds`.
    fn begin(&self, fds: u64, flaw: Flaw) -> Option<Self> {
        (self.left > 0).then(|| {
            self.with(|s| {
                (s.attempt, s.left) = (s.attempt + 1, s.left - 1);
                let by_sequence = flaw == Flaw::NumbersBySequence;
                let attempt = if by_sequence { s.ring.len() as u64 + 1 } else { s.attempt };
                let record = Record { attempt, fds: Some(fds) };
                if flaw == Flaw::RecordFirst {
                    s.ring.push(record);
                }
                s.publishing = Publishing::Send(0, record);
            })
        })
    }

    /// All next steps of the publisher.
    fn publisher_steps(&self, flaw: Flaw) -> Vec<Self> {
        match self.publishing {
            Publishing::Choose | Publishing::Failed(_) if self.ring.len() == MESSAGES => vec![],
            Publishing::Choose | Publishing::Failed(_) => {
                let plain = Record { attempt: 0, fds: None };
                let mut steps = vec![self.with(|s| s.publishing = Publishing::Publish(plain))];
                steps.extend(self.with(|s| s.contents += 1).begin(self.contents + 1, flaw));
                if let Publishing::Failed(fds) = self.publishing {
                    steps.extend(self.begin(fds, flaw));
                }
                steps
            }
            Publishing::Send(at, record) => {
                let next = if at + 1 < self.lanes.len() {
                    Publishing::Send(at + 1, record)
                } else if flaw == Flaw::RecordFirst {
                    Publishing::Choose
                } else {
                    Publishing::Publish(record)
                };
                let lane = &self.lanes[at];
                // `Lane::send_fds`; a dead one is noticed, and ends.
                if lane.reading == Reading::Dead {
                    return vec![self.with(|s| s.publishing = next)];
                }
                if lane.socket.len() == SOCKET {
                    if at == OVERRUNNING || flaw == Flaw::LeavesOut {
                        return vec![self.with(|s| s.publishing = next)];
                    }
                    // It waits, or gives up.
                    let fds = record.fds.unwrap();
                    return vec![self.with(|s| s.publishing = Publishing::Failed(fds))];
                }
                let mut steps = vec![self.with(|s| {
                    let lane = &mut s.lanes[at];
                    lane.attempt = record.attempt;
                    lane.socket.push((record.attempt, record.fds.unwrap()));
                    s.publishing = next;
                })];
                if flaw == Flaw::SendsAgain && lane.attempt == 0 {
                    // The call waits for another lane, and begins anew.
                    steps.push(steps[0].with(|s| s.publishing = Publishing::Send(0, record)));
                }
                // Descriptors in flight, or memory, are short.
                if flaw != Flaw::RecordFirst {
                    steps.push(self.with(|s| s.publishing = Publishing::Failed(record.fds.unwrap())));
                }
                steps
            }
            Publishing::Publish(record) => vec![self.with(|s| {
                s.ring.push(record);
                s.publishing = Publishing::Choose;
            })],
        }
    }

    /// `Feed::read_packet`: false if there was none.
    fn read_packet(&mut self, at: usize) -> bool {
        let lane = &mut self.lanes[at];
        if lane.socket.is_empty() {
            return false;
        }
        let (attempt, fds) = lane.socket.remove(0);
        if let Err(violation) = lane.attempts.push(attempt, fds) {
            panic!("an honest publisher is called a violator: {violation}: {self:?}");
        }
        true
    }

    /// All next steps of a subscriber, but for its death.
    fn lane_steps(&self, at: usize, flaw: Flaw) -> Vec<Self> {
        let mut s = self.clone();
        let lane = &mut s.lanes[at];
        match lane.reading {
            Reading::Look => {
                // `Follower::refresh`, only if nothing is known to be there.
                if lane.position == lane.head {
                    lane.head = s.ring.len();
                }
                if lane.position == lane.head {
                    lane.reading = Reading::MayRead;
                    return vec![s];
                }
                let record = s.ring[lane.position];
                if record.attempt > 0 {
                    lane.reading = Reading::Fds(record);
                } else {
                    lane.position += 1;
                }
                let mut steps = vec![s];
                if at == OVERRUNNING {
                    // It was overrun, and `Follower::jump` goes to the end.
                    steps.push(self.with(|s| {
                        let lane = &mut s.lanes[at];
                        (lane.position, lane.head) = (s.ring.len(), s.ring.len());
                    }));
                }
                steps
            }
            Reading::MayRead => {
                let read = s.read_packet(at);
                let again = read && flaw == Flaw::ReadsOn;
                s.lanes[at].reading = if again { Reading::MayRead } else { Reading::Look };
                vec![s]
            }
            Reading::Fds(record) => {
                match lane.attempts.take(record.attempt) {
                    Taken::Here(fds) => {
                        assert_eq!(Some(fds), record.fds, "another attempt's descriptors: {self:?}");
                        lane.position += 1;
                        lane.reading = Reading::Look;
                    }
                    Taken::Read if lane.position >= lane.drained && s.read_packet(at) => {}
                    taken => {
                        if taken == Taken::Read {
                            let lane = &mut s.lanes[at];
                            lane.drained = lane.drained.max(lane.head);
                        }
                        assert_eq!(at, OVERRUNNING, "descriptors are missing: {self:?}");
                        let dropped = s.lanes[at].attempts.has_dropped(record.attempt);
                        assert!(!dropped, "a packet was dropped before its record was looked at: {self:?}");
                        let lane = &mut s.lanes[at];
                        lane.position += 1;
                        lane.reading = Reading::Look;
                    }
                }
                vec![s]
            }
            Reading::Dead => vec![],
        }
    }
}

/// Explores all states with so many attempts, and returns their number. The subscribers that are no `readers` read nothing.
fn explore(readers: &[usize], attempts: u64, flaw: Flaw) -> usize {
    let mut seen = HashSet::new();
    let mut open = vec![State::new(attempts)];
    while let Some(state) = open.pop() {
        if !seen.insert(state.clone()) {
            continue;
        }
        open.extend(state.publisher_steps(flaw));
        for at in readers {
            open.extend(state.lane_steps(*at, flaw));
            if state.lanes[*at].reading != Reading::Dead {
                open.push(state.with(|s| {
                    let lane = &mut s.lanes[*at];
                    *lane = Lane { reading: Reading::Dead, ..Lane::new() };
                }));
            }
        }
    }
    println!("{} states", seen.len());
    seen.len()
}

const ALL: &[usize] = &[0, 1, OVERRUNNING];
const TWO: &[usize] = &[0, OVERRUNNING];

#[test]
fn two_subscribers_get_the_descriptors_of_each_message_or_miss_it() {
    assert!(explore(TWO, 3, Flaw::None) > 10_000);
}

#[test]
fn three_subscribers_get_the_descriptors_of_each_message_or_miss_it() {
    assert!(explore(ALL, 2, Flaw::None) > 10_000);
}

#[test]
#[should_panic(expected = "an honest publisher is called a violator")]
fn packets_are_numbered_by_attempt() {
    explore(TWO, 3, Flaw::NumbersBySequence);
}

#[test]
#[should_panic(expected = "descriptors are missing")]
fn packets_are_sent_before_their_record() {
    explore(TWO, 3, Flaw::RecordFirst);
}

#[test]
#[should_panic(expected = "descriptors are missing")]
fn ring_is_looked_at_between_two_packets() {
    explore(TWO, 3, Flaw::ReadsOn);
}

#[test]
#[should_panic(expected = "an honest publisher is called a violator")]
fn lane_gets_the_packet_of_an_attempt_once() {
    explore(TWO, 3, Flaw::SendsAgain);
}

#[test]
#[should_panic(expected = "descriptors are missing")]
fn only_those_that_may_miss_messages_are_left_out() {
    explore(TWO, 3, Flaw::LeavesOut);
}
