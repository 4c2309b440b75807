//! `posthouse version`.

use std::process::ExitCode;

use serde_json::json;

use super::output::Output;

pub fn run(output: Output) -> anyhow::Result<ExitCode> {
    let version = json!({ "name": "posthouse", "version": env!("CARGO_PKG_VERSION"), "format_max": posthouse_storage::FORMAT_MAX });
    output.result(&version, |_| format!("posthouse {}", env!("CARGO_PKG_VERSION")))
}
