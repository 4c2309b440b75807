//! The taking end, in the process that is to serve from now on.

use std::path::Path;

use posthouse_net::Error as NetError;
use posthouse_net::descriptors::{Channel, own_uid};
use tokio::time::Instant;

use super::link::Link;
use super::message::{Message, Outgoing};
use super::{Door, HandoffError, Hello, Limits, Parcel, batch};

const GREETING: &str = "the greeting";
const DOORS: &str = "the listeners";
const STORE: &str = "the store";
const SESSIONS: &str = "the sessions";

/// Answers a giver, step by step. Before [`Taker::store_is_free`] has returned, an error means that this process is not wanted;
/// afterwards the store is its own, and an error means that no more sessions come.
pub struct Taker {
    link: Link,
    limits: Limits,
    giver: String,
    version: u32,
    /// The number of the batch that waits for an answer.
    offered: Option<u32>,
}

/// A session of a batch that cannot be taken. Whoever says so has dropped what it had of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its place in the batch.
    pub index: usize,
    pub reason: String,
}

/// The giver's word that a batch is this process's own: without it no session of the batch may be started.
#[derive(Debug)]
#[must_use]
pub struct Committed {
    batch: u32,
}

impl Taker {
    /// Connects to the giver that waits at `path`.
    pub async fn connect(path: &Path, own: Hello, limits: Limits) -> Result<Self, HandoffError> {
        let connected = Channel::connect(path, own_uid(), Instant::now() + limits.answer).await;
        let channel = connected.map_err(|source| HandoffError::Link { step: GREETING, source })?;
        let mut link = Link::new(channel);
        link.tell(GREETING, &Outgoing::hello(&own), limits.answer).await?;
        let welcome = match link.hear(GREETING, limits.answer).await? {
            Message::Welcome(welcome) if own.versions.contains(&welcome.version) => welcome,
            other => return Err(link.out_of_turn(GREETING, other)),
        };
        Ok(Self { link, limits, giver: welcome.program, version: welcome.version, offered: None })
    }

    /// What the giver said of itself.
    pub fn giver(&self) -> &str {
        &self.giver
    }

    /// The version of the protocol that is spoken.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The listeners. The giver still accepts on them, and waits for [`Taker::ready`].
    pub async fn doors(&mut self) -> Result<Vec<Door>, HandoffError> {
        match self.link.hear(DOORS, self.limits.answer).await? {
            Message::Doors(doors) => Ok(doors),
            other => Err(self.link.out_of_turn(DOORS, other)),
        }
    }

    /// This process can do with the listeners and is ready to open the store.
    pub async fn ready(&mut self) -> Result<(), HandoffError> {
        self.link.tell(DOORS, &Outgoing::ready(), self.limits.answer).await
    }

    /// Waits until the giver has closed the store. It then waits for [`Taker::serving`].
    pub async fn store_is_free(&mut self) -> Result<(), HandoffError> {
        match self.link.hear(STORE, self.limits.pause).await? {
            Message::StoreIsFree => Ok(()),
            other => Err(self.link.out_of_turn(STORE, other)),
        }
    }

    /// The store is open, and new connections are served.
    pub async fn serving(&mut self) -> Result<(), HandoffError> {
        self.link.tell(STORE, &Outgoing::serving(), self.limits.answer).await
    }

    /// The next sessions, not yet this process's own: each is to be decoded and checked, and nothing of it started or sent.
    /// `None`: those were all.
    pub async fn next_batch(&mut self) -> Result<Option<Vec<Parcel>>, HandoffError> {
        match self.link.hear_up_to(batch::BODY_MAX, SESSIONS, self.limits.pause).await {
            Ok(Message::Sessions(batch)) => {
                self.offered = Some(batch.number);
                Ok(Some(batch.parcels))
            }
            Ok(Message::Done) => {
                // A giver that has ended meanwhile needs no answer.
                let _ = self.link.tell(SESSIONS, &Outgoing::finished(), self.limits.answer).await;
                Ok(None)
            }
            Ok(other) => Err(self.link.out_of_turn(SESSIONS, other)),
            Err(error @ HandoffError::Link { source: NetError::DescriptorsLost, .. }) => {
                // The batch is read, only its files found no room: the giver has it back and knows why.
                self.refuse(&error.to_string()).await?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Says that the batch can be taken but for `refusals`, in ascending order, and waits for the giver's word. On an error
    /// the whole batch is to be dropped: closed, with nothing sent to any client.
    pub async fn accept(&mut self, refusals: &[Refusal]) -> Result<Committed, HandoffError> {
        let nothing = || HandoffError::Broken { step: SESSIONS, what: "no batch that waits for an answer".to_owned() };
        let batch = self.offered.take().ok_or_else(nothing)?;
        self.link.tell(SESSIONS, &Outgoing::received(batch, refusals), self.limits.answer).await?;
        match self.link.hear(SESSIONS, self.limits.answer).await? {
            Message::Commit(committed) if committed == batch => Ok(Committed { batch }),
            other => Err(self.link.out_of_turn(SESSIONS, other)),
        }
    }

    /// The sessions of the batch are under way.
    pub async fn started(&mut self, committed: Committed) -> Result<(), HandoffError> {
        self.link.tell(SESSIONS, &Outgoing::started(committed.batch), self.limits.answer).await
    }

    /// In place of [`Taker::ready`], [`Taker::serving`] or [`Taker::accept`]: this process cannot, and says why. What it was
    /// offered is to be dropped first.
    pub async fn refuse(&mut self, reason: &str) -> Result<(), HandoffError> {
        self.offered = None;
        self.link.tell(SESSIONS, &Outgoing::refused(reason), self.limits.answer).await
    }
}
