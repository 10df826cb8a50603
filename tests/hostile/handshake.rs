//! Peers that break the handshake are refused by name, learn the reason, and are done with by the deadline.

use std::{
    fs::File,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::{UnixDatagram, UnixStream},
    },
    time::Duration,
};

use rustix::{
    fs::{
        FallocateFlags, FileType, Mode, OFlags, SealFlags, fallocate, fchmod, fcntl_add_seals,
        fcntl_get_seals, fstat, open,
    },
    net::Shutdown,
};
use sealane::{Builder, Channel, Error, Handshake, HandshakeError, Reason, Refusal};

use crate::support::{
    hostile::{
        CONTROL, DESCRIPTORS, DOORBELL, HEADER, HELLO, Hello, LONG, MAGIC, Packet, Player, READY, REJECT,
        SEALS, abstract_name, memfd, page, pipe, readable, seqpacket_pair,
    },
    is_abandoned,
    threads::bounded,
};

/// Numbers of reasons, as docs/protocol.md has them.
const REASONS: [(u32, Reason); 24] = [
    (1, Reason::Magic),
    (2, Reason::Version),
    (3, Reason::HelloLength),
    (4, Reason::Features),
    (5, Reason::RingTooLarge),
    (6, Reason::Geometry),
    (7, Reason::Start),
    (8, Reason::Descriptors),
    (9, Reason::RegionKind),
    (10, Reason::RegionSeals),
    (11, Reason::RegionSize),
    (12, Reason::RegionHoles),
    (13, Reason::RegionAccess),
    (14, Reason::SpaceSocket),
    (15, Reason::Credentials),
    (16, Reason::Packet),
    (17, Reason::Application),
    (18, Reason::Reflected),
    (19, Reason::OwnFailure),
    (20, Reason::ReadyLength),
    (21, Reason::ControlLimit),
    (22, Reason::FdLimit),
    (23, Reason::Subscribers),
    (24, Reason::Patience),
];

/// Most bytes of a peer's ring that our side accepts.
const LIMIT: usize = 64 << 20;

const F_SEAL_EXEC: u32 = 0x20;

/// The origin of our side's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Caller,
    Listener,
}

fn builder() -> Builder {
    Channel::builder().ring_capacity(1).max_peer_ring_capacity(LIMIT)
}

/// A peer that has sent `packets` before our side sends anything, and our side.
fn play(side: Side, builder: &Builder, packets: Vec<Packet>) -> (Player, Handshake) {
    let say = |player: &Player| packets.into_iter().for_each(|packet| player.send(packet));
    match side {
        Side::Caller => {
            let (player, ours) = Player::pair();
            say(&player);
            (player, builder.handshake(ours).unwrap())
        }
        Side::Listener => {
            let name = abstract_name();
            let listener = builder.listen(&name).unwrap();
            let player = Player::connect(&name);
            say(&player);
            (player, listener.try_accept().unwrap().unwrap())
        }
    }
}

/// The descriptors of an honest `Hello`.
fn honest_fds(hello: &Hello) -> Vec<OwnedFd> {
    vec![memfd(hello.region(), hello.region(), SEALS), seqpacket_pair().0]
}

/// An honest `Hello` of the smallest ring.
fn honest() -> Packet {
    let hello = Hello::honest(1);
    Packet::hello(&hello, honest_fds(&hello))
}

fn with_fds(fds: Vec<OwnedFd>) -> Packet {
    Packet::hello(&Hello::honest(1), fds)
}

/// Our side refuses the packets for that reason and with those numbers, which the peer reads too; and nothing
/// that came along stays open.
fn assert_refused(side: Side, mut packets: Vec<Packet>, refusal: Refusal) {
    let (reader, writer) = pipe();
    for packet in &mut packets {
        // A surplus is not wrong where there is enough already, and does not matter where nothing is right.
        if packet.kind != READY && (packet.kind != HELLO || packet.fds.len() >= 2) {
            packet.fds.push(writer.try_clone().unwrap());
        }
    }
    drop(writer);
    let (player, handshake) = play(side, &builder(), packets);
    player.shut(Shutdown::Write);
    let result = handshake.finish();
    assert!(
        matches!(&result, Err(Error::Handshake(HandshakeError::Refused(found))) if *found == refusal),
        "{side:?}: {refusal:?} expected, {result:?} found"
    );
    assert!(is_abandoned(&reader), "{side:?}: {refusal:?}: a descriptor is still open");
    let heard = player.hear_all();
    let Refusal { reason, expected, found } = refusal;
    let (code, _) = REASONS.into_iter().find(|(_, known)| *known == reason).unwrap();
    assert_eq!(heard.last().unwrap().refusal(), (code, expected, found), "{side:?}");
}

/// Like [`assert_refused`], for both sides.
fn refused(reason: Reason, expected: u64, found: u64, packets: impl Fn() -> Vec<Packet>) {
    for side in [Side::Caller, Side::Listener] {
        assert_refused(side, packets(), Refusal { reason, expected, found });
    }
}

#[test]
fn each_wrong_field_of_a_hello_is_refused() {
    type Change = fn(&mut Hello);
    let _guard = bounded();
    let (page, limit) = (page(), u64::try_from(LIMIT).unwrap());
    let cases: [(Reason, u64, u64, Change); 23] = [
        (Reason::Magic, MAGIC, 1, |h| h.magic = 1),
        (Reason::Magic, MAGIC, MAGIC.swap_bytes(), |h| h.magic = MAGIC.swap_bytes()),
        (Reason::Version, 1, 0, |h| (h.lowest_version, h.highest_version) = (0, 0)),
        (Reason::Version, 1, 2, |h| (h.lowest_version, h.highest_version) = (2, 5)),
        (Reason::Version, 1, 2, |h| h.lowest_version = 2),
        (Reason::HelloLength, 96, 0, |h| h.length = 0),
        (Reason::HelloLength, 96, 95, |h| h.length = 95),
        (Reason::HelloLength, 97, 96, |h| h.length = 97),
        (Reason::HelloLength, u64::from(u32::MAX), 96, |h| h.length = u32::MAX),
        (Reason::Features, 0, 4, |h| h.required = 4),
        (Reason::Features, 0, 1 << 63, |h| (h.required, h.features) = (1 << 63, u64::MAX)),
        (Reason::RingTooLarge, limit, limit + 1, |h| h.ring_capacity = (64 << 20) + 1),
        (Reason::RingTooLarge, limit, u64::MAX, |h| h.ring_capacity = u64::MAX),
        (Reason::Geometry, page, 1, |h| h.ring_capacity = 1),
        (Reason::Geometry, page, 64, |h| h.ring_capacity = 64),
        (Reason::Geometry, page, (12 << 20) + 64, |h| h.ring_capacity = (12 << 20) + 64),
        (Reason::Geometry, page, 0, |h| h.ring_offset = 0),
        (Reason::Geometry, page, 64, |h| h.ring_offset = 64),
        (Reason::Geometry, page, 1 << 40, |h| h.ring_offset = 1 << 40),
        (Reason::Geometry, page, u64::MAX, |h| h.ring_offset = u64::MAX),
        (Reason::Geometry, page, 1 << 63, |h| h.ring_offset = 1 << 63),
        (Reason::Start, 0, 1, |h| h.first_sequence = 1),
        (Reason::Start, 0, 64, |h| h.first_position = 64),
    ];
    for (reason, expected, found, change) in cases {
        refused(reason, expected, found, || {
            let mut hello = Hello::honest(1);
            let fds = honest_fds(&hello);
            change(&mut hello);
            vec![Packet::hello(&hello, fds)]
        });
    }
}

#[test]
fn a_hello_that_is_cut_short_is_refused() {
    let _guard = bounded();
    let magic = |len: usize| {
        let mut bytes = [0; 8];
        bytes[..len].copy_from_slice(&MAGIC.to_le_bytes()[..len]);
        u64::from_le_bytes(bytes)
    };
    for (len, reason, expected, found) in [
        (0, Reason::Magic, MAGIC, 0),
        (3, Reason::Magic, MAGIC, magic(3)),
        (8, Reason::HelloLength, 24, 8),
        (23, Reason::HelloLength, 24, 23),
        (24, Reason::HelloLength, 96, 24),
        (95, Reason::HelloLength, 96, 95),
    ] {
        refused(reason, expected, found, || {
            let mut packet = honest();
            packet.body.truncate(len);
            vec![packet]
        });
    }
}

#[test]
fn a_hello_without_its_descriptors_is_refused() {
    let _guard = bounded();
    refused(Reason::Descriptors, 2, 0, || vec![with_fds(vec![])]);
    refused(Reason::Descriptors, 2, 1, || vec![with_fds(honest_fds(&Hello::honest(1)).split_off(1))]);
    for announced in [0, 1, 254, u32::MAX] {
        refused(Reason::Packet, 1, 0, || vec![Packet { announced: Some(announced), ..honest() }]);
    }
}

#[test]
fn a_region_of_another_kind_is_refused() {
    let _guard = bounded();
    let kinds: [fn() -> OwnedFd; 4] = [
        || pipe().0,
        || File::open("/dev/null").unwrap().into(),
        || seqpacket_pair().0,
        || File::open("/").unwrap().into(),
    ];
    for region in kinds {
        let kind = u64::from(FileType::from_raw_mode(fstat(region()).unwrap().st_mode).as_raw_mode());
        refused(Reason::RegionKind, 0o100_000, kind, || vec![with_fds(vec![region(), seqpacket_pair().0])]);
    }
    // A file that is no memfd; where it is in memory, its seals are sealed.
    let file = || File::open("/proc/self/exe").unwrap();
    let seals = fcntl_get_seals(file()).unwrap_or(SealFlags::empty()).bits();
    refused(Reason::RegionSeals, 0x17, seals.into(), || {
        vec![with_fds(vec![file().into(), seqpacket_pair().0])]
    });
}

#[test]
fn a_region_that_lacks_a_seal_is_refused() {
    let _guard = bounded();
    let size = Hello::honest(1).region();
    let all = [SealFlags::SEAL, SealFlags::SHRINK, SealFlags::GROW, SealFlags::FUTURE_WRITE];
    let lacking = all.map(|missing| SEALS.difference(missing));
    // The last file is immutable, but could be resized, or written through an older mapping.
    for seals in lacking.into_iter().chain([SealFlags::empty(), SealFlags::WRITE]) {
        let region = || memfd(size, size, seals);
        let found = fcntl_get_seals(region()).unwrap().bits();
        refused(Reason::RegionSeals, 0x17, found.into(), || {
            vec![with_fds(vec![region(), seqpacket_pair().0])]
        });
    }
}

/// The kernel adds seals of its own where files in memory cannot be executed (`F_SEAL_EXEC`, `vm.memfd_noexec`).
#[test]
fn a_region_with_more_seals_than_it_needs_is_accepted() {
    let _guard = bounded();
    let hello = Hello::honest(1);
    let region = memfd(hello.region(), hello.region(), SealFlags::empty());
    // The kernel would add another seal to a file that may be executed.
    fchmod(&region, Mode::RUSR | Mode::WUSR).unwrap();
    if fcntl_add_seals(&region, SealFlags::from_bits_retain(F_SEAL_EXEC)).is_err() {
        eprintln!("left out: this kernel knows no F_SEAL_EXEC (Linux 6.3)");
        return;
    }
    fcntl_add_seals(&region, SEALS).unwrap();
    assert_eq!(fcntl_get_seals(&region).unwrap().bits(), SEALS.bits() | F_SEAL_EXEC);
    let hello = Packet::hello(&hello, vec![region, seqpacket_pair().0]);
    let (_player, handshake) = play(Side::Caller, &builder(), vec![hello, Packet::new(READY)]);
    handshake.finish().unwrap();
}

#[test]
fn a_region_of_another_size_is_refused() {
    let _guard = bounded();
    let size = Hello::honest(1).region();
    for wrong in [0, 1, page(), size - 1, size + 1, size + page(), 1 << 20] {
        refused(Reason::RegionSize, size, wrong, || {
            vec![with_fds(vec![memfd(wrong, wrong, SEALS), seqpacket_pair().0])]
        });
    }
}

#[test]
fn a_region_with_holes_is_refused() {
    let _guard = bounded();
    let size = Hello::honest(1).region();
    for dense in [0, page()] {
        refused(Reason::RegionHoles, size, dense, || {
            vec![with_fds(vec![memfd(size, dense, SEALS), seqpacket_pair().0])]
        });
    }
}

#[test]
fn a_region_whose_pages_beyond_its_end_hide_holes_is_refused() {
    let _guard = bounded();
    let size = Hello::honest(1).region();
    let disguised = || {
        let region = memfd(size, 0, SealFlags::empty());
        fallocate(&region, FallocateFlags::KEEP_SIZE, size, size).unwrap();
        fcntl_add_seals(&region, SEALS).unwrap();
        region
    };
    refused(Reason::RegionHoles, size, 0, || vec![with_fds(vec![disguised(), seqpacket_pair().0])]);
}

#[test]
fn a_ring_that_does_not_stand_at_the_next_page_is_refused() {
    let _guard = bounded();
    for pages in [2, 256] {
        let hello = Hello { ring_offset: pages * page(), ..Hello::honest(1) };
        refused(Reason::Geometry, page(), pages * page(), || vec![Packet::hello(&hello, honest_fds(&hello))]);
    }
}

#[test]
fn a_region_that_may_not_be_read_is_refused() {
    let _guard = bounded();
    let size = Hello::honest(1).region();
    for flags in [OFlags::WRONLY, OFlags::PATH] {
        let reopened = || {
            let region = memfd(size, size, SealFlags::empty());
            let path = format!("/proc/self/fd/{}", region.as_raw_fd());
            let reopened = open(path, flags | OFlags::CLOEXEC, Mode::empty()).unwrap();
            fcntl_add_seals(&region, SEALS).unwrap();
            reopened
        };
        refused(Reason::RegionAccess, 0, flags.bits().into(), || {
            vec![with_fds(vec![reopened(), seqpacket_pair().0])]
        });
    }
}

#[test]
fn a_space_socket_of_another_kind_is_refused() {
    let _guard = bounded();
    let kinds: [fn() -> OwnedFd; 4] = [
        || pipe().1,
        || File::open("/dev/null").unwrap().into(),
        || UnixStream::pair().unwrap().0.into(),
        || UnixDatagram::pair().unwrap().0.into(),
    ];
    for space in kinds {
        refused(Reason::SpaceSocket, 1, 0, || {
            let mut fds = honest_fds(&Hello::honest(1));
            fds[1] = space();
            vec![with_fds(fds)]
        });
    }
}

#[test]
fn a_hello_from_nobody_is_refused() {
    let _guard = bounded();
    // The kernel gives a listener the peer's credentials, without the peer's help.
    let refusal = Refusal { reason: Reason::Credentials, expected: 1, found: 0 };
    assert_refused(Side::Caller, vec![Packet { identified: false, ..honest() }], refusal);
}

#[test]
fn malformed_packets_are_rejected() {
    let _guard = bounded();
    let header = [1, 0, 0, 0, 1];
    let garbage: [&[u8]; 7] =
        [b"x", b"GET / HTTP/1.1\r\n\r\n", &[0; 31], &[0; 32], &[0xff; 32], &[0xff; 4096], &header];
    for bytes in garbage {
        refused(Reason::Packet, 1, 0, || vec![Packet::raw(bytes)]);
        refused(Reason::Packet, 2, 0, || vec![honest(), Packet::raw(bytes)]);
    }
    for len in [4097, 100_000] {
        refused(Reason::Packet, 1, 0, || vec![Packet { body: vec![0; len], ..honest() }]);
        refused(Reason::Packet, 2, 0, || vec![honest(), Packet::raw(&vec![0; HEADER + len])]);
    }
}

#[test]
fn a_packet_out_of_turn_is_refused() {
    let _guard = bounded();
    for kind in [READY, CONTROL, DOORBELL, DESCRIPTORS] {
        refused(Reason::Packet, 1, kind.into(), || vec![Packet::new(kind)]);
    }
    for kind in [CONTROL, DOORBELL, DESCRIPTORS] {
        refused(Reason::Packet, 2, kind.into(), || vec![honest(), Packet::new(kind)]);
    }
    refused(Reason::Packet, 2, HELLO.into(), || vec![honest(), honest()]);
    for kind in [0, 7, 77, u16::MAX] {
        refused(Reason::Packet, 1, 0, || vec![Packet::new(kind)]);
        refused(Reason::Packet, 2, 0, || vec![honest(), Packet::new(kind)]);
    }
}

#[test]
fn fields_without_a_meaning_are_refused() {
    type Change = fn(&mut Packet);
    let _guard = bounded();
    let fields: [Change; 4] = [|p| p.flags = 1, |p| p.sequence = 1, |p| p.reply_to = 1, |p| p.reserved = 1];
    for change in fields {
        let changed = |mut packet| {
            change(&mut packet);
            packet
        };
        refused(Reason::Packet, 1, 0, || vec![changed(honest())]);
        refused(Reason::Packet, 2, 0, || vec![honest(), changed(Packet::new(READY))]);
    }
}

#[test]
fn a_ready_with_anything_to_it_is_refused() {
    let _guard = bounded();
    refused(Reason::Descriptors, 0, 1, || {
        vec![honest(), Packet { fds: vec![pipe().0], ..Packet::new(READY) }]
    });
    refused(Reason::ReadyLength, 0, 1, || vec![honest(), Packet { body: vec![0], ..Packet::new(READY) }]);
    refused(Reason::Packet, 2, 0, || vec![honest(), Packet { announced: Some(1), ..Packet::new(READY) }]);
}

/// A peer's packets.
type Said = fn() -> Vec<Packet>;

/// A `Reject` of the peer, after the packets `before`, is reported.
fn assert_rejected(before: Said, body: &[u8], refusal: Refusal) {
    for side in [Side::Caller, Side::Listener] {
        let mut packets = before();
        packets.push(Packet { body: body.to_vec(), ..Packet::new(REJECT) });
        let (_player, handshake) = play(side, &builder(), packets);
        let result = handshake.finish();
        assert!(
            matches!(&result, Err(Error::Handshake(HandshakeError::Rejected(found))) if *found == refusal),
            "{side:?}: {refusal:?} expected, {result:?} found"
        );
    }
}

#[test]
fn a_reject_is_reported_as_it_was_said_whenever_it_comes() {
    let _guard = bounded();
    let body = |code: u32| {
        let mut body = u64::from(code).to_le_bytes().to_vec();
        body.extend(7_u64.to_le_bytes());
        body.extend(u64::MAX.to_le_bytes());
        body
    };
    let refusal = |reason| Refusal { reason, expected: 7, found: u64::MAX };
    for before in [Vec::new as Said, || vec![honest()]] {
        for (code, reason) in REASONS {
            assert_rejected(before, &body(code), refusal(reason));
        }
        for code in [0, 25, 999, u32::MAX] {
            assert_rejected(before, &body(code), refusal(Reason::Unknown(code)));
        }
        // A later version may send more.
        assert_rejected(before, &[body(5), vec![9; 100]].concat(), refusal(Reason::RingTooLarge));
        for len in [0, 23] {
            let short = Refusal { reason: Reason::Unknown(0), expected: 24, found: len };
            assert_rejected(before, &vec![1; usize::try_from(len).unwrap()], short);
        }
    }
}

#[test]
fn a_peer_that_goes_away_is_reported_with_what_it_owed() {
    let _guard = bounded();
    let cases: [(Said, &str); 4] = [
        (Vec::new, "Hello"),
        // Our packets are never empty, so the kernel's report of an empty packet is the end of file.
        (|| vec![Packet::raw(b"")], "Hello"),
        (|| vec![honest()], "Ready"),
        (|| vec![honest(), Packet::raw(b"")], "Ready"),
    ];
    for side in [Side::Caller, Side::Listener] {
        for (packets, awaited) in cases {
            let (player, handshake) = play(side, &builder(), packets());
            drop(player);
            let result = handshake.finish();
            assert!(
                matches!(&result, Err(Error::Handshake(HandshakeError::Closed { awaited: found })) if *found == awaited),
                "{side:?}: {awaited} expected, {result:?} found"
            );
        }
    }
}

#[test]
fn a_peer_that_stops_half_way_is_a_timeout() {
    let _guard = bounded();
    let builder = builder().handshake_timeout(Duration::from_millis(30));
    for side in [Side::Caller, Side::Listener] {
        for packets in [vec![], vec![honest()]] {
            let (_player, handshake) = play(side, &builder, packets);
            assert!(matches!(handshake.finish(), Err(Error::Timeout)));
        }
    }
}

/// A timeout, the peer's packets, whether it leaves then, and the outcome.
type Ending = (Duration, fn() -> Vec<Packet>, bool, fn(&Error) -> bool);

#[test]
fn a_handshake_that_has_ended_says_why_again_and_again() {
    let _guard = bounded();
    let cases: [Ending; 3] = [
        (Duration::from_millis(30), Vec::new, false, |error| matches!(error, Error::Timeout)),
        (LONG, Vec::new, true, |error| {
            matches!(error, Error::Handshake(HandshakeError::Closed { awaited: "Hello" }))
        }),
        (
            LONG,
            || vec![Packet::new(CONTROL)],
            true,
            |error| matches!(error, Error::Handshake(HandshakeError::Refused(_))),
        ),
    ];
    for (timeout, packets, is_left, expected) in cases {
        for side in [Side::Caller, Side::Listener] {
            let (player, mut handshake) = play(side, &builder().handshake_timeout(timeout), packets());
            let player = (!is_left).then_some(player);
            let first = loop {
                if let Err(error) = handshake.advance() {
                    break error;
                }
            };
            assert!(expected(&first), "{first:?}");
            let again = handshake.advance().unwrap_err();
            assert!(expected(&again) && !handshake.needs_advance(), "{again:?}");
            let last = handshake.finish().unwrap_err();
            assert!(expected(&last), "{last:?}");
            drop(player);
        }
    }
}

#[test]
fn a_peer_that_is_refused_reads_why_and_the_end_at_once() {
    let _guard = bounded();
    for side in [Side::Caller, Side::Listener] {
        let (player, mut handshake) = play(side, &builder(), vec![Packet::new(CONTROL)]);
        // Our side waits for the peer to read that until the deadline.
        assert!(!handshake.advance().unwrap());
        assert_eq!(player.hear_all().last().unwrap().refusal(), (16, 1, CONTROL.into()));
        drop(player);
        let result = handshake.advance();
        assert!(matches!(&result, Err(Error::Handshake(HandshakeError::Refused(_)))), "{result:?}");
    }
}

#[test]
fn a_listener_speaks_second() {
    let _guard = bounded();
    let (player, mut handshake) = play(Side::Listener, &builder(), vec![]);
    let hears_nothing = || assert_eq!(readable([player.as_fd()], Duration::ZERO), [false]);
    assert!(!handshake.advance().unwrap());
    hears_nothing();
    player.send(honest());
    assert!(!handshake.advance().unwrap());
    hears_nothing();
    assert!(!handshake.advance().unwrap());
    assert_eq!(player.hear().unwrap().kind, HELLO);
    hears_nothing();
    player.send(Packet::new(READY));
    assert!(handshake.advance().unwrap());
    assert_eq!(player.hear().unwrap().kind, READY);
}

#[test]
fn a_client_that_is_ready_too_early_can_still_be_refused_for_who_it_is() {
    let _guard = bounded();
    let (player, mut handshake) = play(Side::Listener, &builder(), vec![honest(), Packet::new(READY)]);
    assert!(!handshake.advance().unwrap(), "the time to look at the credentials");
    assert!(handshake.peer_credentials().is_some());
    handshake.refuse();
    let heard: Vec<u16> = player.hear_all().iter().map(|heard| heard.kind).collect();
    assert_eq!(heard, [REJECT]);
}

#[test]
fn our_own_region_and_space_socket_are_refused_when_they_come_back() {
    let _guard = bounded();
    for which in [0..1, 1..2, 0..2] {
        let (player, mut handshake) = play(Side::Caller, &builder(), vec![]);
        let mut ours = player.hear().unwrap().fds;
        let mut fds = honest_fds(&Hello::honest(1));
        for at in which.rev() {
            fds[at] = ours.remove(at);
        }
        player.send(with_fds(fds));
        assert!(!handshake.advance().unwrap());
        player.shut(Shutdown::Write);
        let refusal = Refusal { reason: Reason::Reflected, expected: 0, found: 0 };
        let result = handshake.finish();
        assert!(
            matches!(&result, Err(Error::Handshake(HandshakeError::Refused(found))) if *found == refusal),
            "{result:?}"
        );
        assert_eq!(player.hear_all().last().unwrap().refusal(), (18, 0, 0));
    }
}

#[test]
fn a_region_that_a_listener_gave_to_another_client_is_refused() {
    let _guard = bounded();
    let name = abstract_name();
    let listener = builder().listen(&name).unwrap();
    let connect = |packet| {
        let player = Player::connect(&name);
        player.send(packet);
        let mut server = listener.try_accept().unwrap().unwrap();
        assert!(!server.advance().unwrap());
        (player, server)
    };
    let (first, mut server) = connect(honest());
    assert!(!server.advance().unwrap());
    let given = first.hear().unwrap();
    let hello = Hello::honest(1);
    let (second, server) = connect(Packet::hello(&hello, given.fds));
    second.shut(Shutdown::Write);
    let result = server.finish();
    assert!(
        matches!(&result, Err(Error::Handshake(HandshakeError::Refused(found))) if found.reason == Reason::Reflected),
        "{result:?}"
    );
    assert_eq!(second.hear_all().last().unwrap().refusal(), (18, 0, 0));
}

#[test]
fn a_refusal_for_a_limit_names_the_setting() {
    let _guard = bounded();
    let setting = "Builder::max_peer_ring_capacity";
    let name = abstract_name();
    // A listener accepts less by default than the other ways do.
    let (listener, client) =
        (Channel::builder().ring_capacity(1), Channel::builder().ring_capacity(16 << 20));
    let listener = listener.listen(&name).unwrap();
    let mut client = client.try_connect(&name).unwrap();
    let mut server = listener.try_accept().unwrap().unwrap();
    assert!(!server.advance().unwrap());
    let rejected = client.advance().unwrap_err();
    drop(client);
    let refused = server.finish().unwrap_err();
    let refusal = Refusal { reason: Reason::RingTooLarge, expected: 8 << 20, found: 16 << 20 };
    assert!(matches!(&refused, Error::Handshake(HandshakeError::Refused(found)) if *found == refusal));
    assert!(matches!(&rejected, Error::Handshake(HandshakeError::Rejected(found)) if *found == refusal));
    for error in [refused, rejected] {
        assert!(error.to_string().contains(setting), "{error}");
    }
    Channel::builder().ring_capacity(64 << 20).pair().unwrap();
}

#[test]
fn a_peer_that_was_refused_and_stays_is_given_up_at_the_deadline() {
    let _guard = bounded();
    let builder = builder().handshake_timeout(Duration::from_millis(30));
    for side in [Side::Caller, Side::Listener] {
        let (player, handshake) = play(side, &builder, vec![Packet::new(CONTROL)]);
        let result = handshake.finish();
        assert!(matches!(&result, Err(Error::Handshake(HandshakeError::Refused(_)))), "{result:?}");
        assert_eq!(player.hear_all().last().unwrap().refusal(), (16, 1, CONTROL.into()));
    }
}

#[test]
fn a_peer_that_was_refused_and_talks_on_is_given_up_at_the_deadline() {
    const PACKETS: usize = 100;
    let _guard = bounded();
    // The deadline is past when the first packet is read.
    let builder = builder().handshake_timeout(Duration::ZERO);
    for side in [Side::Caller, Side::Listener] {
        let (readers, packets): (Vec<_>, Vec<_>) = (0..PACKETS)
            .map(|_| {
                let (reader, writer) = pipe();
                (reader, Packet { fds: vec![writer], ..Packet::new(CONTROL) })
            })
            .unzip();
        let (_player, mut handshake) = play(side, &builder, packets);
        let result = handshake.advance();
        assert!(matches!(&result, Err(Error::Handshake(HandshakeError::Refused(_)))), "{result:?}");
        let [read] = readable([readers.last().unwrap().as_fd()], Duration::ZERO);
        assert!(!read, "all {PACKETS} packets were read, and so would be all that followed");
    }
}

#[test]
fn a_later_versions_hello_is_accepted_and_its_surplus_closed() {
    type Change = fn(&mut Hello);
    let _guard = bounded();
    let changes: [Change; 6] = [
        |h| h.highest_version = 9,
        |h| h.lowest_version = 0,
        |h| h.features = u64::MAX,
        |h| h.length = 4096,
        |h| h.max_fds = u32::MAX,
        |h| h.ring_capacity = 0,
    ];
    for change in changes {
        let mut hello = Hello::honest(1);
        change(&mut hello);
        accepted(&hello, |channel| {
            assert!(channel.limits().max_fds <= 253);
            assert_eq!(channel.peer().version(), 1);
        });
    }
}

#[test]
fn a_peer_that_receives_more_than_any_socket_holds_is_accepted() {
    let _guard = bounded();
    for max_control in [1 << 30, u32::MAX] {
        let hello = Hello { max_control, ..Hello::honest(1) };
        accepted(&hello, |channel| assert!(channel.limits().max_control < 1 << 30));
    }
}

/// Our side accepts such a peer, and closes all descriptors but two.
fn accepted(hello: &Hello, check: impl Fn(&Channel)) {
    for side in [Side::Caller, Side::Listener] {
        let (reader, writer) = pipe();
        let mut fds = honest_fds(hello);
        fds.extend((0..251).map(|_| writer.try_clone().unwrap()));
        drop(writer);
        let mut first = Packet::hello(hello, fds);
        first.body.resize(hello.length.try_into().unwrap(), 0xff);
        let (player, handshake) = play(side, &builder(), vec![first, Packet::new(READY)]);
        let mut channel = handshake.finish().unwrap_or_else(|error| panic!("{hello:?}: {error:?}"));
        assert!(is_abandoned(&reader), "the surplus is still open");
        check(&channel);
        channel.send(b"hello").unwrap();
        let heard: Vec<u16> = (0..3).map(|_| player.hear().unwrap().kind).collect();
        assert_eq!(heard, [HELLO, READY, CONTROL]);
    }
}
