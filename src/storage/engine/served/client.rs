//! The client's end of a served engine: calls that wait for their answers, over a connection that comes and goes.
//!
//! A call belongs to the client, not to a connection: one whose connection is lost is sent again over the next, until its
//! deadline. That is safe for all of them: reads change nothing, and a commit carries the name under which the server
//! remembers it. Watches all fire after a reconnect, since nobody knows what changed meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use posthouse_conf::storage::Served as Settings;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::timeout_at;

use super::protocol::{self, Answer, Call, Commit, Committed, Incarnation, Request, Response};
use crate::engine::Watch;
use crate::error::Error;

/// The wait before an outcome that the server does not know yet is asked for again.
const OUTCOME_PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Client {
    pub(super) settings: Settings,
    pub(super) incarnation: Incarnation,
    table: Mutex<Table>,
    /// Something is to be sent.
    pub(super) work: Notify,
    /// Bounds the calls under way.
    window: Arc<Semaphore>,
    condition: watch::Sender<Condition>,
    next_transaction: AtomicU64,
    next_commit: AtomicU64,
    bucket: AtomicU32,
}

/// How the connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    /// With the reason of the last failure.
    Away(String),
    Up,
    /// The server is there but not for this program.
    Refused(Error),
    Closed,
}

#[derive(Default)]
struct Table {
    next_id: u64,
    is_up: bool,
    /// What is to be sent over the connection that is up.
    outbox: VecDeque<Outgoing>,
    calls: BTreeMap<u64, Waiting>,
    watches: BTreeMap<u64, Watching>,
}

enum Outgoing {
    Call(u64),
    Watch(u64),
    Tell(Call),
}

/// A call without an answer.
struct Waiting {
    call: Call,
    was_sent: bool,
    reply: oneshot::Sender<Result<Answer, Error>>,
    _place: OwnedSemaphorePermit,
}

struct Watching {
    key: Bytes,
    fired: oneshot::Sender<Result<(), Error>>,
}

/// How a call ended.
enum Ended {
    Answered(Result<Answer, Error>),
    InVain { was_sent: bool, reason: Error },
}

/// Takes a call or a watch off the table when nobody waits for it any more.
struct Waiter {
    client: Arc<Client>,
    id: u64,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut table = self.client.table();
        table.calls.remove(&self.id);
        if table.watches.remove(&self.id).is_some() {
            drop(table);
            self.client.tell(Call::Unwatch(self.id));
        }
    }
}

impl Client {
    pub(super) fn new(settings: Settings) -> Self {
        let places = settings.calls_max.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            settings,
            incarnation: Incarnation(rand::random()),
            table: Mutex::default(),
            work: Notify::new(),
            window: Arc::new(Semaphore::new(places)),
            condition: watch::Sender::new(Condition::Away("no connection was made yet".to_owned())),
            next_transaction: AtomicU64::new(1),
            next_commit: AtomicU64::new(1),
            bucket: AtomicU32::new(0),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn next_transaction(&self) -> u64 {
        self.next_transaction.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn next_commit(&self) -> u64 {
        self.next_commit.fetch_add(1, Ordering::Relaxed)
    }

    /// Asks for something that changes nothing.
    pub(super) async fn read(self: &Arc<Self>, call: Call) -> Result<Answer, Error> {
        let deadline = Instant::now() + self.settings.call_timeout.get();
        match self.call(call, deadline).await {
            Ended::Answered(answer) => answer,
            Ended::InVain { reason, .. } => Err(reason),
        }
    }

    /// Commits; the outcome is asked for until it is known or `outcome_timeout` has passed.
    pub(super) async fn commit(self: &Arc<Self>, mut commit: Commit) -> Result<Committed, Error> {
        protocol::check_frame(&commit)?;
        let deadline = Instant::now() + self.settings.outcome_timeout.get();
        // The place of its outcome is the server's present, so the server is heard first.
        self.up(deadline).await?;
        commit.bucket = self.bucket.load(Ordering::Relaxed);
        loop {
            match self.call(Call::Commit(Box::new(commit.clone())), deadline).await {
                Ended::Answered(Ok(Answer::Committed(committed))) => return Ok(committed),
                Ended::Answered(Err(Error::MaybeCommitted)) if Instant::now() + OUTCOME_PAUSE < deadline => {
                    commit.is_repeat = true;
                    tokio::time::sleep(OUTCOME_PAUSE).await;
                }
                Ended::Answered(Err(error)) => return Err(error),
                Ended::InVain { was_sent: false, reason } if !commit.is_repeat => return Err(reason),
                Ended::Answered(Ok(_)) | Ended::InVain { .. } => return Err(Error::MaybeCommitted),
            }
        }
    }

    async fn call(self: &Arc<Self>, call: Call, deadline: Instant) -> Ended {
        let place = match timeout_at(deadline.into(), self.window.clone().acquire_owned()).await {
            Ok(Ok(place)) => place,
            Ok(Err(_)) => return Ended::InVain { was_sent: false, reason: closed() },
            Err(_) => return Ended::InVain { was_sent: false, reason: self.why_silent() },
        };
        let (reply, answered) = oneshot::channel();
        let waiter = self.enter(Waiting { call, was_sent: false, reply, _place: place });
        let answer = timeout_at(deadline.into(), answered).await;
        let was_sent = self.table().calls.get(&waiter.id).is_none_or(|waiting| waiting.was_sent);
        match answer {
            Ok(Ok(answer)) => Ended::Answered(answer),
            Ok(Err(_)) => Ended::InVain { was_sent, reason: closed() },
            Err(_) => Ended::InVain { was_sent, reason: self.why_silent() },
        }
    }

    fn enter(self: &Arc<Self>, waiting: Waiting) -> Waiter {
        let mut table = self.table();
        let id = table.next_id();
        table.calls.insert(id, waiting);
        table.send(Outgoing::Call(id));
        self.work.notify_one();
        Waiter { client: self.clone(), id }
    }

    pub(super) fn watch(self: &Arc<Self>, key: &[u8]) -> Result<Watch, Error> {
        let (fired, firing) = oneshot::channel();
        let mut table = self.table();
        if table.watches.len() >= self.settings.watches_max {
            return Err(Error::Limit { what: "watches" });
        }
        let waiter = Waiter { client: self.clone(), id: table.next_id() };
        table.watches.insert(waiter.id, Watching { key: Bytes::copy_from_slice(key), fired });
        table.send(Outgoing::Watch(waiter.id));
        drop(table);
        self.work.notify_one();
        Ok(Watch::new(async move {
            let _waiter = waiter;
            firing.await.unwrap_or_else(|_| Err(closed()))
        }))
    }

    /// Says something that needs no answer, if somebody is there to hear it.
    pub(super) fn tell(&self, call: Call) {
        let mut table = self.table();
        // What is lost here the server finds out by itself, in time.
        if table.outbox.len() < 2 * self.settings.calls_max {
            table.send(Outgoing::Tell(call));
            self.work.notify_one();
        }
    }

    /// Waits for a connection.
    pub(super) async fn up(&self, deadline: Instant) -> Result<(), Error> {
        let mut condition = self.condition.subscribe();
        let settled = condition.wait_for(|condition| !matches!(condition, Condition::Away(_)));
        match timeout_at(deadline.into(), settled).await {
            Ok(Ok(condition)) => match &*condition {
                Condition::Up => Ok(()),
                Condition::Refused(error) => Err(error.clone()),
                Condition::Away(_) | Condition::Closed => Err(closed()),
            },
            Ok(Err(_)) => Err(closed()),
            Err(_) => Err(self.why_silent()),
        }
    }

    fn why_silent(&self) -> Error {
        match &*self.condition.borrow() {
            Condition::Away(reason) => Error::Unavailable(format!("the store's server is away: {reason}")),
            Condition::Up => Error::Unavailable("the store's server did not answer in time".to_owned()),
            Condition::Refused(error) => error.clone(),
            Condition::Closed => closed(),
        }
    }

    /// A connection is up: everything without an answer goes over it, and all watches fire.
    pub(super) fn connected(&self, bucket: u32) {
        self.bucket.store(bucket, Ordering::Relaxed);
        let mut table = self.table();
        table.is_up = true;
        table.outbox.clear();
        let mut again = VecDeque::new();
        for (id, waiting) in &mut table.calls {
            if let (Call::Commit(commit), true) = (&mut waiting.call, waiting.was_sent) {
                commit.is_repeat = true;
            }
            again.push_back(Outgoing::Call(*id));
        }
        table.outbox = again;
        let watches = std::mem::take(&mut table.watches);
        drop(table);
        for watching in watches.into_values() {
            let _ = watching.fired.send(Ok(()));
        }
        self.condition.send_replace(Condition::Up);
        self.work.notify_one();
    }

    /// The connection is gone, or none could be made.
    pub(super) fn disconnected(&self, condition: Condition) {
        let mut table = self.table();
        table.is_up = false;
        table.outbox.clear();
        drop(table);
        self.condition.send_replace(condition);
    }

    /// The next message for the connection that is up.
    pub(super) fn next_request(&self) -> Option<Request> {
        let mut table = self.table();
        loop {
            let request = match table.outbox.pop_front()? {
                Outgoing::Tell(call) => Some(Request { id: 0, call: Some(call) }),
                Outgoing::Call(id) => table.calls.get_mut(&id).map(|waiting| {
                    waiting.was_sent = true;
                    Request { id, call: Some(waiting.call.clone()) }
                }),
                Outgoing::Watch(id) => table.watches.get(&id).map(|watching| {
                    let watch = protocol::Watch { key: watching.key.clone() };
                    Request { id, call: Some(Call::Watch(watch)) }
                }),
            };
            // Whoever gave up waiting wants nothing sent.
            if request.is_some() {
                return request;
            }
        }
    }

    pub(super) fn answered(&self, Response { id, answer }: Response) {
        let answer = match answer {
            Some(Answer::Pong(bucket)) => return self.bucket.store(bucket, Ordering::Relaxed),
            Some(Answer::Failed(failed)) => Err(failed.into()),
            Some(answer) => Ok(answer),
            None => Err(Error::Unavailable("the server answered what this program does not know".to_owned())),
        };
        let mut table = self.table();
        if let Some(waiting) = table.calls.remove(&id) {
            let _ = waiting.reply.send(answer);
        } else if let Some(watching) = table.watches.remove(&id) {
            let _ = watching.fired.send(answer.map(drop));
        }
    }

    /// No more calls; those under way end.
    pub(super) fn close(&self) {
        self.window.close();
        self.disconnected(Condition::Closed);
        let mut table = self.table();
        table.calls.clear();
        table.watches.clear();
    }
}

impl Table {
    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// While no connection is up nothing is sent: the next one begins with all that waits.
    fn send(&mut self, outgoing: Outgoing) {
        if self.is_up {
            self.outbox.push_back(outgoing);
        }
    }
}

fn closed() -> Error {
    Error::Unavailable("the store is closed".to_owned())
}
