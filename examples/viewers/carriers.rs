//! The control bytes of a frame and of a viewer's counts; and the carriers as the publisher has them.

use std::{
    process::{Child, Command},
    time::{Duration, Instant},
};

use sealane::{Channel, Control, Event, Message, Publisher, SubscriberId};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Carrier, Options, Result, clip::Clip, usage::now};

/// The longest wait for the counts of a viewer.
const PATIENCE: Duration = Duration::from_mins(1);

/// The control bytes of a frame.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Stamp {
    pub(crate) number: u64,
    /// The sum of the frame's words.
    pub(crate) sum: u64,
    /// When the frame was published, by the clock that all processes share.
    pub(crate) nanoseconds: u64,
}

/// The control bytes of a viewer's only message.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Counts {
    pub(crate) received: u64,
    pub(crate) missed: u64,
    /// Frames whose bytes were not those that were published.
    pub(crate) torn: u64,
    /// Median of the times from the publication to the receipt, in nanoseconds.
    pub(crate) latency: u64,
    /// CPU time from the subscription to the last frame, in nanoseconds.
    pub(crate) cpu: u64,
}

/// A carrier with its viewers.
pub(crate) enum Out {
    Publisher(Box<Publisher>, Vec<(SubscriberId, Child)>),
    Channels(Vec<(Channel, Child)>),
}

impl Out {
    /// Starts the viewers.
    pub(crate) fn new(
        carrier: Carrier,
        options: &Options,
        size: usize,
        command: impl Fn() -> Result<Command>,
    ) -> Result<Self> {
        let builder = options.builder(size);
        Ok(match carrier {
            Carrier::Publisher => {
                let mut publisher = builder.publisher()?;
                let mut viewers = Vec::new();
                for _ in 0..options.viewers {
                    viewers.push(publisher.spawn(command()?)?);
                }
                Self::Publisher(Box::new(publisher), viewers)
            }
            Carrier::Channels => {
                let mut viewers = Vec::new();
                for _ in 0..options.viewers {
                    viewers.push(builder.spawn(command()?)?);
                }
                Self::Channels(viewers)
            }
        })
    }

    /// Publishes a frame. A channel takes a copy of its own.
    pub(crate) fn publish(&mut self, clip: &Clip, number: u64) -> Result<()> {
        let (bytes, sum) = clip.frame(number);
        let stamp = || Stamp { number, sum, nanoseconds: now() };
        match self {
            Self::Publisher(publisher, _) => {
                let mut loan = publisher.loan(bytes.len())?;
                loan.copy_from_slice(bytes);
                loan.send_with(Control::of(&stamp()))?;
            }
            Self::Channels(viewers) => {
                for (channel, _) in viewers {
                    let mut loan = channel.loan(bytes.len())?;
                    loan.copy_from_slice(bytes);
                    loan.send_with(Control::of(&stamp()))?;
                }
            }
        }
        Ok(())
    }

    /// The counts of all viewers, which send them after the last frame.
    pub(crate) fn counts(&mut self) -> Result<Vec<Counts>> {
        match self {
            Self::Publisher(publisher, viewers) => {
                let mut counts = vec![None; viewers.len()];
                let until = Instant::now() + PATIENCE;
                while counts.iter().any(Option::is_none) {
                    let left = until.saturating_duration_since(Instant::now());
                    let place = |id| viewers.iter().position(|(viewer, _)| *viewer == id);
                    match publisher.wait_event(left)? {
                        Some(Event::Message(id, message)) => {
                            if let Some(place) = place(id) {
                                counts[place] = Some(read(&message)?);
                            }
                        }
                        Some(Event::Left(id, error)) => {
                            if let Some(place) = place(id).filter(|place| counts[*place].is_none()) {
                                return Err(format!("viewer {} has left early: {error}", place + 1).into());
                            }
                        }
                        None if left.is_zero() => {
                            return Err("the counts of all viewers expected, found none".into());
                        }
                        _ => {}
                    }
                }
                Ok(counts.into_iter().flatten().collect())
            }
            Self::Channels(viewers) => {
                viewers.iter_mut().map(|(channel, _)| read(&channel.recv_timeout(PATIENCE)?)).collect()
            }
        }
    }

    /// Ends the carrier, and waits for the viewers.
    pub(crate) fn finish(self) -> Result<()> {
        let children: Vec<Child> = match self {
            Self::Publisher(_, viewers) => viewers.into_iter().map(|(_, child)| child).collect(),
            Self::Channels(viewers) => viewers.into_iter().map(|(_, child)| child).collect(),
        };
        let mut result = Ok(());
        for (place, mut child) in children.into_iter().enumerate() {
            let status = child.wait()?;
            if !status.success() && result.is_ok() {
                result = Err(format!("viewer {} has failed: {status}", place + 1).into());
            }
        }
        result
    }
}

fn read(message: &Message) -> Result<Counts> {
    Ok(*message.control_as::<Counts>()?)
}
