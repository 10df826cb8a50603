//! [`Iceoryx2`]: a publisher and a subscriber in each process, with a service for each direction.
//!
//! Nothing is lost: no overflow, and a publisher that waits for a subscriber that is behind. Payloads are loaned
//! uninitialised and written in place. The receiver polls; with `EVENT` the sender notifies after each message, and a
//! receiver that finds nothing waits for a notification, as in iceoryx2's example of event based communication.

use std::{hint::spin_loop, time::Duration};

use ::iceoryx2::{
    port::{
        listener::Listener, notifier::Notifier, publisher::Publisher, subscriber::Subscriber,
        update_connections::UpdateConnections,
    },
    prelude::*,
};
use anyhow::{Result, anyhow};

use crate::{
    cell::{Cell, Side},
    end::End,
    link::Link,
};

pub(super) struct Iceoryx2<const EVENT: bool> {
    publisher: Publisher<ipc::Service, [u8], ()>,
    subscriber: Subscriber<ipc::Service, [u8], ()>,
    /// Ours wakes the other process, theirs us.
    events: Option<(Notifier<ipc::Service>, Listener<ipc::Service>)>,
    /// The limit of one wait, longer than any work is idle. A notification is lost perhaps once in a hundred cells: with the
    /// limit it shows in the figures, and without it the cell would hang.
    longest_wait: Duration,
    _node: Node<ipc::Service>,
}

impl<const EVENT: bool> End for Iceoryx2<EVENT> {
    type View<'a> = &'a [u8];

    fn connect(side: Side, cell: &Cell, link: &Link) -> Result<Self> {
        set_log_level(LogLevel::Error);
        let name = match side {
            Side::First => {
                let name = format!("peers/{}", std::process::id());
                link.send(name.as_bytes(), &[])?;
                name
            }
            Side::Second => String::from_utf8(link.receive()?.0)?,
        };
        let node = NodeBuilder::new().create::<ipc::Service>()?;
        let direction = |direction: &str| -> Result<_> {
            let name: ServiceName = format!("{name}/{direction}").as_str().try_into()?;
            let service = node
                .service_builder(&name)
                .publish_subscribe::<[u8]>()
                .payload_alignment(Alignment::new(64).ok_or(anyhow!("64 is an alignment"))?)
                .enable_safe_overflow(false)
                .history_size(0)
                .subscriber_max_buffer_size(cell.depth)
                .subscriber_max_borrowed_samples(1)
                .max_publishers(1)
                .max_subscribers(1)
                .open_or_create()?;
            let event = if EVENT {
                Some(node.service_builder(&name).event().max_notifiers(1).max_listeners(1).open_or_create()?)
            } else {
                None
            };
            Ok((service, event))
        };
        let (out, incoming) = match side {
            Side::First => ("there", "back"),
            Side::Second => ("back", "there"),
        };
        let ((out, out_event), (incoming, in_event)) = (direction(out)?, direction(incoming)?);
        let publisher = out
            .publisher_builder()
            .initial_max_slice_len(cell.size)
            .max_loaned_samples(1)
            .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
            .create()?;
        // Where both ends of a connection make it at the same time, one may fail. So each subscriber joins a publisher that is
        // there, and only then does the publisher look for it.
        link.barrier()?;
        let subscriber = incoming.subscriber_builder().create()?;
        link.barrier()?;
        publisher.update_connections()?;
        let events = match (out_event, in_event) {
            (Some(out), Some(incoming)) => {
                Some((out.notifier_builder().create()?, incoming.listener_builder().create()?))
            }
            _ => None,
        };
        let longest_wait = cell.idle().mul_f64(1.2);
        Ok(Self { publisher, subscriber, events, longest_wait, _node: node })
    }

    #[inline]
    fn send(&mut self, len: usize, mut fill: impl FnMut(&mut [u8])) -> Result<()> {
        let sample = self.publisher.loan_slice_uninit(len)?;
        // SAFETY: any bytes are bytes, and these are shared memory, which the kernel has initialised.
        let mut sample = unsafe { sample.assume_init() };
        fill(sample.payload_mut());
        let receivers = sample.send()?;
        anyhow::ensure!(receivers == 1, "expected one subscriber, found {receivers}");
        if let Some((notifier, _)) = &self.events {
            notifier.notify()?;
        }
        Ok(())
    }

    #[inline]
    fn receive(&mut self, _len: usize, mut read: impl FnMut(Self::View<'_>)) -> Result<()> {
        loop {
            if let Some(sample) = self.subscriber.receive()? {
                read(sample.payload());
                return Ok(());
            }
            match &self.events {
                Some((_, listener)) => drop(listener.timed_wait(|_| {}, self.longest_wait)?),
                None => spin_loop(),
            }
        }
    }
}
