//! One filter actor: takes a message, runs the pipeline over it, answers with the verdict and the fields that tell of it.
//!
//! Owns: nothing between messages.   Receives: Judge.   Sends: the answer.
//! Bounds: the message's deadline; content under a permit of conf.filter.memory_max.
//! On failure: the pool replaces it; whoever asked sees its answer port dropped.   Standards: RFC 8601 §4.1.

use std::sync::Arc;

use posthouse_filter::{Content, ContentBudget, Context, Pipeline, Progress, headers};
use posthouse_mail::Action;
use posthouse_mail::stage::{ReceivedMessage, VettedMessage};
use posthouse_obs::emit;
use posthouse_obs::event::actor::ActorRestarted;
use posthouse_storage::Store;
use ractor::factory::{FactoryMessage, Job, Worker, WorkerBuilder, WorkerId};
use ractor::{ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::FilterRefusal;
use super::body::StoredBody;

/// A message to judge.
pub(super) struct Judge {
    pub received: ReceivedMessage,
    /// Stages that this message is known to kill actors in.
    pub skipped: Vec<&'static str>,
    /// Outlives the actor: says where the message was when the actor died.
    pub progress: Progress,
    pub deadline: Instant,
    pub answer: oneshot::Sender<Result<VettedMessage, FilterRefusal>>,
}

impl ractor::Message for Judge {}

/// What all workers share.
pub(super) struct Tools {
    store: Store,
    pipeline: Pipeline,
    authserv_id: String,
    budget: ContentBudget,
    parse_max: u64,
}

impl Tools {
    pub fn new(store: Store, pipeline: Pipeline, authserv_id: String, settings: &posthouse_conf::Filter) -> Self {
        let budget = ContentBudget::new(settings.memory_max.get());
        Self { store, pipeline, authserv_id, budget, parse_max: settings.parse_max.get() }
    }

    async fn judge(
        &self,
        received: ReceivedMessage,
        skipped: &[&'static str],
        progress: &Progress,
    ) -> Result<VettedMessage, FilterRefusal> {
        let body = Arc::new(StoredBody::new(self.store.clone(), received.body));
        let content = Content::load(body, &self.budget, self.parse_max).await;
        let mut context = Context::new(received, content.map_err(|_| FilterRefusal::Unreadable)?);
        let mut verdict = self.pipeline.judge(&mut context, skipped, progress).await;
        if !skipped.is_empty() && matches!(verdict.action, Action::Accept | Action::Junk) {
            // It could not be judged in full, so nobody should open it unawares.
            verdict.action = Action::Quarantine;
        }
        let added_headers = headers::render(&context.facts, &verdict, &self.authserv_id).into_bytes();
        Ok(VettedMessage { received: context.message, verdict, added_headers })
    }
}

/// Makes workers, the first ones and those that take the place of the dead.
pub(super) struct Workers {
    tools: Arc<Tools>,
    /// Workers that were never made yet.
    first: usize,
}

impl Workers {
    pub fn new(tools: Arc<Tools>, count: usize) -> Self {
        Self { tools, first: count }
    }
}

impl WorkerBuilder<FilterWorker, ()> for Workers {
    fn build(&mut self, worker: WorkerId) -> (FilterWorker, ()) {
        match self.first.checked_sub(1) {
            Some(left) => self.first = left,
            None => emit(ActorRestarted {
                kind: "filter",
                entity: worker.to_string(),
                reason: "a message made it panic".to_owned(),
            }),
        }
        (FilterWorker(self.tools.clone()), ())
    }
}

pub(super) struct FilterWorker(Arc<Tools>);

impl Worker for FilterWorker {
    type Key = u64;
    type Message = Judge;
    type Arguments = ();
    type State = ();

    async fn pre_start(
        &self,
        _worker: WorkerId,
        _pool: &ActorRef<FactoryMessage<u64, Judge>>,
        (): (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _worker: WorkerId,
        _pool: &ActorRef<FactoryMessage<u64, Judge>>,
        job: Job<u64, Judge>,
        _state: &mut (),
    ) -> Result<u64, ActorProcessingErr> {
        let Judge { received, skipped, progress, deadline, answer } = job.msg;
        if !answer.is_closed() {
            let judged = timeout_at(deadline, self.0.judge(received, &skipped, &progress)).await;
            // Whoever asked may have given up.
            let _ = answer.send(judged.unwrap_or(Err(FilterRefusal::TimedOut)));
        }
        Ok(job.key)
    }
}
