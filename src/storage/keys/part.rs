//! How a key is put together from its parts and read back.
//!
//! Apart from the page of keys: nothing here knows what a row means. Parts keep their order (integers are big-endian, text
//! is closed by two zero octets with zeros inside escaped), so that a key sorts as the tuple of its parts does.

use posthouse_mail::{AccountId, BlobId, EmailId, IngestId};

use super::{BlobOwner, Class, Key, KeyRange, OWNED, Subspace};
use crate::blob::frame::StageId;
use crate::blob::object::ObjectId;
use crate::shard::ShardId;

impl Key {
    pub(super) fn owned(shard: ShardId, subspace: Subspace) -> Self {
        debug_assert!(subspace.class() == Class::Owned, "only owned rows begin with a shard");
        let mut bytes = Vec::with_capacity(40);
        bytes.push(OWNED);
        bytes.extend_from_slice(&shard.get().to_be_bytes());
        bytes.push(subspace.byte());
        Self(bytes)
    }

    pub(super) fn open(subspace: Subspace) -> Self {
        debug_assert!(subspace.class() != Class::Owned, "owned rows begin with their shard");
        let mut bytes = Vec::with_capacity(64);
        bytes.push(subspace.byte());
        Self(bytes)
    }

    /// Octets of a width that every key of the subspace shares at this place.
    pub(super) fn number(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn u32(self, value: u32) -> Self {
        self.number(&value.to_be_bytes())
    }

    pub(super) fn u64(self, value: u64) -> Self {
        self.number(&value.to_be_bytes())
    }

    pub(super) fn u128(self, value: u128) -> Self {
        self.number(&value.to_be_bytes())
    }

    /// Octets of any length: closed by 00 00, a zero inside is 00 ff, so that no text is a prefix of another.
    pub(super) fn text(mut self, bytes: &[u8]) -> Self {
        for byte in bytes {
            self.0.push(*byte);
            if *byte == 0 {
                self.0.push(0xff);
            }
        }
        self.0.extend_from_slice(&[0, 0]);
        self
    }

    pub(super) fn owner(self, owner: BlobOwner) -> Self {
        match owner {
            BlobOwner::Email { account, email } => self.number(&[1]).u64(account.get()).u64(email.get()),
            BlobOwner::Spool(message) => self.number(&[2]).u128(message.get()),
            BlobOwner::Queue(message) => self.number(&[3]).u128(message.get()),
        }
    }

    /// Every key that begins with this one.
    pub(super) fn children(self) -> KeyRange {
        KeyRange { end: after_prefix(&self.0), begin: self.0 }
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

impl std::ops::Deref for Key {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The least key after every key with this prefix.
pub(super) fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return end;
        }
    }
    vec![0xff; 2]
}

/// The least key after `key`: where a scan goes on after a page that ended there.
pub fn after(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}

/// Reads a key's parts back, last part first: all our keys end in parts of a fixed width.
pub struct KeyParts<'a>(&'a [u8]);

impl<'a> KeyParts<'a> {
    pub fn of(key: &'a [u8]) -> Self {
        Self(key)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (rest, part) = self.0.split_last_chunk::<N>()?;
        self.0 = rest;
        Some(*part)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    pub fn u128(&mut self) -> Option<u128> {
        self.take().map(u128::from_be_bytes)
    }

    pub fn blob(&mut self) -> Option<BlobId> {
        self.take().map(BlobId::new)
    }

    pub(crate) fn stage(&mut self) -> Option<StageId> {
        self.take().map(StageId::new)
    }

    pub(crate) fn object(&mut self) -> Option<ObjectId> {
        self.take().map(ObjectId::new)
    }

    pub fn owner(&mut self) -> Option<BlobOwner> {
        let id = self.u128()?;
        match self.take::<1>()? {
            [1] => {
                let [account, email] =
                    [id >> 64, id & u128::from(u64::MAX)].map(|half| u64::try_from(half).unwrap_or(0));
                Some(BlobOwner::Email { account: AccountId::new(account), email: EmailId::new(email) })
            }
            [2] => Some(BlobOwner::Spool(IngestId::new(id))),
            [3] => Some(BlobOwner::Queue(IngestId::new(id))),
            _ => None,
        }
    }

    /// The text that a key ends in, given how many octets stand before it.
    pub fn text_after(&self, fixed: usize) -> Option<Vec<u8>> {
        let escaped = self.0.get(fixed..)?.strip_suffix(&[0, 0])?;
        let mut text = Vec::with_capacity(escaped.len());
        let mut bytes = escaped.iter();
        while let Some(byte) = bytes.next() {
            if *byte == 0 && bytes.next() != Some(&0xff) {
                return None;
            }
            text.push(*byte);
        }
        Some(text)
    }
}
