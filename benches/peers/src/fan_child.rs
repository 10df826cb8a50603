//! The processes of a cell of fan-out: this program starts itself once as the publisher and once for each subscriber.
//!
//! The publisher has a link to each subscriber. Each process writes its [`Part`] to standard output as JSON.

use std::{
    os::fd::{FromRawFd, OwnedFd},
    process::Child,
    thread::available_parallelism,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::{
    cell::Part,
    child::{LINK, finish, limit, pin, report, start_self},
    fan_carriers,
    fan_cell::{FanCell, FanSample, Place},
    link::Link,
};

/// Seconds after which a cell is stuck.
const LIMIT: f64 = 60.0;

/// Starts all processes and waits for their reports.
pub(crate) fn measure(cell: &FanCell, round: usize) -> Result<FanSample> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..cell.subscribers {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        ours.push(a);
        theirs.push(b);
    }
    // If one cannot be started, the links end with this call, and so do the others.
    let mut started = vec![start(Place::Publisher, cell, ours)];
    let subscribers = theirs.into_iter().enumerate();
    started.extend(subscribers.map(|(index, link)| start(Place::Subscriber(index), cell, vec![link])));
    let finished: Vec<Result<Part>> = started.into_iter().map(|child| finish(child?)).collect();
    // The process that failed first is often not the first that is looked at: report all.
    let reasons: Vec<String> = finished
        .iter()
        .enumerate()
        .filter_map(|(place, part)| Some(format!("process {place}: {:#}", part.as_ref().err()?)))
        .collect();
    if !reasons.is_empty() {
        bail!("{}", reasons.join("; "));
    }
    let mut parts = finished.into_iter().flatten();
    let publisher = parts.next().context("expected a publisher, found none")?;
    Ok(FanSample { round, cell: cell.clone(), publisher, received: parts.collect() })
}

fn start(place: Place, cell: &FanCell, links: Vec<OwnedFd>) -> Result<Child> {
    start_self(&["fan-child", &serde_json::to_string(&place)?, &serde_json::to_string(cell)?], links)
}

/// The whole life of a child.
pub(crate) fn run(place: Place, cell: &FanCell) -> Result<()> {
    limit(Duration::from_secs_f64(LIMIT + 20.0 * cell.seconds))?;
    pin(place.cpu(available_parallelism().map_or(1, usize::from)))?;
    // SAFETY: the parent has put the link there (`start`), and nothing else in this process has taken it.
    let link = |fd| Link(unsafe { OwnedFd::from_raw_fd(fd) });
    let part = match place {
        Place::Publisher => {
            let links: Vec<Link> = (LINK..).take(cell.subscribers).map(link).collect();
            fan_carriers::run_publisher(cell, &links)?
        }
        Place::Subscriber(_) => fan_carriers::run_subscriber(cell, &link(LINK))?,
    };
    report(&part)
}
