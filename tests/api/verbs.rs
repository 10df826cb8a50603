//! Every verb that waits has three forms: the plain one waits as long as the peer lives, `try_` never waits, `_timeout` waits
//! for its time. The README says so.
//!
//! The tables call all of them, so a form that is missing does not compile; what they do is tried on a ring and on a socket
//! that are full.

use std::{fs::File, io::Write, time::Duration};

use sealane::{Channel, Control, Error, Loan, LoanWriter, Receiver, ReplyToken, Result, Sender};

use crate::support::threads::{SOON, start};

const BRIEFLY: Duration = Duration::from_millis(1);
/// Bytes of a ring, and a payload that takes up more than a quarter of it.
const RING: usize = 16 << 10;
const PAYLOAD: usize = 5000;

/// A sender, and the arguments of its verbs.
struct Sending {
    sender: Sender,
    file: File,
    /// The token of a request that the peer has sent.
    token: ReplyToken,
}

/// The part of a channel that is full.
#[derive(Debug, Clone, Copy)]
enum Full {
    Ring,
    Socket,
}

struct Verb {
    name: &'static str,
    waits_for: Full,
    plain: fn(&mut Sending) -> Result<()>,
    /// False if there was no space.
    tries: fn(&mut Sending) -> Result<bool>,
    timeout: fn(&mut Sending, Duration) -> Result<()>,
}

/// The result of a `try_` form that returns an error.
fn done<T>(result: Result<T, impl Into<Error>>) -> Result<bool> {
    match result.map_err(Into::into) {
        Ok(_) => Ok(true),
        Err(Error::Full | Error::FdsInFlight) => Ok(false),
        Err(error) => Err(error),
    }
}

macro_rules! verb {
    ($name:literal, $full:ident, |$s:ident| $plain:expr, |$t:ident| $tries:expr, |$u:ident, $time:ident| $timeout:expr $(,)?) => {
        Verb {
            name: $name,
            waits_for: Full::$full,
            plain: |$s| $plain.map(drop),
            tries: |$t| $tries,
            timeout: |$u, $time| $timeout.map(drop),
        }
    };
}

/// A verb of a loan, or of its writer, that may need a packet.
macro_rules! loan_verbs {
    ($lend:ident) => {
        [
            verb!(
                "send_with",
                Socket,
                |s| $lend(&mut s.sender)?.send_with(Control::new(b"").fd(&s.file)),
                |s| done($lend(&mut s.sender)?.try_send_with(Control::new(b"").fd(&s.file))),
                |s, time| $lend(&mut s.sender)?.send_with_timeout(Control::new(b"").fd(&s.file), time),
            ),
            verb!(
                "request",
                Socket,
                |s| $lend(&mut s.sender)?.request(Control::new(b"").fd(&s.file)),
                |s| done($lend(&mut s.sender)?.try_request(Control::new(b"").fd(&s.file))),
                |s, time| $lend(&mut s.sender)?.request_timeout(Control::new(b"").fd(&s.file), time),
            ),
            verb!(
                "reply",
                Socket,
                |s| $lend(&mut s.sender)?.reply(s.token, Control::new(b"").fd(&s.file)),
                |s| done($lend(&mut s.sender)?.try_reply(s.token, Control::new(b"").fd(&s.file))),
                |s, time| $lend(&mut s.sender)?.reply_timeout(s.token, Control::new(b"").fd(&s.file), time),
            ),
        ]
    };
}

fn loan(sender: &mut Sender) -> Result<Loan<'_>> {
    sender.loan(100)
}

fn writer(sender: &mut Sender) -> Result<LoanWriter<'_>> {
    let mut writer = sender.loan(100)?.writer();
    writer.write_all(b"some bytes").unwrap();
    Ok(writer)
}

fn verbs() -> Vec<Verb> {
    let of_senders = [
        verb!(
            "loan",
            Ring,
            |s| s.sender.loan(PAYLOAD)?.send(),
            |s| Ok(s.sender.try_loan(PAYLOAD)?.map(Loan::send).transpose()?.is_some()),
            |s, time| s.sender.loan_timeout(PAYLOAD, time)?.send(),
        ),
        verb!(
            "loan_slice",
            Ring,
            |s| s.sender.loan_slice::<u64>(PAYLOAD / 8)?.send(),
            |s| {
                let loan = s.sender.try_loan_slice::<u64>(PAYLOAD / 8)?;
                Ok(loan.map(Loan::send).transpose()?.is_some())
            },
            |s, time| s.sender.loan_slice_timeout::<u64>(PAYLOAD / 8, time)?.send(),
        ),
        verb!(
            "loan of a batch",
            Ring,
            |s| s.sender.batch().loan(PAYLOAD)?.send(),
            |s| Ok(s.sender.batch().try_loan(PAYLOAD)?.map(Loan::send).transpose()?.is_some()),
            |s, time| s.sender.batch().loan_timeout(PAYLOAD, time)?.send(),
        ),
        verb!(
            "loan_slice of a batch",
            Ring,
            |s| s.sender.batch().loan_slice::<u64>(PAYLOAD / 8)?.send(),
            |s| {
                let mut batch = s.sender.batch();
                let loan = batch.try_loan_slice::<u64>(PAYLOAD / 8)?;
                Ok(loan.map(Loan::send).transpose()?.is_some())
            },
            |s, time| s.sender.batch().loan_slice_timeout::<u64>(PAYLOAD / 8, time)?.send(),
        ),
        verb!(
            "send",
            Socket,
            |s| s.sender.send(Control::new(b"").fd(&s.file)),
            |s| done(s.sender.try_send(Control::new(b"").fd(&s.file))),
            |s, time| s.sender.send_timeout(Control::new(b"").fd(&s.file), time),
        ),
        verb!(
            "request",
            Socket,
            |s| s.sender.request(Control::new(b"").fd(&s.file)),
            |s| done(s.sender.try_request(Control::new(b"").fd(&s.file))),
            |s, time| s.sender.request_timeout(Control::new(b"").fd(&s.file), time),
        ),
        verb!(
            "reply",
            Socket,
            |s| s.sender.reply(s.token, Control::new(b"").fd(&s.file)),
            |s| done(s.sender.try_reply(s.token, Control::new(b"").fd(&s.file))),
            |s, time| s.sender.reply_timeout(s.token, Control::new(b"").fd(&s.file), time),
        ),
    ];
    of_senders.into_iter().chain(loan_verbs!(loan)).chain(loan_verbs!(writer)).collect()
}

/// A sender without space, and its peer's receiver. The other halves are returned to be kept.
fn full(full: Full) -> (Sending, Receiver, (Sender, Receiver)) {
    let (mut a, mut b) = Channel::builder().ring_capacity(RING).pair().unwrap();
    b.request(b"?").unwrap();
    let token = a.recv_timeout(SOON).unwrap().reply_token().unwrap();
    let mut sending = Sending { sender: a.sender, file: File::open("/dev/null").unwrap(), token };
    match full {
        Full::Ring => {
            while let Some(loan) = sending.sender.try_loan(PAYLOAD).unwrap() {
                loan.send().unwrap();
            }
        }
        // The socket is full when not even the smallest message with a descriptor fits.
        Full::Socket => {
            while sending.sender.try_send(&[0; 500]).is_ok() {}
            let Sending { sender, file, .. } = &mut sending;
            while sender.try_send(Control::new(b"").fd(file)).is_ok() {}
        }
    }
    (sending, b.receiver, (b.sender, a.receiver))
}

#[test]
fn verbs_that_send_have_a_form_that_does_not_wait() {
    for verb in verbs() {
        let (mut sending, mut receiver, _others) = full(verb.waits_for);
        assert!(!(verb.tries)(&mut sending).unwrap(), "{}: there is no room", verb.name);
        while receiver.try_recv().unwrap().is_some() {}
        assert!((verb.tries)(&mut sending).unwrap(), "{}: there is room", verb.name);
        assert!(receiver.try_recv().unwrap().is_some(), "{}", verb.name);
    }
}

#[test]
fn verbs_that_send_have_a_form_that_waits_for_its_time() {
    for verb in verbs() {
        let (mut sending, mut receiver, _others) = full(verb.waits_for);
        let result = (verb.timeout)(&mut sending, BRIEFLY);
        assert!(matches!(result, Err(Error::Timeout)), "{}: {result:?}", verb.name);
        let waits = start(move || ((verb.timeout)(&mut sending, SOON), sending)).asleep();
        while receiver.try_recv().unwrap().is_some() {}
        let (result, _sending) = waits.result();
        assert!(result.is_ok(), "{}: {result:?}", verb.name);
    }
}

#[test]
fn verbs_that_send_have_a_form_that_waits_as_long_as_the_peer_lives() {
    for is_dropped in [false, true] {
        for verb in verbs() {
            let (mut sending, mut receiver, _others) = full(verb.waits_for);
            let waits = start(move || ((verb.plain)(&mut sending), sending)).asleep();
            if is_dropped {
                drop(receiver);
                let (result, _sending) = waits.result();
                assert!(matches!(result, Err(Error::Disconnected)), "{}: {result:?}", verb.name);
            } else {
                while receiver.try_recv().unwrap().is_some() {}
                let (result, _sending) = waits.result();
                assert!(result.is_ok(), "{}: {result:?}", verb.name);
            }
        }
    }
}

#[test]
fn verbs_that_receive_have_three_forms() {
    type Plain = fn(&mut Receiver) -> Result<u64>;
    type Tries = fn(&mut Receiver) -> Result<Option<u64>>;
    type Timeout = fn(&mut Receiver, Duration) -> Result<u64>;
    let verbs: [(&str, Plain, Tries, Timeout); 2] = [
        (
            "recv",
            |r| Ok(r.recv()?.sequence()),
            |r| Ok(r.try_recv()?.map(|message| message.sequence())),
            |r, time| Ok(r.recv_timeout(time)?.sequence()),
        ),
        (
            "recv_batch",
            |r| Ok(r.recv_batch()?.next().unwrap().sequence()),
            |r| Ok(r.try_recv_batch()?.map(|mut batch| batch.next().unwrap().sequence())),
            |r, time| Ok(r.recv_batch_timeout(time)?.next().unwrap().sequence()),
        ),
    ];
    for (name, plain, tries, timeout) in verbs {
        let (mut a, b) = Channel::pair().unwrap();
        let mut receiver = b.receiver;
        assert_eq!(tries(&mut receiver).unwrap(), None, "{name}");
        assert!(matches!(timeout(&mut receiver, BRIEFLY), Err(Error::Timeout)), "{name}");
        assert!(matches!(timeout(&mut receiver, Duration::ZERO), Err(Error::Timeout)), "{name}");
        let waits = start(move || (plain(&mut receiver), receiver)).asleep();
        a.send(b"").unwrap();
        let (result, mut receiver) = waits.result();
        assert_eq!(result.unwrap(), 0, "{name}");
        let waits = start(move || (timeout(&mut receiver, SOON), receiver)).asleep();
        a.send(b"").unwrap();
        let (result, mut receiver) = waits.result();
        assert_eq!(result.unwrap(), 1, "{name}");
        a.send(b"").unwrap();
        assert_eq!(tries(&mut receiver).unwrap(), Some(2), "{name}");
    }
}

/// Each `_timeout` form is one of three, so a new verb without all forms fails here.
#[test]
fn public_verbs_with_a_timeout_have_the_other_forms() {
    for (file, source) in [
        ("sender.rs", include_str!("../../src/channel/sender.rs")),
        ("send_batch.rs", include_str!("../../src/channel/send_batch.rs")),
        ("loan.rs", include_str!("../../src/channel/loan.rs")),
        ("loan/writer.rs", include_str!("../../src/channel/loan/writer.rs")),
        ("receiver.rs", include_str!("../../src/channel/receiver.rs")),
    ] {
        let names: Vec<_> = source
            .lines()
            .filter_map(|line| line.trim().strip_prefix("pub fn "))
            .map(|line| line.split(['(', '<']).next().unwrap())
            .collect();
        let verbs: Vec<_> = names.iter().filter_map(|name| name.strip_suffix("_timeout")).collect();
        assert!(!verbs.is_empty(), "{file}");
        for verb in verbs {
            assert!(names.contains(&verb), "{file}: {verb}");
            assert!(names.contains(&format!("try_{verb}").as_str()), "{file}: try_{verb}");
        }
        let tries = names.iter().filter_map(|name| name.strip_prefix("try_"));
        for verb in tries {
            assert!(names.contains(&format!("{verb}_timeout").as_str()), "{file}: {verb}_timeout");
        }
    }
}
