//! Every section of the configuration, one file each.

pub mod auth;
pub mod backup;
pub mod cluster;
pub mod dkim;
pub mod domain;
pub mod filter;
pub mod http;
pub mod imap;
pub mod limits;
pub mod listen;
pub mod mailbox;
pub mod node;
pub mod observe;
pub mod pop3;
pub mod queue;
pub mod resolver;
pub mod smtp;
pub mod storage;
pub mod submission;
pub mod supervise;
pub mod tls;
pub mod upgrade;

use serde::{Deserialize, Serialize};

pub use auth::Auth;
pub use backup::Backup;
pub use cluster::Cluster;
pub use dkim::Dkim;
pub use domain::Domain;
pub use filter::Filter;
pub use http::Http;
pub use imap::Imap;
pub use limits::Limits;
pub use listen::Listen;
pub use mailbox::Mailbox;
pub use node::Node;
pub use observe::Observe;
pub use pop3::Pop3;
pub use queue::Queue;
pub use resolver::Resolver;
pub use smtp::Smtp;
pub use storage::Storage;
pub use submission::Submission;
pub use supervise::Supervise;
pub use tls::Tls;
pub use upgrade::Upgrade;

use crate::load::ConfError;

/// The whole configuration of a node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    pub node: Node,
    pub listen: Listen,
    pub tls: Tls,
    pub smtp: Smtp,
    pub submission: Submission,
    pub imap: Imap,
    pub pop3: Pop3,
    pub http: Http,
    pub limits: Limits,
    pub auth: Auth,
    pub storage: Storage,
    pub backup: Backup,
    pub mailbox: Mailbox,
    pub queue: Queue,
    pub resolver: Resolver,
    pub domain: Domain,
    pub dkim: Dkim,
    pub filter: Filter,
    pub supervise: Supervise,
    pub upgrade: Upgrade,
    pub observe: Observe,
    pub cluster: Cluster,
}

impl Settings {
    /// Rules that span keys; called by `load` after the overrides.
    pub fn checked(self) -> Result<Self, ConfError> {
        let complaint = self
            .node
            .complaint()
            .or_else(|| self.tls.complaint())
            .or_else(|| self.smtp.complaint())
            .or_else(|| self.imap.complaint())
            .or_else(|| self.queue.complaint())
            .or_else(|| self.filter.complaint())
            .or_else(|| self.dkim.complaint())
            .or_else(|| self.limits.complaint())
            .or_else(|| self.storage.complaint())
            .or_else(|| self.backup.complaint());
        match complaint {
            Some((key, reason)) => Err(ConfError::Invalid { place: key.to_owned(), reason, nearest: None }),
            None => Ok(self),
        }
    }
}

/// A key and what is wrong with its value.
type Complaint = Option<(&'static str, String)>;
