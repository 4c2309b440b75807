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
    let mut account = AccountState::open(txn, writer).await?;
    let key = keys::lock(writer.account);
    let held = codec::get::<LockRow>(txn, &key).await?;
    if held.is_some_and(|row| row.holder != holder && row.expires_at > writer.now.0) {
        return Err(Error::Busy);
    }
    if !account.row.locked {
        account.touch().locked = true;
        account.save(txn)?;
    }
    codec::put(txn, &key, &LockRow { holder: holder.to_vec(), expires_at: expires_at.0 })
}

/// Gives the lock back; a session that no longer holds it changes nothing.
pub async fn release(store: &Store, writer: &Writer, holder: Holder) -> Result<(), Error> {
    writer.run(store, |txn| boxed(release_in(txn, writer, holder))).await
}

async fn release_in(txn: &mut Transaction<'_>, writer: &Writer, holder: Holder) -> Result<(), Error> {
    let mut account = AccountState::open_any(txn, writer).await?;
    let key = keys::lock(writer.account);
    if codec::get::<LockRow>(txn, &key).await?.is_some_and(|row| row.holder == holder) {
        codec::remove::<LockRow>(txn, &key);
        account.touch().locked = false;
        account.save(txn)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{ALICE, Fixture, NOW, writer};

    #[tokio::test]
    async fn rfc1939_4_one_session_holds_the_maildrop() {
        let fixture = Fixture::new().await;
        let (one, two) = ([1; 16], [2; 16]);
        let until = UnixMillis(NOW.0 + 1000);
        take(&fixture.store, &writer(ALICE), one, until).await.expect("it is free");
        assert_eq!(take(&fixture.store, &writer(ALICE), two, until).await, Err(Error::Busy));
        take(&fixture.store, &writer(ALICE), one, until).await.expect("its holder renews it");
        release(&fixture.store, &writer(ALICE), two).await.expect("nothing happens");
        assert_eq!(take(&fixture.store, &writer(ALICE), two, until).await, Err(Error::Busy));
        let late = Writer { now: until, ..writer(ALICE) };
        take(&fixture.store, &late, two, UnixMillis(until.0 + 1)).await.expect("its holder let it run out");
        release(&fixture.store, &late, two).await.expect("it is its holder");
        take(&fixture.store, &writer(ALICE), one, until).await.expect("it is free");
    }
}
