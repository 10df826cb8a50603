//! [`Joining`]: who wishes to subscribe, until it is a lane: accepted, asked, admitted, and joined between two messages.

use std::{
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use crate::{
    channel::Credentials,
    connect::{Handshake, Listener, Settings, SharedRegion},
    error::{Error, HandshakeError, Reason, Refusal, Result},
    fanout::{
        Event, Newcomer, SubscriberId, SubscriberInfo,
        account::Account,
        departed::Departed,
        gates::{Gate, Gates},
        lane::Lane,
        lanes::{Lanes, PAUSE},
        poll::{Poll, Token},
    },
    protocol::{Slow, Start, Terms, Wish, to_u64},
    ring::Producer,
    socket::seqpacket::Socket,
};

/// Most handshakes at once. Another one takes the place of the oldest.
const MAX_JOINING: usize = 16;

/// The application's decision about a newcomer.
type Admit = Box<dyn FnMut(&Newcomer<'_>) -> Option<Slow> + Send>;

/// A handshake with a subscriber.
struct Applicant {
    id: SubscriberId,
    handshake: Handshake,
    /// The policy that it is granted.
    granted: Option<Slow>,
    start: Start,
    /// The application has asked for it, and hears of its failure.
    is_ours: bool,
    /// When to try again, where no descriptor says so.
    retry: Option<Instant>,
}

impl Applicant {
    /// How it will stand, once it is admitted.
    fn info(&self, rule: Slow) -> Option<SubscriberInfo> {
        let (policy, credentials) = (self.granted?, self.handshake.peer_credentials()?);
        let account = policy.patience().or(rule.patience()).unwrap_or_default();
        Some(SubscriberInfo { id: self.id, credentials, policy, lag: 0, account, waits: 0, missed: 0 })
    }
}

/// Those who join.
pub(crate) struct Joining {
    listener: Option<Listener>,
    settings: Settings,
    shared: SharedRegion,
    pub(super) admit: Option<Admit>,
    applicants: Vec<Applicant>,
    next_id: u64,
    /// Those who left.
    pub(super) departed: Departed,
}

impl Joining {
    pub(super) fn new(listener: Option<Listener>, settings: Settings, shared: SharedRegion) -> Self {
        Self {
            listener,
            settings,
            shared,
            admit: None,
            applicants: Vec::new(),
            next_id: 0,
            departed: Departed::default(),
        }
    }

    pub(super) fn listener(&self) -> Option<BorrowedFd<'_>> {
        self.listener.as_ref().map(AsFd::as_fd)
    }

    /// Closes the listener, and removes its file.
    pub(super) fn stop_listening(&mut self, poll: &Poll) {
        if let Some(listener) = self.listener.take() {
            poll.delete(listener.as_fd());
        }
    }

    pub(super) fn path(&self) -> Option<&std::path::Path> {
        self.listener.as_ref().and_then(Listener::path)
    }

    /// The publisher's own rule.
    fn rule(&self) -> Slow {
        self.settings.slow.unwrap_or_default()
    }

    /// The time of an account. Those who may be overrun have one too, for their descriptors in flight.
    fn patience(&self, granted: Slow) -> Duration {
        granted.patience().or(self.rule().patience()).or(Slow::default().patience()).unwrap_or_default()
    }

    /// Handshakes that go on.
    pub(super) fn len(&self) -> usize {
        self.applicants.len()
    }

    /// The next moment at which a handshake has to be looked at.
    pub(super) fn next_alarm(&self) -> Option<Instant> {
        self.applicants.iter().map(|one| one.retry.unwrap_or(one.handshake.deadline())).min()
    }

    /// The socket of a handshake.
    pub(super) fn socket(&self, id: SubscriberId) -> Option<BorrowedFd<'_>> {
        self.applicants.iter().find(|one| one.id == id).map(|one| one.handshake.as_fd())
    }

    /// Begins the handshake of a publisher over a socket.
    pub(super) fn begin(&self, socket: Socket) -> Result<Handshake> {
        Handshake::of_publisher(socket, self.settings, self.shared.clone())
    }

    /// Adds a handshake. Returns its name, and the oldest one if there are too many.
    fn add(&mut self, handshake: Handshake, is_ours: bool) -> (SubscriberId, Option<Applicant>) {
        let id = SubscriberId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        // A handshake that the application has begun does not give way to a stranger's.
        let strangers = self.applicants.iter().filter(|one| !one.is_ours).count();
        let oldest = (strangers >= MAX_JOINING && !is_ours)
            .then(|| self.applicants.iter().position(|one| !one.is_ours))
            .flatten()
            .map(|at| self.applicants.remove(at));
        let (granted, start, retry) = (None, Start::Next, None);
        self.applicants.push(Applicant { id, handshake, granted, start, is_ours, retry });
        (id, oldest)
    }

    /// Whether a newcomer may join, and with which policy and account; the refusal if not.
    fn judge(
        &mut self,
        credentials: Credentials,
        wish: Wish,
        is_ours: bool,
        present: &[SubscriberInfo],
    ) -> Result<Slow, Refusal> {
        let refuse = |reason, expected, found| Err(Refusal { reason, expected, found });
        let (max, all) = (self.settings.max_subscribers, present.len());
        if all >= max {
            return refuse(Reason::Subscribers, to_u64(max), to_u64(all).saturating_add(1));
        }
        // Nobody waits for a subscriber that may be overrun, if it gets no descriptors.
        let is_waited_for = wish.slow != Slow::Overrun || self.settings.max_fds() > 0;
        if is_waited_for && let Some((least, left)) = self.departed.lacks(credentials.uid) {
            return refuse(Reason::Patience, least, left);
        }
        if self.departed.has_unread_of(credentials.uid) {
            return refuse(Reason::Patience, 0, 0);
        }
        let rule = match &mut self.admit {
            Some(admit) if !is_ours => admit(&Newcomer { credentials, wish: wish.slow, present }),
            _ => Some(self.rule()),
        };
        match rule {
            Some(rule) => Ok(rule.min(wish.slow)),
            None => refuse(Reason::Application, 0, 0),
        }
    }

    /// The account of a newcomer: what an earlier subscriber of the same user has left.
    fn account(&self, uid: u32, granted: Slow) -> Account {
        self.departed.account(uid, self.patience(granted))
    }
}

impl Lanes {
    /// Accepts one client.
    pub(super) fn accept(&mut self) {
        let Some(listener) = &self.joining.listener else { return };
        let accepted = listener
            .try_accept_socket()
            .and_then(|socket| socket.map(|socket| self.joining.begin(socket)).transpose());
        let result = match accepted {
            Ok(Some(handshake)) => self.introduce(handshake, false).map(drop),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            log::warn!("a subscriber was not accepted: {error}");
        }
    }

    /// Takes up a handshake, and watches its socket.
    pub(super) fn introduce(&mut self, handshake: Handshake, is_ours: bool) -> Result<SubscriberId> {
        let (id, oldest) = self.joining.add(handshake, is_ours);
        if let Some(oldest) = oldest {
            log::debug!("a handshake gives way to another one");
            self.poll.delete(oldest.handshake.as_fd());
        }
        let fd = self.joining.applicants.last().map(|one| one.handshake.as_fd());
        let watched = fd.map_or(Ok(()), |fd| self.poll.add(fd, Token::Joining(id)));
        if watched.is_err() {
            self.joining.applicants.pop();
        }
        watched?;
        self.schedule();
        Ok(id)
    }

    /// Advances all handshakes whose time has come.
    pub(super) fn advance_all(&mut self, producer: &mut Producer<Gates>) {
        let now = Instant::now();
        let is_due = |one: &Applicant| one.retry.unwrap_or(one.handshake.deadline()) <= now;
        let due: Vec<_> =
            self.joining.applicants.iter().filter(|one| is_due(one)).map(|one| one.id).collect();
        for id in due {
            self.advance_one(id, producer);
        }
    }

    /// Advances a handshake as far as it goes. Here a subscriber joins.
    pub(super) fn advance_one(&mut self, id: SubscriberId, producer: &mut Producer<Gates>) {
        let Some(at) = self.joining.applicants.iter().position(|one| one.id == id) else { return };
        let mut one = self.joining.applicants.remove(at);
        match self.advance(&mut one, producer) {
            Ok(false) => self.joining.applicants.insert(at, one),
            Ok(true) => {
                // A lane has the descriptor from now on, under the same number.
                self.poll.delete(one.handshake.as_fd());
                let Applicant { handshake, is_ours, .. } = one;
                match self.open(id, handshake, producer) {
                    Ok(()) => self.events.push_back(Event::Joined(id)),
                    Err(error) => self.report(id, is_ours, error),
                }
            }
            Err(failure) => {
                log::debug!("handshake with a subscriber: {failure:?}");
                self.poll.delete(one.handshake.as_fd());
                let is_ours = one.is_ours;
                let error = match failure {
                    Failure::Failed(error) => error,
                    Failure::Refused(refusal) => {
                        one.handshake.refuse_for(refusal);
                        HandshakeError::Refused(refusal).into()
                    }
                };
                self.report(id, is_ours, error);
            }
        }
    }

    /// Tells the application of a failure, if it has asked for this subscriber.
    fn report(&mut self, id: SubscriberId, is_ours: bool, error: Error) {
        if is_ours {
            self.events.push_back(Event::Left(id, error));
        }
    }

    /// Opens the lane of a handshake that is complete. From now on the subscriber is waited for.
    fn open(&mut self, id: SubscriberId, handshake: Handshake, producer: &mut Producer<Gates>) -> Result<()> {
        let parts = handshake.parts()?;
        // A handshake that is complete has terms.
        let terms = parts.terms.ok_or(Error::Disconnected)?;
        let account = self.joining.account(parts.peer.credentials().uid, terms.slow);
        let lane = Lane::new(id, parts, terms, account, &self.words, self.bells(), self.packets);
        self.poll.add(lane.link.socket.as_fd(), Token::Socket(id))?;
        self.poll.add(lane.link.space_rx.as_fd(), Token::Space(id))?;
        if lane.gates() {
            let start = terms.first_position;
            producer.readers.list.push(Gate::new(id, lane.region.clone(), start));
            producer.read_again_from(start);
        }
        // The newest message may be there already, and the subscriber asleep.
        let has_news = terms.first_position < producer.head();
        self.list.push(lane);
        if has_news {
            self.notify();
        }
        Ok(())
    }

    /// Advances a handshake as far as it goes. True if it is complete.
    fn advance(&mut self, one: &mut Applicant, producer: &Producer<Gates>) -> Result<bool, Failure> {
        one.retry = None;
        loop {
            match one.handshake.advance() {
                Ok(_) => {}
                Err(Error::Full | Error::FdsInFlight) => {
                    one.retry = Instant::now().checked_add(PAUSE);
                    return Ok(false);
                }
                Err(error) => return Err(Failure::Failed(error)),
            }
            if let (Some(wish), Some(credentials), None) =
                (one.handshake.wish(), one.handshake.peer_credentials(), one.granted)
            {
                self.refresh_infos(producer.head());
                let Self { joining, infos, .. } = self;
                // Subscribers that were admitted and have not joined yet count as well: else any number could come at once.
                infos.extend(joining.applicants.iter().filter_map(|one| one.info(joining.rule())));
                let granted =
                    joining.judge(credentials, wish, one.is_ours, infos).map_err(Failure::Refused)?;
                (one.granted, one.start) = (Some(granted), wish.start);
                continue;
            }
            if one.handshake.awaits_terms() {
                return self.join(one, producer);
            }
            // More pieces of the handshake are for later turns: the socket stays readable until then.
            return Ok(false);
        }
    }

    /// Says the last word, between two messages.
    fn join(&mut self, one: &mut Applicant, producer: &Producer<Gates>) -> Result<bool, Failure> {
        let newest =
            self.newest.filter(|newest| one.start == Start::Latest && producer.is_whole(newest.start));
        let (first_position, first_sequence, lost) = match newest {
            Some(newest) => (newest.start, newest.sequence, newest.lost),
            None => (producer.head(), self.sequence, self.source.lost),
        };
        let slow = one.granted.unwrap_or(Slow::Overrun);
        match one.handshake.join(Terms { slow, first_sequence, first_position, lost }) {
            Ok(()) => Ok(true),
            Err(Error::Full | Error::FdsInFlight) => {
                one.retry = Instant::now().checked_add(PAUSE);
                Ok(false)
            }
            Err(error) => Err(Failure::Failed(error)),
        }
    }
}

/// The end of a handshake without a lane.
#[derive(Debug)]
enum Failure {
    /// We refuse it.
    Refused(Refusal),
    Failed(Error),
}
