//! Descriptors that are traps: files whose server does not answer, sockets that linger, memory that is not there.
//! They are refused by name or closed, without waiting and without paying for them.

use std::{
    fs::File,
    io::{Write, stdin},
    net::{TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    process::Command,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{
        FallocateFlags, FileType, MemfdFlags, Mode, OFlags, SealFlags, fallocate, fcntl_add_seals, fstat,
        ftruncate, memfd_create, open,
    },
    mount::{MountFlags, mount},
    net::sockopt,
};
use sealane::{
    Builder, Channel, Error, HandshakeError, ProtocolError, Reason, Refusal, SealError, SealedBuffer,
};

use crate::support::{
    hostile::{
        CONTROL, DOORBELL, Hello, LONG, Packet, Player, READY, SEALS, memfd, page, pipe, seqpacket_pair,
    },
    is_abandoned, role,
    threads::bounded,
};

fn builder() -> Builder {
    Channel::builder().ring_capacity(1).max_fds(2)
}

/// The result of a handshake with a peer that offers these descriptors and this region.
fn offered(hello: &Hello, fds: Vec<OwnedFd>) -> Result<Channel, Error> {
    let (player, ours) = Player::pair();
    player.send(Packet::hello(hello, fds));
    drop(player);
    builder().handshake(ours).unwrap().finish()
}

#[track_caller]
fn assert_refused(hello: &Hello, region: OwnedFd, expected: Refusal) {
    let result = offered(hello, vec![region, seqpacket_pair().0]);
    assert!(
        matches!(&result, Err(Error::Handshake(HandshakeError::Refused(found))) if *found == expected),
        "{expected:?} expected, {result:?} found"
    );
}

/// Names the user whose directory it is.
const USER: &str = "FUSE_USER";

/// A directory whose server never answers, from a process that may make one, which lives until the socket is closed.
fn unanswering() -> Option<(OwnedFd, Player)> {
    unanswering_of(0, &["--user", "--map-root-user", "--mount"])
}

/// Like [`unanswering`], for a user in the namespaces that these arguments make.
fn unanswering_of(user: u32, namespaces: &[&str]) -> Option<(OwnedFd, Player)> {
    let (player, theirs) = Player::pair();
    let mut command = Command::new("unshare");
    let inner = role(mounts_what_never_answers);
    command.args(namespaces).arg(inner.get_program()).args(inner.get_args()).env(USER, user.to_string());
    let mut child = command.stdin(theirs).stdout(std::process::Stdio::null()).spawn().ok()?;
    drop(command);
    // Without the rights for it, the child ends without output.
    let heard = player.hear();
    if heard.is_none() {
        child.wait().unwrap();
    }
    Some((heard?.fds.remove(0), player))
}

#[test]
#[ignore = "the child of another test"]
fn mounts_what_never_answers() {
    let socket = Player::from(stdin().as_fd().try_clone_to_owned().unwrap());
    let Ok(server) = File::options().read(true).write(true).open("/dev/fuse") else { return };
    let directory = tempfile::tempdir().unwrap();
    let user = std::env::var(USER).unwrap();
    let options = format!("fd={},rootmode=40000,user_id={user},group_id={user}\0", server.as_raw_fd());
    let options = std::ffi::CStr::from_bytes_with_nul(options.as_bytes()).unwrap();
    if mount("none", directory.path(), "fuse", MountFlags::empty(), Some(options)).is_err() {
        return;
    }
    let fd = open(directory.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    socket.send(Packet { fds: vec![fd], ..Packet::new(CONTROL) });
    // The child lives until the parent is done.
    poll(&mut [PollFd::new(&socket, PollFlags::RDHUP)], None).unwrap();
    // The test does not wait for the server's answer, which removal would need.
    std::process::exit(0);
}

#[test]
fn a_file_whose_server_never_answers_is_refused_without_waiting() {
    let _guard = bounded();
    let Some((directory, _server)) = unanswering() else {
        return println!("left out: no rights to mount a FUSE file system in a namespace of one's own");
    };
    let again = || directory.try_clone().unwrap();
    let hello = Hello::honest(1);
    let kind = FileType::Directory.as_raw_mode();
    let refusal = Refusal { reason: Reason::RegionKind, expected: 0o100_000, found: kind.into() };
    assert_refused(&hello, again(), refusal);
    let region = memfd(hello.region(), hello.region(), SEALS);
    let result = offered(&hello, vec![region, again()]);
    let refusal = Refusal { reason: Reason::SpaceSocket, expected: 1, found: 0 };
    assert!(
        matches!(&result, Err(Error::Handshake(HandshakeError::Refused(found))) if *found == refusal),
        "{result:?}"
    );
    let result = SealedBuffer::try_from(again());
    let error = SealError::Kind { expected: 0o100_000, found: kind };
    assert!(matches!(&result, Err(Error::Sealed(found)) if *found == error), "{result:?}");
}

/// The kernel lets only the server's user look at a FUSE file, not even root. A question for its type fails with
/// `EACCES`.
#[test]
fn a_file_that_we_may_not_look_at_is_refused_and_no_failure_of_ours() {
    let _guard = bounded();
    let Some((directory, _server)) = unanswering_of(20_000, &["--mount"]) else {
        return println!("left out: no rights to mount another user's FUSE file system");
    };
    let again = || directory.try_clone().unwrap();
    let refusal = Refusal { reason: Reason::RegionAccess, expected: 0, found: OFlags::PATH.bits().into() };
    assert_refused(&Hello::honest(1), again(), refusal);
    let result = SealedBuffer::try_from(again());
    assert!(matches!(&result, Err(Error::Sealed(SealError::Access { .. }))), "{result:?}");
}

#[test]
fn a_file_in_memory_that_is_no_memfd_is_refused() {
    let _guard = bounded();
    let hello = Hello::honest(1);
    let Ok(mut file) = tempfile::tempfile_in("/dev/shm") else {
        return println!("left out: no /dev/shm");
    };
    file.write_all(&vec![0; hello.region().try_into().unwrap()]).unwrap();
    // It cannot be sealed any more (`F_SEAL_SEAL`), so it never was a sealed buffer.
    let refusal = Refusal { reason: Reason::RegionSeals, expected: 0x17, found: 1 };
    assert_refused(&hello, file.into(), refusal);
}

/// A memfd of huge pages, none of which is allocated.
fn huge(pages: u64) -> Option<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
    let memfd = memfd_create("huge", flags).ok()?;
    ftruncate(&memfd, pages << 21).unwrap();
    fcntl_add_seals(&memfd, SEALS).unwrap();
    Some(memfd)
}

#[test]
fn huge_pages_that_are_not_there_are_refused() {
    let _guard = bounded();
    let Some(region) = huge(2) else { return println!("left out: no huge pages in this kernel") };
    let hello = Hello { ring_offset: 2 << 20, ring_capacity: 2 << 20, ..Hello::honest(1) };
    assert_refused(&hello, region, Refusal { reason: Reason::RegionHoles, expected: 4 << 20, found: 0 });
    // This file claims small pages: its mapping would reach further than its size.
    let hello = Hello { ring_offset: page(), ring_capacity: (2 << 20) - page(), ..Hello::honest(1) };
    let hello = Hello { ring_capacity: hello.ring_capacity.next_power_of_two() / 2, ..hello };
    let size = hello.region();
    assert_refused(
        &hello,
        huge(1).unwrap(),
        Refusal { reason: Reason::RegionSize, expected: size, found: 2 << 20 },
    );
}

#[test]
fn a_sparse_region_is_not_filled_at_our_expense() {
    let _guard = bounded();
    let hello = Hello { ring_capacity: 64 << 20, ..Hello::honest(1) };
    let size = hello.region();
    for dense in [0, page()] {
        let region = memfd(size, dense, SEALS);
        let refusal = Refusal { reason: Reason::RegionHoles, expected: size, found: dense };
        assert_refused(&hello, region.try_clone().unwrap(), refusal);
        assert_eq!(u64::try_from(fstat(&region).unwrap().st_blocks).unwrap() * 512, dense);
    }
}

#[test]
fn a_hole_that_is_hidden_costs_us_a_step_and_no_more() {
    let _guard = bounded();
    let step = 64 << 10;
    let hello = Hello { ring_capacity: 4 << 20, ..Hello::honest(1) };
    let size = hello.region();
    let allocated = |file: &OwnedFd| u64::try_from(fstat(file).unwrap().st_blocks).unwrap() * 512;
    // The missing pages are beyond the end instead; the hole is behind a whole number of steps.
    for dense in [0, step, 16 * step] {
        let region = memfd(size, dense, SealFlags::empty());
        fallocate(&region, FallocateFlags::KEEP_SIZE, size, size - dense).unwrap();
        fcntl_add_seals(&region, SEALS).unwrap();
        let before = allocated(&region);
        assert!(before >= size);
        let refusal = Refusal { reason: Reason::RegionHoles, expected: size, found: dense };
        assert_refused(&hello, region.try_clone().unwrap(), refusal);
        // There are more if this machine uses huge pages for files in memory.
        assert!(allocated(&region) - before <= step.max(2 << 20), "{} allocated", allocated(&region));
    }
}

/// A socket whose close would linger for decades, and a second descriptor of it.
fn lingering() -> (OwnedFd, OwnedFd, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (other, _) = listener.accept().unwrap();
    // The close would wait for the bytes that the other end does not read.
    socket.set_nonblocking(true).unwrap();
    while (&socket).write(&[0; 1 << 12]).is_ok() {}
    sockopt::set_socket_linger(&socket, Some(Duration::from_mins(500))).unwrap();
    let ours = OwnedFd::from(socket.try_clone().unwrap());
    (socket.into(), ours, other)
}

#[test]
fn sockets_that_are_closed_for_the_peer_do_not_linger() {
    type Play = fn(OwnedFd);
    let _guard = bounded();
    let plays: [(&str, Play); 7] = [
        ("the surplus of a Hello", |fd| {
            let hello = Hello::honest(1);
            let region = memfd(hello.region(), hello.region(), SEALS);
            drop(offered(&hello, vec![region, seqpacket_pair().0, fd]));
        }),
        ("a region", |fd| drop(offered(&Hello::honest(1), vec![fd, seqpacket_pair().0]))),
        ("a space socket", |fd| {
            let hello = Hello::honest(1);
            drop(offered(&hello, vec![memfd(hello.region(), hello.region(), SEALS), fd]));
        }),
        ("what is no packet", |fd| {
            let (player, ours) = Player::pair();
            player.send(Packet { fds: vec![fd], ..Packet::raw(b"x") });
            drop(player);
            assert!(builder().handshake(ours).unwrap().finish().is_err());
        }),
        ("a doorbell", |fd| {
            let (player, mut channel) = established();
            player.send(Packet { fds: vec![fd], ..Packet::new(DOORBELL) });
            assert!(matches!(
                channel.try_recv(),
                Err(Error::Protocol(ProtocolError::FdLimit { max: 0, found: 1 }))
            ));
        }),
        ("an empty packet", |fd| {
            let (player, mut channel) = established();
            player.send(Packet { fds: vec![fd], ..Packet::raw(b"") });
            assert!(matches!(channel.recv_timeout(LONG), Err(Error::Disconnected)));
        }),
        ("a message that is dropped", |fd| {
            let (player, mut channel) = established();
            player.send(Packet { fds: vec![fd], ..Packet::control(0) });
            drop(channel.recv_timeout(LONG).unwrap());
        }),
    ];
    for (name, play) in plays {
        let (fd, same, _other) = lingering();
        play(fd);
        assert_eq!(sockopt::socket_linger(&same).unwrap(), None, "{name}");
    }
}

/// A peer on an established channel, and our side.
fn established() -> (Player, Channel) {
    let (player, ours) = Player::pair();
    let handshake = builder().handshake(ours).unwrap();
    let hello = Hello::honest(1);
    player
        .send(Packet::hello(&hello, vec![memfd(hello.region(), hello.region(), SEALS), seqpacket_pair().0]));
    player.send(Packet::new(READY));
    (player, handshake.finish().unwrap())
}

#[test]
fn received_descriptors_are_not_touched_until_they_are_used() {
    let _guard = bounded();
    let Some((directory, _server)) = unanswering() else {
        return println!("left out: no rights to mount a FUSE file system in a namespace of one's own");
    };
    let (player, mut channel) = established();
    let (reader, writer) = pipe();
    player.send(Packet { fds: vec![directory, writer], ..Packet::control(0) });
    let message = channel.recv_timeout(LONG).unwrap();
    assert_eq!(message.fds().len(), 2);
    drop(message);
    assert!(is_abandoned(&reader));
}
