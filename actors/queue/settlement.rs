//! From the outcomes of an attempt to what is written: who leaves the queue, who waits and until when, who is told what.
//!
//! Apart and without I/O, since here the promise to senders is kept: every recipient either stays in the queue, or was
//! taken by another server, or its sender is told (as far as the sender wants to be).

use posthouse_conf::Queue;
use posthouse_mail::{DeliveryOutcome, EnhancedStatus, ForwardPath, Recipient, UnixMillis};
use posthouse_obs::emit;
use posthouse_obs::event::queue::{RelayBounced, RelayDeferred, RelayDelivered, RelayExpired};
use posthouse_storage::queue::{Later, QueueMessage, Work};
use posthouse_storage::transit::LastOutcome;
use posthouse_wire::dsn::ReportAction;

use super::bounce::{Fate, delivered_there};
use super::schedule::{delay_notice_is_due, next_attempt};

/// What became of one recipient in an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempted {
    pub recipient: Recipient,
    pub outcome: DeliveryOutcome,
    /// The server that took it reports on its own (RFC 3461 §5.2.2).
    pub reports_itself: bool,
}

/// What a settlement will write; the reports about `fates` are still to be made.
#[derive(Debug, Clone)]
pub struct Plan {
    pub finished: Vec<ForwardPath>,
    pub later: Option<Later>,
    pub fates: Vec<Fate>,
}

/// Plans the settlement of one attempt. `chance` spreads the next attempts.
pub fn plan(
    settings: &Queue,
    (message, work): (&QueueMessage, &Work),
    attempted: Vec<Attempted>,
    now: UnixMillis,
    chance: f64,
) -> Plan {
    let due = next_attempt(settings, work.attempt_count, message.expires_at, now, chance);
    let tells_delay = delay_notice_is_due(settings, message.queued_at, now, work.delay_reported);
    let mut plan = Plan { finished: Vec::new(), later: None, fates: Vec::new() };
    for Attempted { recipient, outcome, reports_itself } in attempted {
        let last = LastOutcome::of(&outcome);
        match (outcome, last, due) {
            (DeliveryOutcome::Delivered { host, reply }, _, _) => {
                plan.finished.push(recipient.path.clone());
                if !reports_itself {
                    plan.fates.push(delivered_there(recipient, &host, &reply, now));
                }
            }
            (DeliveryOutcome::Deferred { .. }, Some(outcome), Some(due)) => {
                if tells_delay {
                    let until = Some(message.expires_at);
                    plan.fates.push(fate(recipient, ReportAction::Delayed, outcome.clone(), now, until));
                }
                plan.later = Some(Later { due, outcome, delay_reported: tells_delay || work.delay_reported });
            }
            (DeliveryOutcome::Deferred { .. }, Some(last), None) => {
                plan.finished.push(recipient.path.clone());
                plan.fates.push(fate(recipient, ReportAction::Failed, expired(last), now, None));
            }
            (DeliveryOutcome::Bounced { .. }, Some(last), _) => {
                plan.finished.push(recipient.path.clone());
                plan.fates.push(fate(recipient, ReportAction::Failed, last, now, None));
            }
            // `LastOutcome::of` has a value for all but delivered ones.
            (DeliveryOutcome::Deferred { .. } | DeliveryOutcome::Bounced { .. }, None, _) => {}
        }
    }
    plan
}

/// RFC 3463 §3.5 X.4.7: the delivery time expired. What the last server said stays.
fn expired(last: LastOutcome) -> LastOutcome {
    let reason = format!("delivery was given up after many tries; the last one: {}", last.reason);
    LastOutcome { status: EnhancedStatus::new(5, 4, 7), reason, ..last }
}

fn fate(
    recipient: Recipient,
    action: ReportAction,
    last: LastOutcome,
    now: UnixMillis,
    will_retry_until: Option<UnixMillis>,
) -> Fate {
    Fate { recipient, action, last, attempted_at: Some(now), will_retry_until }
}

/// Tells what became of each recipient; called after the settlement is durable.
pub fn tell(message: &QueueMessage, work: &Work, attempted: &[Attempted], expires: bool, now: UnixMillis) {
    let id = message.transit.id;
    let attempt_count = work.attempt_count.saturating_add(1);
    for Attempted { recipient, outcome, .. } in attempted {
        let recipient = recipient.path.clone();
        match outcome {
            DeliveryOutcome::Delivered { host, reply } => emit(RelayDelivered {
                message: id,
                recipient,
                host: host.clone(),
                reply: reply.to_string(),
                transit_seconds: now.since(message.transit.received_at).as_secs_f64(),
            }),
            DeliveryOutcome::Deferred { .. } if expires => {
                emit(RelayExpired { message: id, recipient, reason: words(outcome), attempt_count });
            }
            DeliveryOutcome::Deferred { .. } => {
                emit(RelayDeferred { message: id, recipient, reason: words(outcome), attempt_count });
            }
            DeliveryOutcome::Bounced { .. } => emit(RelayBounced { message: id, recipient, reason: words(outcome) }),
        }
    }
}

fn words(outcome: &DeliveryOutcome) -> String {
    let Some(last) = LastOutcome::of(outcome) else { return String::new() };
    let host = last.host.map(|host| format!("{host}: ")).unwrap_or_default();
    let reply = last.reply.map(|reply| format!(" ({reply})")).unwrap_or_default();
    format!("{host}{}{reply}", last.reason)
}

#[cfg(test)]
mod tests {
    use posthouse_conf::unit::Span;
    use posthouse_mail::stage::BodyRef;
    use posthouse_mail::{BlobId, BodyType, Domain, IngestId, RemoteReply, ReversePath};
    use posthouse_storage::queue::WorkId;
    use posthouse_storage::transit::Transit;

    use super::*;

    fn message() -> QueueMessage {
        let transit = Transit {
            id: IngestId::new(1),
            reverse_path: ReversePath::parse("s@us.test").expect("a path"),
            body_type: BodyType::SevenBit,
            smtputf8: false,
            envelope_id: None,
            dsn_return: None,
            body: BodyRef { blob: BlobId::new([0; 32]), size: 1 },
            added_headers: Vec::new(),
            received_at: UnixMillis(0),
            account: None,
            client_ip: None,
            hello: String::new(),
            protocol: String::new(),
        };
        QueueMessage { transit, queued_at: UnixMillis(0), expires_at: UnixMillis(100_000), destinations: Vec::new() }
    }

    fn attempted(path: &str, outcome: DeliveryOutcome) -> Attempted {
        let recipient = Recipient::new(ForwardPath::parse(path).expect("a path"));
        Attempted { recipient, outcome, reports_itself: false }
    }

    fn outcomes() -> Vec<Attempted> {
        let host = Some("mx".to_owned());
        let reply = RemoteReply { code: 250, status: None, text: "ok".to_owned() };
        let (later, never) = (EnhancedStatus::new(4, 2, 0), EnhancedStatus::new(5, 1, 1));
        vec![
            attempted("a@x.org", DeliveryOutcome::Delivered { host: "mx".to_owned(), reply }),
            attempted(
                "b@x.org",
                DeliveryOutcome::Deferred {
                    host: host.clone(),
                    status: later,
                    reason: "later".to_owned(),
                    reply: None,
                },
            ),
            attempted(
                "c@x.org",
                DeliveryOutcome::Bounced { host, status: never, reason: "never".to_owned(), reply: None },
            ),
        ]
    }

    fn check(now: u64, finished: &[&str], due: Option<u64>, fates: &[&str]) {
        let settings = Queue {
            schedule: vec![Span::secs(10)],
            jitter_percent: 0,
            delay_notice_after: Span::secs(50),
            ..Queue::default()
        };
        let id = WorkId {
            destination: Domain::parse("x.org").expect("a domain"),
            due: UnixMillis(0),
            message: IngestId::new(1),
        };
        let work = Work {
            id,
            recipients: Vec::new(),
            attempt_count: 0,
            last_attempt_at: None,
            last_outcome: None,
            delay_reported: false,
        };
        let plan = plan(&settings, (&message(), &work), outcomes(), UnixMillis(now), 0.5);
        let paths: Vec<_> = plan.finished.iter().map(ToString::to_string).collect();
        assert_eq!(paths, finished);
        assert_eq!(plan.later.map(|later| later.due.0), due);
        let shown: Vec<_> = plan
            .fates
            .iter()
            .map(|fate| format!("{} {} {}", fate.recipient.path, fate.action.word(), fate.last.status))
            .collect();
        assert_eq!(shown, fates);
    }

    #[test]
    fn each_recipient_has_a_fate_of_its_own() {
        check(0, &["a@x.org", "c@x.org"], Some(10_000), &["a@x.org relayed 2.0.0", "c@x.org failed 5.1.1"]);
    }

    #[test]
    fn the_delay_is_reported_when_it_is_long() {
        let fates = ["a@x.org relayed 2.0.0", "b@x.org delayed 4.2.0", "c@x.org failed 5.1.1"];
        check(60_000, &["a@x.org", "c@x.org"], Some(70_000), &fates);
    }

    #[test]
    fn an_expired_message_is_returned() {
        let fates = ["a@x.org relayed 2.0.0", "b@x.org failed 5.4.7", "c@x.org failed 5.1.1"];
        check(100_000, &["a@x.org", "b@x.org", "c@x.org"], None, &fates);
    }
}
