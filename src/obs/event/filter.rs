//! Judging mail: verdicts and their reasons, stages and their time, messages that killed a filter.

use std::net::IpAddr;
use std::sync::LazyLock;

use posthouse_mail::{BlobId, Domain, IngestId};
use prometheus::{HistogramVec, IntCounterVec};

use crate::emit::event;
use crate::registry::{counter, histogram};

static VERDICTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter("filter_verdicts_total", "Messages judged, by action and by the stage that decided.", &["action", "reason"])
});
static STAGE_SECONDS: LazyLock<HistogramVec> =
    LazyLock::new(|| histogram("filter_stage_seconds", "Time of a message in a stage.", &["stage"]));
static TIMEOUTS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("filter_stage_timeouts_total", "Stages that ran out of time.", &["stage"]));
static FAILURES: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("filter_stage_failures_total", "Stages that failed.", &["stage"]));
static SPARED: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("filter_stages_spared_total", "Stages left out while DNS was away.", &["stage"]));
static KILLS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("filter_kills_total", "Filter actors killed by a message.", &["stage"]));
static REFUSALS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("filter_refusals_total", "Messages that no filter actor could judge.", &["why"]));
static SIGNATURES: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("dkim_signatures_total", "Outgoing messages signed.", &["outcome"]));

pub(crate) fn register() {
    for action in ["accept", "junk", "quarantine", "defer", "reject"] {
        let _ = VERDICTS.with_label_values(&[action, "none"]);
    }
    for stage in ["lists", "spf", "dkim", "dmarc"] {
        let _ = STAGE_SECONDS.with_label_values(&[stage]);
        let _ = (TIMEOUTS.with_label_values(&[stage]), FAILURES.with_label_values(&[stage]));
        let _ = (SPARED.with_label_values(&[stage]), KILLS.with_label_values(&[stage]));
    }
    for why in ["busy", "timed out", "killed", "failed"] {
        let _ = REFUSALS.with_label_values(&[why]);
    }
    for outcome in ["signed", "no key", "failed"] {
        let _ = SIGNATURES.with_label_values(&[outcome]);
    }
}

event! {
    /// A message went through the pipeline.
    MessageJudged {
        message: IngestId,
        client: IpAddr,
        action: &'static str,
        score: f64,
        /// The stage that decided, or `none`.
        reason: &'static str,
        findings: String,
    }
    info "message judged"
    |event| VERDICTS.with_label_values(&[event.action, event.reason]).inc()
}

event! {
    /// A stage ended, whatever it found.
    StageRan { stage: &'static str, seconds: f64 }
    silent ""
    |event| STAGE_SECONDS.with_label_values(&[event.stage]).observe(event.seconds)
}

event! {
    /// A stage ran out of time.
    StageTimedOut { stage: &'static str, message: IngestId }
    warn "filter stage timed out"
    |event| TIMEOUTS.with_label_values(&[event.stage]).inc()
}

event! {
    /// A stage failed.
    StageFailed { stage: &'static str, message: IngestId, reason: String }
    warn "filter stage failed"
    |event| FAILURES.with_label_values(&[event.stage]).inc()
}

event! {
    /// A stage that needs DNS was left out, since DNS is away.
    StageSpared { stage: &'static str }
    silent ""
    |event| SPARED.with_label_values(&[event.stage]).inc()
}

event! {
    /// No DNS server answers any more; stages that need one are left out until it is back.
    DnsAway {}
    warn "dns does not answer"
}

event! {
    /// DNS answers again.
    DnsBack {}
    info "dns answers again"
}

event! {
    /// A message made a filter actor panic.
    FilterKilled { stage: &'static str, message: IngestId, body: BlobId, kills: usize }
    error "message killed a filter"
    |event| KILLS.with_label_values(&[event.stage]).inc()
}

event! {
    /// No filter actor could judge a message; the client is asked to come back.
    FilterRefused { message: IngestId, why: &'static str }
    warn "message not judged"
    |event| REFUSALS.with_label_values(&[event.why]).inc()
}

event! {
    /// A submitted message was signed, or could not be.
    MessageSigned { domain: Domain, outcome: &'static str }
    trace "message signed"
    |event| SIGNATURES.with_label_values(&[event.outcome]).inc()
}
