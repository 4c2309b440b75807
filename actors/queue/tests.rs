//! Mail through spool, queue and relay to hosts on loopback; apart for their length only.
#![allow(clippy::unwrap_used)]

pub(crate) mod fixture;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use posthouse_conf::unit::Span;
use posthouse_mail::{DsnNotify, Envelope, ForwardPath, Recipient, ReversePath};
use posthouse_storage::queue;

use super::settlement::Attempted;
use crate::clock;
use crate::relay::{Courier, Line, Load, SmtpCourier};
use fixture::{Host, Manner, Site, TestNames, settings};

const TEXT: &str = "From: s@us.test\r\nSubject: hi\r\n\r\n.dots\r\nbody\r\n";

fn there(preference: u16, last: u8) -> TestNames {
    TestNames::default().mx("there.test", preference, last)
}

#[tokio::test]
async fn mail_reaches_the_remote_host_whole() {
    let host = Host::listen(2, 0, Manner::Accept).await;
    let site = Site::new(settings(host.port), there(10, 2)).await;
    site.accept("alice@us.test", &["a@there.test", "b@there.test"], TEXT).await;
    let taken = host.next().await;
    assert!(taken.from.starts_with("MAIL FROM:<alice@us.test> SIZE="), "{taken:?}");
    assert_eq!(taken.to, ["RCPT TO:<a@there.test>", "RCPT TO:<b@there.test>"]);
    assert_eq!(taken.data, format!("Received: by us.test\r\n{}", TEXT.replace("\r\n.dots", "\r\n..dots")));
    site.settled().await;
}

#[tokio::test]
async fn rfc5321_5_1_the_next_mx_is_tried_at_once() {
    let unwilling = Host::listen(2, 0, Manner::Unwilling).await;
    let defers = Host::listen(3, unwilling.port, Manner::DeferAll).await;
    let accepts = Host::listen(5, unwilling.port, Manner::Accept).await;
    // Nobody listens at 127.0.0.4.
    let names = there(10, 2).mx("there.test", 20, 3).mx("there.test", 30, 4).mx("there.test", 40, 5);
    let mut settings = settings(unwilling.port);
    settings.queue.schedule = vec![Span::hours(1)];
    let site = Site::new(settings, names).await;
    site.accept("alice@us.test", &["a@there.test"], TEXT).await;
    accepts.next().await;
    site.settled().await;
    assert_eq!((unwilling.connections.load(Ordering::SeqCst), defers.connections.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test]
async fn refused_recipients_come_back_as_a_report() {
    let host = Host::listen(2, 0, Manner::RefuseSome).await;
    let site = Site::new(settings(host.port), there(10, 2)).await;
    site.accept("alice@us.test", &["good@there.test", "refused@there.test"], TEXT).await;
    assert_eq!(host.next().await.to, ["RCPT TO:<good@there.test>"]);
    let (account, report) = site.delivered().await;
    assert_eq!(account, 1);
    assert!(report.starts_with("Return-Path: <>\r\n"), "{report}");
    for line in
        ["Final-Recipient: rfc822; refused@there.test", "Action: failed", "Status: 5.1.1", "Remote-MTA: dns; mx2.test"]
    {
        assert!(report.lines().any(|found| found == line), "{line:?} in {report}");
    }
    assert!(!report.contains("good@there.test"));
    assert!(report.contains("Subject: hi"), "the header is returned");
    site.settled().await;
}

#[tokio::test]
async fn a_domain_that_does_not_exist_is_final() {
    let site = Site::new(settings(9), TestNames::default()).await;
    site.accept("alice@us.test", &["a@nowhere.test"], TEXT).await;
    assert!(site.delivered().await.1.contains("Status: 5.1.2"));
    site.settled().await;
}

#[tokio::test]
async fn reports_cause_no_reports() {
    let site = Site::new(settings(9), TestNames::default()).await;
    site.accept("", &["a@nowhere.test", "nobody@us.test"], TEXT).await;
    site.settled().await;
    site.accept("alice@us.test", &["bob@us.test"], TEXT).await;
    assert_eq!(site.delivered().await.0, 2, "the first delivery is no report");
}

#[tokio::test]
async fn expired_mail_is_returned_with_the_last_answer() {
    let host = Host::listen(2, 0, Manner::DeferAll).await;
    let mut settings = settings(host.port);
    settings.queue.expire_after = Span::ms(400);
    let site = Site::new(settings, there(10, 2)).await;
    site.accept("alice@us.test", &["a@there.test"], TEXT).await;
    let (_, report) = site.delivered().await;
    assert!(report.contains("Status: 5.4.7") && report.contains("smtp; 451 4.2.0 later"), "{report}");
    site.settled().await;
}

#[tokio::test]
async fn a_long_delay_is_told_once() {
    let host = Host::listen(2, 0, Manner::DeferAll).await;
    let mut settings = settings(host.port);
    settings.queue.delay_notice_after = Span::ms(1);
    settings.queue.expire_after = Span::secs(10);
    let site = Site::new(settings, there(10, 2)).await;
    site.accept("alice@us.test", &["a@there.test"], TEXT).await;
    let (_, report) = site.delivered().await;
    assert!(report.contains("Action: delayed") && report.contains("Will-Retry-Until:"), "{report}");
    let (_, report) = site.delivered().await;
    assert!(report.contains("Action: failed"), "{report}");
    site.settled().await;
}

#[tokio::test]
async fn rfc5321_6_1_a_lost_reply_means_a_second_copy() {
    let host = Host::listen(2, 0, Manner::LoseFirstReply).await;
    let site = Site::new(settings(host.port), there(10, 2)).await;
    site.accept("alice@us.test", &["a@there.test"], TEXT).await;
    let (first, second) = (host.next().await, host.next().await);
    assert_eq!(first, second);
    site.settled().await;
}

#[tokio::test]
async fn opportunistic_tls_goes_on_in_the_clear() {
    let host = Host::listen(2, 0, Manner::BrokenTls).await;
    let site = Site::new(settings(host.port), there(10, 2)).await;
    site.accept("alice@us.test", &["a@there.test"], TEXT).await;
    host.next().await;
    site.settled().await;
    assert_eq!(host.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_connection_is_used_for_the_next_message() {
    let host = Host::listen(2, 0, Manner::Accept).await;
    let mut settings = settings(host.port);
    settings.queue.connections_per_domain_max = 1;
    settings.queue.idle_connection_ttl = Span::secs(60);
    let site = Site::new(settings, there(10, 2)).await;
    for _ in 0..3 {
        site.accept("alice@us.test", &["a@there.test"], TEXT).await;
        host.next().await;
    }
    site.settled().await;
    assert_eq!(host.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn mail_that_leads_back_here_is_not_sent() {
    let host = Host::listen(99, 0, Manner::Accept).await;
    let site = Site::new(settings(host.port), there(10, 99)).await;
    site.accept("alice@us.test", &["a@there.test"], TEXT).await;
    assert!(site.delivered().await.1.contains("Status: 5.4.6"));
    assert_eq!(host.connections.load(Ordering::SeqCst), 0);
    site.settled().await;
}

/// Panics a few times before it lets the real courier work.
struct Faulty {
    real: SmtpCourier,
    panics: AtomicUsize,
}

impl Courier for Faulty {
    fn carry<'a>(&'a self, load: &'a Load, line: &'a mut Line) -> BoxFuture<'a, Vec<Attempted>> {
        let panics = self.panics.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        assert!(!panics, "a courier of the test panics");
        self.real.carry(load, line)
    }

    fn hang_up<'a>(&'a self, line: &'a mut Line) -> BoxFuture<'a, ()> {
        self.real.hang_up(line)
    }
}

#[tokio::test]
async fn a_relay_that_panics_is_replaced_and_the_mail_delivered() {
    let host = Host::listen(2, 0, Manner::Accept).await;
    let before = relay_restarts();
    let wrap = |real| -> Arc<dyn Courier> { Arc::new(Faulty { real, panics: AtomicUsize::new(3) }) };
    let site = Site::with(settings(host.port), there(10, 2), wrap).await;
    site.accept("alice@us.test", &["a@there.test"], TEXT).await;
    host.next().await;
    site.settled().await;
    assert_eq!(host.connections.load(Ordering::SeqCst), 1);
    assert!(relay_restarts() >= before + 3, "each panic is counted");
}

/// What `/metrics` says of relays that were replaced.
fn relay_restarts() -> u64 {
    let metrics = posthouse_obs::encode();
    let line = "actor_restarts_total{kind=\"relay\"} ";
    metrics.lines().find_map(|text| text.strip_prefix(line)?.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn an_administrator_hurries_and_returns_mail() {
    let host = Host::listen(2, 0, Manner::DeferAll).await;
    let mut settings = settings(host.port);
    settings.queue.schedule = vec![Span::hours(1)];
    let site = Site::new(settings, there(10, 2)).await;
    let id = site.accept("alice@us.test", &["a@there.test"], TEXT).await;
    let deferred = async {
        loop {
            let works = queue::works_of(&site.store, id).await.unwrap();
            if let Some(work) = works.into_iter().find(|work| work.attempt_count > 0) {
                return work;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let first = tokio::time::timeout(fixture::PATIENCE, deferred).await.unwrap();
    assert!(site.queues.retry(&first.id).await.unwrap());
    let again = async {
        loop {
            let works = queue::works_of(&site.store, id).await.unwrap();
            if let Some(work) = works.into_iter().find(|work| work.attempt_count > 1) {
                return work;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let second = tokio::time::timeout(fixture::PATIENCE, again).await.unwrap();
    assert!(!site.queues.retry(&first.id).await.unwrap(), "the old row is gone");
    while site.queues.bounce(&second.id).await != Ok(true) {
        tokio::task::yield_now().await;
    }
    assert!(site.delivered().await.1.contains("the administrator"));
    site.settled().await;
    assert!(!site.queues.bounce(&second.id).await.unwrap());
}

#[tokio::test]
async fn rfc3461_5_2_2_success_is_reported_where_the_host_reports_nothing() {
    let host = Host::listen(2, 0, Manner::Accept).await;
    let site = Site::new(settings(host.port), there(10, 2)).await;
    let now = clock::now();
    let mut envelope = Envelope::new(clock::ingest_id(now), ReversePath::parse("alice@us.test").unwrap());
    for path in ["a@there.test", "bob@us.test"] {
        let mut recipient = Recipient::new(ForwardPath::parse(path).unwrap());
        recipient.notify = DsnNotify { success: true, failure: true, delay: false };
        envelope.recipients.push(recipient);
    }
    site.accept_envelope(envelope, TEXT, now).await;
    host.next().await;
    let mut texts = Vec::new();
    for _ in 0..3 {
        texts.push(site.delivered().await.1);
    }
    assert!(texts.iter().any(|text| text.contains("Action: relayed")), "{texts:?}");
    assert!(texts.iter().any(|text| text.contains("Action: delivered")), "{texts:?}");
    site.settled().await;
}

#[tokio::test]
async fn idle_queues_leave_memory_and_come_back() {
    let host = Host::listen(2, 0, Manner::Accept).await;
    let site = Site::new(settings(host.port), there(10, 2)).await;
    for _ in 0..2 {
        site.accept("alice@us.test", &["a@there.test"], TEXT).await;
        host.next().await;
        site.settled().await;
        let asleep = async {
            while site.queues.active() > 0 {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(fixture::PATIENCE, asleep).await.expect("the queue goes to sleep");
    }
}

#[tokio::test]
async fn a_stopping_node_begins_nothing_new() {
    let host = Host::listen(2, 0, Manner::Accept).await;
    let site = Site::new(settings(host.port), there(10, 2)).await;
    site.queues.settle(tokio::time::Instant::now() + fixture::PATIENCE).await;
    let id = site.accept("alice@us.test", &["a@there.test"], TEXT).await;
    let queued = async {
        while queue::message(&site.store, id).await.unwrap().is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(fixture::PATIENCE, queued).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!(host.connections.load(Ordering::SeqCst), 0);
}
