//! Carrying, until a signal says stop.

use anyhow::Context;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

use super::{plan::Plan, status};

/// Carries what the plan says until SIGINT or SIGTERM.
pub(crate) fn run(plan: &Plan) -> anyhow::Result<()> {
    // Until it is open, signals end the program at once.
    let bridge = plan.open()?;
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("handling signals")?;
    for export in &plan.exports {
        log::info!("exporting {} from {}", export.topic, export.path.display());
    }
    for import in &plan.imports {
        log::info!("importing {} at {}", import.topic, import.path.display());
    }
    let mode = if plan.router { ", passing on" } else { "" };
    log::info!("listening at {:?}, connecting to {:?}{mode}", plan.listen, plan.connect);
    // Without a status it is still a bridge.
    let server = status::Server::start(&bridge)
        .inspect_err(|why| log::warn!("`sealane-bridge status` will not show this bridge: {why:#}"))
        .ok();
    let signal = signals.forever().next();
    log::info!("ending, as signal {} says", signal.unwrap_or(SIGTERM));
    drop(server);
    drop(bridge);
    Ok(())
}
