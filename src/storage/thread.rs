//! Which emails belong together (RFC 8621 §3): they share a Message-ID in Message-ID, In-Reply-To or References, and
//! the base subject of RFC 5256 §2.1.
//!
//! An index row for each such pair and email makes joining one short read a pair, and lets an expunge remove exactly
//! what its email brought. Threads that a late message could join stay apart: an email never changes its thread.

use std::collections::BTreeSet;

use posthouse_mail::structure::MessageStructure;
use posthouse_mail::{EmailId, ThreadId};

use crate::codec;
use crate::error::Error;
use crate::keys;
use crate::record::account::IdRow;
use crate::transaction::Transaction;
use crate::writer::AccountState;

/// Message-IDs of one email that count; a longer References loses its middle.
const IDS_MAX: usize = 20;

/// The thread of a new email: the oldest one that it joins, or a new one.
pub(crate) async fn join(
    txn: &mut Transaction<'_>,
    account: &mut AccountState,
    structure: &MessageStructure,
) -> Result<ThreadId, Error> {
    let mut oldest: Option<u64> = None;
    for hash in hashes(structure) {
        let range = keys::thread_index_of(account.id, hash);
        let (found, _) = codec::scan::<IdRow>(txn, &range, 1).await?;
        oldest = found.first().map(|(_, row)| row.id).into_iter().chain(oldest).min();
    }
    match oldest {
        Some(thread) => Ok(ThreadId::new(thread)),
        None => account.next_thread(),
    }
}

/// Enters an email into its thread.
pub(crate) fn enter(
    txn: &mut Transaction<'_>,
    account: &AccountState,
    (thread, email): (ThreadId, EmailId),
    structure: &MessageStructure,
) -> Result<(), Error> {
    let row = IdRow { id: thread.get() };
    codec::insert(txn, &keys::thread_email(account.id, thread, email), &row)?;
    hashes(structure)
        .into_iter()
        .try_for_each(|hash| codec::insert(txn, &keys::thread_index(account.id, hash, email), &row))
}

/// Takes an email out of its thread.
pub(crate) fn leave(
    txn: &mut Transaction<'_>,
    account: &AccountState,
    (thread, email): (ThreadId, EmailId),
    structure: &MessageStructure,
) {
    txn.clear(&keys::thread_email(account.id, thread, email));
    for hash in hashes(structure) {
        txn.clear(&keys::thread_index(account.id, hash, email));
    }
}

/// What an email is found under.
pub(crate) fn hashes(structure: &MessageStructure) -> BTreeSet<u64> {
    let ids = &structure.thread_ids;
    let head = ids.len().min(IDS_MAX / 2);
    let tail = ids.len().saturating_sub(IDS_MAX / 2).max(head);
    ids[..head].iter().chain(&ids[tail..]).map(|id| hash(&structure.base_subject, id)).collect()
}

fn hash(subject: &str, id: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(subject.as_bytes()).update(&[0]).update(id.as_bytes());
    let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn structure(subject: &str, ids: &[&str]) -> MessageStructure {
        MessageStructure {
            base_subject: subject.to_owned(),
            thread_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            ..MessageStructure::default()
        }
    }

    #[test]
    fn an_id_counts_only_with_its_subject() {
        let one = hashes(&structure("dinner", &["a@x", "b@x"]));
        assert!(one.is_superset(&hashes(&structure("dinner", &["b@x"]))));
        assert!(one.is_disjoint(&hashes(&structure("lunch", &["a@x", "b@x"]))));
    }

    #[test]
    fn references_are_bounded() {
        let ids: Vec<String> = (0..1000).map(|n| format!("{n}@x")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        assert_eq!(hashes(&structure("s", &ids)).len(), IDS_MAX);
        assert_eq!(hashes(&structure("s", &ids[..15])).len(), 15);
    }
}
