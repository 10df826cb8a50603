//! `sealane-bridge export`, `import`, `run` and `router`: a bridge until a signal ends it.

use std::{process::ExitCode, sync::Arc};

use anyhow::Result;
use sealane_bridge::{Bridge, Role};

use super::{log as logging, plan::Plan, status::server, stop::Stop};

/// Carries what the plan says until it is asked to end.
pub(crate) fn run(plan: &Plan) -> Result<ExitCode> {
    logging::start();
    let mut stop = Stop::on_signals()?;
    let mut bridge = Bridge::open(&plan.network)?;
    stop.started();
    for carried in &plan.topics {
        bridge = match carried.role {
            Role::Export => bridge.export(&carried.topic, &carried.path, &carried.settings)?,
            Role::Import => bridge.import(&carried.topic, &carried.path, &carried.settings)?,
        };
    }
    let bridge = Arc::new(bridge);
    let server = server::Server::start(&bridge, plan);
    if let Err(why) = &server {
        // What it carries matters more.
        log::warn!("`sealane-bridge status` will not see this bridge: {why:#}");
    }
    log::info!("{}; its identifier in Zenoh is {}", describe(plan), bridge.id());
    stop.wait();
    log::info!("ends, as a signal asks for it");
    drop(server);
    drop(bridge);
    Ok(ExitCode::SUCCESS)
}

/// What a bridge does, in a line: `exports stats from /run/stats; listens at tcp/[::]:7700`.
fn describe(plan: &Plan) -> String {
    let mut parts = Vec::new();
    for (role, verb, towards) in [(Role::Export, "exports", "from"), (Role::Import, "imports", "to")] {
        let topics = plan.topics.iter().filter(|carried| carried.role == role);
        let topics: Vec<_> =
            topics.map(|carried| format!("{} {towards} {}", carried.topic, carried.path.display())).collect();
        if !topics.is_empty() {
            parts.push(format!("{verb} {}", topics.join(", ")));
        }
    }
    if plan.router {
        parts.push("is a router".into());
    }
    for (verb, endpoints) in [("listens at", &plan.listen), ("connects to", &plan.connect)] {
        if !endpoints.is_empty() {
            parts.push(format!("{verb} {}", endpoints.join(", ")));
        }
    }
    parts.join("; ")
}
