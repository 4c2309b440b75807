//! The keys that seal TLS session tickets: one row for all nodes and all versions, so that a client resumes wherever it comes.
//!
//! The newest key seals, the one before still opens what it sealed; older ones are gone for good, and with them the
//! sessions that they could have opened (RFC 8446 §C.4, RFC 5077 §5.5). Whoever finds the newest too old brings the next.

use std::time::Duration;

use posthouse_mail::UnixMillis;
use posthouse_mail::secret::Secret;

use crate::codec;
use crate::error::Error;
use crate::keys;
use crate::record::{TicketKeyRow, TicketKeysRow};
use crate::store::Store;
use crate::transaction::Transaction;
use crate::writer::boxed;

/// The name of the row among the secrets.
const NAME: &str = "ticket-keys";
/// The newest and the one before.
const KEPT: usize = 2;

/// A key and when it was made.
#[derive(Clone)]
pub struct TicketKey {
    pub made_at: UnixMillis,
    pub octets: Secret<Vec<u8>>,
}

/// The keys, the newest first; `fresh` becomes the newest where there is none that is younger than `lifetime`.
pub async fn current(
    store: &Store,
    now: UnixMillis,
    lifetime: Duration,
    fresh: &Secret<Vec<u8>>,
) -> Result<Vec<TicketKey>, Error> {
    store.transact(|txn| boxed(current_in(txn, now, lifetime, fresh))).await
}

async fn current_in(
    txn: &mut Transaction<'_>,
    now: UnixMillis,
    lifetime: Duration,
    fresh: &Secret<Vec<u8>>,
) -> Result<Vec<TicketKey>, Error> {
    let key = keys::secret(NAME);
    let mut row = codec::get::<TicketKeysRow>(txn, &key).await?.unwrap_or_default();
    let is_young = |newest: &TicketKeyRow| now < UnixMillis(newest.made_at).after(lifetime);
    if !row.keys.first().is_some_and(is_young) {
        row.keys.insert(0, TicketKeyRow { made_at: now.0, octets: fresh.reveal().clone() });
        row.keys.truncate(KEPT);
        codec::put(txn, &key, &row)?;
    }
    let of_row = |row: TicketKeyRow| TicketKey { made_at: UnixMillis(row.made_at), octets: Secret::new(row.octets) };
    Ok(row.keys.into_iter().map(of_row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Fixture;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn the_newest_seals_and_the_one_before_still_opens() {
        let fixture = Fixture::new().await;
        let ask = async |hours: u64, fresh: u8| {
            let now = UnixMillis(hours * 3_600_000);
            let keys = current(&fixture.store, now, HOUR, &Secret::new(vec![fresh])).await.expect("keys");
            keys.iter().map(|key| key.octets.reveal()[0]).collect::<Vec<_>>()
        };
        assert_eq!(ask(10, 1).await, [1]);
        // Another node comes in the same hour with a key of its own.
        assert_eq!(ask(10, 2).await, [1]);
        assert_eq!(ask(11, 3).await, [3, 1]);
        assert_eq!(ask(12, 4).await, [4, 3]);
    }
}
