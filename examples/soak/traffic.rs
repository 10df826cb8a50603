//! The traffic of one process: a thread each sends, receives and holds payloads, until the order to stop comes.

use std::{
    collections::BTreeMap,
    fmt,
    os::fd::OwnedFd,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use sealane::{
    Channel, Control, Error, Message, Payload, Receiver, ReplyToken, RequestId, SealedBuffer, SendBatch,
    Sender,
};

use crate::{
    Result,
    script::{Item, Random, STOP, buffers},
};

/// Longest time for which a payload is held.
const HELD: Duration = Duration::from_millis(5);
/// Most of our requests that wait for their replies.
const OPEN: usize = 1000;
/// The time within which each step must happen.
const SOON: Duration = Duration::from_secs(30);

/// The next step after a message that was checked.
enum Next {
    Message,
    /// Its payload is to be held, and checked later.
    Hold(Item),
    /// It was the last one.
    Stop,
}

/// The progress so far, and whether it is enough.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) stop: AtomicBool,
    sent: AtomicU64,
    received: AtomicU64,
    /// Bytes of payloads, both ways.
    bytes: AtomicU64,
    replies: AtomicU64,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, received, bytes, replies, .. } = self;
        let [sent, received, bytes, replies] = [sent, received, bytes, replies].map(|n| n.load(Relaxed));
        write!(f, "{sent} sent, {received} received, {replies} replies, {} MiB", bytes >> 20)
    }
}

/// The traffic of one process.
#[derive(Clone, Copy)]
pub(crate) struct Traffic<'p> {
    /// Seeds of the messages sent and received.
    pub(crate) seeds: [u64; 2],
    pub(crate) progress: &'p Progress,
}

/// Our requests, by number. A reply may be there before the call that asked has returned, and with it the request's name.
///
/// No thread waits for the channel while it is locked: both sides' receivers would wait for their senders, and these
/// for the other side's receiver.
#[derive(Debug, Default)]
struct Requests {
    /// Asked and not answered.
    open: BTreeMap<u64, RequestId>,
    /// Answered and not named.
    early: BTreeMap<u64, Option<RequestId>>,
}

type Open = Mutex<Requests>;

impl Requests {
    /// Number `n` has this name.
    fn asked(&mut self, n: u64, request: RequestId) -> Result<()> {
        if let Some(answered) = self.early.remove(&n) {
            return Self::agree(n, request, answered);
        }
        self.open.insert(n, request);
        Ok(())
    }

    /// A reply says that it answers number `n`.
    fn answered(&mut self, n: u64, request: Option<RequestId>) -> Result<()> {
        match self.open.remove(&n) {
            Some(asked) => Self::agree(n, asked, request),
            None if self.early.insert(n, request).is_some() => Err(format!("two replies to {n}").into()),
            None => Ok(()),
        }
    }

    fn agree(n: u64, asked: RequestId, answered: Option<RequestId>) -> Result<()> {
        if answered == Some(asked) {
            return Ok(());
        }
        Err(format!("a reply to {n}, {asked:?}, expected, one to {answered:?} found").into())
    }
}

impl Traffic<'_> {
    /// Sends and receives until `Progress::stop` is set, or the other side has stopped.
    pub(crate) fn run(self, channel: Channel) -> Result<()> {
        let most = channel.limits().max_payload;
        let (sender, receiver) = channel.split();
        let (questions, asked) = mpsc::channel();
        let (payloads, held) = mpsc::channel();
        let open = Open::default();
        thread::scope(|scope| {
            let requests = &open;
            let sending = scope.spawn(move || {
                let result = self.send(sender, &asked, requests);
                // A thread that fails stops the others.
                self.progress.stop.store(true, Relaxed);
                result
            });
            let holding = scope.spawn(move || {
                let result = self.hold(&held);
                if result.is_err() {
                    self.progress.stop.store(true, Relaxed);
                }
                result
            });
            let receiving = self.receive(receiver, most, &questions, &payloads, &open);
            self.progress.stop.store(true, Relaxed);
            // This ends the thread that holds them.
            drop(payloads);
            let sent = sending.join().map_err(|_| "the sending thread has panicked")?;
            let held = holding.join().map_err(|_| "the holding thread has panicked")?;
            // Only the thread that failed has the cause; the others see the end.
            held.and(receiving).and(sent)
        })
    }

    fn send(self, mut sender: Sender, asked: &mpsc::Receiver<(u64, ReplyToken)>, open: &Open) -> Result<()> {
        let (buffers, most) = (buffers()?, sender.limits().max_payload);
        let mut n = 0;
        while !self.progress.stop.load(Relaxed) {
            // Answers first: they are messages like the others, with other content.
            if let Ok((question, token)) = asked.try_recv() {
                sender.send_timeout(Control::of(&question).in_reply_to(token), SOON)?;
                self.sent(0);
                n += 1;
                continue;
            }
            let item = Item::of(self.seeds[0], n, most);
            if item.is_plain() {
                n = self.send_plain(sender.batch(), item, n, &buffers)?;
                continue;
            }
            if item.wants_reply {
                let request = send_request(&mut sender, &item, item.control(&buffers))?;
                locked(open).asked(n, request)?;
                while locked(open).open.len() > OPEN && !self.progress.stop.load(Relaxed) {
                    thread::yield_now();
                }
            } else {
                sender.send_timeout(item.control(&buffers), SOON)?;
            }
            self.sent(0);
            n += 1;
        }
        sender.send_timeout(STOP, SOON)?;
        self.sent(0);
        Ok(())
    }

    /// Sends this payload, and those that follow without anything else between them. Says which message is the next.
    fn send_plain(
        self,
        mut sender: SendBatch<'_>,
        mut item: Item,
        n: u64,
        buffers: &[SealedBuffer],
    ) -> Result<u64> {
        let most = sender.limits().max_payload;
        for n in n.. {
            let len = item.payload.unwrap_or(0);
            let mut loan = sender.loan_timeout(len, SOON)?;
            item.fill(&mut loan);
            loan.send_with(item.control(buffers))?;
            self.sent(len);
            item = Item::of(self.seeds[0], n + 1, most);
            if !item.is_plain() || self.progress.stop.load(Relaxed) {
                return Ok(n + 1);
            }
        }
        Ok(0)
    }

    fn sent(self, bytes: usize) {
        self.progress.sent.fetch_add(1, Relaxed);
        self.progress.bytes.fetch_add(bytes as u64, Relaxed);
    }

    fn receive(
        self,
        mut receiver: Receiver,
        most: usize,
        questions: &mpsc::Sender<(u64, ReplyToken)>,
        payloads: &mpsc::Sender<(Item, Payload)>,
        open: &Open,
    ) -> Result<()> {
        let mut n = 0;
        let mut check = |message: &Message, fds| -> Result<Next> {
            let next = self
                .check(message, fds, n, most, questions, open)
                .map_err(|error| format!("message {n}: {error}"))?;
            n += 1;
            Ok(next)
        };
        // The payloads that are checked at once are released with their batch, the others when they are checked.
        let hold =
            |item, payload: Option<Payload>| drop(payload.map(|payload| payloads.send((item, payload))));
        // Every other message's descriptors are left in it, to be closed with it.
        let leave = |message: &Message| message.sequence() % 2 == 1;
        // One by one, or as many as are here, in turns.
        loop {
            let mut message = receiver.recv_timeout(SOON)?;
            let fds = if leave(&message) { Vec::new() } else { message.take_fds() };
            match check(&message, fds)? {
                Next::Stop => break,
                Next::Message => {}
                Next::Hold(item) => hold(item, message.take_payload()),
            }
            drop(message);
            let Some(mut batch) = receiver.try_recv_batch()? else { continue };
            let mut more = true;
            while more && let Some(mut message) = batch.next() {
                let fds = if leave(&message) { Vec::new() } else { message.take_fds() };
                match check(&message, fds)? {
                    Next::Stop => more = false,
                    Next::Message => {}
                    Next::Hold(item) => hold(item, message.take_payload()),
                }
            }
            if !more {
                break;
            }
        }
        match receiver.recv_timeout(SOON) {
            Err(Error::Disconnected) => Ok(()),
            other => Err(format!("the end expected after the last message, {other:?} found").into()),
        }
    }

    /// Checks message `n`, but not the payload of one that is to be held.
    fn check(
        self,
        message: &Message,
        fds: Vec<OwnedFd>,
        n: u64,
        most: usize,
        questions: &mpsc::Sender<(u64, ReplyToken)>,
        open: &Open,
    ) -> Result<Next> {
        self.progress.received.fetch_add(1, Relaxed);
        if message.sequence() != n {
            return Err(format!("{n} expected, {} found", message.sequence()).into());
        }
        if message.in_reply_to().is_some() {
            self.check_reply(message, open)?;
            return Ok(Next::Message);
        }
        if message.control() == STOP {
            return Ok(Next::Stop);
        }
        let item = Item::of(self.seeds[1], n, most);
        item.check(message, fds)?;
        if let Some(token) = message.reply_token() {
            // A sender that has stopped answers no more.
            let _ = questions.send((n, token));
        }
        if let Some(payload) = message.payload() {
            self.progress.bytes.fetch_add(u64::try_from(payload.len())?, Relaxed);
            if !n.is_multiple_of(4) {
                return Ok(Next::Hold(item));
            }
            item.check_payload(payload)?;
        }
        Ok(Next::Message)
    }

    fn check_reply(self, message: &Message, open: &Open) -> Result<()> {
        let question = *message.control_as::<u64>()?;
        locked(open).answered(question, message.in_reply_to())?;
        self.progress.replies.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Checks payloads when they come or when they go, and releases them in any order.
    fn hold(self, payloads: &mpsc::Receiver<(Item, Payload)>) -> Result<()> {
        let mut random = Random(self.seeds[0]);
        let mut held: Vec<(Instant, Item, Payload)> = Vec::new();
        loop {
            let next = held.iter().map(|(until, ..)| *until).min();
            let wait = next.map_or(SOON, |until| until.saturating_duration_since(Instant::now()));
            match payloads.recv_timeout(wait) {
                Ok((item, payload)) if random.below(4) > 0 => item.check_payload(&payload)?,
                Ok((item, payload)) => {
                    let time = HELD / 100 * u32::try_from(random.below(100))?;
                    // One in four is held as a copy, which keeps nothing from being reused.
                    let payload = if random.below(4) == 0 { payload.detach() } else { payload };
                    held.push((Instant::now() + time, item, payload));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let now = Instant::now();
            while let Some(at) = held.iter().position(|(until, ..)| *until <= now) {
                let (_, item, payload) = held.swap_remove(at);
                item.check_payload(&payload)?;
            }
        }
        held.iter().try_for_each(|(_, item, payload)| item.check_payload(payload))
    }
}

fn locked(open: &Open) -> MutexGuard<'_, Requests> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

fn send_request(sender: &mut Sender, item: &Item, control: Control<'_>) -> Result<RequestId> {
    let Some(len) = item.payload else { return Ok(sender.request(control)?) };
    let mut loan = sender.loan_timeout(len, SOON)?;
    item.fill(&mut loan);
    Ok(loan.request(control)?)
}
