//! The relay process: it stands in a namespace with two interfaces, and carries each frame from the one to the other.
//!
//! It is this test program again, with [`relay_process`] as its only test. It reads commands at standard input, a line each, and
//! answers each with a line that begins with [`ANSWER`]; at the end of its input it ends.

use std::{
    env,
    fs::File,
    io::{self, Read, Write},
    os::fd::AsRawFd,
    process::{self, Command},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use nix::{
    ifaddrs::getifaddrs,
    setsockopt_impl, sockopt_impl,
    sys::socket::{
        AddressFamily, SockFlag, SockProtocol, SockType, bind, setsockopt, socket,
        sockopt::{RcvBuf, RcvBufForce},
    },
};

use super::{
    link::{Counts, Quality},
    namespace::Namespace,
    shaping::Lane,
};

/// The interface on the side of the switch.
pub(super) const INSIDE: &str = "inside";

/// The interface on the side of the host.
pub(super) const OUTSIDE: &str = "outside";

/// How a line of the relay begins that is an answer.
pub(super) const ANSWER: &str = "relay: ";

/// The environment variable with which [`relay_process`] is a relay.
const IS_RELAY: &str = "SEALANE_TEST_RELAY";

/// What the kernel keeps for a relay that does not run for a while, in bytes.
const SOCKET_BUFFER: usize = 4 << 20;

sockopt_impl!(
    /// `PACKET_VNET_HDR` of packet(7): each frame begins with a `virtio_net_hdr`, which says what is left to do to it (a checksum, a
    /// segmentation). Handed on unchanged, the frame is as good as on a cable.
    VnetHeader, SetOnly, libc::SOL_PACKET, libc::PACKET_VNET_HDR, bool
);

/// The relay of a [`Link`](super::Link). Run as a test, it does nothing.
#[test]
#[ignore = "a process that links start"]
pub(super) fn relay_process() {
    if env::var_os(IS_RELAY).is_some() {
        let done = run();
        if let Err(error) = &done {
            complain(error);
        }
        // Ends the threads too.
        process::exit(i32::from(done.is_err()));
    }
}

/// The command that starts the relay in `namespace`.
pub(super) fn command(namespace: &Namespace) -> Command {
    let mut command = namespace.role(relay_process);
    command.env(IS_RELAY, "1");
    command
}

/// What the threads share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// A frame was let in, or the state has changed.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    quality: Quality,
    cut: bool,
    lanes: [Lane; 2],
    counts: Counts,
}

fn run() -> io::Result<()> {
    let (inside, outside) = (Arc::new(open(INSIDE)?), Arc::new(open(OUTSIDE)?));
    let state = State {
        quality: Quality::default(),
        cut: false,
        lanes: [Lane::new(0x5ea1_a0e0), Lane::new(0xb21d_6e00)],
        counts: Counts::default(),
    };
    let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
    for (direction, from, to) in [(0, &inside, &outside), (1, &outside, &inside)] {
        let (shared_in, from) = (shared.clone(), from.clone());
        thread::spawn(move || shared_in.let_in(direction, &from));
        let (shared_out, to) = (shared.clone(), to.clone());
        thread::spawn(move || shared_out.let_out(direction, &to));
    }
    answer(Counts::default())?;
    for line in io::stdin().lines() {
        let counts = shared.obey(&line?).ok_or(io::ErrorKind::InvalidInput)?;
        answer(counts)?;
    }
    Ok(())
}

/// A packet socket that takes part in all the traffic of an interface, which may still be down.
fn open(interface: &str) -> io::Result<File> {
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
    setsockopt(&socket, VnetHeader, &true)?;
    // Beyond `rmem_max` only where the kernel counts root of a user namespace as root.
    setsockopt(&socket, RcvBufForce, &SOCKET_BUFFER)
        .or_else(|_| setsockopt(&socket, RcvBuf, &SOCKET_BUFFER))?;
    let address = getifaddrs()?
        .filter(|found| found.interface_name == interface)
        .find_map(|found| found.address?.as_link_addr().copied())
        .ok_or(io::ErrorKind::NotFound)?;
    bind(socket.as_raw_fd(), &address)?;
    Ok(socket.into())
}

/// The line begins anew, because libtest leaves one open.
fn answer(Counts { carried, lost, full, cut }: Counts) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    write!(stdout, "\n{ANSWER}{carried} {lost} {full} {cut}\n")?;
    stdout.flush()
}

impl Shared {
    /// Does what a line of the test says. `None`: it is not a command.
    fn obey(&self, line: &str) -> Option<Counts> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["set", delay, loss, rate] => {
                let delay = Duration::from_micros(delay.parse().ok()?);
                let rate = Some(rate.parse().ok()?).filter(|rate| *rate != 0);
                state.quality = Quality { delay, loss: loss.parse().ok()?, rate };
                state.lanes.iter_mut().for_each(Lane::forget_rate);
            }
            ["cut"] => {
                state.cut = true;
                state.counts.cut += state.lanes.iter_mut().map(Lane::clear).sum::<u64>();
            }
            ["restore"] => state.cut = false,
            ["counts"] => {}
            _ => return None,
        }
        self.changed.notify_all();
        Some(state.counts)
    }

    /// Reads frames of one direction for ever.
    fn let_in(&self, direction: usize, mut from: &File) {
        let mut frame = vec![0; 128 << 10];
        loop {
            match from.read(&mut frame) {
                Ok(len) => self.offer(direction, &frame[..len]),
                // An interface that is down, or has gone with its host, says so once.
                Err(error) if is_down(&error) || error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    complain(&error);
                    process::exit(1);
                }
            }
        }
    }

    fn offer(&self, direction: usize, frame: &[u8]) {
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.cut {
            state.counts.cut += 1;
        } else {
            state.lanes[direction].offer(frame, Instant::now(), &state.quality, &mut state.counts);
            self.changed.notify_all();
        }
    }

    /// Writes the frames of one direction for ever, each when it is due.
    ///
    /// The lock is held while a frame is written, so that none leaves after a cut was answered. A veth pair takes frames at once.
    fn let_out(&self, direction: usize, mut to: &File) {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if let Some(frame) = state.lanes[direction].take_due(now) {
                match to.write(&frame) {
                    Ok(_) => state.counts.carried += 1,
                    Err(error) if is_down(&error) => {}
                    Err(error) => complain(&error),
                }
                continue;
            }
            state = match state.lanes[direction].due() {
                Some(due) => self.changed.wait_timeout(state, due - now).expect("no thread panics").0,
                None => self.changed.wait(state).expect("no thread panics"),
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics")
    }
}

fn is_down(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV))
}

fn complain(error: &io::Error) {
    let _ = writeln!(io::stderr(), "the relay of a link: {error}");
}
