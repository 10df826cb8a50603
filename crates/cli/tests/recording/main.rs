//! `sealane record` and `sealane replay`, as a person uses them: the command is started, stopped and killed.

mod cuts;
mod files;
mod flat_out;
mod hostile;
mod kills;
mod limits;
mod misuse;
mod replaying;
mod round_trip;
#[path = "../signals/mod.rs"]
mod signals;
mod support;
#[path = "../terminal/mod.rs"]
mod terminal;
mod words;
