//! `[backup.object_store]`: the S3-compatible store of the backups that lie in a bucket.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::section::Complaint;

/// The S3-compatible store of backups at `s3://BUCKET/PREFIX`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ObjectStore {
    /// Where the service is, such as `https://s3.example.org`; empty: Amazon's, by the region.
    pub endpoint: String,
    /// The region of the bucket.
    pub region: String,
    /// The name of the access key; empty: `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` of the environment.
    pub access_key_id: String,
    /// A file with the secret of the access key.
    pub secret_key_file: PathBuf,
}

impl Default for ObjectStore {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            region: "us-east-1".to_owned(),
            access_key_id: String::new(),
            secret_key_file: PathBuf::new(),
        }
    }
}

impl ObjectStore {
    pub(in crate::section) fn complaint(&self) -> Complaint {
        let is_odd = self.access_key_id.is_empty() != self.secret_key_file.as_os_str().is_empty();
        is_odd.then(|| {
            ("backup.object_store.access_key_id", "goes with secret_key_file: name both or neither".to_owned())
        })
    }
}
