//! The POP3 maildrop lock: one session at a time (RFC 1939 §4), with an expiry so that a session that died holds nothing.

use posthouse_mail::UnixMillis;

use crate::codec;
use crate::error::Error;
use crate::keys;
use crate::record::LockRow;
use crate::store::Store;
use crate::transaction::Transaction;
use crate::writer::{AccountState, Writer, boxed};

/// The session that holds a lock: random octets of its own.
pub type Holder = [u8; 16];

/// Takes the lock, or renews it for the session that has it. `Busy`: another session holds it.
pub async fn take(store: &Store, writer: &Writer, holder: Holder, expires_at: UnixMillis) -> Result<(), Error> {
    writer.run(store, |txn| boxed(take_in(txn, writer, holder, expires_at))).await
}

async fn take_in(
    txn: &mut Transaction<'_>,
    writer: &Writer,
    holder: Holder,
    expires_at: UnixMillis,
) -> Result<(), Error> {
    AccountState::open(txn, writer).await?;
    let key = keys::lock(writer.account);
    if let Some(row) = codec::get::<LockRow>(txn, &key).await? {
        if row.holder != holder && row.expires_at > writer.now.0 {
            return Err(Error::Busy);
        }
    }
    codec::put(txn, &key, &LockRow { holder: holder.to_vec(), expires_at: expires_at.0 })
}

/// Gives the lock back; a session that no longer holds it changes nothing.
pub async fn release(store: &Store, writer: &Writer, holder: Holder) -> Result<(), Error> {
    writer.run(store, |txn| boxed(release_in(txn, writer, holder))).await
}

async fn release_in(txn: &mut Transaction<'_>, writer: &Writer, holder: Holder) -> Result<(), Error> {
    AccountState::open_any(txn, writer).await?;
    let key = keys::lock(writer.account);
    if codec::get::<LockRow>(txn, &key).await?.is_some_and(|row| row.holder == holder) {
        codec::remove::<LockRow>(txn, &key);
    }
    Ok(())
}
