//! Objects: the frames of a large body as one object in an S3-compatible store.
//!
//! Every request has a deadline; what fails is temporary for the caller, as the body and its row stand until an answer says otherwise.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt as _, PutPayload};
use posthouse_conf::storage::ObjectStore as Settings;

use crate::bucket::{self, Service};
use crate::error::Error;

/// Octets of a part of an upload; S3 takes no smaller one but the last.
const PART: usize = 8 << 20;

/// The name of an object: random for each upload, so that what an upload that was given up left behind is never another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ObjectId([u8; ObjectId::LENGTH]);

impl ObjectId {
    pub(crate) const LENGTH: usize = 16;

    pub(crate) const fn new(octets: [u8; Self::LENGTH]) -> Self {
        Self(octets)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }
}

impl std::fmt::Display for ObjectId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

/// The bucket.
pub(crate) struct Objects {
    store: Arc<dyn ObjectStore>,
    prefix: String,
    timeout: Duration,
}

impl Objects {
    /// A client, unless no bucket is configured. Nothing is sent yet.
    pub(crate) fn configured(settings: &Settings) -> Result<Option<Self>, Error> {
        if settings.bucket.is_empty() {
            return Ok(None);
        }
        let service = Service {
            table: "storage.object_store",
            endpoint: &settings.endpoint,
            region: &settings.region,
            access_key_id: &settings.access_key_id,
            secret_key_file: &settings.secret_key_file,
            timeout: settings.timeout.get(),
        };
        let store = bucket::client(&settings.bucket, &service)?;
        Ok(Some(Self::new(Arc::new(store), settings)))
    }

    pub(crate) fn new(store: Arc<dyn ObjectStore>, settings: &Settings) -> Self {
        Self { store, prefix: settings.prefix.clone(), timeout: settings.timeout.get() }
    }

    /// Begins an object. It is there only after `Upload::finish`.
    pub(crate) async fn upload(&self, id: &ObjectId) -> Result<Upload<'_>, Error> {
        let parts = self.within(self.store.put_multipart(&self.path(id))).await?;
        Ok(Upload { objects: self, parts, buffer: Vec::new() })
    }

    /// A part of an object, whole or not at all.
    pub(crate) async fn read(&self, id: &ObjectId, range: Range<u64>) -> Result<Bytes, Error> {
        let wanted = range.end - range.start;
        let octets = self.within(self.read_or_end(&self.path(id), range)).await?;
        match octets.len() as u64 == wanted {
            true => Ok(octets),
            false => Err(Error::Corrupt(format!("object {id} is cut short"))),
        }
    }

    /// Nothing where the object ends before the range does: for a range that begins behind its end a service answers with
    /// an error as for any other fault.
    async fn read_or_end(&self, path: &Path, range: Range<u64>) -> object_store::Result<Bytes> {
        let end = range.end;
        let error = match self.store.get_range(path, range).await {
            Err(error @ object_store::Error::Generic { .. }) => error,
            answer => return answer,
        };
        match self.store.head(path).await {
            Ok(found) if found.size < end => Ok(Bytes::new()),
            _ => Err(error),
        }
    }

    /// Removes an object; one that is not there is as good.
    pub(crate) async fn delete(&self, id: &ObjectId) -> Result<(), Error> {
        match self.within(self.store.delete(&self.path(id))).await {
            Err(Error::Corrupt(_)) => Ok(()),
            outcome => outcome,
        }
    }

    fn path(&self, id: &ObjectId) -> Path {
        Path::from(format!("{}{id}", self.prefix))
    }

    /// Runs one request within its deadline.
    async fn within<T>(&self, request: impl Future<Output = object_store::Result<T>>) -> Result<T, Error> {
        match tokio::time::timeout(self.timeout, request).await {
            Ok(Ok(answer)) => Ok(answer),
            // What the row names is not there: the one answer that is no weather.
            Ok(Err(object_store::Error::NotFound { path, .. })) => {
                Err(Error::Corrupt(format!("object {path} is missing")))
            }
            Ok(Err(error)) => Err(Error::Unavailable(format!("the object store: {error}"))),
            Err(_) => Err(Error::Unavailable(format!("the object store gave no answer in {:?}", self.timeout))),
        }
    }
}

/// An object in the making.
pub(crate) struct Upload<'a> {
    objects: &'a Objects,
    parts: Box<dyn MultipartUpload>,
    buffer: Vec<u8>,
}

impl Upload<'_> {
    pub(crate) async fn push(&mut self, frame: &[u8]) -> Result<(), Error> {
        self.buffer.extend_from_slice(frame);
        if self.buffer.len() >= PART { self.send().await } else { Ok(()) }
    }

    pub(crate) async fn finish(mut self) -> Result<(), Error> {
        self.send().await?;
        self.objects.within(self.parts.complete()).await.map(|_| ())
    }

    /// Gives the parts back; an endpoint that does not answer keeps them until its own rule removes them.
    pub(crate) async fn give_up(mut self) {
        let _ = self.objects.within(self.parts.abort()).await;
    }

    async fn send(&mut self) -> Result<(), Error> {
        let part = PutPayload::from(std::mem::take(&mut self.buffer));
        self.objects.within(self.parts.put_part(part)).await
    }
}
