//! What a command may ask of a running node, and how the node answers: one line of JSON each way, progress lines between.
//!
//! These are the operations that the REST API will offer too, so they name things as an administrator does: by address.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One command.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum AdminRequest {
    Status,
    Stop,
    /// Lets no more clients in and those who are here go.
    Drain {
        /// Without notice to balancers, and all at once.
        now: bool,
        /// The node ends then.
        stop: bool,
    },
    /// Hands everything to a new program; without one, to this one as it lies on the disk now.
    Upgrade {
        program: Option<PathBuf>,
        /// In the same process, whatever the settings say.
        in_place: bool,
    },
    CheckStore {
        /// Read every body too.
        bodies: bool,
    },
    KeyRotate,
    /// Mends the store of a stopped node.
    RepairStore,
    AccountCreate {
        address: String,
        password: String,
        quota: Option<u64>,
        admin: bool,
    },
    AccountList {
        domain: Option<String>,
    },
    AccountShow {
        address: String,
    },
    AccountSet {
        address: String,
        change: AccountChange,
    },
    AccountDelete {
        address: String,
    },
    DomainCreate {
        name: String,
    },
    DomainList,
    DomainShow {
        name: String,
    },
    DomainSet {
        name: String,
        change: DomainChange,
    },
    DomainDelete {
        name: String,
    },
    DomainDns {
        name: String,
    },
    DomainRotateKeys {
        name: String,
    },
    DomainRemoveKey {
        name: String,
        selector: String,
    },
    AliasCreate {
        address: String,
        targets: Vec<String>,
    },
    AliasList {
        domain: Option<String>,
    },
    AliasShow {
        address: String,
    },
    AliasSet {
        address: String,
        targets: Vec<String>,
    },
    AliasDelete {
        address: String,
    },
    QueueList {
        destination: Option<String>,
        limit: usize,
    },
    QueueShow {
        id: String,
    },
    QueueRetry {
        which: QueueChoice,
    },
    QueueBounce {
        which: QueueChoice,
    },
    Backup {
        target: BackupTargetSpec,
    },
    Restore(RestoreOrder),
}

/// Where a backup lies, and what opens it.
#[derive(Clone, Serialize, Deserialize)]
pub struct BackupTargetSpec {
    /// A whole path.
    pub location: String,
    /// A passphrase or the content of a key file.
    pub secret: Option<String>,
}

impl std::fmt::Debug for BackupTargetSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackupTargetSpec").field("location", &self.location).finish_non_exhaustive()
    }
}

/// What to bring back: a whole site into an empty store, or an account, or a mailbox of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RestoreOrder {
    pub target: BackupTargetSpec,
    /// The newest if none is named.
    pub point: Option<String>,
    /// By its address.
    pub account: Option<String>,
    pub mailbox: Option<String>,
    /// The mailbox that a restored one becomes, or under which those of an account go.
    pub into: Option<String>,
    /// Leaves the mail that was under way.
    pub without_queue: bool,
}

/// What of an account to change; absent fields stay.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AccountChange {
    pub password: Option<String>,
    /// Octets; 0 is no quota.
    pub quota: Option<u64>,
    pub enabled: Option<bool>,
    pub admin: Option<bool>,
}

/// What of a domain to change; an empty text removes the setting.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DomainChange {
    pub catch_all: Option<String>,
}

/// Which queued messages.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueueChoice {
    Message(String),
    Destination(String),
    All,
}

/// A line of the node's answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminLine {
    /// More lines follow.
    Progress { done: u64, total: u64, what: String },
    /// The last line: the result, one of the views below.
    Done(serde_json::Value),
    /// The last line: what went wrong, in words for a person.
    Failed(String),
}

/// One of the storage keys.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyView {
    pub key: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AccountView {
    pub address: String,
    pub id: String,
    pub enabled: bool,
    pub admin: bool,
    /// Octets; 0 is no quota.
    pub quota: u64,
    pub used: u64,
    pub messages: u64,
    pub mailboxes: Vec<MailboxView>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MailboxView {
    pub name: String,
    pub messages: u64,
    pub unseen: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DomainView {
    pub name: String,
    pub id: String,
    pub catch_all: Option<String>,
    pub dkim: Vec<DkimKeyView>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DkimKeyView {
    pub selector: String,
    pub algorithm: String,
}

/// One record to publish.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DnsRecordView {
    pub name: String,
    pub kind: String,
    pub value: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AliasView {
    pub address: String,
    pub targets: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueueEntryView {
    pub id: String,
    pub destination: String,
    pub reverse_path: String,
    pub recipients: Vec<String>,
    pub size: u64,
    pub attempt_count: u32,
    /// Unix milliseconds.
    pub created_at: u64,
    pub next_attempt_at: u64,
    pub expires_at: u64,
    pub last_reason: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusView {
    pub version: String,
    pub pid: u32,
    pub hostname: String,
    pub ready: bool,
    pub draining: bool,
    pub uptime_seconds: u64,
    pub listeners: Vec<ListenerView>,
    pub connections: usize,
    /// Connections whose sessions sleep.
    #[serde(default)]
    pub asleep: usize,
    pub active_mailboxes: usize,
    pub queued_messages: u64,
    pub spooled_messages: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListenerView {
    pub protocol: String,
    pub address: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckView {
    pub whole: bool,
    pub accounts: u64,
    pub emails: u64,
    pub bodies: u64,
    pub spooled: u64,
    pub queued: u64,
    /// Rows that a repair could not read and laid aside.
    pub laid_aside: u64,
    /// There were more findings than are listed.
    pub truncated: bool,
    pub findings: Vec<FindingView>,
}

/// What a repair did, and what it could not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairView {
    pub whole: bool,
    /// What was mended, and how.
    pub mended: Vec<MendedView>,
    /// What is still wrong.
    pub findings: Vec<FindingView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MendedView {
    pub place: String,
    pub what: String,
}

/// One thing in the store that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingView {
    pub rule: String,
    /// Which account, mailbox, message or body.
    pub place: String,
    pub detail: String,
    /// What to do about it.
    pub remedy: String,
}

/// How many things a command changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CountView {
    pub count: u64,
}

/// A backup that was taken.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BackupView {
    pub point: String,
    pub accounts: u64,
    pub messages: u64,
    /// Messages in spool and queue.
    pub under_way: u64,
    pub new_bodies: u64,
    /// Octets added to the target.
    pub written: u64,
    /// Octets of bodies read back.
    pub read_back: u64,
    pub whole: bool,
    /// What could not be taken or not be read back.
    pub findings: Vec<String>,
}

/// What came back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RestoreView {
    pub point: String,
    pub accounts: u64,
    /// Where an account's or a mailbox's messages went.
    pub mailboxes: Vec<String>,
    pub messages: u64,
    pub under_way: u64,
    /// What was left out, and why.
    pub left_out: Vec<String>,
}
