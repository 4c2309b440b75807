//! A key in words, so that whoever reads of a damaged row knows whose it is and what stood in it.
//!
//! Apart from the page of keys, which only writes them: this reads one forwards, part by part, and proves that it can be a
//! key at all. A new subspace does not compile until it says here what its parts are.

use std::fmt::Write as _;

use posthouse_mail::{AccountId, BlobId, Domain, DomainId, EmailId, IngestId, MailboxId, ThreadId};

use super::{Class, OWNED, Subspace, account_shard, domain_shard, queue_shard};
use crate::shard::ShardId;

/// What a key says of its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub subspace: Subspace,
    /// Whose row it is, if an account's.
    pub account: Option<AccountId>,
    /// Whose row it is, if a local domain's.
    pub domain: Option<DomainId>,
    /// The key of the row that a piece belongs to.
    pub whole: Option<Vec<u8>>,
    /// The number of a piece.
    pub piece: Option<u32>,
    pub words: String,
}

/// A key in words, or in digits when it is none of ours.
pub fn describe(key: &[u8]) -> String {
    match place(key) {
        Some(place) => place.words,
        None => key.iter().fold(String::from("key "), |mut text, octet| {
            // Writing to a text cannot fail.
            let _ = write!(text, "{octet:02x}");
            text
        }),
    }
}

/// Reads a key; `None`: no row of ours can lie there.
pub fn place(key: &[u8]) -> Option<Place> {
    let (shard, rest) = match key {
        [OWNED, high, low, rest @ ..] => (Some(ShardId::new(u16::from_be_bytes([*high, *low]))?), rest),
        rest => (None, rest),
    };
    let (byte, rest) = rest.split_first()?;
    let subspace = Subspace::ALL.iter().copied().find(|subspace| subspace.byte() == *byte)?;
    if (subspace.class() == Class::Owned) != shard.is_some() {
        return None;
    }
    let mut reader = Reader {
        rest,
        place: Place { subspace, account: None, domain: None, whole: None, piece: None, words: String::new() },
    };
    let of = reader.read(subspace)?;
    let fits = match of {
        Of::Anybody => true,
        Of::Shard(owner) => shard == Some(owner),
    };
    let whole = reader.whole(shard);
    if let Some(whole) = &whole {
        reader.place.words.push_str(&format!(" of {}", describe(whole)));
    }
    (fits && reader.rest.is_empty()).then_some(Place { whole, ..reader.place })
}

/// Where an owned row must lie.
enum Of {
    Anybody,
    Shard(ShardId),
}

struct Reader<'a> {
    rest: &'a [u8],
    place: Place,
}

impl Reader<'_> {
    fn read(&mut self, subspace: Subspace) -> Option<Of> {
        use Subspace as S;
        match subspace {
            S::Fence => self.say("fence of a shard"),
            S::Account | S::Credential | S::Lock => return self.of_account(&format!("{subspace:?}").to_lowercase()),
            S::Mailbox | S::MailboxName | S::Subscription => return self.mailbox_row(subspace),
            S::Email | S::Membership | S::Thread | S::ThreadIndex => return self.message_row(subspace),
            S::Change | S::Done => return self.log_row(subspace),
            S::Domain | S::DkimKey | S::Address => return self.domain_row(subspace),
            S::QueueWork => {
                let destination = Domain::parse(&self.text()?).ok()?;
                let due = self.u64()?;
                let message = IngestId::new(self.u128()?);
                self.say(&format!("work of message {message} for {destination}, due {due}"));
                return Some(Of::Shard(queue_shard(&destination)));
            }
            S::OwnedChunk | S::InsertedChunk => {
                self.place.whole = Some(self.octets()?);
                let number = self.u32()?;
                self.place.piece = Some(number);
                self.say(&format!("piece {number}"));
            }
            S::DomainName | S::QueueCount => {
                let name = Domain::parse(&self.text()?).ok()?;
                self.say(&format!("{} {name}", noun(subspace)));
            }
            S::Secret | S::Meta | S::Counter => {
                let name = self.text()?;
                self.say(&format!("{} {name}", noun(subspace)));
            }
            S::Admin => {
                let account = AccountId::new(self.u64()?);
                self.say(&format!("list of administrators, {account}"));
            }
            S::Node => {
                let incarnation = self.u64()?;
                self.say(&format!("node {incarnation:x}"));
            }
            S::Lost => {
                let words = describe(std::mem::take(&mut self.rest));
                self.say(&format!("laid aside: {words}"));
            }
            S::Gate => self.say("gate of formats"),
            S::Spool | S::QueueMessage => {
                let id = IngestId::new(self.u128()?);
                self.say(&format!("{} {id}", noun(subspace)));
            }
            S::BlobChunk => {
                let stage = u128::from_be_bytes(self.take()?);
                let number = self.u32()?;
                self.say(&format!("frame {number} of stage {stage:032x}"));
            }
            S::BlobStage => {
                let at = self.u64()?;
                let stage = u128::from_be_bytes(self.take()?);
                self.say(&format!("at {at} begin of stage {stage:032x}"));
            }
            S::BlobObject => {
                let at = self.u64()?;
                let object = u128::from_be_bytes(self.take()?);
                self.say(&format!("at {at} object {object:032x}"));
            }
            S::BlobState | S::BlobLarge | S::BlobRef | S::BlobTombstone | S::BlobStaged => self.blob_row(subspace)?,
            S::Segment => {
                let number = self.u32()?;
                self.say(&format!("count of live octets in segment {number}"));
            }
        }
        Some(Of::Anybody)
    }

    fn of_account(&mut self, noun: &str) -> Option<Of> {
        let account = AccountId::new(self.u64()?);
        self.place.account = Some(account);
        self.say(&match noun {
            "account" => format!("account {account}"),
            noun => format!("account {account} {noun}"),
        });
        Some(Of::Shard(account_shard(account)))
    }

    fn mailbox_row(&mut self, subspace: Subspace) -> Option<Of> {
        let of = self.of_account("account")?;
        match subspace {
            Subspace::Mailbox => {
                let mailbox = MailboxId::new(self.u64()?);
                self.say(&format!(" mailbox {mailbox}"));
            }
            Subspace::MailboxName => {
                let parent = MailboxId::new(self.u64()?);
                let name = self.text()?;
                self.say(&format!(" name {name:?} below {parent}"));
            }
            _ => {
                let path = self.text()?;
                self.say(&format!(" subscription to {path:?}"));
            }
        }
        Some(of)
    }

    fn message_row(&mut self, subspace: Subspace) -> Option<Of> {
        let of = self.of_account("account")?;
        let first = self.u64()?;
        match subspace {
            Subspace::Email => self.say(&format!(" email {}", EmailId::new(first))),
            Subspace::Membership => {
                let uid = self.u32()?;
                self.say(&format!(" mailbox {} uid {uid}", MailboxId::new(first)));
            }
            Subspace::Thread => {
                let email = EmailId::new(self.u64()?);
                self.say(&format!(" thread {} email {email}", ThreadId::new(first)));
            }
            _ => {
                let email = EmailId::new(self.u64()?);
                self.say(&format!(" thread index {first:x} email {email}"));
            }
        }
        Some(of)
    }

    fn log_row(&mut self, subspace: Subspace) -> Option<Of> {
        let of = self.of_account("account")?;
        if subspace == Subspace::Change {
            let modseq = self.u64()?;
            self.say(&format!(" change {modseq}"));
        } else {
            let request = IngestId::new(self.u128()?);
            let item = self.u32()?;
            self.say(&format!(" proof of request {request} item {item}"));
        }
        Some(of)
    }

    fn domain_row(&mut self, subspace: Subspace) -> Option<Of> {
        let domain = DomainId::new(self.u64()?);
        self.place.domain = Some(domain);
        self.say(&format!("domain {domain}"));
        match subspace {
            Subspace::DkimKey => {
                let selector = self.text()?;
                self.say(&format!(" signing key {selector}"));
            }
            Subspace::Address => {
                let local = self.text()?;
                self.say(&format!(" address {local}"));
            }
            _ => {}
        }
        Some(Of::Shard(domain_shard(domain)))
    }

    fn blob_row(&mut self, subspace: Subspace) -> Option<()> {
        if matches!(subspace, Subspace::BlobTombstone | Subspace::BlobStaged) {
            let at = self.u64()?;
            self.say(&format!("at {at} "));
        }
        let blob = BlobId::new(self.take()?);
        self.say(&format!("body {blob} {}", noun(subspace)));
        if matches!(subspace, Subspace::BlobTombstone | Subspace::BlobRef) {
            let [kind] = self.take()?;
            let id = self.u128()?;
            let known = matches!(kind, 1..=3);
            self.say(&format!(" {kind}:{id:x}"));
            return known.then_some(());
        }
        Some(())
    }

    fn say(&mut self, words: &str) {
        self.place.words.push_str(words);
    }

    /// The key of the row that a piece belongs to, as it lies in its shard.
    fn whole(&self, shard: Option<ShardId>) -> Option<Vec<u8>> {
        let rest = self.place.whole.as_ref()?;
        Some(match shard {
            Some(shard) => [&[OWNED], &shard.get().to_be_bytes()[..], rest].concat(),
            None => rest.clone(),
        })
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (part, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*part)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn u128(&mut self) -> Option<u128> {
        self.take().map(u128::from_be_bytes)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.octets()?).ok()
    }

    /// What `Key::text` wrote.
    fn octets(&mut self) -> Option<Vec<u8>> {
        let mut octets = Vec::new();
        loop {
            match self.rest {
                [0, 0xff, rest @ ..] => {
                    octets.push(0);
                    self.rest = rest;
                }
                [0, 0, rest @ ..] => {
                    self.rest = rest;
                    return Some(octets);
                }
                [0, ..] | [] => return None,
                [octet, rest @ ..] => {
                    octets.push(*octet);
                    self.rest = rest;
                }
            }
        }
    }
}

fn noun(subspace: Subspace) -> &'static str {
    match subspace {
        Subspace::DomainName => "domain",
        Subspace::Secret => "secret",
        Subspace::Meta => "fact",
        Subspace::Counter => "counter",
        Subspace::QueueCount => "count of work for",
        Subspace::Spool => "spooled message",
        Subspace::QueueMessage => "queued message",
        Subspace::BlobState => "place",
        Subspace::BlobRef => "reference",
        Subspace::BlobTombstone => "tombstone",
        Subspace::BlobStaged => "staged",
        Subspace::BlobLarge => "large",
        _ => "row",
    }
}

/// First octets of commutative keys: rows moved by atomic operations, which therefore cannot be sealed.
const COMMUTATIVE: std::ops::RangeInclusive<u8> = 0x60..=0x6f;

/// Whether the row of a key carries a seal (`seal`).
pub fn is_sealed(key: &[u8]) -> bool {
    key.first().is_none_or(|first| !COMMUTATIVE.contains(first))
}

#[cfg(test)]
mod tests {
    use posthouse_mail::{ModSeq, Uid, UnixMillis};

    use super::*;
    use crate::keys::{self, BlobOwner};

    const ALICE: AccountId = AccountId::new(0xa11);

    #[test]
    fn keys_say_whose_they_are() {
        let blob = BlobId::new([7; 32]);
        let uid = Uid::new(5).expect("not zero");
        let told = |key: keys::Key| describe(&key);
        assert_eq!(told(keys::account(ALICE)), "account aa11");
        assert_eq!(told(keys::membership(ALICE, MailboxId::new(3), uid)), "account aa11 mailbox m3 uid 5");
        assert_eq!(told(keys::mailbox_name(ALICE, None, "a\0b")), r#"account aa11 name "a\0b" below m0"#);
        assert_eq!(told(keys::change(ALICE, ModSeq::new(9).expect("not zero"))), "account aa11 change 9");
        assert_eq!(told(keys::address(DomainId::new(1), "bob")), "domain d1 address bob");
        let destination = "y.test".parse().expect("a domain");
        let work = keys::queue_work(&destination, UnixMillis(4), IngestId::new(2));
        assert_eq!(told(work), "work of message i2 for y.test, due 4");
        let owner = BlobOwner::Email { account: ALICE, email: EmailId::new(1) };
        assert!(told(keys::blob_tombstone(UnixMillis(7), &blob, owner)).starts_with("at 7 body b0707"));
        let stage = crate::blob::frame::StageId::new([1; 16]);
        assert!(told(keys::blob_chunk(&stage, 2)).starts_with("frame 2 of stage 0101"));
        assert!(told(keys::blob_stage(UnixMillis(7), &stage)).starts_with("at 7 begin of stage 0101"));
        let piece = keys::chunk(&keys::email(ALICE, EmailId::new(0)), 3);
        assert_eq!(place(&piece).and_then(|place| place.whole), Some(keys::email(ALICE, EmailId::new(0)).to_vec()));
    }

    #[test]
    fn what_cannot_be_a_key_is_none() {
        let key = keys::membership(ALICE, MailboxId::new(3), Uid::FIRST);
        let mut elsewhere = key.to_vec();
        elsewhere[2] ^= 1;
        for hurt in [&key[..key.len() - 1], &[&key[..], &[0]].concat(), &elsewhere, &key[3..], &[0x50], &[]] {
            assert_eq!(place(hurt), None, "{hurt:?}");
        }
        assert_eq!(describe(&[0x50, 1]), "key 5001");
    }
}
