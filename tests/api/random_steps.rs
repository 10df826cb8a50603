//! Random steps that never block agree with a queue: the messages received, and the free space to the byte.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    thread,
};

use proptest::{prelude::*, sample::Index};
use rustix::fs::{MemfdFlags, fstat, memfd_create};
use sealane::{BatchMessage, Channel, Control, Error, Message, Payload, ReplyToken, RequestId};

const RING: u64 = 8192;
const MOST: usize = 8192 / 2 - 1088;
/// Bytes that a loan reserves for control bytes.
const RESERVE: u64 = 1024;
/// Descriptors to send: all of different files.
const FILES: usize = 4;

/// One call, or a few that belong together, at one of the two ends.
#[derive(Debug, Clone)]
enum Step {
    /// A loan of `len` bytes, perhaps cut.
    Loan {
        len: usize,
        cut: Option<usize>,
        then: Then,
    },
    Send(With),
    Request(With),
    /// Cancels a request.
    GiveUp(Index),
    HasSpace(usize),
    Receive(Fate),
    /// Receives a batch of several messages, if there are any.
    ReceiveBatch(Vec<Fate>),
    /// Drops a payload that was kept, perhaps in another thread.
    Release {
        which: Index,
        elsewhere: bool,
    },
}

/// The control bytes and descriptors of a message.
#[derive(Debug, Clone)]
struct With {
    /// Bytes.
    control: usize,
    fds: Vec<Index>,
    /// One of the requests that came and are not answered, if there are any.
    answers: Option<Index>,
}

/// The fate of a loan.
#[derive(Debug, Clone)]
enum Then {
    Send,
    SendWith(With),
    TrySendWith(With),
    Request(With),
    Drop,
}

/// The fate of a received payload.
#[derive(Debug, Clone)]
enum Fate {
    Drop,
    Keep,
    Detach,
}

fn len() -> impl Strategy<Value = usize> {
    prop_oneof![
        2 => 0..200_usize,
        1 => prop::sample::select(vec![0, 1, 63, 64, 65, 2047, 2048, 2049, MOST - 64, MOST, MOST + 1]),
        1 => 0..=MOST,
    ]
}

fn with() -> impl Strategy<Value = With> {
    let control = prop_oneof![3 => Just(0), 3 => 0..300_usize, 1 => 900..3000_usize];
    let fds = prop_oneof![3 => Just(0..1_usize), 1 => Just(1..FILES)];
    let fds = fds.prop_flat_map(|count| prop::collection::vec(any::<Index>(), count));
    let answers = prop::option::weighted(0.3, any::<Index>());
    (control, fds, answers).prop_map(|(control, fds, answers)| With { control, fds, answers })
}

fn step() -> impl Strategy<Value = Step> {
    let then = prop_oneof![
        Just(Then::Send),
        with().prop_map(Then::SendWith),
        with().prop_map(Then::TrySendWith),
        with().prop_map(Then::Request),
        Just(Then::Drop),
    ];
    let fate = || prop_oneof![Just(Fate::Drop), Just(Fate::Keep), Just(Fate::Detach)];
    prop_oneof![
        4 => (len(), prop::option::weighted(0.2, len()), then)
            .prop_map(|(len, cut, then)| Step::Loan { len, cut, then }),
        1 => with().prop_map(Step::Send),
        1 => with().prop_map(Step::Request),
        1 => any::<Index>().prop_map(Step::GiveUp),
        1 => len().prop_map(Step::HasSpace),
        3 => fate().prop_map(Step::Receive),
        1 => prop::collection::vec(fate(), 1..8).prop_map(Step::ReceiveBatch),
        2 => (any::<Index>(), any::<bool>()).prop_map(|(which, elsewhere)| Step::Release { which, elsewhere }),
    ]
}

/// The expected message.
#[derive(Debug, PartialEq)]
struct Expected {
    sequence: u64,
    control: Vec<u8>,
    /// Numbers of files (`st_ino`).
    fds: Vec<u64>,
    payload: Option<Vec<u8>>,
    wants_reply: bool,
    in_reply_to: Option<RequestId>,
}

/// The expected state of one direction.
#[derive(Default)]
struct Model {
    sent: u64,
    received: u64,
    packets: u64,
    queue: VecDeque<(Expected, Option<(u64, u64)>)>,
    /// The position of the next record.
    head: u64,
    /// The length of the last loan.
    lent: usize,
    /// Records whose space is not released, with padding before them: start and end.
    spans: BTreeMap<u64, u64>,
    /// The positions of all records.
    starts: BTreeSet<u64>,
    /// Payloads that were received and kept, with the positions of their records.
    kept: Vec<(u64, Payload, Vec<u8>)>,
    /// Requests of this direction that are not answered, and those that were received and not answered.
    open: BTreeMap<u64, RequestId>,
    unanswered: Vec<(u64, ReplyToken)>,
    /// Cancelled requests of this direction, and how many of them were answered.
    given_up: BTreeSet<u64>,
    late: u64,
}

fn padded(len: usize) -> u64 {
    u64::try_from(len.next_multiple_of(64)).unwrap()
}

fn number(file: BorrowedFd<'_>) -> u64 {
    fstat(file).unwrap().st_ino
}

impl Model {
    fn room(&self) -> u64 {
        let tail = self.spans.first_key_value().map_or(self.head, |(start, _)| *start);
        RING - (self.head - tail)
    }

    /// The padding before the record of a loan of `len` bytes, and the bytes that are reserved for it.
    fn reserved(&self, len: usize) -> (u64, u64) {
        let (size, rest) = (64 + padded(len) + RESERVE, RING - self.head % RING);
        (if size > rest { rest } else { 0 }, size)
    }

    fn fits(&self, len: usize) -> bool {
        let (padding, size) = self.reserved(len);
        padding + size <= self.room()
    }

    /// The receiver looks at the next record, and releases the padding before it.
    fn looked_at(&mut self) {
        if let Some((start, _)) = self.queue.iter().find_map(|(_, span)| *span)
            && start % RING == 0
            && let Some((before, end)) = self.spans.range(..start).next_back()
            && *end == start
            && !self.starts.contains(before)
        {
            let before = *before;
            self.spans.remove(&before);
        }
    }

    /// Bytes that differ from message to message.
    fn bytes(&self, len: usize) -> Vec<u8> {
        (0..len).map(|i| u8::try_from((i + 7 * usize::try_from(self.sent).unwrap()) % 253).unwrap()).collect()
    }

    /// A message was sent. `back` is the other direction, whose requests it may answer.
    fn sent(
        &mut self,
        parts: Parts<'_>,
        request: Option<RequestId>,
        payload: Option<Vec<u8>>,
        back: &mut Self,
    ) {
        let Parts { control, fds, answered } = parts;
        let span = payload.as_ref().map(|payload| {
            let (padding, reserved) = self.reserved(self.lent);
            let start = self.head + padding;
            let record = 64 + padded(payload.len());
            let whole = record + padded(control.len());
            let has_room = whole <= RING - start % RING && padding + whole <= self.room();
            let rides = fds.is_empty() && (whole <= reserved || has_room);
            if padding > 0 {
                self.spans.insert(self.head, start);
            }
            self.head = start + if rides { whole } else { record };
            self.spans.insert(start, self.head);
            self.starts.insert(start);
            self.packets += u64::from(!rides && (!control.is_empty() || !fds.is_empty()));
            (start, self.head)
        });
        self.packets += u64::from(payload.is_none());
        let in_reply_to = answered.map(|at| {
            let (sequence, _) = back.unanswered.swap_remove(at);
            back.open[&sequence]
        });
        let (sequence, wants_reply) = (self.sent, request.is_some());
        self.open.extend(request.map(|request| (sequence, request)));
        let fds = fds.into_iter().map(number).collect();
        let expected = Expected { sequence, control, fds, payload, wants_reply, in_reply_to };
        self.queue.push_back((expected, span));
        self.sent += 1;
    }

    /// The messages that the receiver drops silently: replies to cancelled requests.
    fn drop_late_replies(&mut self, back: &mut Self) {
        self.looked_at();
        while let Some((Expected { in_reply_to: Some(request), .. }, span)) = self.queue.front() {
            let Some(sequence) = back.open.iter().find(|(_, id)| *id == request).map(|(at, _)| *at) else {
                break;
            };
            if !back.given_up.remove(&sequence) {
                break;
            }
            back.open.remove(&sequence);
            back.late += 1;
            self.received += 1;
            if let Some((start, _)) = *span {
                self.spans.remove(&start);
            }
            self.queue.pop_front();
            self.looked_at();
        }
    }

    fn received(&mut self, message: &mut impl Received, fate: &Fate, back: &mut Self) {
        let payload = self.compare(message.message(), back);
        let Some((start, bytes)) = payload else { return };
        match fate {
            Fate::Keep => self.kept.push((start, message.take_payload().unwrap(), bytes)),
            Fate::Detach => assert_eq!(message.take_payload().unwrap().detach().to_vec(), bytes),
            Fate::Drop => {}
        }
        if !matches!(fate, Fate::Keep) {
            self.spans.remove(&start);
        }
    }

    /// Compares a message with the queue. Where its payload begins, and its bytes.
    fn compare(&mut self, message: &Message, back: &mut Self) -> Option<(u64, Vec<u8>)> {
        let (expected, span) = self.queue.pop_front().expect("nothing more was sent");
        let found = Expected {
            sequence: message.sequence(),
            control: message.control().to_vec(),
            fds: message.fds().iter().map(|fd| number(fd.as_fd())).collect(),
            payload: message.payload().map(Payload::to_vec),
            wants_reply: message.reply_token().is_some(),
            in_reply_to: message.in_reply_to(),
        };
        assert_eq!(found, expected);
        assert_eq!(found.sequence, self.received);
        self.received += 1;
        self.unanswered.extend(message.reply_token().map(|token| (found.sequence, token)));
        back.open.retain(|_, request| Some(*request) != found.in_reply_to);
        let (start, _) = span?;
        Some((start, expected.payload.unwrap_or_default()))
    }

    fn release(&mut self, at: usize, elsewhere: bool) {
        let (start, payload, bytes) = self.kept.swap_remove(at);
        let release = move || {
            assert_eq!(payload.to_vec(), bytes, "nothing was written over it meanwhile");
            drop(payload);
        };
        if elsewhere {
            thread::spawn(release).join().unwrap();
        } else {
            release();
        }
        self.spans.remove(&start);
    }
}

/// A message, alone or lent by a batch.
trait Received {
    fn message(&self) -> &Message;
    fn take_payload(&mut self) -> Option<Payload>;
}

impl Received for Message {
    fn message(&self) -> &Message {
        self
    }

    fn take_payload(&mut self) -> Option<Payload> {
        self.take_payload()
    }
}

impl Received for BatchMessage<'_> {
    fn message(&self) -> &Message {
        self
    }

    fn take_payload(&mut self) -> Option<Payload> {
        self.take_payload()
    }
}

/// The control bytes and descriptors of a message, made from [`With`].
struct Parts<'f> {
    control: Vec<u8>,
    fds: Vec<BorrowedFd<'f>>,
    /// The index of the unanswered request that it answers.
    answered: Option<usize>,
}

impl<'f> Parts<'f> {
    fn new(with: &With, files: &'f [OwnedFd], there: &Model, here: &Model) -> Self {
        let fds = with.fds.iter().map(|index| files[index.index(files.len())].as_fd()).collect();
        let count = here.unanswered.len();
        let answered = with.answers.filter(|_| count > 0).map(|index| index.index(count));
        Self { control: there.bytes(with.control), fds, answered }
    }

    fn none() -> Self {
        Self { control: Vec::new(), fds: Vec::new(), answered: None }
    }

    fn control(&self, here: &Model) -> Control<'_> {
        let control = Control::new(&self.control).fds(&self.fds);
        match self.answered {
            Some(at) => control.in_reply_to(here.unanswered[at].1),
            None => control,
        }
    }
}

/// One end's side of a step: it sends as `there` expects, and receives as `here` expects.
struct End<'m> {
    channel: &'m mut Channel,
    there: &'m mut Model,
    here: &'m mut Model,
    files: &'m [OwnedFd],
}

impl End<'_> {
    fn take(&mut self, step: &Step) {
        let Self { channel, there, here, files } = self;
        match step {
            Step::Loan { len, .. } | Step::HasSpace(len) if *len > MOST => {
                assert!(matches!(
                    channel.sender.has_space(*len),
                    Err(Error::PayloadTooLarge { max: MOST, .. })
                ));
                assert!(matches!(channel.try_loan(*len), Err(Error::PayloadTooLarge { max: MOST, .. })));
            }
            Step::HasSpace(len) => {
                assert_eq!(channel.sender.has_space(*len).unwrap(), there.fits(*len));
            }
            Step::Loan { len, cut, then } => self.lend(*len, *cut, then),
            Step::Send(with) => {
                let parts = Parts::new(with, files, there, here);
                channel.try_send(parts.control(here)).unwrap();
                there.sent(parts, None, None, here);
            }
            Step::Request(with) => {
                let parts = Parts::new(with, files, there, here);
                let request = channel.sender.try_request(parts.control(here)).unwrap();
                there.sent(parts, Some(request), None, here);
            }
            Step::GiveUp(which) => {
                if !there.open.is_empty() {
                    let (sequence, request) = there.open.iter().nth(which.index(there.open.len())).unwrap();
                    channel.receiver.cancel(*request);
                    there.given_up.insert(*sequence);
                }
            }
            Step::Receive(fate) => self.receive(fate),
            Step::ReceiveBatch(fates) => self.receive_batch(fates),
            Step::Release { which, elsewhere } => {
                if !here.kept.is_empty() {
                    here.release(which.index(here.kept.len()), *elsewhere);
                }
            }
        }
    }

    fn lend(&mut self, len: usize, cut: Option<usize>, then: &Then) {
        let Self { channel, there, here, files } = self;
        let loan = channel.try_loan(len).unwrap();
        assert_eq!(loan.is_some(), there.fits(len));
        there.lent = len;
        let Some(mut loan) = loan else { return };
        let len = cut.map_or(len, |cut| cut.min(len));
        loan.truncate(len);
        let bytes = there.bytes(len);
        loan.copy_from_slice(&bytes);
        let parts = match then {
            Then::Send | Then::Drop => Parts::none(),
            Then::SendWith(with) | Then::TrySendWith(with) | Then::Request(with) => {
                Parts::new(with, files, there, here)
            }
        };
        let with = parts.control(here);
        let mut request = None;
        match then {
            Then::Drop => return,
            Then::Send => loan.send().unwrap(),
            Then::SendWith(_) => loan.send_with(with).unwrap(),
            Then::TrySendWith(_) => loan.try_send_with(with).unwrap(),
            Then::Request(_) => request = Some(loan.request(with).unwrap()),
        }
        there.sent(parts, request, Some(bytes), here);
    }

    fn receive(&mut self, fate: &Fate) {
        let Self { channel, there, here, .. } = self;
        let message = channel.try_recv().unwrap();
        here.drop_late_replies(there);
        match message {
            Some(mut message) => here.received(&mut message, fate, there),
            None => assert!(here.queue.is_empty(), "what was sent is there to be received"),
        }
    }

    fn receive_batch(&mut self, fates: &[Fate]) {
        let Self { channel, there, here, .. } = self;
        let batch = channel.receiver.try_recv_batch().unwrap();
        here.drop_late_replies(there);
        let Some(mut batch) = batch else {
            return assert!(here.queue.is_empty(), "what was sent is there to be received");
        };
        for (number, fate) in fates.iter().enumerate() {
            if number > 0 {
                here.looked_at();
            }
            match batch.next() {
                Some(message) if number % 3 == 2 => here.received(&mut message.take(), fate, there),
                Some(mut message) => here.received(&mut message, fate, there),
                // Messages that come through the socket, and replies, are the first of a batch.
                None => return assert!(number > 0, "there is a first message"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    // The number of steps is small enough that the socket, whose size is the kernel's, is never full.
    #[test]
    fn channels_agree_with_queues(steps in prop::collection::vec((any::<bool>(), step()), 1..150)) {
        let files: Vec<_> = (0..FILES).map(|_| memfd_create("one of some", MemfdFlags::CLOEXEC).unwrap()).collect();
        let (mut a, mut b) = Channel::builder().ring_capacity(RING.try_into().unwrap()).pair().unwrap();
        let (mut to_b, mut to_a) = (Model::default(), Model::default());
        for (at_a, step) in &steps {
            let (channel, there, here) =
                if *at_a { (&mut a, &mut to_b, &mut to_a) } else { (&mut b, &mut to_a, &mut to_b) };
            End { channel, there, here, files: &files }.take(step);
            let held: u64 = here.kept.iter().map(|(start, ..)| here.spans[start] - start).sum();
            prop_assert_eq!((channel.receiver.held().count, channel.receiver.held().bytes), (here.kept.len() as u64, held));
        }
        for at_a in [true, false] {
            let (channel, there, here) =
                if at_a { (&mut a, &mut to_b, &mut to_a) } else { (&mut b, &mut to_a, &mut to_b) };
            let mut end = End { channel, there, here, files: &files };
            while !end.here.queue.is_empty() {
                end.receive(&Fate::Drop);
            }
            prop_assert!(end.channel.try_recv().unwrap().is_none());
            while !end.here.kept.is_empty() {
                end.here.release(0, false);
            }
        }
        for (channel, there) in [(&mut a, &to_b), (&mut b, &to_a)] {
            let stats = channel.stats();
            prop_assert_eq!((stats.messages_sent, stats.packets_sent), (there.sent, there.packets));
            prop_assert_eq!(stats.late_replies, there.late);
            prop_assert!(channel.sender.has_space(MOST).unwrap(), "all of the ring has come back");
        }
    }
}
