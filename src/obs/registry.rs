//! The metrics of this process. Each file under `event/` makes its own here; `encode` renders them all for `/metrics`.

use std::sync::LazyLock;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::new);

/// A counter; names end in `_total`.
pub(crate) fn counter(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let metric = IntCounterVec::new(Opts::new(name, help), labels).expect("metric names are fixed and valid");
    REGISTRY.register(Box::new(metric.clone())).expect("each metric is made once");
    metric
}

/// A value that goes up and down.
pub(crate) fn gauge(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    let metric = IntGaugeVec::new(Opts::new(name, help), labels).expect("metric names are fixed and valid");
    REGISTRY.register(Box::new(metric.clone())).expect("each metric is made once");
    metric
}

/// Durations; names end in `_seconds`.
pub(crate) fn histogram(name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    let buckets = vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];
    let options = HistogramOpts::new(name, help).buckets(buckets);
    let metric = HistogramVec::new(options, labels).expect("metric names are fixed and valid");
    REGISTRY.register(Box::new(metric.clone())).expect("each metric is made once");
    metric
}

/// Every metric in the text format of Prometheus.
pub fn encode() -> String {
    crate::event::register();
    TextEncoder::new().encode_to_string(&REGISTRY.gather()).unwrap_or_else(|error| format!("# {error}\n"))
}
