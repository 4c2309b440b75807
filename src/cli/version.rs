//! `posthouse version`: that of the program, and the formats of records that it reads.

use std::process::ExitCode;

use posthouse_storage::{FORMAT_MAX, FORMAT_MIN};
use serde_json::json;

use super::output::Output;

pub fn run(output: Output) -> anyhow::Result<ExitCode> {
    let version = env!("CARGO_PKG_VERSION");
    let value = json!({ "name": "posthouse", "version": version, "format_min": FORMAT_MIN, "format_max": FORMAT_MAX });
    output.result(&value, |_| format!("posthouse {version}\nrecords of format {FORMAT_MIN} to {FORMAT_MAX}"))
}
