//! One ring, written once, for many subscribers.
//!
//! Owns [`Publisher`] and [`Subscriber`], the lanes between them, the time for which slow subscribers are waited for, who may
//! join, and how a subscriber goes on after it was overrun. The ring, the sockets, the waiting and the handshake are those of
//! a channel.
//!
//! Refuses what a subscriber or a publisher may not do: a violation ends that one subscription.
//!
//! May import: all folders but `tokio`.

mod account;
#[cfg(feature = "tokio")]
mod awaiting;
mod batch;
mod departed;
mod descriptors;
mod feed;
mod gates;
mod info;
mod joining;
mod lane;
mod lanes;
mod loan;
mod poll;
mod publish;
mod published;
mod publisher;
mod room;
mod subscriber;
mod ticks;
mod turn;
mod unread;

pub use self::{
    batch::PublisherBatch,
    info::{Event, Newcomer, SubscriberId, SubscriberInfo},
    loan::PublisherLoan,
    published::Published,
    publisher::Publisher,
    subscriber::Subscriber,
};
