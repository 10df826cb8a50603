//! The table of carriers: for each, the file that says how a publisher and its subscribers connect, send and receive.
//!
//! Every carrier is used as its documentation says. No carrier imports another.

mod iceoryx2;
mod sealane;

use anyhow::Result;

use self::{
    iceoryx2::{IceoryxIn, IceoryxOut},
    sealane::{ChannelIn, ChannelsOut, PublisherOut, SubscriberIn},
};
use crate::{
    cell::Part,
    fan_cell::{Carrier, FanCell},
    fan_work::{publish, receive},
    link::Link,
};

/// Does the publisher's part.
pub(crate) fn run_publisher(cell: &FanCell, links: &[Link]) -> Result<Part> {
    let run = match cell.carrier {
        Carrier::SealaneGating | Carrier::SealaneOverrunning => publish::<PublisherOut>,
        Carrier::SealaneChannels => publish::<ChannelsOut>,
        Carrier::Iceoryx2 => publish::<IceoryxOut<false>>,
        Carrier::Iceoryx2Event => publish::<IceoryxOut<true>>,
    };
    run(cell, links)
}

/// Does a subscriber's part.
pub(crate) fn run_subscriber(cell: &FanCell, link: &Link) -> Result<Part> {
    let run = match cell.carrier {
        Carrier::SealaneGating => receive::<SubscriberIn<false>>,
        Carrier::SealaneOverrunning => receive::<SubscriberIn<true>>,
        Carrier::SealaneChannels => receive::<ChannelIn>,
        Carrier::Iceoryx2 => receive::<IceoryxIn<false>>,
        Carrier::Iceoryx2Event => receive::<IceoryxIn<true>>,
    };
    run(cell, link)
}
