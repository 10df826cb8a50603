//! Futures that are dropped at random points: no message is lost, sent twice or cut in half, and nothing leaks.

use std::{
    collections::VecDeque,
    io::{PipeWriter, pipe},
};

use sealane::{Control, Error, Message, ReplyToken, RequestId, tokio::Channel};
use tokio::task::yield_now;

use crate::{builder, is_disconnected, pair_of, polled, run, script::Random, support::is_abandoned};

const STEPS: usize = 20_000;
/// The number of a request. Other numbers are those of messages.
const REQUEST: u64 = u64::MAX;
/// The number in the last message.
const LAST: u64 = u64::MAX - 1;

/// One side of a conversation, in which every future may be dropped.
struct Side {
    channel: Channel,
    random: Random,
    /// Duplicates of it go along with messages.
    pipe: PipeWriter,
    /// Numbers of the next message to send, and to receive.
    sent: u64,
    received: u64,
    questions: VecDeque<ReplyToken>,
    asked: VecDeque<RequestId>,
    /// Questions of the peer that arrived.
    heard: u64,
    answered: u64,
    /// Replies that came in time.
    replies: u64,
    ended: bool,
}

impl Side {
    fn new(channel: Channel, seed: u64, pipe: &PipeWriter) -> Self {
        Self {
            channel,
            random: Random(seed),
            pipe: pipe.try_clone().unwrap(),
            sent: 0,
            received: 0,
            questions: VecDeque::new(),
            asked: VecDeque::new(),
            heard: 0,
            answered: 0,
            replies: 0,
            ended: false,
        }
    }

    /// The number of polls before the next future is dropped.
    fn polls(&mut self) -> usize {
        self.random.below(4)
    }

    fn hear(&mut self, message: &Message) {
        if message.in_reply_to().is_some() {
            return self.check_reply(message);
        }
        match *message.control_as::<u64>().unwrap() {
            LAST => self.ended = true,
            REQUEST => {
                self.questions.push_back(message.reply_token().unwrap());
                self.heard += 1;
            }
            number => {
                assert_eq!(number, self.received, "lost, or sent twice");
                self.received += 1;
            }
        }
        if let Some(payload) = message.payload() {
            let [first, .., last] = payload.to_vec()[..] else { panic!("{payload:?}") };
            assert_eq!((first, last), (7, 9));
        }
    }

    fn check_reply(&mut self, message: &Message) {
        assert_eq!(message.control(), b"reply");
        self.asked.retain(|request| message.in_reply_to() != Some(*request));
        self.replies += 1;
    }

    async fn receive(&mut self) {
        let polls = self.polls();
        match polled(self.channel.recv(), polls).await {
            Some(Ok(message)) => self.hear(&message),
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }

    async fn send(&mut self) {
        let (polls, number) = (self.polls(), self.sent);
        let mut control = Control::of(&number);
        if self.random.below(3) == 0 {
            control = control.fd(&self.pipe);
        }
        if polled(self.channel.send(control), polls).await.transpose().unwrap().is_some() {
            self.sent += 1;
        }
    }

    async fn send_payload(&mut self) {
        let (polls, len) = (self.polls(), 2 + self.random.below(3000));
        let (drop_it, with_fd) = (self.random.below(4) == 0, self.random.below(3) == 0);
        let number = self.sent;
        let Some(loan) = polled(self.channel.loan(len), polls).await else { return };
        let mut loan = loan.unwrap();
        (loan[0], loan[len - 1]) = (7, 9);
        if drop_it {
            return;
        }
        let mut control = Control::of(&number);
        if with_fd {
            control = control.fd(&self.pipe);
        }
        if polled(loan.send_with(control), polls).await.transpose().unwrap().is_some() {
            self.sent += 1;
        }
    }

    async fn call(&mut self) {
        let polls = self.polls();
        if let Some(reply) = polled(self.channel.call(Control::of(&REQUEST)), polls).await {
            match reply {
                Ok(reply) => self.check_reply(&reply),
                Err(error) => assert!(matches!(error, Error::Backlog), "{error}"),
            }
        }
    }

    async fn ask(&mut self) {
        let polls = self.polls();
        if self.random.below(2) == 0 {
            let asked = polled(self.channel.request(Control::of(&REQUEST)), polls).await;
            self.asked.extend(asked.transpose().unwrap());
        } else if let Some(loan) = polled(self.channel.loan(2), polls).await {
            let mut loan = loan.unwrap();
            loan.copy_from_slice(&[7, 9]);
            let asked = polled(loan.request(Control::of(&REQUEST)), polls).await;
            self.asked.extend(asked.transpose().unwrap());
        }
    }

    async fn wait_reply(&mut self) {
        let polls = self.polls();
        let Some(request) = self.asked.front() else { return };
        match polled(self.channel.receiver.wait_reply(*request), polls).await {
            Some(Ok(reply)) => {
                assert_eq!(reply.in_reply_to(), Some(*request));
                self.check_reply(&reply);
            }
            Some(Err(error)) => assert!(matches!(error, Error::Backlog), "{error}"),
            None => {}
        }
    }

    async fn reply(&mut self) {
        let polls = self.polls();
        let Some(token) = self.questions.front() else { return };
        if polled(self.channel.reply(*token, b"reply"), polls).await.transpose().unwrap().is_some() {
            self.questions.pop_front();
            self.answered += 1;
        }
    }

    async fn run(mut self) -> Self {
        for _ in 0..STEPS {
            match self.random.below(12) {
                0..3 => self.receive().await,
                3..5 => self.send().await,
                5..7 => self.send_payload().await,
                7 => self.call().await,
                8 => self.ask().await,
                9 => self.wait_reply().await,
                10 => self.reply().await,
                _ => yield_now().await,
            }
        }
        // No new request follows, and all are answered.
        while polled(self.channel.send(Control::of(&LAST)), 1).await.transpose().unwrap().is_none() {
            self.receive().await;
        }
        while !(self.ended && self.questions.is_empty() && self.asked.is_empty()) {
            self.receive().await;
            self.reply().await;
            yield_now().await;
        }
        self
    }
}

#[test]
fn dropped_futures_lose_nothing_and_leak_nothing() {
    let seed = Random::seed();
    println!("SEED={seed}");
    run(move || async move {
        let (reader, writer) = pipe().unwrap();
        // There are more requests than answers while there are steps.
        let (a, b) = pair_of(&builder().ring_capacity(8192).max_requests(2 * STEPS));
        let sides = [Side::new(a, seed, &writer), Side::new(b, !seed, &writer)];
        let [a, b] = sides.map(|side| tokio::spawn(side.run()));
        let (mut a, mut b) = (a.await.unwrap(), b.await.unwrap());

        // One of them may have ended while the other still answered; then nothing but late replies is left.
        for side in [&mut a, &mut b] {
            assert!(side.channel.try_recv().unwrap().is_none());
        }
        for (from, to) in [(&a, &b), (&b, &a)] {
            let (sent, received) = (from.channel.stats(), to.channel.stats());
            assert_eq!(from.sent, to.received);
            assert_eq!(to.heard, to.answered);
            assert_eq!(sent.messages_sent, received.messages_received + received.late_replies);
            assert_eq!(from.heard, to.replies + received.late_replies, "a reply was lost");
            assert!(from.sent > 1000 && received.late_replies > 50 && to.replies > 50, "{received:?}");
            assert!(sent.waits_for_space > 50, "{sent:?}");
            assert_eq!(to.channel.receiver.held().count, 0);
        }
        // All space is free at once.
        for side in [&mut a, &mut b] {
            assert!(side.channel.try_loan(8192 / 2 - 1088).unwrap().is_some());
        }
        // No descriptor is in flight any more.
        drop((a.pipe, b.pipe, writer));
        assert!(is_abandoned(reader));
        drop(a.channel);
        assert!(is_disconnected(b.channel.recv().await));
    });
}
