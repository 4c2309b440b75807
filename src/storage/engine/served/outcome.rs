//! How commits ended: a row for each commit of a client, written by the very transaction whose outcome it tells.
//!
//! The rows lie in the engine's own part of the key space, which no caller can name, by the minute in which the client
//! began the commit: old minutes are cleared as a range. The minute is the server's, told to the client with each sign of
//! life, so that no two clocks are compared.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut as _, Bytes, BytesMut};

use super::protocol::Incarnation;
use crate::engine::{Commit, EmbeddedTxn, Isolation, KvTxn as _, Versionstamp};
use crate::error::Error;

const OUTCOMES: &[u8] = &[0xff, b'o'];
const STORE: &[u8] = &[0xff, b'i'];

/// First octet of an outcome row; the versionstamp follows a commit.
const COMMITTED: u8 = 1;
const REFUSED: u8 = 0;

/// What names a commit for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OutcomeKey {
    pub(super) bucket: u32,
    pub(super) client: Incarnation,
    pub(super) counter: u64,
}

impl OutcomeKey {
    fn encode(&self) -> Bytes {
        let mut key = BytesMut::from(OUTCOMES);
        key.put_u32(self.bucket);
        key.put_u128(self.client.0);
        key.put_u64(self.counter);
        key.freeze()
    }
}

/// How a commit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Committed(Versionstamp),
    /// It was not applied and never will be.
    Refused,
}

impl Outcome {
    pub(super) fn result(self) -> Result<Commit, Error> {
        match self {
            Self::Committed(stamp) => Ok(Commit { version: stamp.version(), stamp: Some(stamp) }),
            Self::Refused => Err(Error::TooOld),
        }
    }

    fn decode(row: &[u8]) -> Result<Self, Error> {
        match row {
            [REFUSED] => Ok(Self::Refused),
            [COMMITTED, stamp @ ..] if stamp.len() == 10 => {
                Ok(Self::Committed(Versionstamp(stamp.try_into().expect("ten octets"))))
            }
            _ => Err(Error::Corrupt("an outcome row is neither of its forms".to_owned())),
        }
    }
}

/// The row, read so that whoever writes it first makes this transaction conflict.
pub(super) async fn read(txn: &mut EmbeddedTxn, key: &OutcomeKey) -> Result<Option<Outcome>, Error> {
    let row = txn.get(&key.encode(), Isolation::Serializable).await?;
    row.map(|row| Outcome::decode(&row)).transpose()
}

/// Makes the transaction tell its own success.
pub(super) fn note(txn: &mut EmbeddedTxn, key: &OutcomeKey) {
    txn.writes().set_stamped_value(key.encode(), Bytes::from_static(&[COMMITTED]), Bytes::new());
}

/// Closes the door to a commit that has not been applied.
pub(super) fn refuse(txn: &mut EmbeddedTxn, key: &OutcomeKey) {
    txn.writes().set(key.encode(), Bytes::from_static(&[REFUSED]));
}

/// Clears the rows of earlier minutes.
pub(super) fn forget_before(txn: &mut EmbeddedTxn, bucket: u32) {
    let mut end = BytesMut::from(OUTCOMES);
    end.put_u32(bucket);
    txn.writes().clear_range(Bytes::from_static(OUTCOMES), end.freeze());
}

/// The minute of now.
pub(super) fn bucket() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs() / 60).unwrap_or(u32::MAX)
}

/// The name of this store, made at the first call.
pub(super) async fn store_name(mut txn: EmbeddedTxn) -> Result<Bytes, Error> {
    if let Some(name) = txn.get(STORE, Isolation::Serializable).await? {
        return Ok(name);
    }
    let name = Bytes::from(rand::random::<[u8; 16]>().to_vec());
    txn.writes().set(Bytes::from_static(STORE), name.clone());
    txn.commit().await?;
    Ok(name)
}
