//! Any bytes as packets to an established channel, on both of its sockets. What comes out is numbered in order; after a
//! violation nothing comes out.

use sealane::{Channel, Error};

use crate::hostile::{Packet, memory::Hostile};

/// Each packet is a length, its destination, and that many bytes.
pub(crate) fn run(mut data: &[u8]) {
    let (hostile, mut channel) = Hostile::meet(&Channel::builder().max_control(100).max_fds(2));
    let mut next = 0;
    let mut receive = |channel: &mut Channel| -> bool {
        match channel.try_recv() {
            Ok(Some(message)) => {
                assert_eq!(message.sequence(), next, "messages are numbered in order");
                assert!(message.control().len() <= 100 && message.fds().is_empty());
                next += 1;
                true
            }
            Ok(None) => false,
            Err(Error::Protocol(violation)) => {
                for _ in 0..2 {
                    let again = channel.try_recv();
                    assert!(matches!(again, Err(Error::Protocol(found)) if found == violation), "{again:?}");
                }
                false
            }
            Err(error) => panic!("{error:?}"),
        }
    };
    for _ in 0..32 {
        let [len, to, rest @ ..] = data else { break };
        let (packet, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        data = rest;
        let socket = if to & 1 == 0 { &hostile.socket } else { &hostile.space };
        // The socket refuses it once we have hung up. A packet of no bytes looks like the end.
        if !packet.is_empty() {
            let _ = socket.try_send(Packet::raw(packet));
        }
        if to & 2 != 0 {
            receive(&mut channel);
        }
        if to & 4 != 0 {
            let _ = channel.try_loan(1 << 12).map(|loan| loan.map(sealane::Loan::send));
        }
    }
    for _ in 0..40 {
        if !receive(&mut channel) {
            break;
        }
    }
}
