//! A collector: it receives from several workers until each has ended, and an end is no error.

use std::{collections::BTreeMap, thread};

use sealane::{Channel, Error, Receiver, Result};

use crate::threads::start;

/// All words of one worker, counted.
fn collect(receiver: &mut Receiver) -> Result<BTreeMap<String, u32>> {
    let mut words = BTreeMap::new();
    for message in receiver.iter() {
        let message = message?;
        let word = match message.payload() {
            Some(payload) => payload.to_vec(),
            None => message.control().to_vec(),
        };
        *words.entry(String::from_utf8_lossy(&word).into_owned()).or_default() += 1;
    }
    Ok(words)
}

fn work(mut channel: Channel, words: &str) -> Result<()> {
    for (n, word) in words.split(' ').enumerate() {
        if n % 2 == 0 {
            channel.send(word)?;
        } else {
            let mut loan = channel.loan(word.len())?;
            loan.copy_from_slice(word.as_bytes());
            loan.send()?;
        }
    }
    // The channel is dropped here; messages that were sent are still delivered.
    Ok(())
}

#[test]
fn iteration_until_the_end() {
    const WORDS: &str = "a rose is a rose is a rose";
    let (receivers, workers): (Vec<_>, Vec<_>) = (0..4)
        .map(|_| {
            let (a, b) = Channel::pair().unwrap();
            (a.receiver, thread::spawn(move || work(b, WORDS)))
        })
        .unzip();
    for mut receiver in receivers {
        let collecting = start(move || (collect(&mut receiver), receiver));
        let (words, mut receiver) = collecting.result();
        let words = words.unwrap();
        assert_eq!((words["a"], words["rose"], words["is"], words.len()), (3, 3, 2, 3));
        assert!(receiver.iter().next().is_none(), "the end stays the end");
        assert!(matches!(receiver.recv(), Err(Error::Disconnected)), "which other calls report as an error");
    }
    for worker in workers {
        worker.join().unwrap().unwrap();
    }
}

/// Where the peer breaks the protocol, the error is an item, and the last.
#[test]
fn iteration_ends_after_a_fatal_error() {
    let (a, mut b) = Channel::pair().unwrap();
    rustix::net::send(&a.receiver, b"no packet", rustix::net::SendFlags::empty()).unwrap();
    let mut messages = b.receiver.iter();
    assert!(matches!(messages.next(), Some(Err(Error::Protocol(_)))));
    assert!(messages.next().is_none() && messages.next().is_none());
}
