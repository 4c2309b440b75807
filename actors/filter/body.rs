//! A staged or stored body in the form that the filter crate reads: it knows no store.

use std::ops::Range;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use posthouse_filter::{Error, MessageBody};
use posthouse_mail::stage::BodyRef;
use posthouse_storage::Store;

/// One body of a store.
pub(crate) struct StoredBody {
    store: Store,
    body: BodyRef,
}

impl StoredBody {
    pub(crate) fn new(store: Store, body: BodyRef) -> Self {
        Self { store, body }
    }
}

impl MessageBody for StoredBody {
    fn size(&self) -> u64 {
        self.body.size
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, Error>> {
        async move {
            let read = self.store.body_read(&self.body, range).await;
            read.map_err(|error| Error::Body { reason: error.to_string(), failure: error.failure() })
        }
        .boxed()
    }
}
