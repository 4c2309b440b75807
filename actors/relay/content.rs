//! The octets of a queued message as they go out: added fields, then the body from the store, in chunks.
//!
//! Apart so that no message is ever whole in memory, and a store that fails in the middle ends the data without its dot.

use posthouse_storage::transit::Transit;
use posthouse_storage::{Error, Store};

/// Reads one message from front to back.
pub struct Content<'a> {
    store: &'a Store,
    transit: &'a Transit,
}

/// What kind of octets a message holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Octets {
    /// Some octet is over 127.
    pub eight_bit: bool,
    /// Some octet of the header is.
    pub eight_bit_header: bool,
}

impl<'a> Content<'a> {
    pub fn new(store: &'a Store, transit: &'a Transit) -> Self {
        Self { store, transit }
    }

    pub fn size(&self) -> u64 {
        self.transit.added_headers.len() as u64 + self.transit.body.size
    }

    /// The chunk that begins at `offset`; empty at the end.
    pub async fn chunk(&self, offset: u64) -> Result<bytes::Bytes, Error> {
        let added = self.transit.added_headers.len() as u64;
        if let Some(rest) = usize::try_from(offset).ok().and_then(|at| self.transit.added_headers.get(at..))
            && !rest.is_empty()
        {
            return Ok(bytes::Bytes::copy_from_slice(rest));
        }
        let begin = offset.saturating_sub(added);
        let end = begin.saturating_add(CHUNK).min(self.transit.body.size);
        if begin >= end {
            return Ok(bytes::Bytes::new());
        }
        self.store.body_read(&self.transit.body, begin..end).await
    }

    /// Looks through the message; asked only where a server lacks an extension that such octets need.
    pub async fn octets(&self) -> Result<Octets, Error> {
        let mut found = Octets::default();
        let mut tail = [0_u8; 3];
        let (mut offset, mut in_header) = (0, true);
        loop {
            let chunk = self.chunk(offset).await?;
            if chunk.is_empty() {
                return Ok(found);
            }
            offset += chunk.len() as u64;
            for byte in chunk.iter() {
                found.eight_bit |= !byte.is_ascii();
                found.eight_bit_header |= in_header && !byte.is_ascii();
                in_header &= [tail[0], tail[1], tail[2], *byte] != *b"\r\n\r\n";
                tail = [tail[1], tail[2], *byte];
            }
        }
    }
}

const CHUNK: u64 = 64 * 1024;
