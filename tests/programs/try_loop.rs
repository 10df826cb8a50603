//! Trying in a loop: a program with one thread sends when there is room, and does other work while there is none.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sealane::{Channel, Loan, Receiver, Result, Sender};

use crate::threads::{SOON, start};

const BLOCK: usize = 4000;
const BLOCKS: u32 = 200;

/// A loan that is made in a loop, and returned from it: the borrow checker accepts it in this form.
fn loan(sender: &mut Sender, mut other_work: impl FnMut(&Sender)) -> Result<Loan<'_>> {
    while !sender.has_space(BLOCK)? {
        other_work(sender);
    }
    sender.loan(BLOCK)
}

fn send(sender: &mut Sender) -> Result<()> {
    for n in 0..BLOCKS {
        let mut loan = loan(sender, |sender| {
            let mut fds = [PollFd::new(sender, PollFlags::IN)];
            let ready = poll(&mut fds, Some(&Timespec::try_from(SOON).unwrap())).unwrap();
            assert!(ready > 0, "room is announced");
        })?;
        loan.fill(n.to_le_bytes()[0]);
        loan.send()?;
    }
    Ok(())
}

fn receive(receiver: &mut Receiver) -> Result<u32> {
    let mut count = 0_u32;
    for message in receiver.iter() {
        let payload = message?.take_payload();
        assert!(payload.is_some_and(|payload| payload.to_vec() == [count.to_le_bytes()[0]; BLOCK]));
        count += 1;
    }
    Ok(count)
}

#[test]
fn trying_in_a_loop() {
    let (mut a, b) = Channel::builder().ring_capacity(4 * BLOCK).pair().unwrap();
    let mut receiver = b.receiver;
    // It begins when the ring is full.
    let mut filled = 0;
    while a.sender.has_space(BLOCK).unwrap() {
        a.loan(BLOCK).unwrap().send().unwrap();
        filled += 1;
    }
    let receiving = start(move || {
        for _ in 0..filled {
            receiver.recv()?;
        }
        receive(&mut receiver)
    });
    send(&mut a.sender).unwrap();
    assert!(a.sender.stats().waits_for_space > 0);
    drop(a);
    assert_eq!(receiving.result().unwrap(), BLOCKS);
}
