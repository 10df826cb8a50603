//! The hub: one thread, one loop, and no call that blocks.
//!
//! These rules keep one client from harming another:
//! - **A turn is short**: [`TURN`] messages at most, a burst of a well-behaved client. A client with more messages comes again
//!   after a [`BREATH`], so that a client that never stops fills its own ring and socket, and not the hub's time.
//! - **New activity comes first**: between two polls the hub does one step of the work that can wait. Such work is a client
//!   with more messages, a step of a handshake, accepting, and closing.
//! - **Nothing piles up**: a client whose answer finds no room is not read until there is some.
//! - **Memory is bounded** by the settings of each client, and by a number of clients per user, beyond which a client is refused
//!   before there is a channel. Both are needed: a ring that a client has received stays allocated, and charged to the hub,
//!   for as long as the client likes. A client before its Hello costs a socket, until its deadline.
//! - **Accepting pauses for a shortage of the hub's own only**, until a client leaves or for a while; never for a client's fault.
//! - A client that breaks the protocol, or is gone, is dropped, and the others do not notice.
//!
//! `mio` is edge-triggered: a client that was woken is served until a call finds nothing, or is served again without a wake-up.

use std::{
    collections::{BTreeSet, HashMap, VecDeque, hash_map::Entry},
    io,
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, unix::SourceFd};
use sealane::{Channel, Control, Error, Handshake, Listener, Message, ReplyToken};
use zerocopy::IntoBytes;

use crate::{
    Options, Result,
    protocol::{COUNTERS, Counters, Tally, settings},
};

/// Messages of one client in a row: a stream, its request, and one more poll, which finds nothing.
const TURN: u32 = 10;
/// Messages in a row of a client that comes again: the others wait meanwhile.
const SHORT_TURN: u32 = 3;
/// Pause between two turns of a client with more messages. `epoll_wait(2)` counts milliseconds, so an idle hub pauses for one.
const BREATH: Duration = Duration::from_micros(250);
/// Events of one look.
const LOOK: usize = 256;
/// The pause before another attempt where the kernel gives no signal.
const PAUSE: Duration = Duration::from_millis(5);

/// The pause in accepting after a shortage.
const REST: Duration = Duration::from_millis(50);

/// The process that started the hub: a client like any other, but the hub ends with it.
const PARENT: usize = 0;
const LISTENER: Token = Token(usize::MAX);
/// No guest, but the end of a [`REST`], among the deadlines.
const RESTED: usize = usize::MAX;

/// Serves all clients until `parent` is gone.
pub(crate) fn run(parent: Channel, options: &Options) -> Result<()> {
    let listener = settings(options).listen(&options.socket)?;
    let poll = Poll::new()?;
    poll.registry().register(&mut SourceFd(&listener.as_raw_fd()), LISTENER, Interest::READABLE)?;
    let mut hub = Hub {
        poll,
        listener,
        guests: HashMap::new(),
        arrived: 0,
        later: VecDeque::new(),
        deadlines: BTreeSet::new(),
        counters: Counters::default(),
        users: HashMap::new(),
        most_per_user: options.per_user,
    };
    let parent = Client::new(parent);
    hub.watch(PARENT, &parent.channel.receiver, Half::Receiver)?;
    hub.watch(PARENT, &parent.channel.sender, Half::Sender)?;
    hub.guests.insert(PARENT, Guest { stage: Stage::Client(parent), user: None, comes_again: false });
    let mut events = Events::with_capacity(LOOK);
    while hub.guests.contains_key(&PARENT) {
        hub.look(&mut events)?;
    }
    Ok(())
}

struct Hub {
    poll: Poll,
    listener: Listener,
    guests: HashMap<usize, Guest>,
    /// The newest guest's key. None is used twice, so an event cannot reach the wrong one.
    arrived: usize,
    later: VecDeque<Work>,
    /// When to serve a guest without a wake-up: at a handshake's deadline, after a breath.
    deadlines: BTreeSet<(Instant, usize)>,
    counters: Counters,
    /// How many guests each user has, by its number; and may have.
    users: HashMap<u32, u32>,
    most_per_user: u32,
}

/// A piece of work that can wait.
enum Work {
    Accept,
    GoOn(usize),
}

struct Guest {
    stage: Stage,
    /// The client's user, known from its Hello on.
    user: Option<u32>,
    /// It stands in `later`, or takes a breath.
    comes_again: bool,
}

#[expect(clippy::large_enum_variant, reason = "nearly all guests are clients")]
enum Stage {
    Arriving(Handshake),
    Client(Client),
}

/// Which descriptor of a channel: the lowest bit of a token.
#[derive(Clone, Copy)]
enum Half {
    Receiver,
    Sender,
}

impl Hub {
    fn watch(&self, key: usize, fd: &impl AsRawFd, half: Half) -> io::Result<()> {
        let token = Token(key * 2 + usize::from(matches!(half, Half::Sender)));
        self.poll.registry().register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)
    }

    /// Serves all clients that were woken, then does one step of the work that can wait.
    fn look(&mut self, events: &mut Events) -> Result<()> {
        let next = self.deadlines.first().map(|(at, _)| at.saturating_duration_since(Instant::now()));
        let at_most = if self.later.is_empty() { next } else { Some(Duration::ZERO) };
        match self.poll.poll(events, at_most) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        for event in &*events {
            match event.token() {
                LISTENER => self.later.push_back(Work::Accept),
                Token(number) => self.woken(number / 2),
            }
        }
        if let Some(&(at, key)) = self.deadlines.first()
            && at <= Instant::now()
        {
            self.deadlines.pop_first();
            if key == RESTED {
                self.later.push_back(Work::Accept);
            } else if let Some(guest) = self.guests.get_mut(&key) {
                guest.comes_again = true;
                self.later.push_back(Work::GoOn(key));
            }
        }
        match self.later.pop_front() {
            Some(Work::Accept) => self.accept(),
            Some(Work::GoOn(key)) => self.go_on(key)?,
            None => {}
        }
        Ok(())
    }

    /// A client has its turn now; any other work for a guest can wait.
    fn woken(&mut self, key: usize) {
        let Some(guest) = self.guests.get_mut(&key) else { return };
        match &mut guest.stage {
            _ if guest.comes_again => return,
            Stage::Arriving(_) => {}
            Stage::Client(client) => match client.turn(TURN, &mut self.counters) {
                Ok(Next::Wait) => return,
                Ok(Next::More) => {
                    guest.comes_again = true;
                    self.deadlines.insert((Instant::now() + BREATH, key));
                    return;
                }
                Err(_) => {}
            },
        }
        guest.comes_again = true;
        self.later.push_back(Work::GoOn(key));
    }

    fn accept(&mut self) {
        match self.listener.try_accept() {
            Ok(None) => {}
            Ok(Some(handshake)) => {
                self.arrived += 1;
                let key = self.arrived;
                if self.watch(key, &handshake, Half::Receiver).is_ok() {
                    self.deadlines.insert((handshake.deadline(), key));
                    let stage = Stage::Arriving(handshake);
                    self.guests.insert(key, Guest { stage, user: None, comes_again: false });
                    self.counters.guests += 1;
                }
                self.later.push_back(Work::Accept);
            }
            // At our limit of open files, for instance: the clients keep waiting.
            Err(Error::Io { .. }) => {
                self.counters.failed += 1;
                self.deadlines.insert((Instant::now() + REST, RESTED));
            }
            // The failure concerns that client only; the next one may be waiting.
            Err(_) => {
                self.counters.failed += 1;
                self.later.push_back(Work::Accept);
            }
        }
    }

    /// One step with a guest: of its handshake, of its messages, or out of the door.
    fn go_on(&mut self, key: usize) -> io::Result<()> {
        let Some(mut guest) = self.guests.remove(&key) else { return Ok(()) };
        guest.comes_again = false;
        let mut breathes = false;
        guest.stage = match guest.stage {
            Stage::Client(mut client) => {
                let Ok(next) = client.turn(SHORT_TURN, &mut self.counters) else {
                    self.counters.left += 1;
                    self.leaves(guest.user);
                    return Ok(());
                };
                breathes = matches!(next, Next::More);
                Stage::Client(client)
            }
            Stage::Arriving(mut handshake) => match handshake.advance() {
                Ok(false) => {
                    if let (None, Some(client)) = (guest.user, handshake.peer_credentials()) {
                        if !self.admit(client.uid) {
                            self.deadlines.remove(&(handshake.deadline(), key));
                            handshake.refuse();
                            self.counters.refused += 1;
                            self.leaves(None);
                            return Ok(());
                        }
                        guest.user = Some(client.uid);
                    }
                    guest.comes_again = handshake.needs_advance();
                    Stage::Arriving(handshake)
                }
                Ok(true) => {
                    self.deadlines.remove(&(handshake.deadline(), key));
                    let Ok(channel) = handshake.finish() else {
                        self.leaves(guest.user);
                        return Ok(());
                    };
                    // The receiver's descriptor is the handshake's. Its first messages may have been announced already.
                    self.watch(key, &channel.sender, Half::Sender)?;
                    guest.comes_again = true;
                    Stage::Client(Client::new(channel))
                }
                Err(Error::Full | Error::FdsInFlight) => {
                    self.deadlines.insert((Instant::now() + PAUSE, key));
                    Stage::Arriving(handshake)
                }
                Err(error) => {
                    self.deadlines.remove(&(handshake.deadline(), key));
                    let silent = error.is_timeout();
                    *(if silent { &mut self.counters.timed_out } else { &mut self.counters.failed }) += 1;
                    self.leaves(guest.user);
                    return Ok(());
                }
            },
        };
        if guest.comes_again {
            self.later.push_back(Work::GoOn(key));
        } else if breathes {
            guest.comes_again = true;
            self.deadlines.insert((Instant::now() + BREATH, key));
        }
        self.guests.insert(key, guest);
        Ok(())
    }

    /// Whether this user may have one guest more, which is counted.
    fn admit(&mut self, user: u32) -> bool {
        let guests = self.users.entry(user).or_default();
        let admitted = *guests < self.most_per_user;
        *guests += u32::from(admitted);
        admitted
    }

    /// A client's socket may have space now.
    fn leaves(&mut self, user: Option<u32>) {
        if let Some(Entry::Occupied(mut guests)) = user.map(|user| self.users.entry(user)) {
            *guests.get_mut() -= 1;
            if *guests.get() == 0 {
                guests.remove();
            }
        }
        self.counters.guests -= 1;
        self.later.push_back(Work::Accept);
    }
}

/// The outcome of a turn.
enum Next {
    /// A wake-up will come for it.
    Wait,
    More,
}

struct Client {
    channel: Channel,
    tally: Tally,
    /// A request that has not been answered, for want of room.
    owed: Option<Question>,
}

#[derive(Clone, Copy)]
enum Question {
    Tally(ReplyToken),
    Counters(ReplyToken),
}

impl Client {
    fn new(channel: Channel) -> Self {
        Self { channel, tally: Tally::default(), owed: None }
    }

    /// Receives and answers until a call finds nothing, or the turn ends.
    fn turn(&mut self, most: u32, counters: &mut Counters) -> std::result::Result<Next, Error> {
        for _ in 0..most {
            if let Some(question) = self.owed {
                let answered = match question {
                    Question::Tally(token) => {
                        let tally = self.tally;
                        self.answer(token, &tally)?
                    }
                    Question::Counters(token) => self.answer(token, &*counters)?,
                };
                if !answered {
                    return Ok(Next::Wait);
                }
                self.owed = None;
            }
            let Some(message) = self.channel.try_recv()? else { return Ok(Next::Wait) };
            counters.messages += 1;
            self.owed = self.take(&message);
        }
        Ok(Next::More)
    }

    fn take(&mut self, message: &Message) -> Option<Question> {
        if let Some(payload) = message.payload().filter(|payload| !payload.is_empty()) {
            self.tally.messages += 1;
            payload.bytes().for_each_block(|block| {
                self.tally.sum += block.iter().map(|byte| u64::from(*byte)).sum::<u64>();
            });
        }
        let is_counters = message.control() == COUNTERS;
        message.reply_token().map(if is_counters { Question::Counters } else { Question::Tally })
    }

    /// The answer rides in the ring, behind an empty payload: so it costs no system call while the client is awake.
    fn answer(
        &mut self,
        token: ReplyToken,
        answer: &(impl IntoBytes + zerocopy::Immutable),
    ) -> std::result::Result<bool, Error> {
        let Some(loan) = self.channel.try_loan(0)? else { return Ok(false) };
        match loan.try_send_with(Control::of(answer).in_reply_to(token)) {
            Ok(()) => Ok(true),
            Err(unsent) if matches!(unsent.error(), Error::Full) => Ok(false),
            Err(unsent) => Err(unsent.into_error()),
        }
    }
}
