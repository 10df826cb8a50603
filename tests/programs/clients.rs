//! A server with a thousand clients in one thread: one loop for the listener, handshakes and channels.

use std::{collections::HashMap, os::fd::AsFd, thread};

use rustix::event::{Timespec, epoll};
use sealane::{Channel, Control, Error, Handshake, Listener, Result};

use crate::{process::may_open, threads::SOON};

const LISTENER: u64 = 0;

enum Guest {
    Arriving(Box<Handshake>),
    Client(Box<Channel>),
}

struct Server {
    listener: Listener,
    epoll: std::os::fd::OwnedFd,
    guests: HashMap<u64, Guest>,
    next: u64,
    replies: usize,
}

impl Server {
    fn new(listener: Listener) -> Self {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let server = Self { listener, epoll, guests: HashMap::new(), next: 1, replies: 0 };
        server.watch(&server.listener, LISTENER);
        server
    }

    fn watch(&self, fd: impl AsFd, key: u64) {
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(key), epoll::EventFlags::IN).unwrap();
    }

    /// One turn of the loop: everything that has happened.
    fn turn(&mut self) -> Result<()> {
        let mut events = Vec::with_capacity(64);
        let timeout = Timespec::try_from(SOON).unwrap();
        epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)).unwrap();
        assert!(!events.is_empty(), "something happens");
        for event in events {
            match event.data.u64() {
                LISTENER => self.accept()?,
                key => match self.serve(key) {
                    Ok(()) => {}
                    // One client's end is no other's affair. Its descriptors leave the loop when they are closed.
                    Err(_) => drop(self.guests.remove(&key)),
                },
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<()> {
        while let Some(handshake) = self.listener.try_accept()? {
            // The receiver of the channel will have the same descriptor.
            self.watch(&handshake, self.next);
            self.guests.insert(self.next, Guest::Arriving(Box::new(handshake)));
            self.next += 1;
        }
        Ok(())
    }

    fn serve(&mut self, key: u64) -> Result<()> {
        // One that was removed in this turn.
        let Some(guest) = self.guests.get_mut(&key) else { return Ok(()) };
        if let Guest::Arriving(handshake) = guest {
            if !handshake.advance()? {
                return Ok(());
            }
            if let Some(Guest::Arriving(handshake)) = self.guests.remove(&key) {
                self.guests.insert(key, Guest::Client(Box::new(handshake.finish()?)));
            }
        }
        if let Some(Guest::Client(channel)) = self.guests.get_mut(&key) {
            while let Some(message) = channel.try_recv()? {
                if let Some(token) = message.reply_token() {
                    // Its answer is one packet, and it has one question at a time: it fits.
                    channel.sender.try_reply(token, Control::new(message.control()))?;
                    self.replies += 1;
                }
            }
        }
        Ok(())
    }
}

#[test]
fn thousand_clients() {
    let count = if may_open(8192) { 1000 } else { 50 };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("service");
    let builder = Channel::builder().ring_capacity(4096).handshake_timeout(SOON);
    let mut server = Server::new(builder.listen(&path).unwrap());
    let clients = thread::spawn(move || {
        let mut clients: Vec<_> = (0..count).map(|_| builder.connect(&path).unwrap()).collect();
        let mut requests = Vec::new();
        for (n, client) in clients.iter_mut().enumerate() {
            requests.push(client.request(Control::of(&n)).unwrap());
        }
        for (n, (client, request)) in clients.iter_mut().zip(requests).enumerate() {
            let reply = client.receiver.wait_reply(request, SOON).unwrap();
            assert_eq!(*reply.control_as::<usize>().unwrap(), n);
        }
    });
    while server.replies < count || !server.guests.is_empty() {
        server.turn().unwrap();
    }
    clients.join().unwrap();
    assert!(matches!(server.listener.try_accept(), Ok(None) | Err(Error::Full)));
}
