//! iceoryx2: a publisher and its subscribers at one service.
//!
//! Nothing is lost: no overflow, and a publisher that waits for a subscriber that is behind. A subscriber polls, and yields its CPU
//! where there is nothing, since many share one. With `EVENT` the publisher notifies after each message, and a subscriber
//! that finds nothing waits for a notification, as in iceoryx2's example of event based communication.

use std::{thread::yield_now, time::Duration};

use ::iceoryx2::{
    port::{
        listener::Listener, notifier::Notifier, publisher::Publisher, subscriber::Subscriber,
        update_connections::UpdateConnections,
    },
    prelude::*,
    service::port_factory,
};
use anyhow::{Result, anyhow, ensure};

use crate::{
    fan_cell::FanCell,
    fan_ends::{Publish, Receive, Seen},
    link::Link,
};

/// The limit of one wait. A notification is lost perhaps once in a hundred cells.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

type Messages = port_factory::publish_subscribe::PortFactory<ipc::Service, [u8], ()>;
type Events = port_factory::event::PortFactory<ipc::Service>;

fn service(node: &Node<ipc::Service>, name: &str, cell: &FanCell) -> Result<(Messages, Events)> {
    let name: ServiceName = name.try_into()?;
    let nodes = cell.subscribers + 1;
    let messages = node
        .service_builder(&name)
        .publish_subscribe::<[u8]>()
        .payload_alignment(Alignment::new(64).ok_or(anyhow!("64 is an alignment"))?)
        .enable_safe_overflow(false)
        .history_size(0)
        .subscriber_max_buffer_size(cell.depth())
        .subscriber_max_borrowed_samples(1)
        .max_publishers(1)
        .max_subscribers(cell.subscribers)
        .max_nodes(nodes)
        .open_or_create()?;
    let events = node
        .service_builder(&name)
        .event()
        .max_notifiers(1)
        .max_listeners(cell.subscribers)
        .max_nodes(nodes)
        .open_or_create()?;
    Ok((messages, events))
}

pub(super) struct IceoryxOut<const EVENT: bool> {
    publisher: Publisher<ipc::Service, [u8], ()>,
    notifier: Option<Notifier<ipc::Service>>,
    subscribers: usize,
    _node: Node<ipc::Service>,
}

impl<const EVENT: bool> Publish for IceoryxOut<EVENT> {
    fn connect(cell: &FanCell, links: &[Link]) -> Result<Self> {
        set_log_level(LogLevel::Error);
        let name = format!("fanout/{}", std::process::id());
        let node = NodeBuilder::new().create::<ipc::Service>()?;
        let (messages, events) = service(&node, &name, cell)?;
        let publisher = messages
            .publisher_builder()
            .initial_max_slice_len(cell.size)
            .max_loaned_samples(1)
            .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
            .create()?;
        // Each subscriber joins a publisher that is there, and only then does the publisher look for it.
        for link in links {
            link.send(name.as_bytes(), &[])?;
            link.receive_number()?;
        }
        publisher.update_connections()?;
        let notifier = if EVENT { Some(events.notifier_builder().create()?) } else { None };
        Ok(Self { publisher, notifier, subscribers: cell.subscribers, _node: node })
    }

    #[inline]
    fn publish(&mut self, len: usize, mut fill: impl FnMut(&mut [u8])) -> Result<()> {
        let sample = self.publisher.loan_slice_uninit(len)?;
        // SAFETY: any bytes are bytes, and these are shared memory, which the kernel has initialised.
        let mut sample = unsafe { sample.assume_init() };
        fill(sample.payload_mut());
        let (expected, found) = (self.subscribers, sample.send()?);
        ensure!(found == expected, "expected {expected} subscribers, found {found}");
        if let Some(notifier) = &self.notifier {
            notifier.notify()?;
        }
        Ok(())
    }
}

pub(super) struct IceoryxIn<const EVENT: bool> {
    subscriber: Subscriber<ipc::Service, [u8], ()>,
    listener: Option<Listener<ipc::Service>>,
    received: u64,
    _node: Node<ipc::Service>,
}

impl<const EVENT: bool> Receive for IceoryxIn<EVENT> {
    fn connect(cell: &FanCell, link: &Link) -> Result<Self> {
        set_log_level(LogLevel::Error);
        let name = String::from_utf8(link.receive()?.0)?;
        let node = NodeBuilder::new().create::<ipc::Service>()?;
        let (messages, events) = service(&node, &name, cell)?;
        let subscriber = messages.subscriber_builder().create()?;
        let listener = if EVENT { Some(events.listener_builder().create()?) } else { None };
        link.send_number(0)?;
        Ok(Self { subscriber, listener, received: 0, _node: node })
    }

    #[inline]
    fn receive(&mut self) -> Result<Option<Seen>> {
        loop {
            if let Some(sample) = self.subscriber.receive()? {
                let number = self.received;
                self.received += 1;
                return Ok(Some(Seen::read(number, &sample.payload())));
            }
            match &self.listener {
                Some(listener) => drop(listener.timed_wait(|_| {}, LONGEST_WAIT)?),
                None => yield_now(),
            }
        }
    }
}
