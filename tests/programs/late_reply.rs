//! A client that does not wait for ever: a call that takes too long is cancelled, and its late reply is dropped.

use std::{sync::mpsc, time::Duration};

use sealane::{Channel, Error, ReplyToken, Result};

use crate::threads::{SOON, start};

const SHORT: Duration = Duration::from_millis(1);

/// Asks until there is an answer. Says how often.
fn persistent(channel: &mut Channel, mut meanwhile: impl FnMut(u32)) -> Result<u32> {
    for attempt in 1.. {
        match channel.call("how far?", SHORT) {
            Ok(answer) => {
                assert_eq!(answer.control(), b"here");
                return Ok(attempt);
            }
            Err(error) if error.is_timeout() => meanwhile(attempt),
            Err(error) => return Err(error),
        }
    }
    Err(Error::Timeout)
}

fn token(server: &mut Channel) -> ReplyToken {
    server.recv_timeout(SOON).unwrap().reply_token().unwrap()
}

#[test]
fn cancelled_requests_and_late_replies() {
    let (mut client, mut server) = Channel::pair().unwrap();
    let (tell, told) = mpsc::channel();
    let serving = start(move || {
        // It answers the first three when the client has given each of them up.
        let tokens = [(); 3].map(|()| {
            let token = token(&mut server);
            told.recv_timeout(SOON).unwrap();
            token
        });
        for token in tokens {
            server.reply(token, b"too late").unwrap();
        }
        while let Ok(question) = server.recv() {
            server.reply(question.reply_token().unwrap(), b"here").unwrap();
        }
    });
    let attempts = persistent(&mut client, |_| {
        let _ = tell.send(());
    })
    .unwrap();
    assert!(attempts > 3);
    assert!(client.stats().late_replies >= 3, "they were dropped, and counted");
    assert!(matches!(client.try_recv(), Ok(None)));
    drop(client);
    serving.result();
}

#[test]
fn requests_that_are_cancelled_by_hand() {
    let (mut client, mut server) = Channel::pair().unwrap();
    let (first, second) = (client.request("1").unwrap(), client.request("2").unwrap());
    client.receiver.cancel(first);
    let tokens = [token(&mut server), token(&mut server)];
    for token in tokens {
        server.reply(token, b"!").unwrap();
    }
    assert!(matches!(client.receiver.wait_reply(first, SOON), Err(Error::UnknownRequest)));
    assert_eq!(client.recv_timeout(SOON).unwrap().in_reply_to(), Some(second));
    assert_eq!(client.stats().late_replies, 1);
    // A request of another channel is none of its affair.
    let (mut other, _peer) = Channel::pair().unwrap();
    let third = client.request("3").unwrap();
    let foreign = [(); 3].map(|()| other.request("3").unwrap())[2];
    assert_eq!(foreign.number(), third.number());
    client.receiver.cancel(foreign);
    assert!(matches!(client.receiver.wait_reply(foreign, SOON), Err(Error::UnknownRequest)));
    let token = token(&mut server);
    server.reply(token, b"!").unwrap();
    client.receiver.wait_reply(third, SOON).unwrap();
    // A channel of halves that do not fit sends no call.
    let mut mixed = client;
    mixed.receiver = other.receiver;
    assert!(matches!(mixed.call("4", SOON), Err(Error::UnknownRequest)));
    assert!(server.try_recv().unwrap().is_none());
}
