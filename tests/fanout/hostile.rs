//! Publishers against hostile subscribers, subscribers against hostile publishers.

mod dozing;
mod fan;
mod gaps;
mod hostile_publishers;
mod hostile_subscribers;
mod slow;

#[path = "../support/mod.rs"]
mod support;
