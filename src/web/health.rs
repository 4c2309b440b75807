//! `/health/live` and `/health/ready`: what an orchestrator or a load balancer asks.
//!
//! Live means that the process answers at all; ready means that mail sent to this node now would be served. A node that
//! starts or drains is live and not ready.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use crate::router::answer;

/// Whether the node can serve, and if not, what it waits for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Empty when ready; else one short reason for each part that is not.
    pub waiting_for: Vec<String>,
}

/// What the node knows of itself. Asked on every request, so it must answer from memory.
pub trait Health: Send + Sync + 'static {
    fn readiness(&self) -> Readiness;
}

impl<F: Fn() -> Readiness + Send + Sync + 'static> Health for F {
    fn readiness(&self) -> Readiness {
        self()
    }
}

pub(crate) async fn live() -> Response {
    answer(StatusCode::OK, json!({ "live": true }))
}

pub(crate) async fn ready(health: Arc<dyn Health>) -> Response {
    let waiting_for = health.readiness().waiting_for;
    let ready = waiting_for.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(status, json!({ "ready": ready, "waiting_for": waiting_for }))
}
