//! What every stage is: a name, a cost, a deadline, and a way to fail.

use std::time::Duration;

use futures_util::future::BoxFuture;
use posthouse_mail::{Action, Reply};

use crate::context::Context;
use crate::error::Error;

/// What a stage needs before it can run, and so what it costs; stages run in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cost {
    /// The client's address.
    Connection,
    /// Paths and names, maybe DNS.
    Envelope,
    /// The message itself.
    Content,
}

/// What the pipeline does when a stage fails or runs out of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// Goes on without it, and notes that.
    Open,
    /// Asks the client to come back.
    Closed,
}

/// A stage's decision that ends the run.
#[derive(Debug, Clone, PartialEq)]
pub struct FinalWord {
    pub action: Action,
    pub reply: Option<Reply>,
}

impl FinalWord {
    /// An action without a reply of its own.
    pub fn new(action: Action) -> Self {
        Self { action, reply: None }
    }

    /// A refusal for reasons of policy (RFC 3463 §3.8, 5.7.1).
    pub fn reject(text: impl Into<String>) -> Self {
        Self { action: Action::Reject, reply: Some(Reply::new(550, (5, 7, 1), text)) }
    }
}

/// One test that mail is put to.
pub trait Stage: Send + Sync {
    /// In evidence, metrics and headers: a fixed word.
    fn name(&self) -> &'static str;

    fn cost(&self) -> Cost;

    /// The longest that one message may keep it busy.
    fn deadline(&self) -> Duration;

    fn on_failure(&self) -> OnFailure;

    /// Looks at the message, adds evidence, and may have the final word.
    fn examine<'a>(&'a self, context: &'a mut Context) -> BoxFuture<'a, Result<Option<FinalWord>, Error>>;

    /// Called when the stage failed or ran out of time, so that later stages and the header fields know.
    fn gave_up(&self, _context: &mut Context) {}
}
