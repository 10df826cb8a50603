//! A supervisor: it starts its peer again whenever that crashes, with the same builder and the same command.

use std::process::{Child, Command, exit};

use sealane::{Builder, Channel, Error, Message, Result};

use crate::{role::role, threads::SOON};

struct Supervised {
    builder: Builder,
    command: Command,
    running: Option<(Channel, Child)>,
    starts: u32,
}

impl Supervised {
    fn new(command: Command) -> Self {
        let builder = Channel::builder().ring_capacity(1 << 16).handshake_timeout(SOON);
        Self { builder, command, running: None, starts: 0 }
    }

    /// Asks once; a peer that crashes meanwhile is started again at the next question.
    fn ask(&mut self, question: &[u8]) -> Result<Message> {
        if self.running.is_none() {
            self.starts += 1;
            self.running = Some(self.builder.spawn(&mut self.command)?);
        }
        let Some((channel, _)) = &mut self.running else { return Err(Error::Disconnected) };
        let answer = channel.call(question, SOON);
        if answer.as_ref().is_err_and(Error::is_fatal)
            && let Some((channel, mut child)) = self.running.take()
        {
            drop(channel);
            let status = child.wait().unwrap();
            assert_eq!(status.code(), Some(101), "it has crashed");
        }
        answer
    }
}

#[test]
fn restart_of_a_crashed_peer() {
    let mut service = Supervised::new(role(serves));
    for round in 1..=3 {
        let answer = service.ask(b"who?").unwrap();
        let pid = answer.control().to_vec();
        assert_eq!(service.ask(b"who?").unwrap().control(), pid, "it is the same process");
        assert!(matches!(service.ask(b"crash"), Err(Error::Disconnected)));
        assert_eq!(service.starts, round);
        // The answer of the one before has been copied out of the socket, and outlives it.
        assert_eq!(answer.control(), pid);
    }
    assert_eq!(service.ask(b"exit").unwrap().control(), b"bye");
    let (channel, mut child) = service.running.take().unwrap();
    drop(channel);
    assert!(child.wait().unwrap().success());
}

#[test]
#[ignore = "the child of another test"]
fn serves() {
    let mut channel = Channel::inherited().unwrap();
    while let Ok(question) = channel.recv() {
        let token = question.reply_token().unwrap();
        match question.control() {
            b"who?" => channel.reply(token, &std::process::id().to_le_bytes()).unwrap(),
            b"exit" => channel.reply(token, b"bye").unwrap(),
            _ => exit(101),
        }
    }
}
