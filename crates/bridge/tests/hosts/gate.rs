//! What the threads of a [`TcpRelay`](super::TcpRelay) share: which connections are open, and when a thread may write.

use std::{
    collections::HashMap,
    net::{Shutdown, TcpStream},
    sync::{Condvar, Mutex, MutexGuard},
    time::{Duration, Instant},
};

/// How long a writer waits for the next bytes that the rate allows.
const TICK: Duration = Duration::from_millis(5);

/// A direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    ToTarget = 0,
    FromTarget = 1,
}

/// The state of a relay. A writer asks before each write ([`Gate::enter`]), so a cut can wait for writes that have begun.
#[derive(Debug)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    cut: bool,
    closed: bool,
    rate: Option<u64>,
    delay: Duration,
    buckets: [Bucket; 2],
    /// Writes that have begun.
    writing: usize,
    /// The connections that are open, by number, each with its sockets. What is not in here is to end.
    connections: HashMap<u64, Vec<TcpStream>>,
    accepted: u64,
}

/// The permission to write some bytes now. It holds up a cut until it is dropped.
#[derive(Debug)]
pub(super) struct Pass<'gate> {
    gate: &'gate Gate,
    direction: Direction,
    bytes: usize,
    /// The bytes to give back to the rate.
    unused: u64,
}

impl Gate {
    /// Open, with no connections.
    pub(super) fn new() -> Self {
        let state = State {
            cut: false,
            closed: false,
            rate: None,
            delay: Duration::ZERO,
            buckets: [Bucket::empty(), Bucket::empty()],
            writing: 0,
            connections: HashMap::new(),
            accepted: 0,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Lets nothing pass, and returns after writes that have begun.
    pub(super) fn cut(&self) {
        let mut state = self.lock();
        state.cut = true;
        while state.writing > 0 {
            state = self.changed.wait(state).expect("no thread panics");
        }
    }

    pub(super) fn restore(&self) {
        self.lock().cut = false;
        self.changed.notify_all();
    }

    pub(super) fn limit(&self, rate: Option<u64>) {
        let mut state = self.lock();
        state.rate = rate;
        state.buckets = [Bucket::empty(), Bucket::empty()];
        self.changed.notify_all();
    }

    pub(super) fn delay(&self, delay: Duration) {
        self.lock().delay = delay;
    }

    /// When bytes that are read now are due.
    pub(super) fn due(&self) -> Instant {
        Instant::now() + self.lock().delay
    }

    pub(super) fn connections(&self) -> usize {
        self.lock().connections.len()
    }

    pub(super) fn accepted(&self) -> u64 {
        self.lock().accepted
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Admits a connection, unless the gate is closed.
    pub(super) fn admit(&self, client: TcpStream) -> Option<u64> {
        let mut state = self.lock();
        if state.closed {
            return None;
        }
        state.accepted += 1;
        let id = state.accepted;
        state.connections.insert(id, vec![client]);
        Some(id)
    }

    /// Adds a socket to a connection. `false`: the connection is to end.
    pub(super) fn add(&self, id: u64, server: TcpStream) -> bool {
        let mut state = self.lock();
        let Some(sockets) = state.connections.get_mut(&id) else { return false };
        sockets.push(server);
        true
    }

    /// Ends a connection, if it is open: threads that read, write or wait for it wake up.
    pub(super) fn end(&self, id: u64) {
        if let Some(sockets) = self.lock().connections.remove(&id) {
            shut(&sockets);
        }
        self.changed.notify_all();
    }

    pub(super) fn end_all(&self) {
        self.lock().connections.drain().for_each(|(_, sockets)| shut(&sockets));
        self.changed.notify_all();
    }

    /// Ends all connections, and admits no other.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.end_all();
    }

    /// Waits while there is a cut. `false`: the connection is to end.
    pub(super) fn wait_until_open(&self, id: u64) -> bool {
        let mut state = self.lock();
        while state.cut && state.connections.contains_key(&id) {
            state = self.changed.wait(state).expect("no thread panics");
        }
        state.connections.contains_key(&id)
    }

    /// Waits until some of `len` bytes that are due at `due` may be written. `None`: the connection is to end.
    pub(super) fn enter(&self, id: u64, direction: Direction, due: Instant, len: usize) -> Option<Pass<'_>> {
        let mut state = self.lock();
        loop {
            if !state.connections.contains_key(&id) {
                return None;
            }
            let now = Instant::now();
            if state.cut {
                state = self.changed.wait(state).expect("no thread panics");
                continue;
            }
            let mut wait = due.saturating_duration_since(now);
            if wait.is_zero() {
                let bytes = match state.rate {
                    Some(rate) => state.buckets[direction as usize].take(len, rate, now),
                    None => len,
                };
                if bytes > 0 || len == 0 {
                    state.writing += 1;
                    let unused = if state.rate.is_some() { bytes as u64 } else { 0 };
                    return Some(Pass { gate: self, direction, bytes, unused });
                }
                wait = TICK;
            }
            state = self.changed.wait_timeout(state, wait).expect("no thread panics").0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics")
    }
}

impl Pass<'_> {
    /// How many bytes may be written.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Says that `bytes` were written. The others go back to the rate.
    pub(super) fn used(&mut self, bytes: usize) {
        self.unused = self.unused.saturating_sub(bytes as u64);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.buckets[self.direction as usize].tokens += self.unused;
        state.writing -= 1;
        if state.cut {
            self.gate.changed.notify_all();
        }
    }
}

/// A token bucket: a token is a byte that may pass.
#[derive(Debug)]
struct Bucket {
    tokens: u64,
    filled_at: Instant,
}

impl Bucket {
    fn empty() -> Self {
        Self { tokens: 0, filled_at: Instant::now() }
    }

    /// Takes up to `len` tokens at a rate of `rate` tokens a second. The bucket holds those of 20 ms.
    fn take(&mut self, len: usize, rate: u64, now: Instant) -> usize {
        const SECOND: u128 = 1_000_000_000;
        let elapsed = now.saturating_duration_since(self.filled_at).as_nanos();
        let new = u64::try_from(elapsed * u128::from(rate) / SECOND).unwrap_or(u64::MAX);
        if new > 0 {
            // The time that no whole token was given for counts later.
            let used = u128::from(new) * SECOND / u128::from(rate);
            self.filled_at += Duration::from_nanos(u64::try_from(used).unwrap_or(u64::MAX));
            self.tokens = self.tokens.saturating_add(new).min((rate / 50).max(1));
        }
        let taken = self.tokens.min(len as u64);
        self.tokens -= taken;
        usize::try_from(taken).expect("no more than `len`")
    }
}

/// Wakes threads that read or write `sockets`. An error means that the peer was faster.
fn shut(sockets: &[TcpStream]) {
    for socket in sockets {
        let _ = socket.shutdown(Shutdown::Both);
    }
}
