//! Steps of a wait that a runtime carries out: it polls the descriptors, edge-triggered, and calls these in between.

use std::{os::fd::OwnedFd, path::Path};

use zerocopy::{FromBytes, IntoBytes};

use crate::{
    channel::{Block, Wake},
    connect::{Builder, Handshake, child, connect},
    error::{Error, Result},
    fanout::{Event, Publisher, PublisherLoan, gates::Gates, lanes::Lanes, subscriber::begin},
    ring::Producer,
    socket::seqpacket::Socket,
    wait::{Budget, Outcome},
};

impl Lanes {
    /// Does all that is ready, but receives nothing: messages of subscribers stay in their sockets. False if there is more to do.
    fn attend(&mut self, producer: &mut Producer<Gates>) -> Result<bool> {
        let mut budget = Budget::once();
        while budget.spend()? {
            if !self.turn(producer, false)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Publisher {
    /// Says whether events that wait to be taken make the descriptor readable.
    ///
    /// In a runtime they must not: a call that waits for room does not take them, and would be woken for them for ever.
    pub(crate) fn announce_events(&mut self, announces: bool) {
        self.lanes.announces_events = announces;
        self.lanes.schedule();
    }

    /// Does all that is ready before a call is repeated that waits for room: expired timers, doorbells, handshakes. Events
    /// stay for [`next_event`](Self::next_event). False if there is more to do.
    ///
    /// It reads doorbells, which may disarm the publisher, so that the repeated call has to be the one that arms it.
    pub(crate) fn attend(&mut self) -> Result<bool> {
        self.lanes.attend(&mut self.writer.producer)
    }

    /// See [`Lanes::find_event`].
    pub(crate) fn find_event(&mut self) -> Result<Outcome<Event>> {
        self.lanes.find_event(&mut self.writer.producer)
    }

    /// Reserves the place of `count` values, without waiting. Nothing shows it.
    pub(crate) fn try_reserve<T>(&mut self, count: usize) -> Result<()> {
        let len = count.saturating_mul(size_of::<T>());
        let size = self.writer.loan_size(len).ok_or_else(|| self.too_large(len))?;
        self.lanes.reserve(&mut self.writer.producer, size, Block::No)
    }

    /// Lends the place that [`try_reserve`](Self::try_reserve) has just reserved.
    pub(crate) fn lend_now<T: FromBytes + IntoBytes>(
        &mut self,
        count: usize,
    ) -> Result<PublisherLoan<'_, T>> {
        let too_large = self.too_large(count.saturating_mul(size_of::<T>()));
        let reservation = self.writer.lend(count).ok_or(too_large)?;
        Ok(PublisherLoan::new(reservation, &mut self.lanes, Wake::AtOnce))
    }

    fn too_large(&self, len: usize) -> Error {
        Error::PayloadTooLarge { len, max: self.lanes.limits.max_payload }
    }
}

impl<T> PublisherLoan<'_, T> {
    /// See [`Publisher::attend`]. A subscriber that joins here has this loan as its first message.
    pub(crate) fn attend(&mut self) -> Result<bool> {
        self.lanes.attend(self.reservation.frame().producer)
    }
}

/// Ways to begin to subscribe without blocking. `Subscriber::of` completes them.
impl Builder {
    /// [`Error::Full`] if too many subscribers wait to be accepted.
    pub(crate) fn try_subscribe(&self, path: &Path) -> Result<Handshake> {
        let settings = self.settings()?.to_subscribe();
        begin(connect(path, None)?, settings)
    }

    pub(crate) fn begin_to_subscribe_on(&self, socket: OwnedFd) -> Result<Handshake> {
        begin(Socket::from_fd(socket)?, self.settings()?.to_subscribe())
    }

    pub(crate) fn begin_to_subscribe_inherited(&self) -> Result<Handshake> {
        let settings = self.settings()?.to_subscribe();
        begin(child::inherited()?, settings)
    }
}
