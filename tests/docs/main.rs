//! Pages of docs/ that are compared with the code, and the order of the layers.

mod layers;
mod pages;
mod protocol;
mod security;
#[path = "../support/mod.rs"]
mod support;
mod system_calls;
