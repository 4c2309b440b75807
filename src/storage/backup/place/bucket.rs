//! A backup in a bucket: small objects by one request, large ones in parts that become an object with the last request.
//!
//! No list of a service's unfinished uploads is to be had through the library, and what lies in them is paid for. So each
//! upload has a mark beside the objects, from before its first part until it is complete or given back; what a process
//! that was killed left behind is given back by the next one. Only an upload without a part, which holds nothing, can be
//! left without a mark: by a service that dies between the two requests.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt as _;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    Error as StoreError, MultipartId, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, UpdateVersion,
};
use posthouse_conf::Backup as Settings;

use super::{Listed, UNFINISHED};
use crate::bucket::{self, Service};
use crate::error::Error;

/// Octets of a part. Some services want all parts but the last to be equal, none takes less than 5 MiB.
const PART: usize = 8 << 20;
/// Parts of one object that every service takes.
const PARTS_MAX: usize = 10_000;
/// Octets of a mark.
const MARK_MAX: u64 = 8192;

/// What a client of a bucket can do.
pub(crate) trait Remote: ObjectStore + MultipartStore {}

impl<T: ObjectStore + MultipartStore> Remote for T {}

#[derive(Clone)]
pub(crate) struct Bucket {
    store: Arc<dyn Remote>,
    /// What the names of all objects begin with.
    root: Path,
    /// As an administrator writes it, without the prefix.
    shown: Arc<str>,
    timeout: Duration,
    /// Octets of a part.
    part: usize,
}

/// An object in the making.
pub(super) struct Part {
    bucket: Bucket,
    name: String,
    /// Less than a part.
    buffer: Vec<u8>,
    /// Only an object of more than one part has an upload.
    upload: Option<Begun>,
}

/// An upload that the service knows.
struct Begun {
    id: MultipartId,
    mark: String,
    parts: Vec<PartId>,
}

/// An object that is dropped unfinished is given back.
impl Drop for Part {
    fn drop(&mut self) {
        if let (Some(begun), Ok(runtime)) = (self.upload.take(), tokio::runtime::Handle::try_current()) {
            let (bucket, name) = (self.bucket.clone(), std::mem::take(&mut self.name));
            runtime.spawn(async move {
                // Where it cannot be, its mark stays for the next run.
                let _ = bucket.give_back(&name, &begun.id, &begun.mark).await;
            });
        }
    }
}

impl Bucket {
    /// The bucket and prefix of `BUCKET/PREFIX`.
    pub fn at(location: &str, settings: &Settings) -> Result<Self, Error> {
        let (name, prefix) = location.split_once('/').unwrap_or((location, ""));
        let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        if name.is_empty() || !name.chars().all(is_plain) {
            // Not shown again: somebody may have written a password into it.
            return Err(Error::Refused(
                "a backup in a bucket lies at s3://BUCKET/PREFIX; a bucket's name has letters, digits, dots and dashes"
                    .to_owned(),
            ));
        }
        let root = root(name, prefix)?;
        let timeout = settings.timeout.get();
        let settings = &settings.object_store;
        let service = Service {
            table: "backup.object_store",
            endpoint: &settings.endpoint,
            region: &settings.region,
            access_key_id: &settings.access_key_id,
            secret_key_file: &settings.secret_key_file,
            timeout,
        };
        Ok(Self::on(Arc::new(bucket::client(name, &service)?), (name, root), timeout))
    }

    fn on(store: Arc<dyn Remote>, (name, root): (&str, Path), timeout: Duration) -> Self {
        Self { store, root, shown: format!("s3://{name}").into(), timeout, part: PART }
    }

    /// With another store and parts of so many octets.
    #[cfg(test)]
    pub fn over(store: Arc<dyn Remote>, (name, prefix): (&str, &str), timeout: Duration, part: usize) -> Self {
        let root = Path::parse(prefix).expect("a plain prefix");
        Self { part, ..Self::on(store, (name, root), timeout) }
    }

    pub async fn put_new(&self, name: &str, content: Bytes) -> Result<bool, Error> {
        // Asked first: a service that does not know the condition must not write over what is there.
        if self.size(name).await?.is_some() {
            return Ok(false);
        }
        let path = self.path(name)?;
        let put = self.store.put_opts(&path, PutPayload::from(content.clone()), PutOptions::from(PutMode::Create));
        match self.within(name, put).await? {
            Ok(_) => Ok(true),
            // It may be ours all the same, by a request whose answer was lost.
            Err(StoreError::AlreadyExists { .. }) => self.holds(name, &content).await,
            Err(error) => Err(self.failed(name, error)),
        }
    }

    pub async fn replace(&self, name: &str, old: &Bytes, new: Bytes) -> Result<bool, Error> {
        let path = self.path(name)?;
        let request = async {
            let answer = self.store.get(&path).await?;
            let version = UpdateVersion { e_tag: answer.meta.e_tag.clone(), version: answer.meta.version.clone() };
            Ok((version, answer.bytes().await?))
        };
        let (version, found) = match self.within(name, request).await? {
            Ok(found) => found,
            Err(error) => return self.or_missing(name, error).map(|()| false),
        };
        if found != old {
            return Ok(false);
        }
        if version.e_tag.is_none() {
            return self.remove_and_put(name, new).await;
        }
        let put = self.store.put_opts(&path, PutPayload::from(new.clone()), PutMode::Update(version).into());
        match self.within(name, put).await? {
            Ok(_) => Ok(true),
            Err(StoreError::Precondition { .. }) => self.holds(name, &new).await,
            Err(StoreError::NotImplemented { .. } | StoreError::NotSupported { .. }) => {
                self.remove_and_put(name, new).await
            }
            Err(error) if error.to_string().contains("NotImplemented") => self.remove_and_put(name, new).await,
            Err(error) => Err(self.failed(name, error)),
        }
    }

    /// As well as it goes with a service that cannot compare before it writes: who writes new is one only.
    async fn remove_and_put(&self, name: &str, new: Bytes) -> Result<bool, Error> {
        self.delete(name).await?;
        self.put_new(name, new).await
    }

    async fn holds(&self, name: &str, content: &Bytes) -> Result<bool, Error> {
        match self.get(name, u64::try_from(content.len()).unwrap_or(u64::MAX)).await {
            Err(Error::BackupDamaged(_)) => Ok(false),
            found => Ok(found?.is_some_and(|found| found == content)),
        }
    }

    pub async fn written_at(&self, name: &str) -> Result<Option<SystemTime>, Error> {
        let path = self.path(name)?;
        match self.within(name, self.store.head(&path)).await? {
            Ok(found) => Ok(Some(found.last_modified.into())),
            Err(error) => self.or_missing(name, error).map(|()| None),
        }
    }

    pub async fn get(&self, name: &str, max: u64) -> Result<Option<Bytes>, Error> {
        let path = self.path(name)?;
        let request = async {
            let answer = self.store.get(&path).await?;
            let size = answer.meta.size;
            Ok(if size > max { Err(size) } else { Ok(answer.bytes().await?) })
        };
        match self.within(name, request).await? {
            Ok(Ok(octets)) => Ok(Some(octets)),
            Ok(Err(size)) => Err(Error::BackupDamaged(format!("{} has {size} octets, over {max}", self.shown(name)))),
            Err(error) => self.or_missing(name, error).map(|()| None),
        }
    }

    pub async fn read(&self, name: &str, range: Range<u64>) -> Result<Bytes, Error> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let path = self.path(name)?;
        let cut = |held: u64| Error::BackupDamaged(format!("{} ends at {held} of {}", self.shown(name), range.end));
        match self.within(name, self.store.get_range(&path, range.clone())).await? {
            Ok(octets) => match range.start + u64::try_from(octets.len()).unwrap_or(u64::MAX) {
                end if end == range.end => Ok(octets),
                end => Err(cut(end)),
            },
            // For a range that begins behind an object's end the answer is an error like any other.
            Err(error @ StoreError::Generic { .. }) => match self.size(name).await {
                Ok(Some(held)) if held < range.end => Err(cut(held)),
                _ => Err(self.failed(name, error)),
            },
            Err(error) => Err(self.failed(name, error)),
        }
    }

    pub async fn size(&self, name: &str) -> Result<Option<u64>, Error> {
        let path = self.path(name)?;
        match self.within(name, self.store.head(&path)).await? {
            Ok(found) => Ok(Some(found.size)),
            Err(error) => self.or_missing(name, error).map(|()| None),
        }
    }

    pub async fn list(&self, below: &str) -> Result<Vec<Listed>, Error> {
        self.first(below, usize::MAX).await
    }

    pub async fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.first("", 1).await?.is_empty())
    }

    /// So many objects. Pages are fetched as they are needed, each within the deadline.
    async fn first(&self, below: &str, max: usize) -> Result<Vec<Listed>, Error> {
        let path = self.path(below)?;
        let mut listed = self.store.list(Some(&path));
        let mut found = Vec::new();
        while found.len() < max {
            let next = async { listed.next().await.transpose() };
            let Some(object) = self.within(below, next).await?.map_err(|error| self.failed(below, error))? else {
                break;
            };
            let name = object.location.as_ref().strip_prefix(self.root.as_ref()).unwrap_or_default();
            let name = name.trim_start_matches('/');
            // Some tools write an empty object for the folder itself.
            if !name.is_empty() {
                found.push(Listed { name: name.to_owned(), octets: object.size });
            }
        }
        Ok(found)
    }

    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        let path = self.path(name)?;
        match self.within(name, self.store.delete(&path)).await? {
            Ok(()) => Ok(()),
            Err(error) => self.or_missing(name, error),
        }
    }

    pub(super) fn upload(&self, name: &str) -> Part {
        Part { bucket: self.clone(), name: name.to_owned(), buffer: Vec::new(), upload: None }
    }

    /// Gives back the uploads whose marks are left.
    pub async fn tidy(&self) -> Result<(), Error> {
        for left in self.list(UNFINISHED).await? {
            let mark = self.get(&left.name, MARK_MAX).await?.unwrap_or_default();
            match std::str::from_utf8(&mark).ok().and_then(|mark| mark.split_once('\n')) {
                Some((name, id)) => self.give_back(name, &id.to_owned(), &left.name).await?,
                None => self.delete(&left.name).await?,
            }
        }
        Ok(())
    }

    /// Ends an upload; one that is complete or gone is as good.
    async fn give_back(&self, name: &str, id: &MultipartId, mark: &str) -> Result<(), Error> {
        let path = self.path(name)?;
        if let Err(error) = self.within(name, self.store.abort_multipart(&path, id)).await? {
            self.or_missing(name, error)?;
        }
        self.delete(mark).await
    }

    fn path(&self, name: &str) -> Result<Path, Error> {
        let path = Path::parse(format!("{}/{name}", self.root));
        path.map_err(|error| Error::BackupDamaged(format!("{name:?} is the name of no object: {error}")))
    }

    /// As an administrator writes it.
    pub fn shown(&self, name: &str) -> String {
        match self.path(name) {
            Ok(path) => format!("{}/{path}", self.shown),
            Err(_) => format!("{}/{name}", self.shown),
        }
    }

    /// Runs one request within its deadline.
    async fn within<T>(
        &self,
        name: &str,
        request: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<Result<T, StoreError>, Error> {
        tokio::time::timeout(self.timeout, request).await.map_err(|_| {
            let (object, limit) = (self.shown(name), self.timeout);
            Error::Unavailable(format!(
                "{object}: the object store gave no answer in {limit:?}: begin again when it does, or raise backup.timeout"
            ))
        })
    }

    /// An object that is not there is no error here; its bucket has to be.
    fn or_missing(&self, name: &str, error: StoreError) -> Result<(), Error> {
        match self.failed(name, error) {
            Error::BackupDamaged(_) => Ok(()),
            error => Err(error),
        }
    }

    /// What went wrong, and what to do.
    fn failed(&self, name: &str, error: StoreError) -> Error {
        let object = self.shown(name);
        match error {
            StoreError::NotFound { ref source, .. } if source.to_string().contains("NoSuchBucket") => {
                Error::Refused(format!(
                    "{object}: there is no such bucket: make it first, or check its name and backup.object_store.endpoint"
                ))
            }
            StoreError::NotFound { .. } => Error::BackupDamaged(format!("{object} is missing")),
            StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => Error::Refused(format!(
                "{object}: the object store refuses the access key: check it (backup.object_store, or the environment), and that it \
                 may list, read, write and remove objects there: {error}"
            )),
            StoreError::NotImplemented { .. } | StoreError::NotSupported { .. } => {
                Error::Refused(format!("{object}: this object store cannot keep a backup: {error}"))
            }
            error => Error::Unavailable(format!("{object}: {error}: begin again when the object store answers")),
        }
    }
}

/// What the names of all objects begin with.
fn root(bucket: &str, prefix: &str) -> Result<Path, Error> {
    Path::parse(prefix).map_err(|error| Error::Refused(format!("s3://{bucket}/{prefix}: {error}")))
}

impl Part {
    pub async fn write(&mut self, content: Bytes) -> Result<(), Error> {
        self.buffer.extend_from_slice(&content);
        while self.buffer.len() >= self.bucket.part {
            let rest = self.buffer.split_off(self.bucket.part);
            let part = std::mem::replace(&mut self.buffer, rest);
            self.send(part).await?;
        }
        Ok(())
    }

    pub async fn finish(mut self) -> Result<(), Error> {
        let (bucket, rest) = (self.bucket.clone(), std::mem::take(&mut self.buffer));
        let path = bucket.path(&self.name)?;
        if self.upload.is_none() {
            let put = bucket.store.put(&path, PutPayload::from(rest));
            return bucket.within(&self.name, put).await?.map(drop).map_err(|error| bucket.failed(&self.name, error));
        }
        if !rest.is_empty() {
            self.send(rest).await?;
        }
        if let Some(Begun { id, parts, .. }) = &self.upload {
            let complete = bucket.store.complete_multipart(&path, id, parts.clone());
            bucket.within(&self.name, complete).await?.map_err(|error| bucket.failed(&self.name, error))?;
        }
        if let Some(Begun { mark, .. }) = self.upload.take() {
            // The object is there, whatever becomes of the mark: the next run removes it.
            let _ = bucket.delete(&mark).await;
        }
        Ok(())
    }

    async fn send(&mut self, part: Vec<u8>) -> Result<(), Error> {
        let bucket = self.bucket.clone();
        let path = bucket.path(&self.name)?;
        if self.upload.is_none() {
            self.begin(&path).await?;
        }
        let Some(Begun { id, parts, .. }) = &mut self.upload else { return Ok(()) };
        if parts.len() == PARTS_MAX {
            return Err(Error::Refused(format!("{} is too large for a bucket: lower backup.pack_max", self.name)));
        }
        let put = bucket.store.put_part(&path, id, parts.len(), PutPayload::from(part));
        let part = bucket.within(&self.name, put).await?.map_err(|error| bucket.failed(&self.name, error))?;
        parts.push(part);
        Ok(())
    }

    async fn begin(&mut self, path: &Path) -> Result<(), Error> {
        let bucket = self.bucket.clone();
        let begun = bucket.within(&self.name, bucket.store.create_multipart(path)).await?;
        let id = begun.map_err(|error| bucket.failed(&self.name, error))?;
        let mark = format!("{UNFINISHED}{:032x}", rand::random::<u128>());
        let (at, content) = (bucket.path(&mark)?, format!("{}\n{id}", self.name));
        self.upload = Some(Begun { id, mark: mark.clone(), parts: Vec::new() });
        let put = bucket.store.put(&at, PutPayload::from(content.into_bytes()));
        bucket.within(&mark, put).await?.map(drop).map_err(|error| bucket.failed(&mark, error))
    }
}
