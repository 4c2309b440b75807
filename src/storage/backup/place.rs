//! Where a backup lies: named objects that are written whole, read by ranges, listed and removed.
//!
//! Apart so that nothing else of the backup knows whether it writes files or to a bucket. A name appears only when its
//! content is whole and durable. Every call has one deadline, `backup.timeout`.

mod folder;

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use crate::error::Error;
use folder::Folder;

/// One place; a cheap clone.
#[derive(Clone)]
pub(crate) struct Place {
    kind: Kind,
    timeout: Duration,
}

#[derive(Clone)]
enum Kind {
    Folder(Folder),
}

/// An object as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub name: String,
    pub octets: u64,
}

impl Place {
    /// The place of a folder's path.
    pub fn at(location: &str, timeout: Duration) -> Result<Self, Error> {
        if location.contains("://") {
            return Err(Error::Refused(format!("{location}: a backup lies in a folder")));
        }
        Ok(Self { kind: Kind::Folder(Folder::new(Path::new(location))), timeout })
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
        }
    }

    /// A whole object of at most `max` octets; `None`: there is none.
    pub async fn get(&self, name: &str, max: u64) -> Result<Option<Bytes>, Error> {
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
        }
    }

    /// Octets of an object; `None`: there is none.
    pub async fn size(&self, name: &str) -> Result<Option<u64>, Error> {
        match &self.kind {
            Kind::Folder(folder) => self.timed(name, folder.size(name)).await,
        }
    }

    /// Every object below a name that ends in `/`, in no order.
    pub async fn list(&self, below: &str) -> Result<Vec<Listed>, Error> {
        match &self.kind {
            // A list may be long: its parts are bounded by the system, not by one wait.
            Kind::Folder(folder) => folder.list(below).await,
        }
    }

    /// Removes an object; one that is gone is no error.
    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        match &self.kind {
            Kind::Folder(folder) => self.timed(name, folder.delete(name)).await,
        }
    }

    /// Begins an object that is written part by part.
    pub async fn upload(&self, name: &str) -> Result<Upload, Error> {
        let kind = match &self.kind {
            Kind::Folder(folder) => UploadKind::Folder(self.timed(name, folder.upload(name)).await?),
        };
        Ok(Upload { kind, name: name.to_owned(), timeout: self.timeout })
    }

    /// Removes what uploads that were cut short left behind. The caller holds the target's lock.
    pub async fn tidy(&self) -> Result<(), Error> {
        match &self.kind {
            Kind::Folder(folder) => folder.tidy().await,
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
}

impl Upload {
    pub async fn write(&mut self, content: Bytes) -> Result<(), Error> {
        match &mut self.kind {
            UploadKind::Folder(part) => timed(self.timeout, &self.name, part.write(content)).await,
        }
    }

    /// The object is durable and has its name.
    pub async fn finish(self) -> Result<(), Error> {
        match self.kind {
            UploadKind::Folder(part) => timed(self.timeout, &self.name, part.finish()).await,
        }
    }
}

async fn timed<T>(limit: Duration, name: &str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match tokio::time::timeout(limit, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::Unavailable(format!("the backup's {name} was not read or written in time"))),
    }
}
