//! `[mailbox]`: accounts and their mailbox actors.

use serde::{Deserialize, Serialize};

use crate::unit::{Size, Span};

/// Accounts and their mailbox actors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mailbox {
    /// Requests waiting at one mailbox actor; further ones are refused as temporary.
    pub inbox_max: usize,
    /// Deliveries to one account committed in one transaction.
    pub merge_max: usize,
    /// Longest wait for a mailbox actor's answer.
    pub request_timeout: Span,
    /// An idle mailbox actor leaves memory after this.
    pub passivate_after: Span,
    /// Quota of a new account; `0B` is none.
    pub quota_default: Size,
    /// Mailboxes of one account.
    pub mailboxes_max: usize,
    /// Characters in a mailbox name; levels count together.
    pub name_max: usize,
    /// Levels in a mailbox name.
    pub depth_max: usize,
    /// Keywords on one message.
    pub keywords_max: usize,
    /// Separates user and detail in `user+detail@domain` (RFC 5233).
    pub detail_separator: char,
    /// Who reads postmaster's mail where no address row says so; empty: the first administrator (RFC 5321 §4.5.1).
    pub postmaster: String,
    /// Aliases followed one after another.
    pub alias_depth_max: usize,
    /// Addresses that one alias expands to.
    pub alias_targets_max: usize,
}

impl Default for Mailbox {
    fn default() -> Self {
        Self {
            inbox_max: 256,
            merge_max: 64,
            request_timeout: Span::secs(30),
            passivate_after: Span::secs(60),
            quota_default: Size::gib(10),
            mailboxes_max: 10000,
            name_max: 250,
            depth_max: 20,
            keywords_max: 100,
            detail_separator: '+',
            postmaster: String::new(),
            alias_depth_max: 10,
            alias_targets_max: 1000,
        }
    }
}
