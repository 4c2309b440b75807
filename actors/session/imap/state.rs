//! What an IMAP session is, apart from its transport: one value that could move to another process.
//!
//! At the top of the dialogue's loop nothing else lives on the stack, so between commands, in IDLE and in the middle of a
//! FETCH this value and the input read ahead are the whole session (design: sessions that outlive their process).

use std::collections::BTreeSet;

use posthouse_mail::{AccountId, FlagSet, MailboxId, ModSeq, Uid};
use posthouse_wire::imap::{SeqView, State, Tag};
use tokio::time::Instant;

use super::fetch::Answering;

/// The session.
#[derive(Debug, Clone, Default)]
pub struct SessionState {
    pub phase: Phase,
    pub activity: Activity,
    /// Wrong commands in a row.
    pub errors: usize,
}

/// RFC 3501 §3, each state with just what is known then.
#[derive(Debug, Clone, Default)]
pub enum Phase {
    #[default]
    NotAuthenticated,
    Authenticated {
        account: AccountId,
    },
    Selected {
        account: AccountId,
        selected: Box<Selected>,
    },
    Logout,
}

/// What the session is at.
#[derive(Debug, Clone, Default)]
pub enum Activity {
    /// It reads the next command.
    #[default]
    Listening,
    /// RFC 2177 §3: it waits for DONE, or for news.
    Idling {
        tag: Tag,
        /// An idle client that says nothing is logged out all the same.
        until: Instant,
    },
    /// It answers a FETCH.
    Answering(Box<Answering>),
}

/// The mailbox that is open.
#[derive(Debug, Clone)]
pub struct Selected {
    pub mailbox: MailboxId,
    /// Opened with EXAMINE.
    pub read_only: bool,
    pub view: SeqView,
    /// The change log is followed up to here.
    pub known: ModSeq,
    /// Keywords that the client has been told of.
    pub keywords: FlagSet,
    /// This session's own flag changes, which the client knows from its command.
    pub own: Vec<ModSeq>,
    /// Messages whose flags somebody else changed and the client has not been told.
    pub changed: Changed,
}

/// Messages with news about their flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    These(BTreeSet<Uid>),
    /// More than are worth counting: all are told.
    All,
}

impl Default for Changed {
    fn default() -> Self {
        Self::These(BTreeSet::new())
    }
}

impl Changed {
    /// Notes a message, within a bound.
    pub fn add(&mut self, uid: Uid, max: usize) {
        if let Self::These(uids) = self {
            uids.insert(uid);
            if uids.len() > max {
                *self = Self::All;
            }
        }
    }
}

impl SessionState {
    pub fn state(&self) -> State {
        match self.phase {
            Phase::NotAuthenticated => State::NotAuthenticated,
            Phase::Authenticated { .. } => State::Authenticated,
            Phase::Selected { .. } => State::Selected,
            Phase::Logout => State::Logout,
        }
    }

    /// The word for logs and labels.
    pub fn word(&self) -> &'static str {
        match self.phase {
            Phase::NotAuthenticated => "not_authenticated",
            Phase::Authenticated { .. } => "authenticated",
            Phase::Selected { .. } => "selected",
            Phase::Logout => "logout",
        }
    }

    pub fn account(&self) -> Option<AccountId> {
        match self.phase {
            Phase::Authenticated { account } | Phase::Selected { account, .. } => Some(account),
            Phase::NotAuthenticated | Phase::Logout => None,
        }
    }

    pub fn selected(&self) -> Option<&Selected> {
        match &self.phase {
            Phase::Selected { selected, .. } => Some(selected),
            _ => None,
        }
    }

    pub fn selected_mut(&mut self) -> Option<&mut Selected> {
        match &mut self.phase {
            Phase::Selected { selected, .. } => Some(selected),
            _ => None,
        }
    }

    /// Leaves the mailbox, if one is open.
    pub fn unselect(&mut self) {
        if let Phase::Selected { account, .. } = self.phase {
            self.phase = Phase::Authenticated { account };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_changes_become_all() {
        let mut changed = Changed::default();
        (1..=3).filter_map(Uid::new).for_each(|uid| changed.add(uid, 3));
        assert!(matches!(&changed, Changed::These(uids) if uids.len() == 3));
        changed.add(Uid::new(4).expect("not zero"), 3);
        assert_eq!(changed, Changed::All);
    }

    #[test]
    fn unselecting_keeps_the_account() {
        let mut state =
            SessionState { phase: Phase::Authenticated { account: AccountId::new(1) }, ..SessionState::default() };
        state.unselect();
        assert_eq!((state.state(), state.account()), (State::Authenticated, Some(AccountId::new(1))));
    }
}
