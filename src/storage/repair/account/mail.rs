//! Emails and where they stand: what one row lost, its neighbours tell.

use std::collections::BTreeMap;

use posthouse_mail::{BlobId, MailboxId, Uid};

use super::model::{Email, Model, email_key, is_modseq, new_thread, thread_of};
use super::{Parse, email_id};
use crate::error::Error;
use crate::keys::{self, BlobOwner};
use crate::message::flag_bits;
use crate::record::{EmailMailbox, EmailRow, MembershipRow};
use crate::repair::pen::{Edit, Pen};

impl Model {
    pub(super) async fn mail(
        &mut self,
        pen: &Pen<'_>,
        bodies: &BTreeMap<u64, BlobId>,
        parse: Parse<'_>,
    ) -> Result<(), Error> {
        self.lost_emails(pen, bodies, parse).await?;
        self.named_places();
        self.lost_places();
        self.copies();
        for (id, email) in &self.emails {
            let owner = BlobOwner::Email { account: self.id, email: email_id(*id) };
            if bodies.get(id) != Some(&email.body.blob) {
                self.edits.push(Edit::Set(keys::blob_ref(&email.body.blob, owner).to_vec(), Vec::new()));
                let place = format!("account {} {}", self.id, email_id(*id));
                self.notes.push((place, "the reference to its body is there again".to_owned()));
            }
        }
        let dirty: Vec<Edit> = self
            .emails
            .iter()
            .filter(|(_, email)| email.dirty)
            .map(|(id, email)| Edit::Email {
                key: email_key(self, *id),
                mailboxes: email.mailboxes.clone(),
                flags: email.flags,
                keywords: email.keywords.clone(),
            })
            .collect();
        self.edits.extend(dirty);
        Ok(())
    }

    /// Emails whose row is lost but whose body is there, and places of emails of which nothing is left.
    async fn lost_emails(
        &mut self,
        pen: &Pen<'_>,
        bodies: &BTreeMap<u64, BlobId>,
        parse: Parse<'_>,
    ) -> Result<(), Error> {
        let lost: Vec<(u64, BlobId)> =
            bodies.iter().filter(|(id, _)| !self.emails.contains_key(id)).map(|(id, blob)| (*id, *blob)).collect();
        for (id, blob) in lost {
            self.remake_email(pen, (id, blob), parse).await?;
        }
        let gone: Vec<(u64, u32)> =
            self.members.iter().filter(|(_, row)| !self.emails.contains_key(&row.email)).map(|(at, _)| *at).collect();
        for (mailbox, uid) in gone {
            self.members.remove(&(mailbox, uid));
            self.edits.push(Edit::Clear(member_key(self, (mailbox, uid)).to_vec()));
            self.note(format!("{} uid {uid}", MailboxId::new(mailbox)), "nothing is left of this message");
            self.next_modseq();
        }
        Ok(())
    }

    async fn remake_email(&mut self, pen: &Pen<'_>, (id, blob): (u64, BlobId), parse: Parse<'_>) -> Result<(), Error> {
        let Some(content) = pen.body(blob).await? else { return Ok(()) };
        let places: Vec<(u64, u32)> =
            self.members.iter().filter(|(_, row)| row.email == id).map(|(place, _)| *place).collect();
        let told: Option<MembershipRow> = places.first().and_then(|place| self.members.get(place)).cloned();
        let told = told.unwrap_or_default();
        let row = EmailRow {
            blob: blob.as_bytes().to_vec(),
            body_size: u64::try_from(content.len()).unwrap_or(u64::MAX),
            received_at: if told.received_at == 0 { pen.now.0 } else { told.received_at },
            thread: thread_of(self, id).unwrap_or_else(|| new_thread(self)),
            flags: told.flags & !flag_bits::DELETED,
            keywords: told.keywords,
            mailboxes: places.iter().map(|(mailbox, uid)| EmailMailbox { mailbox: *mailbox, uid: *uid }).collect(),
            structure: Some(parse(&content)),
            ..EmailRow::default()
        };
        self.emails.insert(id, Email::of(&row)?);
        // Its places are written after it, with the email's row complete by then.
        self.edits.push(Edit::NewEmail { key: email_key(self, id), row: Box::new(row) });
        self.note(email_id(id), "its row is lost: made anew from its body; header fields that we had added are gone");
        Ok(())
    }

    /// A place whose email does not name it is added to that.
    fn named_places(&mut self) {
        let places: Vec<((u64, u32), u64)> = self.members.iter().map(|(place, row)| (*place, row.email)).collect();
        for ((mailbox, uid), id) in places {
            let Some(email) = self.emails.get_mut(&id) else { continue };
            if email.mailboxes.iter().all(|place| (place.mailbox, place.uid) != (mailbox, uid)) {
                email.mailboxes.push(EmailMailbox { mailbox, uid });
                email.dirty = true;
                self.note(format!("{} uid {uid}", MailboxId::new(mailbox)), "its email names it again");
            }
        }
    }

    /// Places that an email names and that are lost; an email that stands nowhere comes to INBOX.
    fn lost_places(&mut self) {
        let ids: Vec<u64> = self.emails.keys().copied().collect();
        for id in ids {
            let named = self.emails.get(&id).map(|email| email.mailboxes.clone()).unwrap_or_default();
            let mut kept = Vec::new();
            for place in &named {
                let at = (place.mailbox, place.uid);
                match self.members.get(&at).map(|row| row.email) {
                    Some(email) if email == id => kept.push(*place),
                    Some(_) => {}
                    None if place.uid == 0 => {}
                    None => {
                        self.place(at, id, 0);
                        let told = format!("{} uid {}", MailboxId::new(place.mailbox), place.uid);
                        self.note(
                            told,
                            "it is there again, as its email tells; had it been marked deleted, it is not now",
                        );
                        kept.push(*place);
                    }
                }
            }
            if kept.is_empty()
                && let Some(inbox) = self.inbox()
            {
                let uid = self.free_uid(inbox);
                self.place((inbox, uid), id, 0);
                kept.push(EmailMailbox { mailbox: inbox, uid });
                self.note(email_id(id), format!("it stood in no mailbox: it is in INBOX now, uid {uid}"));
            }
            if let Some(email) = self.emails.get_mut(&id).filter(|email| email.mailboxes != kept) {
                email.mailboxes = kept;
                email.dirty = true;
            }
        }
    }

    /// What memberships repeat is what their emails say.
    fn copies(&mut self) {
        let places: Vec<(u64, u32)> = self.members.keys().copied().collect();
        for at in places {
            let Some(row) = self.members.get(&at) else { continue };
            let Some(email) = self.emails.get(&row.email) else { continue };
            let flags = |bits: u32, keywords: &[String]| flag_bits::read(bits & !flag_bits::DELETED, keywords);
            let same = flags(row.flags, &row.keywords) == flags(email.flags, &email.keywords);
            if same && (row.size, row.received_at) == (email.size, email.received_at) && is_modseq(row.modseq) {
                continue;
            }
            let (id, deleted) = (row.email, row.flags & flag_bits::DELETED);
            self.place(at, id, deleted);
            self.note(format!("{} uid {}", MailboxId::new(at.0), at.1), "its flags, size and time are its email's");
        }
    }
}

fn member_key(model: &Model, (mailbox, uid): (u64, u32)) -> keys::Key {
    keys::membership(model.id, MailboxId::new(mailbox), Uid::new(uid).unwrap_or(Uid::FIRST))
}
