//! The library's own wait (src/wait), compiled into a model.

use std::cell::Cell;

use eventcount::{OwnWord, Sent, Sleeper};

#[path = "../../src/wait/deadline.rs"]
pub(crate) mod deadline;
#[path = "../../src/wait/engine.rs"]
pub(crate) mod engine;
#[path = "../../src/wait/eventcount.rs"]
pub(crate) mod eventcount;

/// A sleep word of a model in which memory is sequentially consistent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct ModelWord {
    pub(crate) epoch: u64,
    pub(crate) needs: u64,
}

impl OwnWord for ModelWord {
    fn load(&self) -> u64 {
        self.epoch
    }

    fn store(&mut self, value: u64) {
        self.epoch = value;
    }

    fn store_needs(&mut self, needs: u64) {
        self.needs = needs;
    }

    fn fence(&self) {}
}

/// A peer whose words were loaded in earlier steps, and what its socket does with a doorbell.
pub(crate) struct Seen {
    pub(crate) epoch: u64,
    pub(crate) is_reached: bool,
    pub(crate) sent: Sent,
    pub(crate) doorbells: Cell<u8>,
}

impl Seen {
    pub(crate) fn new(epoch: u64, sent: Sent) -> Self {
        Self { epoch, is_reached: true, sent, doorbells: Cell::new(0) }
    }
}

impl Sleeper for Seen {
    fn fence(&self) {}

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn is_reached(&self) -> bool {
        self.is_reached
    }

    fn ring(&self) -> Sent {
        self.doorbells.set(self.doorbells.get() + 1);
        self.sent
    }
}
