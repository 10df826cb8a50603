//! Event loops of several makes, behind one small interface: which descriptors are readable. They watch duplicates, as
//! loops that own their descriptors do.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::event::{Timespec, epoll};

/// An event loop as the tests see it.
pub(crate) trait EventLoop {
    /// Whether it reports a readable descriptor only once.
    const EDGE: bool = false;

    fn new() -> Self;

    /// Watches a descriptor, from now on.
    fn add(&mut self, fd: BorrowedFd<'_>, key: usize);

    fn remove(&mut self, key: usize);

    /// Waits until a descriptor is readable, for at most this time, and returns the keys.
    fn wait(&mut self, at_most: Duration) -> Vec<usize>;
}

fn duplicate(fd: BorrowedFd<'_>) -> OwnedFd {
    fd.try_clone_to_owned().expect("this process may open another file")
}

/// Takes the duplicate with this key out of a list.
fn take(list: &mut Vec<(usize, OwnedFd)>, key: usize) -> OwnedFd {
    let at = list.iter().position(|(other, _)| *other == key).expect("it is watched");
    list.swap_remove(at).1
}

/// `epoll(7)` itself, level- or edge-triggered.
pub(crate) struct Epoll<const EDGE: bool> {
    set: OwnedFd,
    watched: Vec<(usize, OwnedFd)>,
}

pub(crate) type EpollLevel = Epoll<false>;
pub(crate) type EpollEdge = Epoll<true>;

impl<const EDGE: bool> EventLoop for Epoll<EDGE> {
    const EDGE: bool = EDGE;

    fn new() -> Self {
        Self { set: epoll::create(epoll::CreateFlags::CLOEXEC).unwrap(), watched: Vec::new() }
    }

    fn add(&mut self, fd: BorrowedFd<'_>, key: usize) {
        let fd = duplicate(fd);
        let flags = if EDGE { epoll::EventFlags::ET } else { epoll::EventFlags::empty() };
        let data = epoll::EventData::new_u64(u64::try_from(key).unwrap());
        epoll::add(&self.set, &fd, data, flags | epoll::EventFlags::IN).unwrap();
        self.watched.push((key, fd));
    }

    fn remove(&mut self, key: usize) {
        epoll::delete(&self.set, take(&mut self.watched, key)).unwrap();
    }

    fn wait(&mut self, at_most: Duration) -> Vec<usize> {
        let mut events = Vec::with_capacity(8);
        let at_most = Timespec::try_from(at_most).unwrap();
        epoll::wait(&self.set, rustix::buffer::spare_capacity(&mut events), Some(&at_most)).unwrap();
        events.iter().map(|event| usize::try_from(event.data.u64()).unwrap()).collect()
    }
}

/// `calloop`, level-triggered: its default.
pub(crate) struct Calloop {
    event_loop: calloop::EventLoop<'static, Vec<usize>>,
    watched: Vec<(usize, calloop::RegistrationToken)>,
}

impl EventLoop for Calloop {
    fn new() -> Self {
        Self { event_loop: calloop::EventLoop::try_new().unwrap(), watched: Vec::new() }
    }

    fn add(&mut self, fd: BorrowedFd<'_>, key: usize) {
        let (interest, mode) = (calloop::Interest::READ, calloop::Mode::Level);
        let source = calloop::generic::Generic::new(duplicate(fd), interest, mode);
        let token = self.event_loop.handle().insert_source(source, move |_, _, ready: &mut Vec<usize>| {
            ready.push(key);
            Ok(calloop::PostAction::Continue)
        });
        self.watched.push((key, token.unwrap()));
    }

    fn remove(&mut self, key: usize) {
        let at = self.watched.iter().position(|(other, _)| *other == key).expect("it is watched");
        self.event_loop.handle().remove(self.watched.swap_remove(at).1);
    }

    fn wait(&mut self, at_most: Duration) -> Vec<usize> {
        let mut ready = Vec::new();
        self.event_loop.dispatch(at_most, &mut ready).unwrap();
        ready
    }
}

/// `mio`, edge-triggered: it knows nothing else.
pub(crate) struct Mio {
    poll: mio::Poll,
    events: mio::Events,
    watched: Vec<(usize, OwnedFd)>,
}

impl EventLoop for Mio {
    const EDGE: bool = true;

    fn new() -> Self {
        let (poll, events) = (mio::Poll::new().unwrap(), mio::Events::with_capacity(8));
        Self { poll, events, watched: Vec::new() }
    }

    fn add(&mut self, fd: BorrowedFd<'_>, key: usize) {
        let fd = duplicate(fd);
        let (token, interest) = (mio::Token(key), mio::Interest::READABLE);
        self.poll.registry().register(&mut mio::unix::SourceFd(&fd.as_raw_fd()), token, interest).unwrap();
        self.watched.push((key, fd));
    }

    fn remove(&mut self, key: usize) {
        let fd = take(&mut self.watched, key);
        self.poll.registry().deregister(&mut mio::unix::SourceFd(&fd.as_raw_fd())).unwrap();
    }

    fn wait(&mut self, at_most: Duration) -> Vec<usize> {
        self.poll.poll(&mut self.events, Some(at_most)).unwrap();
        self.events.iter().map(|event| event.token().0).collect()
    }
}

/// `polling`, which reports each descriptor once until it is asked anew: its default.
pub(crate) struct Polling {
    poller: polling::Poller,
    events: polling::Events,
    watched: Vec<(usize, OwnedFd)>,
}

impl EventLoop for Polling {
    fn new() -> Self {
        let (poller, events) = (polling::Poller::new().unwrap(), polling::Events::new());
        Self { poller, events, watched: Vec::new() }
    }

    fn add(&mut self, fd: BorrowedFd<'_>, key: usize) {
        let fd = duplicate(fd);
        #[expect(unsafe_code, reason = "polling wants a promise that we delete it in time")]
        // SAFETY: contract of `Poller::add`: the descriptor must be deleted from the poller before it is closed. It is
        // owned by `watched`, which gives it only to `remove`; and fields are dropped in order, the poller first.
        unsafe {
            self.poller.add(&fd, polling::Event::readable(key)).unwrap();
        }
        self.watched.push((key, fd));
    }

    fn remove(&mut self, key: usize) {
        self.poller.delete(take(&mut self.watched, key).as_fd()).unwrap();
    }

    fn wait(&mut self, at_most: Duration) -> Vec<usize> {
        for (key, fd) in &self.watched {
            self.poller.modify(fd, polling::Event::readable(*key)).unwrap();
        }
        self.events.clear();
        self.poller.wait(&mut self.events, Some(at_most)).unwrap();
        self.events.iter().map(|event| event.key).collect()
    }
}
