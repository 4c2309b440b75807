//! `[observe]`: logs and metrics.

use serde::{Deserialize, Serialize};

/// Logs and metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Observe {
    /// `error`, `warn`, `info` or `trace`; trace shows the protocol, with secrets left out.
    pub log_level: LogLevel,
    /// `text` for people, `json` for programs. Logs go to standard error.
    pub log_format: LogFormat,
}

impl Default for Observe {
    fn default() -> Self {
        Self { log_level: LogLevel::Info, log_format: LogFormat::Text }
    }
}

/// What is worth a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Trace,
}

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}
