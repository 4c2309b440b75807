//! One connection of a client: reads requests, starts a task for each, writes answers as they come.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use posthouse_obs::emit;
use posthouse_obs::event::store as event;
use prost::Message as _;
use tokio::io::{ReadHalf, WriteHalf, split};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

use super::super::protocol::{
    self, Answer, Call, Committed, Failed, Get, Hello, Incarnation, Page, Ping, Range, Reader, Request, Response, Row,
    Stream, Value, Welcome,
};
use super::super::{fetch, outcome};
use super::Shared;
use super::commits::Asker;
use crate::engine::{Isolation, Kv as _, KvTxn as _, MAX_VALUE, RangeRequest};
use crate::error::Error;

type Source<S> = FramedRead<ReadHalf<S>, LengthDelimitedCodec>;
type Sink<S> = FramedWrite<WriteHalf<S>, LengthDelimitedCodec>;

/// Answers that wait for the writer.
const ANSWERS_MAX: usize = 64;
/// Octets of rows in one page.
const PAGE_MAX: usize = 1 << 20;
/// Watches among which those that fired need not be looked for.
const PRUNE_MIN: usize = 64;
/// Windows are counted in units of so many octets.
const UNIT: usize = 1 << 10;

/// Serves a connection until its end.
pub(super) async fn run<S: Stream>(shared: Arc<Shared>, stream: S) -> Result<(), Error> {
    let (reading, writing) = split(stream);
    let (mut source, mut sink) =
        (FramedRead::new(reading, protocol::codec()), FramedWrite::new(writing, protocol::codec()));
    let idle = shared.settings.idle_timeout.get();
    let greeted = async {
        let first: Request = next(&mut source, idle).await?.ok_or_else(closed)?;
        let welcome = welcome(&shared, first.call);
        let answer = match &welcome {
            Ok((_, welcome)) => Answer::Welcome(welcome.clone()),
            Err(error) => Answer::Failed(Failed::from(error)),
        };
        send(&mut sink, Response { id: first.id, answer: Some(answer) }, idle).await?;
        welcome
    };
    let (client, _) = greeted.await?;
    let entered = Entered { asker: shared.commits.enter(client), shared };
    let (answers, outgoing) = mpsc::channel(ANSWERS_MAX);
    let mut session = Session::new(&entered, answers);
    tokio::select! {
        ended = session.read(source) => ended,
        ended = write(sink, outgoing, idle) => ended,
    }
}

/// A client's place, left however the connection ends.
struct Entered {
    shared: Arc<Shared>,
    asker: Asker,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.shared.commits.leave(self.asker);
        emit(event::StoreClientLeft { client: format!("{:032x}", self.asker.client.0) });
    }
}

fn welcome(shared: &Shared, first: Option<Call>) -> Result<(Incarnation, Welcome), Error> {
    let Some(Call::Hello(Hello { version_min, version_max, incarnation, .. })) = first else {
        return Err(Error::Unavailable("the first request is no hello".to_owned()));
    };
    let version = protocol::agree((version_min, version_max))?;
    let octets = incarnation.as_ref().try_into();
    let octets = octets.map_err(|_| Error::Unavailable("an incarnation is not sixteen octets".to_owned()))?;
    let client = Incarnation(u128::from_be_bytes(octets));
    emit(event::StoreClientCame { client: format!("{:032x}", client.0) });
    Ok((client, Welcome { version, features: 0, bucket: outcome::bucket(), store: shared.store.clone() }))
}

fn closed() -> Error {
    Error::Unavailable("the connection ended".to_owned())
}

/// The next message, `None` at the end of the stream.
async fn next<S: Stream, M: prost::Message + Default>(
    source: &mut Source<S>,
    limit: Duration,
) -> Result<Option<M>, Error> {
    match tokio::time::timeout(limit, source.next()).await {
        Err(_) => Err(Error::Unavailable("the client gave no sign of life".to_owned())),
        Ok(None) => Ok(None),
        Ok(Some(Err(error))) => Err(Error::Unavailable(format!("reading from the client: {error}"))),
        Ok(Some(Ok(frame))) => protocol::decode(frame).map(Some),
    }
}

async fn send<S: Stream>(sink: &mut Sink<S>, response: Response, limit: Duration) -> Result<(), Error> {
    let frame = Bytes::from(response.encode_to_vec());
    match tokio::time::timeout(limit, sink.send(frame)).await {
        Err(_) => Err(Error::Unavailable("the client took no answer in time".to_owned())),
        Ok(sent) => sent.map_err(|error| Error::Unavailable(format!("writing to the client: {error}"))),
    }
}

async fn write<S: Stream>(
    mut sink: Sink<S>,
    mut outgoing: mpsc::Receiver<Response>,
    limit: Duration,
) -> Result<(), Error> {
    while let Some(response) = outgoing.recv().await {
        send(&mut sink, response, limit).await?;
    }
    Ok(())
}

struct Session {
    shared: Arc<Shared>,
    asker: Asker,
    answers: mpsc::Sender<Response>,
    window: Arc<Semaphore>,
    units: u32,
    /// Dropped with the session: nobody hears the answers any more.
    tasks: JoinSet<()>,
    watches: HashMap<u64, AbortHandle>,
    /// At so many entries those that fired are thrown out.
    prune_at: usize,
}

impl Session {
    fn new(entered: &Entered, answers: mpsc::Sender<Response>) -> Self {
        let shared = entered.shared.clone();
        let units = u32::try_from(shared.settings.window.len() / UNIT).unwrap_or(u32::MAX).max(1);
        let window = Arc::new(Semaphore::new(usize::try_from(units).unwrap_or(Semaphore::MAX_PERMITS)));
        let (tasks, watches) = (JoinSet::new(), HashMap::new());
        Self { shared, asker: entered.asker, answers, window, units, tasks, watches, prune_at: PRUNE_MIN }
    }

    async fn read<S: Stream>(&mut self, mut source: Source<S>) -> Result<(), Error> {
        let idle = self.shared.settings.idle_timeout.get();
        while let Some(Request { id, call }) = next(&mut source, idle).await? {
            while self.tasks.try_join_next().is_some() {}
            match call {
                Some(Call::Watch(watch)) => self.watch(id, &watch.key).await,
                Some(Call::Unwatch(id)) => drop(self.watches.remove(&id).map(|watch| watch.abort())),
                Some(Call::Forget(Reader { transaction, .. })) => {
                    self.shared.snapshots.forget(self.asker.client, transaction);
                }
                Some(call) => {
                    let place = self.place(&call).await?;
                    self.start(id, call, place);
                }
                None => self.fail(id, Error::Unavailable("the server does not know this request".to_owned())).await,
            }
        }
        Ok(())
    }

    /// A place in the window for a request and its answer.
    async fn place(&self, call: &Call) -> Result<OwnedSemaphorePermit, Error> {
        let answer = match call {
            Call::Get(_) => MAX_VALUE,
            Call::Frames(frames) => frames.octets().min(fetch::OCTETS_MAX),
            Call::Range(range) => usize::try_from(range.bytes).unwrap_or(usize::MAX).min(PAGE_MAX) + MAX_VALUE,
            _ => 0,
        };
        let octets = call.encoded_len().saturating_add(answer);
        let units = u32::try_from(octets / UNIT + 1).unwrap_or(u32::MAX).min(self.units);
        self.window.clone().acquire_many_owned(units).await.map_err(|_| closed())
    }

    fn start(&mut self, id: u64, call: Call, place: OwnedSemaphorePermit) {
        let (shared, asker, answers) = (self.shared.clone(), self.asker, self.answers.clone());
        self.tasks.spawn(async move {
            let answer = match call {
                Call::Commit(request) => match shared.commits.begin(asker, *request, place) {
                    Ok(mut pending) => match pending.wait_for(Option::is_some).await.map(|outcome| outcome.clone()) {
                        Ok(Some(outcome)) => outcome.map(committed),
                        // Its task ended by a panic.
                        Ok(None) | Err(_) => Err(Error::MaybeCommitted),
                    },
                    Err(error) => Err(error),
                },
                call => {
                    let answer = answer(&shared, asker, call).await;
                    let sent = answers.send(respond(id, answer)).await;
                    // Its octets are the window's until the writer has them.
                    drop((sent, place));
                    return;
                }
            };
            let _ = answers.send(respond(id, answer)).await;
        });
    }

    /// Registers before anything that came later on this connection is read, so that no change slips between.
    async fn watch(&mut self, id: u64, key: &[u8]) {
        let max = self.shared.settings.watches_max;
        if self.watches.len() >= self.prune_at.min(max) {
            self.watches.retain(|_, watch| !watch.is_finished());
            self.prune_at = (2 * self.watches.len()).max(PRUNE_MIN);
        }
        if self.watches.len() >= max {
            return self.fail(id, Error::Unavailable("storage.serve.watches_max keys are watched".to_owned())).await;
        }
        let fired = match self.shared.engine.watch(key).await {
            Ok(fired) => fired,
            Err(error) => return self.fail(id, error).await,
        };
        let answers = self.answers.clone();
        let task = self.tasks.spawn(async move {
            let answer = fired.await.map(|()| Answer::Fired(Ping {}));
            let _ = answers.send(respond(id, answer)).await;
        });
        self.watches.insert(id, task);
    }

    /// Nothing more is read until the answer has its place with the writer.
    async fn fail(&self, id: u64, error: Error) {
        let _ = self.answers.send(respond(id, Err(error))).await;
    }
}

fn respond(id: u64, answer: Result<Answer, Error>) -> Response {
    let answer = answer.unwrap_or_else(|error| Answer::Failed(Failed::from(&error)));
    Response { id, answer: Some(answer) }
}

fn committed(commit: crate::engine::Commit) -> Answer {
    let stamp = commit.stamp.map(|stamp| Bytes::copy_from_slice(&stamp.0)).unwrap_or_default();
    Answer::Committed(Committed { version: commit.version, stamp })
}

async fn answer(shared: &Shared, asker: Asker, call: Call) -> Result<Answer, Error> {
    let open = |reader| shared.snapshots.open(asker.client, reader, || shared.engine.begin());
    match call {
        Call::Ping(_) => Ok(Answer::Pong(outcome::bucket())),
        Call::Version(reader) => {
            let held = open(reader)?;
            let mut txn = held.txn.lock().await;
            let version = txn.as_mut().ok_or(Error::TooOld)?.read_version().await?;
            Ok(Answer::Version(version))
        }
        Call::Get(Get { reader, key }) => {
            let held = open(reader)?;
            let mut txn = held.txn.lock().await;
            let txn = txn.as_mut().ok_or(Error::TooOld)?;
            let value = txn.get(&key, Isolation::Snapshot).await?;
            Ok(Answer::Value(Value { version: txn.base_version(), value }))
        }
        Call::Range(range) => {
            let held = open(range.reader)?;
            let mut txn = held.txn.lock().await;
            let txn = txn.as_mut().ok_or(Error::TooOld)?;
            let page = txn.range(scan(&range)).await?;
            let rows = page.rows.into_iter().map(|(key, value)| Row { key, value }).collect();
            Ok(Answer::Page(Page { version: txn.base_version(), rows, more: page.more }))
        }
        Call::Frames(frames) => Ok(Answer::Frames(fetch::read(&shared.engine, frames).await?)),
        _ => Err(Error::Unavailable("the server does not know this request".to_owned())),
    }
}

fn scan(range: &Range) -> RangeRequest<'_> {
    RangeRequest {
        begin: &range.begin,
        end: &range.end,
        limit: usize::try_from(range.limit).unwrap_or(usize::MAX),
        bytes: usize::try_from(range.bytes).unwrap_or(usize::MAX).min(PAGE_MAX),
        reverse: range.reverse,
        isolation: Isolation::Snapshot,
    }
}
