//! A client whose fault looks like a failure of the server's own, for which the server would pause.

use std::os::fd::{AsFd, AsRawFd};

use sealane::{Channel, Error, HandshakeError, Reason, Refusal};

use crate::support::{
    hostile::{Hello, Packet, Player, SEALS, abstract_name, memfd, page, seqpacket_pair},
    threads::bounded,
};

/// `SO_PASSRIGHTS` off; false if the kernel does not know it.
#[expect(unsafe_code, reason = "an option that has no wrapper")]
fn takes_no_descriptors(socket: &Player) -> bool {
    let (off, len) = (0_i32, 4);
    let number = socket.as_fd().as_raw_fd();
    // SAFETY: contract of `setsockopt(2)`: a live integer of the length given.
    unsafe { libc::setsockopt(number, libc::SOL_SOCKET, 83, (&raw const off).cast(), len) == 0 }
}

#[test]
fn a_client_that_takes_no_descriptors_is_no_failure_of_the_server() {
    let _guard = bounded();
    let name = abstract_name();
    let listener = Channel::builder().ring_capacity(4096).listen(&name).unwrap();
    let player = Player::connect(&name);
    if !takes_no_descriptors(&player) {
        return println!("left out: no SO_PASSRIGHTS before Linux 6.16");
    }
    let region = memfd(2 * page(), 2 * page(), SEALS);
    player.send(Packet::hello(&Hello::honest(1), vec![region, seqpacket_pair().0]));
    let result = listener.accept();
    let refusal = Refusal { reason: Reason::Descriptors, expected: 0, found: 2 };
    assert!(
        matches!(&result, Err(Error::Handshake(HandshakeError::Rejected(found))) if *found == refusal),
        "{result:?}"
    );
}
