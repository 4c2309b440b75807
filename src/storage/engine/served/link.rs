//! The connection under a client: made, greeted, kept alive, and made anew when it is lost.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{SinkExt, StreamExt as _};
use posthouse_obs::emit;
use posthouse_obs::event::store as event;
use prost::Message as _;
use rand::Rng as _;
use tokio::io::{ReadHalf, WriteHalf, split};
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

use super::client::{Client, Condition};
use super::protocol::{self, Answer, Call, Hello, Ping, Request, Response, Stream, VERSIONS, Welcome};
use crate::error::Error;

/// Makes connections to the server: over mTLS between machines, over a local socket within one.
pub trait Connector: Send + Sync + 'static {
    fn connect(&self) -> BoxFuture<'_, io::Result<Box<dyn Stream>>>;
}

type Source = FramedRead<ReadHalf<Box<dyn Stream>>, LengthDelimitedCodec>;
type Sink = FramedWrite<WriteHalf<Box<dyn Stream>>, LengthDelimitedCodec>;

/// The wait after a connection was lost; doubles with each one that can't be made.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Signs of life that may be missing before a connection is given up.
const SILENCE: u32 = 3;

/// Why a connection ended.
enum Lost {
    /// Another try may do.
    Broken(String),
    Refused(Error),
}

/// Keeps a connection up until it is aborted.
pub(super) async fn run(client: Arc<Client>, connector: Box<dyn Connector>) {
    let mut store = None;
    let mut pause = PAUSE_MIN;
    let mut is_told = false;
    loop {
        let opened = open(&client, connector.as_ref(), &mut store).await;
        let lost = match opened {
            Err(lost) => lost,
            Ok((source, sink)) => {
                emit(event::StoreLinkUp {});
                (pause, is_told) = (PAUSE_MIN, false);
                Lost::Broken(carry(&client, source, sink).await)
            }
        };
        let (reason, condition) = match lost {
            Lost::Broken(reason) => (reason.clone(), Condition::Away(reason)),
            Lost::Refused(error) => (error.to_string(), Condition::Refused(error)),
        };
        client.disconnected(condition);
        if !is_told {
            emit(event::StoreLinkLost { reason });
            is_told = true;
        }
        let drawn = rand::rng().random_range(pause / 2..=pause);
        tokio::time::sleep(drawn).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Connects and greets.
async fn open(client: &Client, connector: &dyn Connector, store: &mut Option<Bytes>) -> Result<(Source, Sink), Lost> {
    let broken = |what: &str, error: &dyn std::fmt::Display| Lost::Broken(format!("{what}: {error}"));
    let limit = client.settings.connect_timeout.get();
    let stream = match timeout(limit, connector.connect()).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(broken("connecting", &error)),
        Err(_) => return Err(Lost::Broken("connecting took too long".to_owned())),
    };
    let (reading, writing) = split(stream);
    let (mut source, mut sink) =
        (FramedRead::new(reading, protocol::codec()), FramedWrite::new(writing, protocol::codec()));
    let hello = Hello {
        version_min: *VERSIONS.start(),
        version_max: *VERSIONS.end(),
        features: 0,
        incarnation: Bytes::copy_from_slice(&client.incarnation.0.to_be_bytes()),
    };
    let request = Request { id: 0, call: Some(Call::Hello(hello)) };
    let greeted = async {
        sink.send(Bytes::from(request.encode_to_vec())).await?;
        source.next().await.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))
    };
    let frame = match timeout(limit, greeted).await {
        Ok(Ok(frame)) => frame,
        Ok(Err(error)) => return Err(broken("the greeting", &error)),
        Err(_) => return Err(Lost::Broken("the greeting took too long".to_owned())),
    };
    let response: Response = protocol::decode(frame).map_err(|error| broken("the greeting", &error))?;
    let welcome = match response.answer {
        Some(Answer::Welcome(welcome)) => welcome,
        Some(Answer::Failed(failed)) => return Err(Lost::Refused(failed.into())),
        _ => return Err(Lost::Broken("the greeting was no welcome".to_owned())),
    };
    accept(&welcome, store)?;
    client.connected(welcome.bucket);
    Ok((source, sink))
}

/// Transactions under way, and whatever was read before, belong to one store.
fn accept(welcome: &Welcome, store: &mut Option<Bytes>) -> Result<(), Lost> {
    protocol::agree((welcome.version, welcome.version)).map_err(Lost::Refused)?;
    if *store.get_or_insert_with(|| welcome.store.clone()) != welcome.store {
        let reason = "the server serves another store than before: restart this node, or the server with the old store";
        return Err(Lost::Refused(Error::Unavailable(reason.to_owned())));
    }
    Ok(())
}

/// Carries requests and answers until the connection fails; tells why it did.
async fn carry(client: &Client, source: Source, sink: Sink) -> String {
    let silence = client.settings.keep_alive.get() * SILENCE;
    tokio::select! {
        reason = read(client, source, silence) => reason,
        error = write(client, sink) => error.map_or_else(|error| error.to_string(), |never| match never {}),
    }
}

async fn read(client: &Client, mut source: Source, silence: Duration) -> String {
    loop {
        let frame = match timeout(silence, source.next()).await {
            Err(_) => return "the server gave no sign of life".to_owned(),
            Ok(None) => return "the server closed the connection".to_owned(),
            Ok(Some(Err(error))) => return format!("reading: {error}"),
            Ok(Some(Ok(frame))) => frame,
        };
        match protocol::decode(frame) {
            Ok(response) => client.answered(response),
            Err(error) => return error.to_string(),
        }
    }
}

async fn write(client: &Client, mut sink: Sink) -> io::Result<std::convert::Infallible> {
    let mut alive = tokio::time::interval(client.settings.keep_alive.get());
    loop {
        while let Some(request) = client.next_request() {
            sink.feed(Bytes::from(request.encode_to_vec())).await?;
        }
        SinkExt::<Bytes>::flush(&mut sink).await?;
        tokio::select! {
            () = client.work.notified() => {}
            _ = alive.tick() => client.tell(Call::Ping(Ping {})),
        }
    }
}
