//! Small programs, as users write them: they show that the public interface has a shape in which real code is short. Each
//! runs, and asserts its result.
#![forbid(unsafe_code)]

mod batches;
mod camera;
mod clients;
mod decoder;
mod halves;
mod late_reply;
mod numbers;
mod one_event;
#[path = "../support/process.rs"]
mod process;
mod restart;
#[path = "../support/role.rs"]
mod role;
mod serde;
mod state_machine;
#[path = "../support/threads.rs"]
mod threads;
#[cfg(feature = "tokio")]
mod tokio;
mod try_loop;
mod until_the_end;
