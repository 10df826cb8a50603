//! One event loop for a publisher and channels beside it.

use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Instant,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sealane::{Builder, Channel, Error, Event, Slow};

use crate::{
    fan::join,
    support::threads::{SOON, bounded},
};

const SUBSCRIBERS: usize = 16;
const CHANNELS: usize = 100;
/// Messages that one source may have handled in a turn of the loop.
const TURN: usize = 8;
/// Messages of each that are to be handled.
const WANTED: usize = 200;

/// Ready ones, without waiting.
fn ready<'f>(fds: impl Iterator<Item = BorrowedFd<'f>>) -> Vec<bool> {
    let mut fds: Vec<_> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 })).unwrap();
    fds.iter().map(|fd| !fd.revents().is_empty()).collect()
}

/// All of them send as much as they can, and nobody is handled more than the turns of the loop allow.
#[test]
fn publisher_and_channels_in_one_event_loop_do_not_starve() {
    let _guard = bounded();
    let builder =
        Builder::default().ring_capacity(64 << 10).max_subscribers(SUBSCRIBERS).slow(Slow::Wait(SOON));
    let mut publisher = builder.publisher().unwrap();
    let mut subscribers: Vec<_> = (0..SUBSCRIBERS).map(|_| join(&mut publisher, &builder)).collect();
    let ids: Vec<_> = subscribers.iter().map(|(id, _)| *id).collect();
    let small = Channel::builder().ring_capacity(4096);
    let (mut channels, mut peers): (Vec<_>, Vec<_>) = (0..CHANNELS).map(|_| small.pair().unwrap()).unzip();
    let stop = AtomicBool::new(false);
    let stop = &stop;
    thread::scope(|scope| {
        scope.spawn(move || {
            while !stop.load(Relaxed) {
                for peer in &mut peers {
                    while peer.try_send("more").is_ok() {}
                }
            }
        });
        let receiving = scope.spawn(move || {
            let mut received = [0_u64; SUBSCRIBERS];
            while !stop.load(Relaxed) {
                for (count, (_, subscriber)) in received.iter_mut().zip(&mut subscribers) {
                    while subscriber.try_send("more").is_ok() {}
                    while subscriber.try_recv().unwrap().is_some() {
                        *count += 1;
                    }
                }
            }
            received
        });
        let (mut heard, mut sent) = (vec![0; SUBSCRIBERS + CHANNELS], 0);
        // What may have more, whatever its descriptor says.
        let mut pending = [true; 1 + CHANNELS];
        let deadline = Instant::now() + SOON;
        while heard.iter().any(|count| *count < WANTED) || sent < WANTED {
            assert!(Instant::now() < deadline, "{sent} sent, {heard:?} heard");
            match publisher.try_send("to all") {
                Ok(()) => sent += 1,
                Err(Error::Full) => {}
                Err(error) => panic!("{error}"),
            }
            let fds = [publisher.as_fd()]
                .into_iter()
                .chain(channels.iter().map(|channel| channel.receiver.as_fd()));
            let ready = ready(fds);
            for (pending, ready) in pending.iter_mut().zip(ready) {
                *pending |= ready;
            }
            if std::mem::take(&mut pending[0]) {
                for _ in 0..TURN * SUBSCRIBERS {
                    match publisher.next_event().unwrap() {
                        None => break,
                        Some(Event::Message(id, _)) => {
                            heard[ids.iter().position(|one| *one == id).unwrap()] += 1;
                        }
                        Some(other) => panic!("{other:?}"),
                    }
                    pending[0] = true;
                }
            }
            for (at, channel) in channels.iter_mut().enumerate() {
                if !std::mem::take(&mut pending[1 + at]) {
                    continue;
                }
                for _ in 0..TURN {
                    pending[1 + at] = channel.try_recv().unwrap().is_some();
                    if !pending[1 + at] {
                        break;
                    }
                    heard[SUBSCRIBERS + at] += 1;
                }
            }
        }
        stop.store(true, Relaxed);
        let received = receiving.join().unwrap();
        assert!(received.iter().all(|count| *count > 0), "{received:?}");
        // Those in one publisher take turns.
        let (least, most) =
            (heard[..SUBSCRIBERS].iter().min().unwrap(), heard[..SUBSCRIBERS].iter().max().unwrap());
        assert!(*most < 20 * least, "{heard:?}");
    });
}
