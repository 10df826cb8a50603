//! A channel in a `calloop` loop: a process and its worker. Run it: `cargo run --example calloop`.
//!
//! The rule: after [`Receiver::try_recv`] has said `None`, the receiver's descriptor becomes readable when there is
//! something to receive. **Only then**: a source that stops earlier, to be fair to the loop's others, must come back without
//! waiting. [`ChannelSource`] does both: copy it.
//!
//! The source watches a duplicate of the descriptor, because `calloop` closes the descriptors that it watches. A duplicate
//! hides no end from the peer: a channel ends with `shutdown(2)`.
#![forbid(unsafe_code)]

use std::{
    env,
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
    process::Command,
    time::Duration,
};

use calloop::{
    EventLoop, EventSource, Interest, Mode, Poll, PostAction, Readiness, Token, TokenFactory,
    generic::Generic,
    timer::{TimeoutAction, Timer},
};
use sealane::{Channel, Control, Error, Message, Receiver};

/// The receiving half of a channel, as an event source. Its events are messages, and errors, of which the last is fatal.
struct ChannelSource {
    receiver: Receiver,
    readable: Generic<OwnedFd>,
    /// There may be more: `calloop` calls again, by this token, without sleeping.
    more: bool,
    again: Option<Token>,
}

impl ChannelSource {
    /// Messages in a row, before others have their turn.
    const TURN: usize = 64;

    fn new(receiver: Receiver) -> io::Result<Self> {
        let duplicate = receiver.as_fd().try_clone_to_owned()?;
        let readable = Generic::new(duplicate, Interest::READ, Mode::Level);
        Ok(Self { receiver, readable, more: false, again: None })
    }
}

impl EventSource for ChannelSource {
    type Event = sealane::Result<Message>;
    type Metadata = ();
    type Ret = ();
    type Error = io::Error;

    fn process_events<F>(&mut self, _: Readiness, _: Token, mut event: F) -> io::Result<PostAction>
    where
        F: FnMut(Self::Event, &mut ()),
    {
        self.more = false;
        for _ in 0..Self::TURN {
            match self.receiver.try_recv() {
                Ok(None) => return Ok(PostAction::Continue),
                Ok(Some(message)) => event(Ok(message), &mut ()),
                Err(error) => {
                    let fatal = error.is_fatal();
                    event(Err(error), &mut ());
                    if fatal {
                        return Ok(PostAction::Remove);
                    }
                }
            }
        }
        self.more = true;
        Ok(PostAction::Continue)
    }

    fn register(&mut self, poll: &mut Poll, tokens: &mut TokenFactory) -> calloop::Result<()> {
        self.again = Some(tokens.token());
        self.readable.register(poll, tokens)
    }

    fn reregister(&mut self, poll: &mut Poll, tokens: &mut TokenFactory) -> calloop::Result<()> {
        self.again = Some(tokens.token());
        self.readable.reregister(poll, tokens)
    }

    fn unregister(&mut self, poll: &mut Poll) -> calloop::Result<()> {
        self.again = None;
        self.readable.unregister(poll)
    }

    const NEEDS_EXTRA_LIFECYCLE_EVENTS: bool = true;

    fn before_sleep(&mut self) -> calloop::Result<Option<(Readiness, Token)>> {
        let readable = Readiness { readable: true, writable: false, error: false };
        Ok(self.again.filter(|_| self.more).map(|token| (readable, token)))
    }
}

/// State that the callbacks of the loop share.
#[derive(Default)]
struct State {
    answers: u32,
    sum: u64,
    end: Option<Error>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if env::args().any(|argument| argument == "worker") {
        return Ok(work(Channel::inherited()?)?);
    }
    let mut command = Command::new(env::current_exe()?);
    command.arg("worker");
    let (channel, mut worker) = Channel::spawn(command)?;
    let (mut sender, receiver) = channel.split();

    let mut event_loop: EventLoop<'_, State> = EventLoop::try_new()?;
    let handle = event_loop.handle();
    handle.insert_source(ChannelSource::new(receiver)?, |event, (), state| match event {
        Ok(message) => {
            state.answers += 1;
            state.sum += message.control_as::<u64>().copied().unwrap_or(0);
        }
        Err(error) => state.end = Some(error),
    })?;
    let mut numbers = 1..=100_u64;
    handle.insert_source(Timer::immediate(), move |_, (), _| match numbers.next() {
        // A hundred requests at most are under way, so there is room for each.
        Some(number) if sender.try_send(Control::of(&number)).is_ok() => {
            TimeoutAction::ToDuration(Duration::from_millis(2))
        }
        // The sender is dropped with the timer: so the worker learns that no more will come.
        _ => TimeoutAction::Drop,
    })?;

    let mut state = State::default();
    while state.end.is_none() {
        event_loop.dispatch(None, &mut state)?;
    }
    let end = state.end.ok_or("the loop has ended")?;
    writeln!(io::stdout(), "{} answers, sum {}, then: {end}", state.answers, state.sum)?;
    assert_eq!((state.answers, state.sum), (100, 338_350));
    assert!(worker.wait()?.success());
    Ok(())
}

/// The other process: squares numbers, as long as there are any.
fn work(mut channel: Channel) -> Result<(), Error> {
    loop {
        match channel.recv() {
            Ok(message) => {
                let number = *message.control_as::<u64>()?;
                channel.send(Control::of(&(number * number)))?;
            }
            Err(Error::Disconnected) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
