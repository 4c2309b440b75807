//! Messages of an account: delivering, flagging, copying, expunging and reading them.
//!
//! An *email* is a message of an account; a *membership* is its place in one mailbox, with a Uid. Keywords and system
//! flags belong to the email and are repeated in its memberships, which alone hold `\Deleted`. Every function that
//! writes is one transaction or a row of them by chunks, carries a request id that makes a repeat harmless, and is called
//! by the account's mailbox actor only.

pub mod append;
pub mod copy;
pub mod expunge;
pub mod flags;
pub mod read;

use bytes::Bytes;
use posthouse_mail::stage::{BodyRef, StoredMessage};
use posthouse_mail::structure::MessageStructure;
use posthouse_mail::{
    AccountId, BlobId, EmailId, Flag, FlagSet, IngestId, MailboxId, ModSeq, SpecialUse, ThreadId, Uid, UidValidity,
    UnixMillis,
};

pub use append::append;
pub use copy::{copy, move_to};
pub use expunge::expunge;
pub use flags::set_flags;
pub use read::{body, deleted_uids, email, emails, memberships, memberships_of, octets, raw};

use crate::blob::StagedBody;
use crate::done;
use crate::error::Error;
use crate::record::{DoneRow, EmailRow, MembershipRow};
use crate::transaction::Transaction;

/// Messages that one transaction of a larger operation takes: well under the budget of every engine.
pub const CHUNK: usize = 200;

/// The number under which a chunk's message is proved when the chunk as a whole was too large for a transaction.
fn single(chunk: u32, place: u32) -> u32 {
    const SINGLES: u32 = 1 << 31;
    const { assert!(CHUNK <= 1 << 8, "a place within a chunk has eight bits") };
    SINGLES | (chunk << 8) | place
}

/// What came of a chunk, if it was done; a chunk that was begun one by one has to go on so: it says `TooLarge` again.
async fn find_chunk(
    txn: &mut Transaction<'_>,
    account: AccountId,
    request: IngestId,
    (item, uids): (u32, &[Uid]),
) -> Result<Option<DoneRow>, Error> {
    let whole = done::find(txn, account, request, item).await?;
    if whole.is_none() && uids.len() > 1 && done::find(txn, account, request, single(item, 0)).await?.is_some() {
        return Err(Error::TooLarge { what: "a chunk", size: 0, max: 0 });
    }
    Ok(whole)
}

/// Where a delivery goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Mailbox(MailboxId),
    /// The mailbox with that use; INBOX if the account has none.
    Role(SpecialUse),
}

/// Whether a delivery may be refused for lack of room. Mail that was accepted before is never bounced for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaRule {
    Enforce,
    Tolerate,
}

/// A body that has just been staged, or one that another row holds already.
#[derive(Debug, Clone)]
pub enum AppendBody {
    Staged(StagedBody),
    Held(BodyRef),
}

impl AppendBody {
    pub fn body(&self) -> BodyRef {
        match self {
            Self::Staged(staged) => staged.body,
            Self::Held(body) => *body,
        }
    }
}

/// One message to store. `request` and `item` name the try for ever: what was done under them is never done again.
#[derive(Debug, Clone)]
pub struct Append {
    pub request: IngestId,
    /// The recipient's number within the message, or 0.
    pub item: u32,
    pub target: Target,
    pub flags: FlagSet,
    /// The internal date (RFC 9051 §2.3.3).
    pub received_at: UnixMillis,
    /// Header fields above the body, each ending in CRLF.
    pub prefix: Bytes,
    pub body: AppendBody,
    pub structure: MessageStructure,
    pub quota: QuotaRule,
}

impl Append {
    /// Octets as a client sees them (RFC 9051 §2.3.4).
    pub fn size(&self) -> u64 {
        size_of_octets(&self.prefix, self.body.body().size)
    }

    /// Octets that it adds to a transaction, about: what a batch is bounded by.
    pub fn weight(&self) -> usize {
        const ROWS: usize = 1024;
        self.prefix.len().saturating_add(prost::Message::encoded_len(&self.structure)).saturating_add(ROWS)
    }
}

/// What became of each message of a batch, in its order.
pub type Appended = Vec<Result<StoredMessage, Error>>;

/// How STORE changes flags (RFC 9051 §6.4.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlagChange {
    Add,
    Remove,
    Replace,
}

/// One STORE.
#[derive(Debug, Clone)]
pub struct SetFlags {
    pub request: IngestId,
    pub mailbox: MailboxId,
    pub uids: Vec<Uid>,
    pub change: FlagChange,
    pub flags: FlagSet,
    /// RFC 7162 §3.1.3 UNCHANGEDSINCE: a message changed after this stays as it is.
    pub unchanged_since: Option<ModSeq>,
    /// Where a message would come to more keywords than these, and than it has, nothing is changed.
    pub keywords_max: usize,
}

/// Refuses more keywords than a message may have.
pub fn check_keywords(flags: &FlagSet, max: usize) -> Result<(), Error> {
    if keywords(flags) > max { Err(Error::Limit { what: "keywords on one message" }) } else { Ok(()) }
}

fn keywords(flags: &FlagSet) -> usize {
    flags.iter().filter(|flag| matches!(flag, Flag::Keyword(_))).count()
}

/// What STORE did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FlagsSet {
    /// Messages that stand there now, with their flags; Uids that no longer exist are left out.
    pub messages: Vec<FlagsOf>,
    /// Messages that UNCHANGEDSINCE kept from being changed (RFC 7162 §3.1.3 MODIFIED).
    pub modified: Vec<Uid>,
}

/// A message's flags after a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagsOf {
    pub uid: Uid,
    pub modseq: ModSeq,
    pub flags: FlagSet,
}

/// Which of the named messages an expunge takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpungeWhich {
    /// Those that have `\Deleted` when the transaction runs (RFC 9051 §6.4.9).
    Deleted,
    All,
}

/// One EXPUNGE.
#[derive(Debug, Clone)]
pub struct Expunge {
    pub request: IngestId,
    pub mailbox: MailboxId,
    pub uids: Vec<Uid>,
    pub which: ExpungeWhich,
}

/// What EXPUNGE removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expunged {
    pub uids: Vec<Uid>,
    /// The mailbox's HighestModSeq afterwards; `None` if nothing was removed.
    pub modseq: Option<ModSeq>,
}

/// One COPY or MOVE within an account.
#[derive(Debug, Clone)]
pub struct Copy {
    pub request: IngestId,
    pub source: MailboxId,
    pub target: MailboxId,
    pub uids: Vec<Uid>,
}

/// What COPY or MOVE did: RFC 9051 §7.1 COPYUID is made of this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    pub uid_validity: UidValidity,
    /// Source and target Uid of each message, in source order; Uids that no longer exist are left out.
    pub uids: Vec<(Uid, Uid)>,
    pub modseq: Option<ModSeq>,
}

/// One message of a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    pub uid: Uid,
    pub email: EmailId,
    pub modseq: ModSeq,
    pub flags: FlagSet,
    /// Octets, added header fields included.
    pub size: u64,
    pub received_at: UnixMillis,
}

/// One email of an account.
#[derive(Debug, Clone, PartialEq)]
pub struct Email {
    pub account: AccountId,
    pub id: EmailId,
    /// Header fields above the body.
    pub prefix: Bytes,
    pub body: BodyRef,
    pub received_at: UnixMillis,
    pub thread: ThreadId,
    /// All flags but `\Deleted`.
    pub flags: FlagSet,
    pub mailboxes: Vec<(MailboxId, Uid)>,
    pub structure: MessageStructure,
}

/// What the octets of a message are read by. Unlike the rest of an email it never changes, so that whoever holds it can
/// read on, also in another process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Octets {
    /// Header fields above the body.
    pub prefix: Bytes,
    pub body: BodyRef,
}

impl Octets {
    /// How many they are, as a client sees them.
    pub fn size(&self) -> u64 {
        size_of_octets(&self.prefix, self.body.size)
    }
}

impl Email {
    pub fn octets(&self) -> Octets {
        Octets { prefix: self.prefix.clone(), body: self.body }
    }

    /// Octets as a client sees them.
    pub fn size(&self) -> u64 {
        size_of_octets(&self.prefix, self.body.size)
    }

    pub(crate) fn from_row(account: AccountId, id: EmailId, row: EmailRow) -> Result<Self, Error> {
        let body = row.body()?;
        let mailboxes = row.mailboxes.iter().map(|place| Ok((MailboxId::new(place.mailbox), uid(place.uid)?)));
        Ok(Self {
            account,
            id,
            body,
            received_at: UnixMillis(row.received_at),
            thread: ThreadId::new(row.thread),
            flags: flag_bits::read(row.flags, &row.keywords),
            mailboxes: mailboxes.collect::<Result<_, Error>>()?,
            prefix: row.prefix,
            structure: row.structure.unwrap_or_default(),
        })
    }
}

impl EmailRow {
    pub(crate) fn body(&self) -> Result<BodyRef, Error> {
        let bytes = <[u8; 32]>::try_from(self.blob.as_slice())
            .map_err(|_| Error::Corrupt("an email row has no blob id".to_owned()))?;
        Ok(BodyRef { blob: BlobId::new(bytes), size: self.body_size })
    }

    /// Octets as a client sees them.
    pub(crate) fn size(&self) -> u64 {
        size_of_octets(&self.prefix, self.body_size)
    }
}

impl Membership {
    pub(crate) fn from_row(uid: Uid, row: &MembershipRow) -> Result<Self, Error> {
        Ok(Self {
            uid,
            email: EmailId::new(row.email),
            modseq: modseq(row.modseq)?,
            flags: flag_bits::read(row.flags, &row.keywords),
            size: row.size,
            received_at: UnixMillis(row.received_at),
        })
    }
}

fn size_of_octets(prefix: &[u8], body: u64) -> u64 {
    u64::try_from(prefix.len()).unwrap_or(u64::MAX).saturating_add(body)
}

/// A Uid from a row, where zero cannot stand.
pub(crate) fn uid(value: u32) -> Result<Uid, Error> {
    Uid::new(value).ok_or_else(|| Error::Corrupt("a row has the Uid 0".to_owned()))
}

/// A ModSeq from a row, where zero cannot stand.
pub(crate) fn modseq(value: u64) -> Result<ModSeq, Error> {
    ModSeq::new(value).ok_or_else(|| Error::Corrupt("a row has the ModSeq 0".to_owned()))
}

/// Flags as rows keep them: bits for the system flags, texts for keywords.
pub(crate) mod flag_bits {
    use posthouse_mail::flag::Keyword;
    use posthouse_mail::{Flag, FlagSet};

    pub const SEEN: u32 = 1;
    pub const DELETED: u32 = 8;
    const SYSTEM: [(Flag, u32); 5] =
        [(Flag::Seen, SEEN), (Flag::Answered, 2), (Flag::Flagged, 4), (Flag::Deleted, DELETED), (Flag::Draft, 16)];

    pub fn read(bits: u32, keywords: &[String]) -> FlagSet {
        let system = SYSTEM.into_iter().filter(|(_, bit)| bits & bit != 0).map(|(flag, _)| flag);
        system.chain(keywords.iter().filter_map(|text| Keyword::new(text)).map(Flag::Keyword)).collect()
    }

    pub fn write(flags: &FlagSet) -> (u32, Vec<String>) {
        let mut keywords = Vec::new();
        let mut bits = 0;
        for flag in flags {
            match SYSTEM.iter().find(|(system, _)| system == flag) {
                Some((_, bit)) => bits |= bit,
                None => keywords.push(flag.as_str().to_owned()),
            }
        }
        (bits, keywords)
    }
}

#[cfg(test)]
mod tests;
