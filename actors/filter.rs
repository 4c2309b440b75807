//! The pool of filter actors: judges each message that comes from outside, and survives the messages that it can't.
//!
//! A message that makes a stage panic kills one actor, no session: the pool starts another, and the message is judged
//! again. When it kills a second one it is deferred and remembered by its body; at the repeat the deadly stage is left out
//! and the mail is quarantined. So a poisoned mail costs two actors, not the pool.
//!
//! Owns: the workers and their queue; the memory of messages that killed.   Receives: messages to judge (Judge).
//! Sends: verdicts, by answer.   Bounds: conf.filter.{workers, waiting_max, wait_max, memory_max, suspects_max}.
//! On failure: a worker that panics is replaced at once and counts against nobody's restarts; the pool itself failing ends
//! the node.   Standards: RFC 5321 §4.2.1 for the refusals.

pub(crate) mod body;
mod suspects;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use posthouse_filter::{Pipeline, Progress};
use posthouse_mail::Reply;
use posthouse_mail::stage::{ReceivedMessage, VettedMessage};
use posthouse_obs::emit;
use posthouse_obs::event::filter::{FilterKilled, FilterRefused};
use posthouse_storage::Store;
use ractor::factory::discard::{DiscardMode, DiscardSettings};
use ractor::factory::queues::DefaultQueue;
use ractor::factory::routing::QueuerRouting;
use ractor::factory::{Factory, FactoryArguments, FactoryMessage, Job, JobOptions};
use ractor::{Actor, ActorCell, ActorRef, SpawnErr};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use suspects::Suspects;
use worker::{FilterWorker, Judge, Tools, Workers};

/// Actors that one message may kill before it is put off.
const KILLS_MAX: usize = 2;

/// Why a message has no verdict; each is ours, so each asks the client to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilterRefusal {
    #[error("too many messages are waiting for the filter")]
    Busy,
    #[error("the filter did not finish in time")]
    TimedOut,
    /// It made two filter actors panic; its repeat is quarantined.
    #[error("the filter failed on the message")]
    Killed,
    /// The store could not give the message's content.
    #[error("the message could not be read")]
    Unreadable,
}

impl FilterRefusal {
    /// What the client hears: RFC 3463 §3.4 and §3.5, mail system and processing at fault, which passes.
    pub fn reply(self) -> Reply {
        let status = if self == Self::Busy { (4, 3, 2) } else { (4, 3, 0) };
        Reply::new(451, status, format!("{self}, try again later"))
    }

    fn word(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::TimedOut => "timed out",
            Self::Killed => "killed",
            Self::Unreadable => "failed",
        }
    }
}

/// The way to the pool; clones share it.
#[derive(Clone)]
pub struct Filters {
    pool: ActorRef<FactoryMessage<u64, Judge>>,
    suspects: Arc<Suspects>,
    next_job: Arc<AtomicU64>,
    wait_max: Duration,
}

impl Filters {
    /// Starts the pool under `parent`. `authserv_id` is our name in Authentication-Results (RFC 8601 §2.5).
    pub async fn start(
        store: Store,
        pipeline: Pipeline,
        authserv_id: String,
        settings: &posthouse_conf::Filter,
        parent: ActorCell,
    ) -> Result<Self, SpawnErr> {
        let tools = Arc::new(Tools::new(store, pipeline, authserv_id, settings));
        let workers = settings.workers.max(1);
        let discard = DiscardSettings::Static { limit: settings.waiting_max, mode: DiscardMode::Newest };
        let arguments = FactoryArguments::builder()
            .worker_builder(Box::new(Workers::new(tools, workers)))
            .num_initial_workers(workers)
            .router(QueuerRouting::default())
            .queue(DefaultQueue::default())
            .discard_settings(discard)
            .build();
        let factory =
            Factory::<u64, Judge, (), FilterWorker, QueuerRouting<u64, Judge>, DefaultQueue<u64, Judge>>::default();
        let (pool, _) = Actor::spawn_linked(None, factory, arguments, parent).await?;
        let suspects = Arc::new(Suspects::new(settings.suspects_max));
        Ok(Self { pool, suspects, next_job: Arc::default(), wait_max: settings.wait_max.get() })
    }

    /// Judges a message, within `filter.wait_max`. Its body has to stay staged meanwhile.
    pub async fn vet(&self, received: ReceivedMessage) -> Result<VettedMessage, FilterRefusal> {
        let message = received.envelope.id;
        let result = self.judge(received).await;
        if let Err(refusal) = &result {
            emit(FilterRefused { message, why: refusal.word() });
        }
        result
    }

    async fn judge(&self, received: ReceivedMessage) -> Result<VettedMessage, FilterRefusal> {
        let deadline = Instant::now() + self.wait_max;
        let body = received.body.blob;
        let skipped = self.suspects.stages(&body);
        for kills in 1..=KILLS_MAX {
            let progress = Progress::default();
            let (answer, answered) = oneshot::channel();
            let judge = Judge {
                received: received.clone(),
                skipped: skipped.clone(),
                progress: progress.clone(),
                deadline,
                answer,
            };
            self.send(judge)?;
            let Ok(outcome) = timeout_at(deadline, answered).await else {
                return Err(FilterRefusal::TimedOut);
            };
            if let Ok(result) = outcome {
                return result;
            }
            // Nobody answered. Without a stage it was turned away at the full queue; with one, it died there.
            let stage = progress.stage().ok_or(FilterRefusal::Busy)?;
            emit(FilterKilled { stage, message: received.envelope.id, body, kills });
            if kills == KILLS_MAX {
                self.suspects.remember(body, stage);
            }
        }
        Err(FilterRefusal::Killed)
    }

    fn send(&self, judge: Judge) -> Result<(), FilterRefusal> {
        let key = self.next_job.fetch_add(1, Ordering::Relaxed);
        let job = Job { key, msg: judge, options: JobOptions::new(Some(self.wait_max)), accepted: None };
        self.pool.cast(FactoryMessage::Dispatch(job)).map_err(|_| FilterRefusal::Busy)
    }
}

#[cfg(test)]
mod tests;
