//! Tests of reports: what a sender's program would find in them. Apart for their length only.
#![allow(clippy::unwrap_used)]

use posthouse_mail::structure::BodyPart;

use super::*;
use crate::mime::{Limits, decoded_part, parse_structure};

fn failed(path: &str) -> ReportedRecipient {
    ReportedRecipient {
        path: ForwardPath::parse(path).unwrap(),
        original: Some(OriginalRecipient { address_type: "rfc822".into(), address: "alias@there.test".into() }),
        action: ReportAction::Failed,
        status: EnhancedStatus::new(5, 1, 1),
        reason: "the server refused".into(),
        remote_mta: Some("mx.there.test".into()),
        reply: Some(RemoteReply {
            code: 550,
            status: Some(EnhancedStatus::new(5, 1, 1)),
            text: "no\r\nSuch: user, ".to_owned() + &"really ".repeat(40),
        }),
        last_attempt_at: Some(UnixMillis(2_000)),
        will_retry_until: None,
    }
}

const ORIGINAL: &[u8] = b"From: s@us.test\r\nMessage-ID: <1@us.test>\r\nSubject: x\r\n\r\nbody\r\n";

fn write(recipients: &[ReportedRecipient], original: Original<'_>) -> Dsn {
    let to = Address::parse("s@us.test").unwrap();
    let report = Report {
        hostname: "mx.us.test",
        to: &to,
        now: UnixMillis(3_000),
        arrived_at: UnixMillis(1_000),
        unique: "r1",
        envelope_id: Some("QQ314159"),
        recipients,
        original,
    };
    report.to_dsn()
}

/// The report's root, and the text of its parts with encodings undone.
fn read(dsn: &Dsn) -> (BodyPart, Vec<String>) {
    let message = &dsn.message;
    let root = parse_structure(message, message.len() as u64, Limits::default()).root.unwrap();
    let text = |part: &BodyPart| {
        let range = usize::try_from(part.body_start).unwrap()..usize::try_from(part.body_end).unwrap();
        decoded_part(part, &message[range], 100_000)
    };
    let texts = root.children.iter().map(text).collect();
    (root, texts)
}

fn types(root: &BodyPart) -> Vec<String> {
    root.children.iter().map(|part| format!("{}/{}", part.media_type, part.media_subtype)).collect()
}

#[test]
fn rfc3464_2_a_report_has_three_parts() {
    let dsn = write(&[failed("r@there.test")], Original::Header(ORIGINAL));
    let (root, texts) = read(&dsn);
    assert_eq!((root.media_type.as_str(), root.media_subtype.as_str()), ("multipart", "report"));
    assert_eq!(root.parameters[0].value, "delivery-status");
    assert_eq!(types(&root), ["text/plain", "message/delivery-status", "text/rfc822-headers"]);
    assert_eq!(texts[2], "From: s@us.test\r\nMessage-ID: <1@us.test>\r\nSubject: x\r\n");
    let status = texts[1].replace("\r\n ", " ");
    for line in [
        "Original-Envelope-Id: QQ314159",
        "Reporting-MTA: dns; mx.us.test",
        "Arrival-Date: Thu, 01 Jan 1970 00:00:01 +0000",
        "",
        "Original-Recipient: rfc822; alias@there.test",
        "Final-Recipient: rfc822; r@there.test",
        "Action: failed",
        "Status: 5.1.1",
        "Remote-MTA: dns; mx.there.test",
        "Last-Attempt-Date: Thu, 01 Jan 1970 00:00:02 +0000",
    ] {
        assert!(status.lines().any(|found| found == line), "{line:?} in {status}");
    }
    assert!(status.contains("Diagnostic-Code: smtp; 550 5.1.1 no Such: user, really"), "{status}");
    assert!(texts[1].lines().all(|line| line.len() <= 78));
    assert!(!dsn.needs_smtputf8);
}

#[test]
fn the_header_says_what_responders_and_readers_need() {
    let dsn = write(&[failed("r@there.test")], Original::Header(ORIGINAL));
    let header = String::from_utf8(dsn.message.clone()).unwrap();
    for line in [
        "To: <s@us.test>",
        "Auto-Submitted: auto-replied",
        "In-Reply-To: <1@us.test>",
        "MIME-Version: 1.0",
        "Message-ID: <r1@mx.us.test>",
    ] {
        assert!(header.lines().any(|found| found == line), "{line}");
    }
}

#[test]
fn rfc3461_4_3_the_whole_message_only_when_asked_for_and_small() {
    let failed = [failed("r@there.test")];
    assert!(returns_full(Some(DsnReturn::Full), &failed, 100, 100));
    assert!(!returns_full(Some(DsnReturn::Full), &failed, 101, 100));
    assert!(!returns_full(None, &failed, 1, 100));
    let delivered = [ReportedRecipient { action: ReportAction::Delivered, ..failed[0].clone() }];
    assert!(!returns_full(Some(DsnReturn::Full), &delivered, 1, 100));
    let (root, texts) = read(&write(&failed, Original::Full(ORIGINAL)));
    assert_eq!(types(&root)[2], "message/rfc822");
    assert_eq!(texts[2].as_bytes(), ORIGINAL);
}

#[test]
fn rfc3464_2_3_9_only_delayed_recipients_have_will_retry_until() {
    let until = Some(UnixMillis(9_000));
    let delayed = ReportedRecipient { action: ReportAction::Delayed, will_retry_until: until, ..failed("r@x.test") };
    let (_, texts) = read(&write(&[delayed], Original::Header(ORIGINAL)));
    assert!(texts[1].contains("Action: delayed\r\n"));
    assert!(texts[1].contains("Will-Retry-Until: Thu, 01 Jan 1970 00:00:09 +0000"));
    let (_, texts) = read(&write(
        &[ReportedRecipient { will_retry_until: until, ..failed("r@x.test") }],
        Original::Header(ORIGINAL),
    ));
    assert!(!texts[1].contains("Will-Retry-Until"));
}

#[test]
fn rfc6533_4_addresses_and_headers_with_utf8() {
    let header = "Subject: héllo\r\nFrom: s@us.test\r\n\r\n";
    let dsn = write(&[failed("dömi@there.test")], Original::Header(header.as_bytes()));
    let (root, texts) = read(&dsn);
    assert_eq!(types(&root), ["text/plain", "message/global-delivery-status", "message/global-headers"]);
    assert!(texts[1].contains("Final-Recipient: utf-8; dömi@there.test"));
    assert!(texts[2].contains("Subject: héllo"));
    assert!(dsn.message.is_ascii(), "the parts are encoded, so the report itself travels anywhere");
    let latin1 = b"Subject: h\xe9llo\r\n\r\n";
    assert_eq!(types(&read(&write(&[failed("r@x.test")], Original::Header(latin1))).0)[2], "text/rfc822-headers");
}

#[test]
fn foreign_text_cannot_add_fields_or_parts() {
    let mut evil = failed("r@there.test");
    evil.reason = "x\r\n--=_report_r1--\r\n".into();
    evil.remote_mta = Some("mx\r\nAction: delivered".into());
    let (root, texts) = read(&write(&[evil], Original::Header(ORIGINAL)));
    assert_eq!(root.children.len(), 3);
    assert_eq!(texts[1].matches("\r\nAction:").count(), 1);
}

#[test]
fn rfc3461_4_1_notify_chooses_reports() {
    let default = DsnNotify::default();
    assert!(ReportAction::Failed.is_wanted(default) && ReportAction::Delayed.is_wanted(default));
    assert!(!ReportAction::Delivered.is_wanted(default) && !ReportAction::Relayed.is_wanted(default));
    assert!(!ReportAction::Failed.is_wanted(DsnNotify::NEVER));
}

/// Writes a report where `POSTHOUSE_DSN_OUT` says, for a look with another program's parser.
#[test]
fn a_report_can_be_written_out() {
    if let Some(path) = std::env::var_os("POSTHOUSE_DSN_OUT") {
        std::fs::write(
            path,
            write(&[failed("r@there.test"), failed("dömi@there.test")], Original::Full(ORIGINAL)).message,
        )
        .unwrap();
    }
}
