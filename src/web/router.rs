//! Which path answers what; every answer but `/metrics` is JSON, refusals included.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use serde_json::{Value, json};

use crate::health::{Health, live, ready};

/// The routes of the metrics port.
pub fn router(health: Arc<dyn Health>) -> Router {
    let asked = Arc::clone(&health);
    // Whoever keeps a connection to a node that goes away is to look for another one.
    let part = move |mut response: Response| {
        if !asked.readiness().waiting_for.is_empty() {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        async { response }
    };
    Router::new()
        .route("/metrics", get(metrics))
        .route("/health/live", get(live))
        .route("/health/ready", get(move || ready(Arc::clone(&health))))
        .fallback(|| async { answer(StatusCode::NOT_FOUND, json!({ "error": "no such path" })) })
        .method_not_allowed_fallback(|| async {
            answer(StatusCode::METHOD_NOT_ALLOWED, json!({ "error": "only GET is possible here" }))
        })
        .layer(axum::middleware::map_response(part))
}

async fn metrics() -> Response {
    response(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", posthouse_obs::encode())
}

/// A JSON answer.
pub(crate) fn answer(status: StatusCode, body: Value) -> Response {
    response(status, "application/json", body.to_string())
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    // Health and figures are true for this moment only.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
