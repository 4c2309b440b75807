//! Where a backup lies: named objects that are written whole, read by ranges, listed and removed.
//!
//! Apart so that nothing else of the backup knows whether it writes files or to a bucket. A name appears only when its
//! content is whole and durable. Every call has one deadline, `backup.timeout`: in a bucket, every request; but the
//! lists of a folder, which may be long.

mod bucket;
mod folder;

use std::ops::Range;
use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use posthouse_conf::Backup as Settings;

use crate::error::Error;
pub(crate) use bucket::Bucket;
use folder::Folder;

/// Where what has no name yet is made, or noted.
const UNFINISHED: &str = "unfinished/";

/// One place; a cheap clone.
#[derive(Clone)]
pub(crate) struct Place {
    kind: Kind,
    timeout: Duration,
}

#[derive(Clone)]
enum Kind {
    Folder(Folder),
    Bucket(Bucket),
}

/// An object as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub name: String,
    pub octets: u64,
}

impl Place {
    /// The place of a folder's path, or of `s3://BUCKET/PREFIX`.
    pub fn at(location: &str, settings: &Settings) -> Result<Self, Error> {
        let kind = match location.split_once("://") {
            None => Kind::Folder(Folder::new(Path::new(location))),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("s3") => Kind::Bucket(Bucket::at(rest, settings)?),
            Some(_) => {
                let reason = "a backup lies in a folder or at s3://BUCKET/PREFIX";
                return Err(Error::Refused(format!("{location}: {reason}")));
            }
        };
        Ok(Self { kind, timeout: settings.timeout.get() })
    }

    #[cfg(test)]
    pub fn of_bucket(bucket: Bucket, settings: &Settings) -> Self {
        Self { kind: Kind::Bucket(bucket), timeout: settings.timeout.get() }
    }

    /// Writes an object, whole or not at all.
    pub async fn put(&self, name: &str, content: Bytes) -> Result<(), Error> {
        let mut upload = self.upload(name).await?;
        upload.write(content).await?;
        upload.finish().await
    }

    /// Writes an object unless there is one of its name; whether it did.
    pub async fn put_new(&self, name: &str, content: Bytes) -> Result<bool, Error> {
        match &self.kind {
            Kind::Folder(folder) => self.timed(name, folder.put_new(name, content)).await,
            Kind::Bucket(bucket) => bucket.put_new(name, content).await,
        }
    }

    /// Writes over an object that still holds `old`; whether it did.
    pub async fn replace(&self, name: &str, old: &Bytes, new: Bytes) -> Result<bool, Error> {
        match &self.kind {
            Kind::Folder(folder) => self.timed(name, folder.replace(name, old.clone(), new)).await,
            Kind::Bucket(bucket) => bucket.replace(name, old, new).await,
        }
    }

    /// Removes an object of at most `max` octets if its content is one that is meant; whether it did.
    pub async fn remove_if(
        &self,
        (name, max): (&str, u64),
        is_meant: impl Fn(Bytes) -> bool + Send + 'static,
    ) -> Result<bool, Error> {
        match &self.kind {
            Kind::Folder(folder) => self.timed(name, folder.remove_if((name, max), is_meant)).await,
            // As well as it goes in two requests.
            Kind::Bucket(bucket) => match bucket.get(name, max).await {
                Ok(Some(found)) if is_meant(found.clone()) => bucket.delete(name).await.map(|()| true),
                // A longer one is none that is meant.
                Ok(_) | Err(Error::BackupDamaged(_)) => Ok(false),
                Err(error) => Err(error),
            },
        }
    }

    /// How long ago an object was written, by the place's own clock: those of two machines need not agree. `None`: it is gone.
    pub async fn age(&self, name: &str) -> Result<Option<Duration>, Error> {
        let probe = format!("{UNFINISHED}{:032x}", rand::random::<u128>());
        self.put_new(&probe, Bytes::new()).await?;
        let now = self.written_at(&probe).await?;
        let then = self.written_at(name).await?;
        self.delete(&probe).await?;
        // Whoever removed the probe holds the lock, and what he has written is new.
        let age = |then: SystemTime| now.and_then(|now| now.duration_since(then).ok()).unwrap_or_default();
        Ok(then.map(age))
    }

    async fn written_at(&self, name: &str) -> Result<Option<SystemTime>, Error> {
        match &self.kind {
            Kind::Folder(folder) => self.timed(name, folder.written_at(name)).await,
            Kind::Bucket(bucket) => bucket.written_at(name).await,
        }
    }

    /// A whole object of at most `max` octets; `None`: there is none.
    pub async fn get(&self, name: &str, max: u64) -> Result<Option<Bytes>, Error> {
        if let Kind::Bucket(bucket) = &self.kind {
            // One request instead of two.
            return bucket.get(name, max).await;
        }
        match self.size(name).await? {
            None => Ok(None),
            Some(size) if size > max => Err(Error::BackupDamaged(format!("{name} has {size} octets, over {max}"))),
            Some(size) => self.read(name, 0..size).await.map(Some),
        }
    }

    /// A part of an object, all of which must be there.
    pub async fn read(&self, name: &str, range: Range<u64>) -> Result<Bytes, Error> {
        match &self.kind {
            Kind::Folder(folder) => self.timed(name, folder.read(name, range)).await,
            Kind::Bucket(bucket) => bucket.read(name, range).await,
        }
    }

    /// Octets of an object; `None`: there is none.
    pub async fn size(&self, name: &str) -> Result<Option<u64>, Error> {
        match &self.kind {
            Kind::Folder(folder) => self.timed(name, folder.size(name)).await,
            Kind::Bucket(bucket) => bucket.size(name).await,
        }
    }

    /// Every object below a name that ends in `/`, in no order.
    pub async fn list(&self, below: &str) -> Result<Vec<Listed>, Error> {
        match &self.kind {
            // A list may be long: its parts are bounded by the system, not by one wait.
            Kind::Folder(folder) => folder.list(below).await,
            Kind::Bucket(bucket) => bucket.list(below).await,
        }
    }

    /// Whether nothing is there; what was never finished is nothing.
    pub async fn is_empty(&self) -> Result<bool, Error> {
        match &self.kind {
            Kind::Folder(folder) => Ok(folder.list("").await?.iter().all(|object| object.name.starts_with(UNFINISHED))),
            Kind::Bucket(bucket) => bucket.is_empty().await,
        }
    }

    /// Removes an object; one that is gone is no error.
    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        match &self.kind {
            Kind::Folder(folder) => self.timed(name, folder.delete(name)).await,
            Kind::Bucket(bucket) => bucket.delete(name).await,
        }
    }

    /// Begins an object that is written part by part.
    pub async fn upload(&self, name: &str) -> Result<Upload, Error> {
        let kind = match &self.kind {
            Kind::Folder(folder) => UploadKind::Folder(self.timed(name, folder.upload(name)).await?),
            Kind::Bucket(bucket) => UploadKind::Bucket(bucket.upload(name)),
        };
        Ok(Upload { kind, name: name.to_owned(), timeout: self.timeout })
    }

    /// Removes what uploads that were cut short left behind. The caller holds the target's lock.
    pub async fn tidy(&self) -> Result<(), Error> {
        match &self.kind {
            Kind::Folder(folder) => folder.tidy().await,
            Kind::Bucket(bucket) => bucket.tidy().await,
        }
    }

    async fn timed<T>(&self, name: &str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        timed(self.timeout, name, work).await
    }
}

/// An object in the making; dropped unfinished, it never appears.
pub(crate) struct Upload {
    kind: UploadKind,
    name: String,
    timeout: Duration,
}

enum UploadKind {
    Folder(folder::Part),
    Bucket(bucket::Part),
}

impl Upload {
    pub async fn write(&mut self, content: Bytes) -> Result<(), Error> {
        match &mut self.kind {
            UploadKind::Folder(part) => timed(self.timeout, &self.name, part.write(content)).await,
            UploadKind::Bucket(part) => part.write(content).await,
        }
    }

    /// The object is durable and has its name.
    pub async fn finish(self) -> Result<(), Error> {
        match self.kind {
            UploadKind::Folder(part) => timed(self.timeout, &self.name, part.finish()).await,
            UploadKind::Bucket(part) => part.finish().await,
        }
    }
}

async fn timed<T>(limit: Duration, name: &str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match tokio::time::timeout(limit, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::Unavailable(format!("the backup's {name} was not read or written in time"))),
    }
}
