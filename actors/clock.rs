//! The one place that reads the wall clock and draws random ids; everything below takes both as arguments.

use std::time::{SystemTime, UNIX_EPOCH};

use posthouse_mail::{IngestId, UnixMillis};

/// Now. A clock before 1970 reads as 1970.
pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A fresh id for a message that starts its way now.
pub fn ingest_id(now: UnixMillis) -> IngestId {
    IngestId::from_parts(now.0, rand::random())
}
