//! A small site that has used everything once: what check-mutate hurts, and what it reads back to see an effect.

use std::collections::BTreeMap;

use anyhow::Context as _;
use posthouse_mail::structure::MessageStructure;
use posthouse_mail::{
    AccountId, Address, Domain, DomainId, Flag, FlagSet, ForwardPath, IngestId, Recipient, ReversePath, Secret,
    SpecialUse, Uid, UnixMillis,
};
use posthouse_storage::address::Alias;
use posthouse_storage::domain::{DkimAlgorithm, DkimKey};
use posthouse_storage::mailbox::NameLimits;
use posthouse_storage::message::{
    Append, AppendBody, Copy, Expunge, ExpungeWhich, FlagChange, QuotaRule, SetFlags, Target,
};
use posthouse_storage::spool::{Finish, NewSpool, Queued, SpoolMessage, SpoolRecipient};
use posthouse_storage::transit::Transit;
use posthouse_storage::{Store, address, domain, keys, lock, mailbox, message, spool};
use rand::rngs::StdRng;

use super::store_load::{make_accounts, now, request_id, stage, writer};
use crate::workload;

const ACCOUNTS: u64 = 3;
const MESSAGES: u32 = 14;
const LIMITS: NameLimits = NameLimits { mailboxes_max: 50, name_max: 100, depth_max: 5 };
const DOMAIN: DomainId = DomainId::new(1);

/// Fills an empty store.
pub async fn fill(store: &Store, random: &mut StdRng) -> anyhow::Result<()> {
    for (account, _) in make_accounts(store, ACCOUNTS).await? {
        one_account(store, account, random).await?;
    }
    let fence = store.fence(keys::domain_shard(DOMAIN));
    for (local, count) in [("team", 3), ("everybody", 1500)] {
        let targets = (0..count).map(|number| Address::parse(&format!("reader-{number:050}@elsewhere.test")));
        let alias = Alias {
            address: Address::parse(&format!("{local}@load.test"))?,
            targets: targets.collect::<Result<_, _>>()?,
        };
        address::set_alias(store, fence, &alias).await?;
    }
    let key = DkimKey {
        selector: Domain::parse("s2026")?,
        algorithm: DkimAlgorithm::Ed25519,
        private_key: Secret::new((0..48).collect()),
        created_at: now(),
    };
    domain::add_dkim_key(store, fence, DOMAIN, &key).await?;
    for number in 0..6 {
        under_way(store, number, random).await?;
    }
    // Some bodies are freed and some wait for it.
    store.sweep(UnixMillis(now().0 + 3 * 24 * 3_600_000)).await?;
    let first = AccountId::new(1);
    let inbox = mailbox::by_role(store, first, SpecialUse::Inbox).await?.context("an inbox")?;
    let last = message::memberships(store, first, inbox.id, Uid::FIRST, 100).await?.messages;
    let uids = last.iter().rev().take(1).map(|message| message.uid).collect();
    let expunge = Expunge { request: request_id(random), mailbox: inbox.id, uids, which: ExpungeWhich::All };
    message::expunge(store, &writer(store, first), &expunge).await?;
    Ok(())
}

async fn one_account(store: &Store, account: AccountId, random: &mut StdRng) -> anyhow::Result<()> {
    let writer = writer(store, account);
    let writer = &writer;
    for number in 0..MESSAGES {
        let size = workload::size(random);
        let item = append(store, &workload::body(random, size, "fill@example.org"), number, random).await?;
        for stored in message::append(store, writer, std::slice::from_ref(&item)).await? {
            stored?;
        }
    }
    let inbox = mailbox::by_role(store, account, SpecialUse::Inbox).await?.context("an inbox")?.id;
    let archive = mailbox::by_role(store, account, SpecialUse::Archive).await?.context("an archive")?.id;
    let uids = |numbers: &[u32]| numbers.iter().filter_map(|number| Uid::new(*number)).collect::<Vec<_>>();
    let flags: FlagSet = [Flag::Seen, Flag::Flagged].into_iter().collect();
    let request = || IngestId::from_parts(now().0, rand::random());
    let change = SetFlags {
        request: request(),
        mailbox: inbox,
        uids: uids(&[2, 3, 4]),
        change: FlagChange::Add,
        flags,
        unchanged_since: None,
        keywords_max: 100,
    };
    message::set_flags(store, writer, &change).await?;
    let copy = |numbers| Copy { request: request(), source: inbox, target: archive, uids: uids(numbers) };
    message::copy(store, writer, &copy(&[1, 2])).await?;
    message::move_to(store, writer, &copy(&[3])).await?;
    let expunge = Expunge { request: request(), mailbox: inbox, uids: uids(&[5, 6]), which: ExpungeWhich::All };
    message::expunge(store, writer, &expunge).await?;
    for path in ["Work/2026", "Old"] {
        let create = mailbox::Create { request: request(), path: path.to_owned(), role: None, limits: LIMITS };
        mailbox::create(store, writer, &create).await?;
        mailbox::set_subscribed(store, writer, path, true).await?;
    }
    mailbox::delete(store, writer, &mailbox::Delete { request: request(), path: "Old".to_owned() }).await?;
    lock::take(store, writer, [9; 16], now()).await?;
    Ok(())
}

async fn append(store: &Store, body: &[u8], number: u32, random: &mut StdRng) -> anyhow::Result<Append> {
    let structure = MessageStructure {
        base_subject: format!("subject {}", number % 5),
        thread_ids: vec![format!("{}@fill.test", number % 5)],
        ..MessageStructure::default()
    };
    Ok(Append {
        request: request_id(random),
        item: 0,
        target: Target::Role(SpecialUse::Inbox),
        flags: FlagSet::new(),
        received_at: now(),
        prefix: format!("Return-Path: <fill{number}@example.org>\r\n").into_bytes().into(),
        body: AppendBody::Staged(stage(store, body).await?),
        structure,
        quota: QuotaRule::Enforce,
    })
}

/// A message in the spool; every second one goes on to the queue.
async fn under_way(store: &Store, number: u32, random: &mut StdRng) -> anyhow::Result<()> {
    let staged = stage(store, &workload::body(random, 4000, "under-way@example.org")).await?;
    let id = request_id(random);
    let recipient = Recipient::new(ForwardPath::Address(Address::parse(&format!("r{number}@far{number}.test"))?));
    let transit = Transit {
        id,
        reverse_path: ReversePath::Address(Address::parse("user1@load.test")?),
        body_type: Default::default(),
        smtputf8: false,
        envelope_id: Some("E1".to_owned()),
        dsn_return: None,
        body: staged.body,
        added_headers: b"Received: by hand\r\n".to_vec(),
        received_at: now(),
        account: Some(AccountId::new(1)),
        client_ip: None,
        hello: "fill".to_owned(),
        protocol: "ESMTP".to_owned(),
    };
    let recipients = vec![SpoolRecipient { recipient: recipient.clone(), finished: false }];
    let message = SpoolMessage { transit, recipients, junk: false, report: false };
    spool::insert(store, &NewSpool { message, body: AppendBody::Staged(staged) }).await?;
    if number.is_multiple_of(2) {
        return Ok(());
    }
    let queue = Queued {
        destination: Domain::parse(&format!("far{number}.test"))?,
        recipients: vec![recipient],
        due: now(),
        expires_at: UnixMillis(now().0 + 86_400_000),
    };
    let finish = Finish { recipients: vec![0], queue: vec![queue], report: None };
    spool::finish(store, store.fence(keys::spool_shard(id)), id, &finish, now()).await?;
    Ok(())
}

/// All mail as its readers see it: for each account, path and Uid the content, or why it cannot be read.
pub type Content = BTreeMap<(u64, String, u32), Result<Vec<u8>, String>>;

pub async fn content(store: &Store) -> anyhow::Result<Content> {
    let mut content = Content::new();
    for account in (1..=ACCOUNTS).map(AccountId::new) {
        for mailbox in mailbox::list(store, account).await? {
            let page = message::memberships(store, account, mailbox.id, Uid::FIRST, 1000).await?;
            for membership in page.messages {
                let read = match message::email(store, account, membership.email).await {
                    Ok(Some(email)) => message::body(store, &email).await,
                    Ok(None) => Err(posthouse_storage::Error::NotFound),
                    Err(error) => Err(error),
                };
                let read = read.map(|octets| octets.to_vec()).map_err(|error| error.to_string());
                content.insert((account.get(), mailbox.path.clone(), membership.uid.get()), read);
            }
        }
    }
    for id in spool::list(store, None, 1000).await? {
        let message = spool::get(store, id).await?.context("a spooled message")?;
        let read = store.body_read(&message.transit.body, 0..u64::MAX).await;
        let read = read.map(|octets| octets.to_vec()).map_err(|error| error.to_string());
        content.insert((0, format!("spool {id}"), 0), read);
    }
    Ok(content)
}

/// How often each message stands in a mailbox, without the header fields that we add.
pub fn bodies(content: &Content) -> BTreeMap<Vec<u8>, usize> {
    let mut bodies = BTreeMap::new();
    for octets in content.iter().filter(|((account, ..), _)| *account != 0).filter_map(|(_, read)| read.as_ref().ok()) {
        let start = octets.windows(6).position(|octets| octets == b"From: ").unwrap_or(0);
        *bodies.entry(octets[start..].to_vec()).or_default() += 1;
    }
    bodies
}
