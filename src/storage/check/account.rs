//! One account, part by part: its own row, the tree of its mailboxes, and by files its messages and its log.
//!
//! A part reads the account's row and its mailboxes anew, so that it can be walked again by itself.

mod log;
mod message;

use std::collections::{BTreeMap, BTreeSet};

use posthouse_mail::{AccountId, Address, MailboxId, Uid};

use super::{Report, Rule, Source};
use crate::address;
use crate::codec;
use crate::error::Error;
use crate::keys::{self, KeyParts, KeyRange};
use crate::mailbox::id_of;
use crate::record::account::IdRow;
use crate::record::{AccountRow, AddressRow, CredentialRow, LockRow, MailboxRow};

/// What is proved together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The account's own rows.
    Profile,
    /// Mailboxes, their names and uses.
    Tree,
    /// The messages of one mailbox and its counters.
    Mailbox(MailboxId),
    /// Memberships of mailboxes that do not exist.
    Strays,
    /// Emails and the account's use.
    Emails,
    Threads,
    Changes,
    Proofs,
}

/// An account as one part of the walk sees it.
pub(super) struct Walk<'r> {
    id: AccountId,
    row: AccountRow,
    mailboxes: BTreeMap<u64, MailboxRow>,
    report: &'r mut Report,
}

impl<'r> Walk<'r> {
    /// `None`: the account is gone, or its rows wait for the sweep, which takes them in no order that would mean anything.
    pub(super) async fn open(
        source: &mut Source,
        id: AccountId,
        report: &'r mut Report,
    ) -> Result<Option<Self>, Error> {
        let txn = source.step();
        let Some(row) = codec::get::<AccountRow>(txn, &keys::account(id)).await? else { return Ok(None) };
        if row.deleted_at.is_some() {
            return Ok(None);
        }
        let mut mailboxes = BTreeMap::new();
        for (key, row) in codec::scan_all::<MailboxRow>(txn, &keys::mailboxes(id)).await? {
            mailboxes.insert(id_of(&key)?.get(), row);
        }
        Ok(Some(Self { id, row, mailboxes, report }))
    }

    pub(super) fn parts(&self) -> Vec<Part> {
        let mailboxes = self.mailboxes.keys().map(|id| Part::Mailbox(MailboxId::new(*id)));
        let rest = [Part::Strays, Part::Emails, Part::Threads, Part::Changes, Part::Proofs];
        [Part::Profile, Part::Tree].into_iter().chain(mailboxes).chain(rest).collect()
    }

    pub(super) async fn part(&mut self, source: &mut Source, part: Part) -> Result<(), Error> {
        match part {
            Part::Profile => self.profile(source).await,
            Part::Tree => self.tree(source).await,
            Part::Mailbox(id) => self.mailbox(source, id).await,
            Part::Strays => self.strays(source).await,
            Part::Emails => self.emails(source).await,
            Part::Threads => self.threads(source).await,
            Part::Changes => self.changes(source).await,
            Part::Proofs => self.proofs(source).await,
        }
    }

    fn find(&mut self, rule: Rule, place: impl std::fmt::Display, detail: impl Into<String>) {
        let place = format!("account {} {place}", self.id);
        self.report.add(rule, place.trim_end(), detail);
    }

    /// What no other row tells.
    fn lost(&mut self, rule: Rule, place: impl std::fmt::Display, detail: impl Into<String>) {
        let place = format!("account {} {place}", self.id);
        self.report.lost(rule, place.trim_end(), detail);
    }

    /// Address, password, role of administrator, lock and subscriptions.
    async fn profile(&mut self, source: &mut Source) -> Result<(), Error> {
        let txn = source.step();
        let domain = posthouse_mail::DomainId::new(self.row.domain);
        match Address::parse(&self.row.address) {
            Ok(parsed) => {
                let key = keys::address(domain, &address::folded(&parsed));
                let named = codec::get::<AddressRow>(txn, &key).await?.and_then(|row| row.account);
                if named != Some(self.id.get()) {
                    self.find(Rule::Directory, "", format!("its address {parsed} is another's or nobody's"));
                }
            }
            Err(_) => self.find(Rule::Directory, "", "its address is none"),
        }
        if codec::get::<CredentialRow>(txn, &keys::credential(self.id)).await?.is_none() {
            self.lost(Rule::Directory, "", "its password is lost");
        }
        if txn.get(&keys::admin(self.id)).await?.is_some() != self.row.admin {
            self.find(Rule::Directory, "", "the list of administrators and its own row do not agree about it");
        }
        if codec::get::<LockRow>(txn, &keys::lock(self.id)).await?.is_some() != self.row.locked {
            self.find(Rule::Directory, "", "its maildrop's lock and its own row do not agree");
        }
        let subscribed = count(source, keys::subscriptions(self.id)).await?;
        if subscribed != u64::from(self.row.subscription_count) {
            let detail = format!("{} subscriptions counted, {subscribed} present", self.row.subscription_count);
            self.lost(Rule::Counters, "", detail);
        }
        Ok(())
    }

    async fn tree(&mut self, source: &mut Source) -> Result<(), Error> {
        let alive: BTreeMap<u64, MailboxRow> = self
            .mailboxes
            .iter()
            .filter(|(_, row)| row.deleted_at.is_none())
            .map(|(id, row)| (*id, row.clone()))
            .collect();
        for (id, row) in &alive {
            let parent = Some(MailboxId::new(row.parent)).filter(|parent| parent.get() != 0);
            let name = codec::get::<IdRow>(source.step(), &keys::mailbox_name(self.id, parent, &row.name)).await?;
            if name.map(|name| name.id) != Some(*id) {
                self.find(Rule::Tree, MailboxId::new(*id), "its name row names another mailbox or none");
            }
            if row.parent != 0 && !alive.contains_key(&row.parent) {
                self.find(Rule::Tree, MailboxId::new(*id), "its parent is gone");
            }
            if *id >= self.row.next_mailbox || row.uid_validity > self.row.uid_validity || row.uid_validity == 0 {
                self.find(Rule::Ids, MailboxId::new(*id), "its id or UidValidity was never given");
            }
            let role = self.row.roles.iter().find(|entry| entry.mailbox == *id).map_or(0, |entry| entry.role);
            if role != row.role {
                self.find(Rule::Tree, MailboxId::new(*id), "the account row gives it another special use");
            }
        }
        for role in self.row.roles.clone() {
            if !alive.contains_key(&role.mailbox) {
                self.find(Rule::Tree, MailboxId::new(role.mailbox), "it has a special use and is gone");
            }
        }
        self.names(source, &alive).await?;
        let sweeping = |row: &MailboxRow| row.deleted_at.is_some();
        let deleted: BTreeSet<u64> =
            self.mailboxes.iter().filter(|(_, row)| sweeping(row)).map(|(id, _)| *id).collect();
        let named: BTreeSet<u64> = self.row.sweeping.iter().copied().collect();
        for id in deleted.symmetric_difference(&named) {
            self.find(Rule::Tree, MailboxId::new(*id), "its row and the list of what is to be swept do not agree");
        }
        if usize::try_from(self.row.mailbox_count).ok() != Some(alive.len()) {
            self.find(Rule::Tree, "", format!("{} mailboxes counted, {} present", self.row.mailbox_count, alive.len()));
        }
        Ok(())
    }

    /// Names of mailboxes that are gone or have another name.
    async fn names(&mut self, source: &mut Source, alive: &BTreeMap<u64, MailboxRow>) -> Result<(), Error> {
        for (key, row) in codec::scan_all::<IdRow>(source.step(), &keys::all_mailbox_names(self.id)).await? {
            let parts = KeyParts::of(&key);
            let name = parts.text_after(keys::MAILBOX_NAME_WIDTH).and_then(|name| String::from_utf8(name).ok());
            if alive.get(&row.id).map(|mailbox| &mailbox.name) != name.as_ref() {
                let detail = format!("the name {:?} stands for it", name.unwrap_or_default());
                self.find(Rule::Tree, MailboxId::new(row.id), detail);
            }
        }
        Ok(())
    }

    /// Uids from here on belong to a copy that nobody sees yet.
    fn is_pending(&self, mailbox: MailboxId, uid: Uid) -> bool {
        let next = self.mailboxes.get(&mailbox.get()).map_or(0, |row| row.uid_next);
        let target = self.row.pending_copy.as_ref().filter(|pending| pending.target == mailbox.get());
        target.is_some_and(|pending| (next..next.saturating_add(pending.done)).contains(&uid.get()))
    }
}

/// Rows of a range.
async fn count(source: &mut Source, mut range: KeyRange) -> Result<u64, Error> {
    let mut sum = 0;
    loop {
        let page = codec::page(source.step(), &range, super::STEP).await?;
        sum += u64::try_from(page.rows.len()).unwrap_or(u64::MAX);
        match page.rows.last() {
            Some((key, _)) if page.more => range.begin = keys::after(key),
            _ => return Ok(sum),
        }
    }
}
