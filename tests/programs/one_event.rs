//! An event loop that gives a handler one event at a time, as those of toolkits do: the handler takes one message, and arms
//! the receiver if there is no other.

use std::{collections::VecDeque, fs::File, os::fd::AsFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sealane::{Channel, Control, Receiver, Result, Sender};

use crate::threads::{SOON, start};

const MESSAGES: u64 = 300;

/// The toolkit: it calls the handler of each event once, in turn with other work.
#[derive(Default)]
struct Toolkit {
    posted: VecDeque<()>,
    polled: usize,
}

impl Toolkit {
    /// True when the descriptor is readable, or the handler has posted its own event.
    fn wait(&mut self, fd: impl AsFd) -> bool {
        if self.posted.pop_front().is_some() {
            return true;
        }
        self.polled += 1;
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::try_from(SOON).unwrap())).unwrap() > 0
    }
}

struct Handler {
    receiver: Receiver,
    received: u64,
}

impl Handler {
    fn event(&mut self, toolkit: &mut Toolkit) -> Result<()> {
        if let Some(message) = self.receiver.try_recv()? {
            assert_eq!(message.sequence(), self.received);
            self.received += 1;
        }
        // Armed, the descriptor says when there is more. If there is more already, nothing would say so.
        if !self.receiver.arm()? {
            toolkit.posted.push_back(());
        }
        Ok(())
    }
}

/// Messages of all kinds, at once or after the receiver has waited.
fn send(mut sender: Sender) -> Result<Sender> {
    let file = File::open("/dev/null").unwrap();
    for n in 0..MESSAGES {
        match n % 4 {
            0 => sender.send(&[1; 100])?,
            1 => sender.loan(500)?.send()?,
            2 => sender.loan(500)?.send_with(Control::new(b"with a file").fd(&file))?,
            _ => drop(sender.request(b"?")?),
        }
        if n % 50 == 49 {
            std::thread::yield_now();
        }
    }
    Ok(sender)
}

#[test]
fn event_loop_that_dispatches_one_event_at_a_time() {
    let (a, b) = Channel::builder().ring_capacity(1 << 14).pair().unwrap();
    let (mut toolkit, mut handler) = (Toolkit::default(), Handler { receiver: b.receiver, received: 0 });
    let sender = a.sender;
    let sending = start(move || send(sender));
    while handler.received < MESSAGES {
        assert!(toolkit.wait(&handler.receiver), "{} messages were received", handler.received);
        handler.event(&mut toolkit).unwrap();
    }
    drop(sending.result().unwrap());
    // The end of the peer is an event too.
    assert!(toolkit.wait(&handler.receiver));
    assert!(handler.event(&mut toolkit).is_err());
    assert!(toolkit.polled > 0);
}

/// Arming is level-triggered, and takes no message.
#[test]
fn arming_takes_nothing() {
    let (mut a, mut b) = Channel::pair().unwrap();
    let readable = |receiver: &Receiver| {
        poll(&mut [PollFd::new(receiver, PollFlags::IN)], Some(&Timespec::default())).unwrap() > 0
    };
    let file = File::open("/dev/null").unwrap();
    for with_file in [false, true] {
        assert!(b.receiver.arm().unwrap() && b.receiver.arm().unwrap() && !readable(&b.receiver));
        let control = if with_file { Control::new(b"1").fd(&file) } else { Control::new(b"1") };
        a.loan(8).unwrap().send_with(control).unwrap();
        assert!(readable(&b.receiver));
        assert!(!b.receiver.arm().unwrap() && !b.receiver.arm().unwrap());
        let message = b.recv_timeout(SOON).unwrap();
        assert_eq!((message.control(), message.fds().len()), (&b"1"[..], usize::from(with_file)));
    }
    assert_eq!(b.receiver.stats().messages_received, 2);
    drop(a);
    assert!(matches!(b.receiver.arm(), Err(sealane::Error::Disconnected)));
}
