//! The account's own rows, and the tree of its mailboxes.

use std::collections::BTreeMap;

use posthouse_mail::{AccountId, MailboxId, SpecialUse};

use super::Known;
use super::model::Model;
use crate::error::Error;
use crate::keys;
use crate::mailbox::{role_number, role_of};
use crate::record::account::IdRow;
use crate::record::{CredentialRow, MailboxRow, RoleMailbox};
use crate::repair::pen::Edit;

impl Model {
    pub(super) fn profile(&mut self, known: &Known) -> Result<(), Error> {
        if self.was.is_none() {
            let (domain, address) = known.address_of(self.id).ok_or(Error::NotFound)?;
            (self.row.domain, self.row.address) = (domain.get(), address.to_string());
            self.row.admin = self.is_admin;
            self.note("", format!("its row is lost: made anew for {address}, without quota; look at its settings"));
        }
        if self.row.pending_copy.take().is_some() {
            self.note("", "what an unfinished copy had written is visible now");
        }
        if !self.has_credential {
            let row = CredentialRow { password_hash: String::new(), changed_at: 0 };
            self.edits.push(Edit::record(&keys::credential(self.id), &row));
            self.note("", "its password is lost: nobody can log in until another is set");
        }
        if self.is_admin != self.row.admin {
            self.edits.push(match self.row.admin {
                true => Edit::Set(keys::admin(self.id).to_vec(), Vec::new()),
                false => Edit::Clear(keys::admin(self.id).to_vec()),
            });
            self.note("", "the list of administrators says of it what its row does");
        }
        self.row.locked = self.has_lock;
        let subscriptions = u32::try_from(self.subscriptions).unwrap_or(u32::MAX);
        if self.was.is_some() && self.row.subscription_count > subscriptions {
            let lost = self.row.subscription_count - subscriptions;
            self.note("", format!("{lost} subscriptions are lost: its owner has to subscribe again"));
        }
        self.row.subscription_count = subscriptions;
        if self.was.is_some() && self.row.done_count > self.dones {
            let lost = self.row.done_count - self.dones;
            self.note("", format!("{lost} proofs of requests are lost: a repeat of one would be done again"));
        }
        self.row.done_count = self.dones;
        Ok(())
    }

    /// Every mailbox that a row names has one, under a name of its own and below one that exists.
    pub(super) fn mailboxes(&mut self) {
        let named = self.names.values().chain(self.row.roles.iter().map(|role| &role.mailbox));
        let placed = self.emails.values().flat_map(|email| email.mailboxes.iter().map(|place| &place.mailbox));
        let held = self.members.keys().map(|(mailbox, _)| mailbox);
        let all: Vec<u64> = named.chain(placed).chain(held).copied().collect();
        for id in all {
            if !self.mailboxes.contains_key(&id) {
                self.remake(id);
            }
        }
        if self.inbox().is_none() {
            let id =
                self.mailboxes.keys().next_back().copied().unwrap_or(0).max(self.row.next_mailbox).saturating_add(1);
            self.row.roles.push(RoleMailbox { role: role_number(SpecialUse::Inbox), mailbox: id });
            self.remake(id);
        }
        let deleted = self.mailboxes.iter().filter(|(_, row)| row.deleted_at.is_some()).map(|(id, _)| *id);
        self.row.sweeping = deleted.collect();
        let alive = self.mailboxes.iter().filter(|(_, row)| row.deleted_at.is_none() && row.role != 0);
        let roles: BTreeMap<u32, u64> = alive.map(|(id, row)| (row.role, *id)).collect();
        let mut wanted: Vec<RoleMailbox> = self.row.roles.clone();
        wanted.retain(|entry| roles.get(&entry.role) == Some(&entry.mailbox));
        for (role, mailbox) in &roles {
            if wanted.iter().all(|entry| entry.role != *role) {
                wanted.push(RoleMailbox { role: *role, mailbox: *mailbox });
            }
        }
        for (id, row) in &mut self.mailboxes {
            if roles.get(&row.role) != Some(id) {
                row.role = 0;
            }
        }
        self.row.roles = wanted;
        self.rename();
    }

    pub(super) fn inbox(&self) -> Option<u64> {
        let is_inbox = |row: &MailboxRow| row.role == role_number(SpecialUse::Inbox) && row.deleted_at.is_none();
        self.mailboxes.iter().find(|(_, row)| is_inbox(row)).map(|(id, _)| *id)
    }

    /// A mailbox whose row is lost: its name and use come from what names it. Its Uids keep their order under a new
    /// UidValidity (RFC 9051 §2.3.1.1).
    fn remake(&mut self, id: u64) {
        let named =
            self.names.iter().find(|(_, named)| **named == id).map(|((parent, name), _)| (*parent, name.clone()));
        let role = self.row.roles.iter().find(|entry| entry.mailbox == id).map_or(0, |entry| entry.role);
        let default = SpecialUse::DEFAULTS.into_iter().find(|(use_, _)| Some(*use_) == role_of(role));
        let (parent, name) = named
            .unwrap_or_else(|| (0, default.map_or_else(|| format!("Recovered {id}"), |(_, name)| name.to_owned())));
        let validity = self.mailboxes.values().map(|row| row.uid_validity).max().unwrap_or(0);
        let uid_validity = validity.max(self.row.uid_validity).saturating_add(1);
        self.row.uid_validity = uid_validity;
        self.note(MailboxId::new(id), format!("its row is lost: made anew as {name:?}, with a new UidValidity"));
        let row = MailboxRow { name, parent, role, uid_validity, uid_next: 1, ..MailboxRow::default() };
        self.mailboxes.insert(id, row);
        let modseq = self.next_modseq();
        if let Some(row) = self.mailboxes.get_mut(&id) {
            row.highest_modseq = modseq;
        }
    }

    /// One name row for each mailbox, and none besides.
    fn rename(&mut self) {
        let mut right: BTreeMap<(u64, String), u64> = BTreeMap::new();
        let alive: Vec<u64> =
            self.mailboxes.iter().filter(|(_, row)| row.deleted_at.is_none()).map(|(id, _)| *id).collect();
        for id in &alive {
            let Some(row) = self.mailboxes.get_mut(id) else { continue };
            if row.parent != 0 && !alive.contains(&row.parent) {
                row.parent = 0;
            }
            while right.contains_key(&(row.parent, row.name.clone())) {
                row.name.push_str(" recovered");
            }
            right.insert((row.parent, row.name.clone()), *id);
        }
        let account = self.id;
        let key = |(parent, name): &(u64, String)| name_key(account, *parent, name);
        let lost = right.iter().filter(|(place, id)| self.names.get(place) != Some(id));
        let edits: Vec<Edit> = lost.map(|(place, id)| Edit::record(&key(place), &IdRow { id: *id })).collect();
        let stray = self.names.keys().filter(|place| !right.contains_key(place));
        let strays: Vec<Edit> = stray.map(|place| Edit::Clear(key(place).to_vec())).collect();
        if !edits.is_empty() || !strays.is_empty() {
            self.note("", "names of mailboxes made to fit their rows");
        }
        self.edits.extend(strays.into_iter().chain(edits));
    }
}

fn name_key(account: AccountId, parent: u64, name: &str) -> keys::Key {
    keys::mailbox_name(account, Some(MailboxId::new(parent)).filter(|parent| parent.get() != 0), name)
}
