//! Golden rows: what each record looked like in each format, kept for ever, read by every later version.
//!
//! `golden/<format>/<record>.hex` holds the value of one row with every field set. A record that changes fails here until
//! its sample sets the new field and the file is written anew (POSTHOUSE_BLESS=1), which is possible only for a format that
//! no release has written; after that the format's number rises and the old file stays.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use posthouse_mail::structure::MessageStructure;

use super::account::IdRow;
use super::transport::TransitRow;
use super::*;
use crate::codec::{self, FORMAT_MAX, FORMAT_MIN, Record};

/// The newest format that a release has written: its files never change. None yet.
const RELEASED: u32 = 0;

/// A record that can be encoded, and its golden row decoded again.
struct Sample {
    name: &'static str,
    value: Vec<u8>,
    again: fn(&[u8]) -> Option<Vec<u8>>,
}

fn sample<R: Record>(record: &R) -> Sample {
    let name = std::any::type_name::<R>().rsplit("::").next().unwrap();
    let value = codec::encode(record, u8::try_from(FORMAT_MAX).unwrap());
    Sample { name, value, again: |value| Some(R::decode(value.get(2..)?).ok()?.encode_to_vec()) }
}

fn samples() -> Vec<Sample> {
    let mut all = accounts();
    all.extend(messages());
    all.extend(transport());
    all.extend([
        sample(&GateRow { level: 3, node_count: 2 }),
        sample(&NodeRow {
            name: "mx1".into(),
            format_min: 2,
            format_max: 3,
            started_at: 1_700_000_000_000,
            heartbeat: 9,
        }),
        sample(&TicketKeysRow { keys: vec![TicketKeyRow { made_at: 1_700_000_000_000, octets: vec![7; 48] }] }),
    ]);
    all
}

fn accounts() -> Vec<Sample> {
    let text = |text: &str| text.to_owned();
    vec![
        sample(&AccountRow {
            address: text("alice@x.test"),
            domain: 7,
            created_at: 1_700_000_000_000,
            disabled: true,
            admin: true,
            quota_max: 1 << 30,
            quota_used: 4096,
            email_count: 12,
            modseq: 99,
            change_floor: 40,
            next_mailbox: 8,
            next_email: 13,
            next_thread: 11,
            uid_validity: 1_700_000_006,
            mailbox_count: 6,
            roles: vec![RoleMailbox { role: 1, mailbox: 1 }, RoleMailbox { role: 4, mailbox: 2 }],
            deleted_at: Some(1_800_000_000_000),
            pending_copy: Some(PendingCopy {
                request: vec![1; 16],
                target: 3,
                done: 200,
                size: 1 << 20,
                unseen: 100,
                deleted: 1,
                modseq: 100,
            }),
            sweeping: vec![5, 6],
            subscription_count: 6,
            done_count: 31,
            locked: true,
            generation: 2,
        }),
        sample(&CredentialRow { password_hash: text("$argon2id$v=19$m=19456$abc"), changed_at: 5 }),
        sample(&LockRow { holder: vec![9; 16], expires_at: 1_700_000_000_001 }),
        sample(&DomainRow {
            name: text("x.test"),
            created_at: 3,
            catch_all: text("all@x.test"),
            deleted_at: Some(4),
            selectors: vec![text("s1"), text("s2")],
            address_count: 2,
        }),
        sample(&DkimKeyRow { selector: text("s1"), algorithm: 2, private_key: vec![4, 5, 6], created_at: 8 }),
        sample(&AddressRow { address: text("Team@x.test"), account: Some(7), targets: vec![text("a@y.test")] }),
        sample(&IdRow { id: 77 }),
    ]
}

fn messages() -> Vec<Sample> {
    let structure = MessageStructure {
        base_subject: "dinner".to_owned(),
        thread_ids: vec!["a@x".to_owned()],
        ..MessageStructure::default()
    };
    let range = |first, count| vec![UidRange { first, count }];
    vec![
        sample(&MailboxRow {
            name: "Archive".to_owned(),
            parent: 2,
            role: 6,
            uid_validity: 1_700_000_001,
            uid_next: 55,
            highest_modseq: 44,
            messages: 33,
            unseen: 22,
            deleted: 11,
            size: 123_456,
            deleted_at: Some(1_700_000_000_000),
        }),
        sample(&ChangeRow {
            at: 1_700_000_000_000,
            mailboxes: vec![MailboxChange {
                mailbox: 3,
                added: range(1, 5),
                flags: range(2, 1),
                expunged: range(9, 2),
                itself: 2,
            }],
        }),
        sample(&EmailRow {
            prefix: bytes::Bytes::from_static(b"Return-Path: <>\r\n"),
            blob: vec![8; 32],
            body_size: 4000,
            received_at: 1_700_000_000_000,
            thread: 5,
            flags: 21,
            keywords: vec!["$Forwarded".to_owned()],
            mailboxes: vec![EmailMailbox { mailbox: 1, uid: 4 }],
            structure: Some(structure),
        }),
        sample(&MembershipRow {
            email: 12,
            modseq: 44,
            flags: 9,
            keywords: vec!["$Forwarded".to_owned()],
            size: 4017,
            received_at: 1_700_000_000_000,
        }),
        sample(&DoneRow {
            modseq: 44,
            mailbox: 1,
            email: 12,
            uids: vec![4, 5],
            target_uids: vec![1, 2],
            uid_validity: 1_700_000_001,
            refused: vec![6],
        }),
    ]
}

fn transport() -> Vec<Sample> {
    let text = |text: &str| text.to_owned();
    let transit = TransitRow {
        reverse_path: text("alice@x.test"),
        body_type: 1,
        smtputf8: true,
        envelope_id: Some(text("E1")),
        dsn_return: 2,
        blob: vec![8; 32],
        body_size: 4000,
        added_headers: b"Received: by x.test\r\n".to_vec(),
        received_at: 1_700_000_000_000,
        account: Some(7),
        client_ip: text("192.0.2.1"),
        hello: text("client.test"),
        protocol: text("ESMTPSA"),
    };
    let recipient = RecipientRow {
        path: text("bob@y.test"),
        notify: 6,
        original_type: Some(text("rfc822")),
        original_address: Some(text("bob@z.test")),
    };
    vec![
        sample(&SpoolRow {
            message: Some(transit.clone()),
            recipients: vec![SpoolRecipientRow { recipient: Some(recipient.clone()), finished: true }],
            junk: true,
            report: true,
        }),
        sample(&QueueMessageRow {
            message: Some(transit),
            queued_at: 1_700_000_000_000,
            expires_at: 1_700_000_000_009,
            destinations: vec![DestinationRow { domain: text("y.test"), due: 1_700_000_000_005 }],
        }),
        sample(&QueueWorkRow {
            destination: text("y.test"),
            recipients: vec![recipient],
            attempt_count: 3,
            last_attempt_at: Some(1_700_000_000_004),
            last_outcome: Some(OutcomeRow {
                host: Some(text("mx.y.test")),
                status: text("4.2.2"),
                reason: text("full"),
                reply_code: 452,
                reply_status: text("4.2.2"),
                reply_text: text("mailbox full"),
            }),
            delay_reported: true,
        }),
    ]
}

fn folder(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("record/golden").join(format.to_string())
}

fn hex(octets: &[u8]) -> String {
    let lines =
        octets.chunks(32).map(|line| line.iter().map(|octet| format!("{octet:02x}")).collect::<String>() + "\n");
    lines.collect()
}

fn octets(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|place| u8::from_str_radix(&digits[place..place + 2], 16).unwrap()).collect()
}

#[test]
fn records_of_today_are_the_golden_ones() {
    let bless = std::env::var_os("POSTHOUSE_BLESS").is_some() && FORMAT_MAX > RELEASED;
    for Sample { name, value, .. } in samples() {
        let path = folder(FORMAT_MAX).join(format!("{name}.hex"));
        if bless {
            fs::create_dir_all(folder(FORMAT_MAX)).unwrap();
            fs::write(&path, hex(&value)).unwrap();
        }
        let golden = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(hex(&value), golden, "{name} is written otherwise than its golden row: see the head of this file");
    }
}

#[test]
fn golden_rows_of_every_format_are_read_and_nothing_of_them_is_lost() {
    let samples: BTreeMap<&str, Sample> = samples().into_iter().map(|sample| (sample.name, sample)).collect();
    for format in FORMAT_MIN..=FORMAT_MAX {
        for entry in fs::read_dir(folder(format)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            let value = octets(&fs::read_to_string(&path).unwrap());
            let sample = samples.get(name).unwrap_or_else(|| panic!("{name}: no record of this name is left"));
            assert_eq!(u32::from(value[0]), format, "{name}: a file in the folder of another format");
            assert_eq!((sample.again)(&value).as_deref(), value.get(2..), "{name} of format {format}");
        }
    }
}

/// A field that no sample sets would change unseen.
#[test]
fn every_record_has_a_golden_row_with_every_field() {
    let samples = samples();
    let mut named = BTreeSet::new();
    for file in ["account", "cluster", "mailbox", "message", "transport"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("record/{file}.rs"));
        let source = fs::read_to_string(path).unwrap();
        for part in source.split("impl Record for ").skip(1) {
            let name: String = part.chars().take_while(|c| c.is_alphanumeric()).collect();
            let body = source.split(&format!("pub struct {name} {{")).nth(1).unwrap().split("\n}").next().unwrap();
            let declared: BTreeSet<u32> =
                body.split("tag = \"").skip(1).map(|rest| rest.split('"').next().unwrap().parse().unwrap()).collect();
            let sample = samples.iter().find(|sample| sample.name == name);
            let sample = sample.unwrap_or_else(|| panic!("{name} has no sample here"));
            assert_eq!(tags(&sample.value[2..]), declared, "{name}: its sample does not set every field");
            named.insert(name);
        }
    }
    assert_eq!(named.len(), samples.len());
}

/// Tags of the fields of an encoded message.
fn tags(mut body: &[u8]) -> BTreeSet<u32> {
    let mut tags = BTreeSet::new();
    while !body.is_empty() {
        let (tag, wire_type) = prost::encoding::decode_key(&mut body).unwrap();
        let context = prost::encoding::DecodeContext::default();
        prost::encoding::skip_field(wire_type, tag, &mut body, context).unwrap();
        tags.insert(tag);
    }
    tags
}
