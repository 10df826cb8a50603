//! [`Threads`]: the threads of one topic.

use std::thread::JoinHandle;

use crate::error::{Error, Result};

/// Threads that are waited for in the end.
#[derive(Debug, Default)]
pub(crate) struct Threads(Vec<JoinHandle<()>>);

impl Threads {
    /// Starts a thread.
    pub(crate) fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        self.0.push(thread.map_err(Error::io("starting a thread"))?);
        Ok(())
    }

    /// Waits for all of them, which were told to end.
    pub(crate) fn join(&mut self) {
        for thread in self.0.drain(..) {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if thread.join().is_err() {
                log::error!("the thread `{name}` of a topic has panicked");
            }
        }
    }
}
