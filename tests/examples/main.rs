//! The examples, run as a person or a script runs them.

mod camera_publish;
mod camera_report;
mod camera_sandbox;
mod decoder;
#[path = "../../examples/shared/output.rs"]
#[allow(clippy::allow_attributes, dead_code, reason = "a part of it is used")]
mod output;
#[path = "../../examples/camera/permitted.rs"]
mod permitted;
mod reports;
#[path = "../../examples/shared/sandbox.rs"]
#[allow(clippy::allow_attributes, dead_code, reason = "a part of it is used")]
mod sandbox;
#[path = "../support/mod.rs"]
mod support;
mod viewers;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
