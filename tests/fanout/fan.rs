//! Publishers with subscribers in the same process.
#![allow(clippy::allow_attributes, dead_code, reason = "each test binary uses its part of this")]

use std::thread;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use sealane::{Builder, Event, Publisher, Slow, Subscriber, SubscriberId};

use crate::support::threads::SOON;

pub(crate) const OVERRUN: Slow = Slow::Overrun;

/// Lets a subscriber with the settings of `builder` join.
pub(crate) fn join(publisher: &mut Publisher, builder: &Builder) -> (SubscriberId, Subscriber) {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let id = publisher.add(ours).unwrap();
    let builder = builder.clone();
    let subscriber = thread::spawn(move || builder.subscribe_on(theirs));
    match publisher.wait_event(SOON).unwrap() {
        Some(Event::Joined(joined)) => assert_eq!(joined, id),
        other => panic!("{other:?}"),
    }
    (id, subscriber.join().unwrap().unwrap())
}

/// A publisher with one subscriber, of these settings both.
pub(crate) fn pair(builder: &Builder) -> (Publisher, Subscriber) {
    let mut publisher = builder.publisher().unwrap();
    let subscriber = join(&mut publisher, builder).1;
    (publisher, subscriber)
}
