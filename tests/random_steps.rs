//! Any steps that never block, in any order, agree with a queue: what is received, and to the byte what room there is.

use std::{
    collections::{BTreeMap, VecDeque},
    io::stdin,
};

use proptest::{prelude::*, sample::Index};
use sealane::{Channel, Control, Error, Message, Payload};

const RING: u64 = 8192;
const MOST: usize = 8192 - 64;

/// One call, or a few that belong together, at one of the two ends.
#[derive(Debug, Clone)]
enum Step {
    /// A loan of `len` bytes, perhaps cut.
    Loan {
        len: usize,
        cut: Option<usize>,
        then: Then,
    },
    Send {
        control: usize,
        fds: usize,
    },
    HasSpace(usize),
    Receive(Fate),
    /// Drops a payload that was kept.
    Release(Index),
}

/// What becomes of a loan.
#[derive(Debug, Clone)]
enum Then {
    Send,
    SendWith { control: usize, fds: usize },
    TrySendWith { control: usize, fds: usize },
    Drop,
}

/// What becomes of a received payload.
#[derive(Debug, Clone)]
enum Fate {
    Drop,
    Keep,
    Detach,
}

fn len() -> impl Strategy<Value = usize> {
    prop_oneof![
        2 => 0..200_usize,
        1 => prop::sample::select(vec![0, 1, 63, 64, 65, 4095, 4096, 4097, MOST - 64, MOST, MOST + 1]),
        1 => 0..=MOST,
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let control = || prop_oneof![Just(0), 0..300_usize];
    let fds = || prop_oneof![3 => Just(0), 1 => 0..4_usize];
    let then = prop_oneof![
        Just(Then::Send),
        (control(), fds()).prop_map(|(control, fds)| Then::SendWith { control, fds }),
        (control(), fds()).prop_map(|(control, fds)| Then::TrySendWith { control, fds }),
        Just(Then::Drop),
    ];
    let fate = prop_oneof![Just(Fate::Drop), Just(Fate::Keep), Just(Fate::Detach)];
    prop_oneof![
        4 => (len(), prop::option::weighted(0.2, len()), then)
            .prop_map(|(len, cut, then)| Step::Loan { len, cut, then }),
        1 => (control(), fds()).prop_map(|(control, fds)| Step::Send { control, fds }),
        1 => len().prop_map(Step::HasSpace),
        4 => fate.prop_map(Step::Receive),
        2 => any::<Index>().prop_map(Step::Release),
    ]
}

/// What a message must be.
#[derive(Debug, PartialEq)]
struct Expected {
    control: Vec<u8>,
    fds: usize,
    payload: Option<Vec<u8>>,
}

/// One direction, as it should be.
#[derive(Default)]
struct Model {
    sent: u64,
    received: u64,
    queue: VecDeque<(Expected, Option<(u64, u64)>)>,
    /// Where the next record begins.
    head: u64,
    /// Records whose space is not given back: from where to where.
    spans: BTreeMap<u64, u64>,
    /// Payloads that were received and kept, and where their records begin.
    kept: Vec<(u64, Payload, Vec<u8>)>,
}

fn padded(len: usize) -> u64 {
    u64::try_from(len.next_multiple_of(64)).unwrap()
}

impl Model {
    fn room(&self) -> u64 {
        let tail = self.spans.first_key_value().map_or(self.head, |(start, _)| *start);
        RING - (self.head - tail)
    }

    /// Bytes that tell this message from the next.
    fn bytes(&self, len: usize) -> Vec<u8> {
        (0..len).map(|i| u8::try_from((i + 7 * usize::try_from(self.sent).unwrap()) % 253).unwrap()).collect()
    }

    fn sent(&mut self, control: Vec<u8>, fds: usize, payload: Option<Vec<u8>>) {
        let span = payload.as_ref().map(|payload| {
            let (record, riding) = (64 + padded(payload.len()), padded(control.len()));
            let rides = fds == 0 && record + riding <= self.room();
            let start = self.head;
            self.head += if rides { record + riding } else { record };
            self.spans.insert(start, self.head);
            (start, self.head)
        });
        self.queue.push_back((Expected { control, fds, payload }, span));
        self.sent += 1;
    }

    fn received(&mut self, mut message: Message, fate: &Fate) {
        let (expected, span) = self.queue.pop_front().expect("nothing more was sent");
        let payload = message.payload().map(Payload::to_vec);
        let found = Expected { control: message.control().to_vec(), fds: message.fds().len(), payload };
        assert_eq!(found, expected);
        assert_eq!(message.sequence(), self.received);
        self.received += 1;
        let (Some(payload), Some((start, _))) = (message.take_payload(), span) else { return };
        let bytes = expected.payload.unwrap_or_default();
        if let Fate::Keep = fate {
            self.kept.push((start, payload, bytes));
            return;
        }
        if let Fate::Detach = fate {
            assert_eq!(payload.detach().to_vec(), bytes);
        }
        self.spans.remove(&start);
    }

    fn release(&mut self, which: Index) {
        if !self.kept.is_empty() {
            let (start, payload, bytes) = self.kept.swap_remove(which.index(self.kept.len()));
            assert_eq!(payload.to_vec(), bytes, "nothing was written over it meanwhile");
            drop(payload);
            self.spans.remove(&start);
        }
    }
}

/// Takes a step from one end: it sends as `there` has it, and receives as `here` has it.
fn take(step: &Step, channel: &mut Channel, there: &mut Model, here: &mut Model) {
    let stdin = stdin();
    match step {
        Step::Loan { len, .. } | Step::HasSpace(len) if *len > MOST => {
            assert!(matches!(channel.has_space(*len), Err(Error::PayloadTooLarge { max: MOST, .. })));
            assert!(matches!(channel.try_loan(*len), Err(Error::PayloadTooLarge { max: MOST, .. })));
        }
        Step::HasSpace(len) => {
            assert_eq!(channel.has_space(*len).unwrap(), 64 + padded(*len) <= there.room());
        }
        Step::Loan { len, cut, then } => {
            let loan = channel.try_loan(*len).unwrap();
            assert_eq!(loan.is_some(), 64 + padded(*len) <= there.room());
            let Some(mut loan) = loan else { return };
            let len = cut.map_or(*len, |cut| cut.min(*len));
            loan.truncate(len);
            let bytes = there.bytes(len);
            loan.copy_from_slice(&bytes);
            let (control, fds) = match *then {
                Then::Send | Then::Drop => (0, 0),
                Then::SendWith { control, fds } | Then::TrySendWith { control, fds } => (control, fds),
            };
            let control = there.bytes(control);
            let with = Control::new(&control).fds(vec![&stdin; fds]);
            match then {
                Then::Drop => return,
                Then::Send => loan.send().unwrap(),
                Then::SendWith { .. } => loan.send_with(with).unwrap(),
                Then::TrySendWith { .. } => loan.try_send_with(with).unwrap(),
            }
            there.sent(control, fds, Some(bytes));
        }
        Step::Send { control, fds } => {
            let control = there.bytes(*control);
            channel.try_send(Control::new(&control).fds(vec![&stdin; *fds])).unwrap();
            there.sent(control, *fds, None);
        }
        Step::Receive(fate) => match channel.try_recv().unwrap() {
            Some(message) => here.received(message, fate),
            None => assert!(here.queue.is_empty(), "what was sent is there to be received"),
        },
        Step::Release(which) => here.release(*which),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    // So few steps that the socket, whose size is the kernel's, is never full.
    #[test]
    fn channels_agree_with_queues(steps in prop::collection::vec((any::<bool>(), step()), 1..150)) {
        let (mut a, mut b) = Channel::builder().ring_capacity(MOST).pair().unwrap();
        let (mut to_b, mut to_a) = (Model::default(), Model::default());
        for (at_a, step) in &steps {
            let (channel, there, here) =
                if *at_a { (&mut a, &mut to_b, &mut to_a) } else { (&mut b, &mut to_a, &mut to_b) };
            take(step, channel, there, here);
            let held: u64 = here.kept.iter().map(|(start, ..)| here.spans[start] - start).sum();
            prop_assert_eq!((channel.held().count, channel.held().bytes), (here.kept.len() as u64, held));
        }
        for (channel, model) in [(&mut a, &mut to_a), (&mut b, &mut to_b)] {
            while let Some(message) = channel.try_recv().unwrap() {
                model.received(message, &Fate::Drop);
            }
            prop_assert!(model.queue.is_empty());
        }
    }
}
