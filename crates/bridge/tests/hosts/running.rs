//! Programs that do not outlive the test.

use std::{
    ops::{Deref, DerefMut},
    process::{Child, Command},
};

/// A child that is killed and waited for when this is dropped, also when the test panics.
#[derive(Debug)]
pub(crate) struct Running(Child);

impl Running {
    /// Starts `command`.
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}")))
    }
}

impl Deref for Running {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Neither does anything to a child that has been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
