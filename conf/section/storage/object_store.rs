//! `[storage.object_store]`: an S3-compatible store for large bodies.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::section::Complaint;
use crate::unit::{Size, Span};

/// An S3-compatible store for large bodies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ObjectStore {
    /// The bucket, which has to be there; empty: every body stays in the store itself.
    pub bucket: String,
    /// Where the service is, such as `https://s3.example.org`; empty: Amazon's, by the region.
    pub endpoint: String,
    /// The region of the bucket.
    pub region: String,
    /// The name of the access key.
    pub access_key_id: String,
    /// A file with the secret of the access key.
    pub secret_key_file: PathBuf,
    /// Names of objects begin with this, so that a bucket can be shared.
    pub prefix: String,
    /// Bodies from this size on move to the object store.
    pub min_size: Size,
    /// Longest wait for the answer to one request.
    pub timeout: Span,
}

impl Default for ObjectStore {
    fn default() -> Self {
        Self {
            bucket: String::new(),
            endpoint: String::new(),
            region: "us-east-1".to_owned(),
            access_key_id: String::new(),
            secret_key_file: PathBuf::new(),
            prefix: "posthouse/".to_owned(),
            min_size: Size::mib(1),
            timeout: Span::secs(30),
        }
    }
}

impl ObjectStore {
    pub(in crate::section) fn complaint(&self) -> Complaint {
        let is_odd = !self.bucket.is_empty() && self.access_key_id.is_empty();
        is_odd.then(|| ("storage.object_store.access_key_id", "a bucket needs an access key".to_owned()))
    }
}
