//! A state machine that stores a loan: frames come from a device in pieces, when the device has some, and are put together
//! where the peer will read them.

use std::{fs::File, time::Duration};

use sealane::{Channel, Control, Error, OwnedLoan, Result, Sender, Unsent};

use crate::threads::{SOON, start};

const FRAME: usize = 1000;

enum State {
    /// Between two frames, or while there is no room for one.
    Idle(Sender),
    Filling {
        loan: OwnedLoan,
        at: usize,
    },
    /// The channel has failed.
    Broken,
}

struct Capture {
    state: State,
    sent: u32,
    dropped: u32,
}

impl Capture {
    /// Takes the next piece of a frame. `is_last` ends the frame, which may be short.
    fn piece(&mut self, piece: &[u8], is_last: bool) -> Result<()> {
        self.state = match std::mem::replace(&mut self.state, State::Broken) {
            State::Idle(sender) => match sender.into_loan(FRAME, Duration::ZERO) {
                Ok(loan) => State::Filling { loan, at: 0 },
                Err(unsent) if unsent.error().is_timeout() => {
                    self.dropped += u32::from(is_last);
                    self.state = State::Idle(unsent.into_sender());
                    return Ok(());
                }
                Err(unsent) => return Err(unsent.into_error()),
            },
            state => state,
        };
        let State::Filling { loan, at } = &mut self.state else { return Err(Error::Disconnected) };
        loan[*at..][..piece.len()].copy_from_slice(piece);
        *at += piece.len();
        if is_last && let State::Filling { mut loan, at } = std::mem::replace(&mut self.state, State::Broken)
        {
            loan.truncate(at);
            self.state = State::Idle(loan.send()?);
            self.sent += 1;
        }
        Ok(())
    }
}

#[test]
fn state_machine_that_stores_a_loan() {
    let (a, mut b) = Channel::builder().ring_capacity(1 << 13).pair().unwrap();
    let mut capture = Capture { state: State::Idle(a.sender), sent: 0, dropped: 0 };
    for frame in 0..50_u8 {
        for piece in 0..4 {
            capture.piece(&[frame; 200], piece == 3).unwrap();
        }
        if frame % 10 == 9 {
            // The receiver was busy for ten frames. The ring has room for some of them.
            let mut received = 0;
            while let Some(message) = b.try_recv().unwrap() {
                let payload = message.payload().unwrap();
                let first = payload.bytes().get(0).unwrap();
                assert_eq!(payload.to_vec(), [first; 800]);
                received += 1;
            }
            assert!((1..10).contains(&received));
        }
    }
    assert!(capture.sent > 0 && capture.dropped > 0);
    assert_eq!(capture.sent + capture.dropped, 50);
    drop(b);
    while capture.piece(&[0], true).is_ok() {}
    assert!(matches!(capture.state, State::Broken));
}

#[test]
fn owned_loans_give_their_sender_back() {
    const fn is_send<T: Send + 'static>() {}
    const { is_send::<OwnedLoan>() };
    let (mut a, mut b) = Channel::builder().ring_capacity(1 << 13).max_control(10).pair().unwrap();
    b.request(b"?").unwrap();
    let token = a.recv_timeout(SOON).unwrap().reply_token().unwrap();
    let unsent = a.sender.into_loan(1 << 20, SOON).unwrap_err();
    assert!(matches!(unsent.error(), Error::PayloadTooLarge { .. }));
    let sender = unsent.into_sender().into_loan(10, SOON).unwrap().discard();
    assert!(b.try_recv().unwrap().is_none(), "nothing was sent");
    let unsent: Unsent<Sender> = sender.into_loan(10, SOON).unwrap().send_with(&[0; 11]).unwrap_err();
    assert!(matches!(unsent.error(), Error::ControlTooLarge { .. }));
    let mut loan = unsent.into_sender().into_loan(10, SOON).unwrap();
    loan.copy_from_slice(b"0123456789");
    // The loan moves to another thread and back.
    let loan = start(move || loan).result();
    let loan = loan.try_send_with(&[0; 11]).unwrap_err().into_loan();
    let mut loan = loan.try_request(&[0; 11]).unwrap_err().into_loan();
    assert_eq!(*loan, *b"0123456789", "it was not sent, and is as it was");
    loan.truncate(4);
    let (sender, request) = loan.try_request(b"??").unwrap();
    let message = b.recv_timeout(SOON).unwrap();
    assert_eq!(message.payload().unwrap().to_vec(), b"0123");
    assert_eq!(message.reply_token().unwrap().number(), request.number());
    let sender = sender.into_loan(10, SOON).unwrap().reply(token, b"!").unwrap();
    assert!(b.recv_timeout(SOON).unwrap().in_reply_to().is_some());
    let file = File::open("/dev/null").unwrap();
    let loan = sender.into_loan(10, SOON).unwrap();
    let mut sender = loan.send_with_timeout(Control::new(b"").fd(&file), SOON).unwrap();
    assert_eq!(b.recv_timeout(SOON).unwrap().fds().len(), 1);
    // The ring is full: the sender comes back at once, or after its time.
    while let Some(loan) = sender.try_loan(1000).unwrap() {
        loan.send().unwrap();
    }
    for time in [Duration::ZERO, Duration::from_millis(1)] {
        let unsent = sender.into_loan(1000, time).unwrap_err();
        assert!(matches!(unsent.error(), Error::Timeout));
        sender = unsent.into_sender();
    }
    while b.try_recv().unwrap().is_some() {}
    // The socket is full: the loan comes back, or the sender after its time.
    while sender.try_send(Control::new(b"").fd(&file)).is_ok() {}
    let loan = sender.into_loan(10, SOON).unwrap();
    let loan = loan.try_send_with(Control::new(b"").fd(&file)).unwrap_err().into_loan();
    let unsent = loan.request_timeout(Control::new(b"").fd(&file), Duration::from_millis(1)).unwrap_err();
    assert!(matches!(unsent.error(), Error::Timeout));
    while b.try_recv().unwrap().is_some() {}
    // One that is dropped closes its direction.
    drop(unsent.into_sender().into_loan(10, SOON).unwrap());
    assert!(matches!(b.recv_timeout(SOON), Err(Error::Disconnected)));
}
