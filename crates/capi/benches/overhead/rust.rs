//! Both ends through the Rust interface.

use std::{os::fd::BorrowedFd, path::Path};

use sealane::{Builder, Channel, Control, Error, Wait};

use crate::{CALL, End, PATIENCE, worker::Report};

pub(crate) fn builder(blocks: bool) -> Builder {
    let builder = Channel::builder();
    if blocks { builder.wait(Wait::Block) } else { builder }
}

pub(crate) struct Host(pub(crate) Channel);

impl End for Host {
    fn call(&mut self, request: &[u8; CALL], fd: Option<BorrowedFd<'_>>) -> [u8; CALL] {
        let reply = self.0.call(Control::new(request).fds(fd), PATIENCE).unwrap();
        reply.control().try_into().expect("a reply")
    }

    fn send(&mut self, bytes: &[u8]) {
        let mut loan = self.0.loan(bytes.len()).unwrap();
        loan.copy_from_slice(bytes);
        loan.send().unwrap();
    }
}

pub(crate) fn work(path: &Path, blocks: bool) {
    let mut channel = builder(blocks).connect(path).unwrap();
    let mut report = Report::default();
    loop {
        let mut message = match channel.recv() {
            Ok(message) => message,
            Err(Error::Disconnected) => return,
            Err(error) => panic!("{error}"),
        };
        if let Some(payload) = message.payload() {
            payload.bytes().for_each_block(|block| report.add(block));
            report.payloads += 1;
        }
        if let Some(token) = message.reply_token() {
            let fd = message.take_fd();
            channel.reply(token, &report.answer(message.control(), fd)).unwrap();
        }
    }
}
