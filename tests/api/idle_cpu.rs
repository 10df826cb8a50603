//! Waiting calls use no CPU.
//!
//! The CPU time of the whole process is measured, so this binary has one test only.

use std::{thread, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    time::{ClockId, clock_gettime},
};
use sealane::{Channel, Error, Wait};

const IDLE: Duration = Duration::from_secs(1);

fn cpu_time() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap()
}

#[test]
fn idle_channels_use_no_cpu() {
    let mut channels = [Wait::default(), Wait::Block].map(|wait| {
        // One end waits for a message and for room, the other in an event loop.
        let (mut a, b) = Channel::builder().ring_capacity(4096).wait(wait).pair().unwrap();
        // The sender fills the ring.
        a.loan(960).unwrap().send_with(&[0; 4096 - 64 - 960]).unwrap();
        let (mut event_loop, full) = Channel::builder().wait(wait).pair().unwrap();
        assert!(event_loop.try_recv().unwrap().is_none());
        (a.split(), b, event_loop, full)
    });
    let before = cpu_time();
    thread::scope(|scope| {
        for ((sender, receiver), _, event_loop, _) in &mut channels {
            scope.spawn(move || assert!(matches!(sender.loan_timeout(1, IDLE), Err(Error::Timeout))));
            scope.spawn(move || assert!(matches!(receiver.recv_timeout(IDLE), Err(Error::Timeout))));
            scope.spawn(move || {
                let mut fds = [PollFd::new(&event_loop.receiver, PollFlags::IN)];
                assert_eq!(poll(&mut fds, Some(&Timespec::try_from(IDLE).unwrap())), Ok(0));
            });
        }
    });
    let used = cpu_time().saturating_sub(before);
    // Six waits of a second each: a call that spun, even now and then, would use more.
    assert!(used < IDLE / 10, "{used:?} of CPU time used");
}
