//! Secrets of the server itself, each made once: the first to ask brings the octets, everybody gets the same.

use posthouse_mail::secret::Secret;

use crate::error::Error;
use crate::keys;
use crate::store::Store;
use crate::transaction::Transaction;
use crate::writer::boxed;

/// The secret of a name; `fresh` becomes it if there is none yet.
pub async fn get_or_create(store: &Store, name: &str, fresh: &Secret<Vec<u8>>) -> Result<Secret<Vec<u8>>, Error> {
    store.transact(|txn| boxed(get_or_create_in(txn, name, fresh))).await
}

async fn get_or_create_in(
    txn: &mut Transaction<'_>,
    name: &str,
    fresh: &Secret<Vec<u8>>,
) -> Result<Secret<Vec<u8>>, Error> {
    let key = keys::secret(name);
    if let Some(value) = txn.get(&key).await? {
        return Ok(Secret::new(value.to_vec()));
    }
    txn.set(&key, fresh.reveal());
    Ok(fresh.clone())
}
