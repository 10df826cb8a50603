//! A random stream of messages that both ends know: the seed is enough to send it, and to check every bit of it.

use std::{
    fs::File,
    hash::{BuildHasher, RandomState},
    os::{fd::AsFd, unix::fs::FileExt},
};

use rustix::{
    fs::{MemfdFlags, memfd_create},
    io::pread,
};
use sealane::{Control, Message, Payload, Result, Sender};

/// `SplitMix64`: small, and good enough.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A seed for one run of a test, to be printed: or that of an earlier run, from the environment.
    pub(crate) fn seed() -> u64 {
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
        seed.unwrap_or_else(|| RandomState::new().hash_one(0))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    pub(crate) fn one_of<T: Copy>(&mut self, numbers: &[T]) -> T {
        numbers[self.below(numbers.len())]
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len.next_multiple_of(8));
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}

/// Descriptors to send: each stands for a memfd that holds its own number.
pub(crate) struct Files(Vec<File>);

impl Files {
    const COUNT: usize = 10;

    pub(crate) fn new() -> Self {
        let file = |number: usize| {
            let file = File::from(memfd_create("numbered", MemfdFlags::CLOEXEC).unwrap());
            file.write_all_at(&number.to_le_bytes(), 0).unwrap();
            file
        };
        Self((0..Self::COUNT).map(file).collect())
    }

    /// The number that a received descriptor stands for.
    fn number(fd: impl AsFd) -> usize {
        let mut bytes = [0; size_of::<usize>()];
        assert_eq!(pread(fd, &mut bytes, 0).unwrap(), bytes.len());
        usize::from_le_bytes(bytes)
    }
}

/// The largest parts of a message.
#[derive(Clone, Copy)]
pub(crate) struct Most {
    pub(crate) control: usize,
    pub(crate) fds: usize,
    pub(crate) payload: usize,
}

/// The parts of one message.
pub(crate) struct Item {
    name: String,
    control: Vec<u8>,
    /// Numbers of files.
    fds: Vec<usize>,
    pub(crate) payload: Option<Vec<u8>>,
}

impl Item {
    /// All but the payload.
    pub(crate) fn control<'a>(&'a self, files: &'a Files) -> Control<'a> {
        Control::new(&self.control).fds(self.fds.iter().map(|number| &files.0[*number]))
    }

    pub(crate) fn send(&self, sender: &mut Sender, files: &Files) -> Result<()> {
        let control = self.control(files);
        let Some(payload) = &self.payload else { return sender.send(control) };
        let mut loan = sender.loan(payload.len())?;
        loan.copy_from_slice(payload);
        if self.control.is_empty() && self.fds.is_empty() { loan.send() } else { loan.send_with(control) }
    }

    /// Checks everything of a message; its payload only if it has not been taken out.
    pub(crate) fn check(&self, message: &Message) {
        let name = &self.name;
        assert!(message.control() == self.control, "{name}: control bytes");
        let fds: Vec<usize> = message.fds().iter().map(Files::number).collect();
        assert_eq!(fds, self.fds, "{name}: descriptors");
        assert_eq!(message.payload().is_some(), self.payload.is_some(), "{name}: whether there is a payload");
        if let Some(payload) = message.payload() {
            self.check_payload(payload);
        }
    }

    pub(crate) fn check_payload(&self, payload: &Payload) {
        assert!(Some(payload.to_vec()) == self.payload, "{}: payload of {} bytes", self.name, payload.len());
    }
}

/// Messages without end: control bytes, descriptors and payloads in all combinations, of lengths around all that matters.
pub(crate) struct Script {
    seed: u64,
    random: Random,
    count: u64,
    most: Most,
}

impl Script {
    pub(crate) fn new(seed: u64, most: Most) -> Self {
        Self { seed, random: Random(seed), count: 0, most }
    }
}

impl Iterator for Script {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        let Self { seed, random, count, most } = self;
        let name = format!("message {count} of seed {seed}");
        *count += 1;
        let page = rustix::param::page_size();
        let control = match random.below(8) {
            0..3 => 0,
            3..6 => random.below(200),
            6 => random.one_of(&[1, 63, 64, 65]),
            _ => random.below(most.control + 1),
        };
        let fds = match random.below(24) {
            0..16 => 0,
            16..23 => random.below(4),
            _ => random.one_of(&[most.fds, 253, 252, 1]),
        };
        let payload = match random.below(8) {
            0..3 => None,
            3..5 => Some(random.below(1000)),
            5 => Some(random.one_of(&[0, 1, 63, 64, 65, page - 1, page, page + 1, usize::MAX])),
            6 => Some(random.one_of(&[most.payload - 1, most.payload - 63, most.payload - 64])),
            _ => Some(random.below(most.payload / 4)),
        };
        Some(Item {
            name,
            control: random.bytes(control.min(most.control)),
            fds: (0..fds.min(most.fds)).map(|_| random.below(Files::COUNT)).collect(),
            payload: payload.map(|len| random.bytes(len.min(most.payload))),
        })
    }
}
