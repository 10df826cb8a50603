//! A relay for TCP connections on loopback, in threads of the test.
//!
//! A connection has two directions, and each has two threads: the reader puts bytes into a queue of bounded size, the writer
//! writes what is due. All writers obey one [`Gate`]. When a writer waits, its queue fills, the reader stops, and then the
//! kernel stops the sender.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle, Scope},
    time::{Duration, Instant},
};

use nix::sys::socket::{
    setsockopt,
    sockopt::{RcvBuf, SndBuf},
};

use super::gate::{Direction, Gate};

/// The most bytes that are read at once.
const PIECE: usize = 16 << 10;

/// The most pieces that wait in one direction: 1 MiB. With a delay, no more than that passes within the delay.
const PIECES: usize = 64;

/// The kernel's buffers on the relay's side of each connection, in bytes. They would grow to several MiB by themselves.
const SOCKET_BUFFER: usize = 256 << 10;

/// How long a write may hold the gate.
const WRITE_TIMEOUT: Duration = Duration::from_millis(20);

/// Connects whoever connects to [`TcpRelay::address`] to the target, by connections that the test can stop, slow and end.
///
/// A change is in force when the call returns. When the relay is dropped, its connections end.
#[derive(Debug)]
pub(crate) struct TcpRelay {
    address: SocketAddr,
    gate: Arc<Gate>,
    listener: Option<JoinHandle<()>>,
}

impl TcpRelay {
    /// A relay to `target`, where nobody needs to listen yet.
    pub(crate) fn new(target: SocketAddr) -> Self {
        let (listener, address) = listener_beside(target);
        bound_buffers(&listener).expect("buffers of a socket");
        let gate = Arc::new(Gate::new());
        let gate_in = gate.clone();
        let listener = Some(thread::spawn(move || listen(&listener, target, &gate_in)));
        Self { address, gate, listener }
    }

    /// Where the relay listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets no byte and no end of a connection pass, as a pulled cable does. Connections stay open, new ones are accepted, and up to
    /// 1 MiB a direction waits in the relay; nothing is lost.
    pub(crate) fn cut(&self) {
        self.gate.cut();
    }

    /// Ends a cut.
    pub(crate) fn restore(&self) {
        self.gate.restore();
    }

    /// Ends all connections, cut or not, for both sides. What waits in the relay is lost. New connections are accepted.
    pub(crate) fn reset(&self) {
        self.gate.end_all();
    }

    /// Limits each direction to `rate` bytes a second, over all connections.
    pub(crate) fn limit(&self, rate: Option<u64>) {
        assert_ne!(rate, Some(0), "that is a cut");
        self.gate.limit(rate);
    }

    /// Delays bytes that are read from now on, in each direction.
    pub(crate) fn delay(&self, delay: Duration) {
        self.gate.delay(delay);
    }

    /// How many connections are open.
    pub(crate) fn connections(&self) -> usize {
        self.gate.connections()
    }

    /// How many connections were accepted, ever.
    pub(crate) fn accepted(&self) -> u64 {
        self.gate.accepted()
    }
}

impl Drop for TcpRelay {
    fn drop(&mut self) {
        self.gate.close();
        // The listener wakes up for a connection only.
        let _ = TcpStream::connect(self.address);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

/// Listens somewhere. The target's port may be free until somebody listens there; taken for the relay it would connect to itself
/// for ever.
fn listener_beside(target: SocketAddr) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port on loopback");
    let address = listener.local_addr().expect("an address");
    if address == target { listener_beside(target) } else { (listener, address) }
}

/// What a reader hands to its writer, with the time when it is due.
enum Piece {
    Bytes(Vec<u8>),
    /// The sender has ended its direction.
    End,
    /// The sender has ended the connection.
    Broken,
}

type Queue = (Instant, Piece);

/// Accepts connections until the gate is closed, then waits until all of them have ended.
fn listen(listener: &TcpListener, target: SocketAddr, gate: &Gate) {
    thread::scope(|scope| {
        for client in listener.incoming() {
            if gate.is_closed() {
                return;
            }
            let admitted = client.and_then(|client| Ok((gate.admit(client.try_clone()?), client)));
            match admitted {
                Ok((Some(id), client)) => {
                    scope.spawn(move || {
                        let _ = connect(&client, target, gate, id);
                        gate.end(id);
                    });
                }
                Ok((None, _)) => return,
                // Too many open files: others may close some.
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        }
    });
}

/// Connects `client` to `target` when the gate is open, and carries bytes until both directions have ended.
fn connect(client: &TcpStream, target: SocketAddr, gate: &Gate, id: u64) -> io::Result<()> {
    let server = loop {
        if !gate.wait_until_open(id) {
            return Ok(());
        }
        match TcpStream::connect_timeout(&target, Duration::from_secs(1)) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
            other => break other?,
        }
    };
    bound_buffers(&server)?;
    for stream in [client, &server] {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    }
    if gate.add(id, server.try_clone()?) {
        thread::scope(|scope| {
            carry(scope, client, &server, gate, Direction::ToTarget, id);
            carry(scope, &server, client, gate, Direction::FromTarget, id);
        });
    }
    Ok(())
}

/// Starts the threads of one direction.
fn carry<'scope>(
    scope: &'scope Scope<'scope, '_>,
    from: &'scope TcpStream,
    to: &'scope TcpStream,
    gate: &'scope Gate,
    direction: Direction,
    id: u64,
) {
    let (sender, receiver) = sync_channel(PIECES);
    scope.spawn(move || read(from, &sender, gate, id));
    scope.spawn(move || {
        if write(to, &receiver, gate, direction, id).is_err() {
            // The receiver has ended the connection.
            gate.end(id);
        }
    });
}

/// Reads until the sender has ended its direction, or the connection has ended. The latter wakes a thread that reads.
fn read(mut from: &TcpStream, queue: &SyncSender<Queue>, gate: &Gate, id: u64) {
    let mut buffer = vec![0; PIECE];
    while gate.wait_until_open(id) {
        let piece = match from.read(&mut buffer) {
            Ok(0) => Piece::End,
            Ok(len) => Piece::Bytes(buffer[..len].to_vec()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => Piece::Broken,
        };
        let last = !matches!(piece, Piece::Bytes(_));
        if queue.send((gate.due(), piece)).is_err() || last {
            return;
        }
    }
}

/// Writes the pieces of the queue until it ends, or the connection does.
fn write(
    mut to: &TcpStream,
    queue: &Receiver<Queue>,
    gate: &Gate,
    direction: Direction,
    id: u64,
) -> io::Result<()> {
    for (due, piece) in queue {
        let bytes = match &piece {
            Piece::Bytes(bytes) => &bytes[..],
            Piece::End | Piece::Broken => &[],
        };
        let mut done = 0;
        loop {
            let Some(mut pass) = gate.enter(id, direction, due, bytes.len() - done) else { return Ok(()) };
            match piece {
                Piece::Bytes(_) => match to.write(&bytes[done..done + pass.bytes()]) {
                    Ok(written) => {
                        pass.used(written);
                        done += written;
                    }
                    // The receiver does not read: others get the gate before the next attempt.
                    Err(error) if is_temporary(&error) => {}
                    Err(error) => return Err(error),
                },
                Piece::End => to.shutdown(Shutdown::Write)?,
                Piece::Broken => return Err(io::ErrorKind::ConnectionReset.into()),
            }
            if done == bytes.len() {
                break;
            }
        }
    }
    Ok(())
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Connections that `socket` accepts have the same buffers.
fn bound_buffers(socket: &impl AsFd) -> io::Result<()> {
    setsockopt(socket, RcvBuf, &SOCKET_BUFFER)?;
    Ok(setsockopt(socket, SndBuf, &SOCKET_BUFFER)?)
}
