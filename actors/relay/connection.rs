//! One SMTP connection of a relay: the client machine of `wire` on a stream of `net`, each wait with its limit.
//!
//! Apart from the courier, which decides where to connect and what a failure means.

use std::time::Duration;

use posthouse_conf::Queue;
use posthouse_net::{LineStream, TlsConnector, Transport};
use posthouse_wire::smtp::client::{Client, CloseReason, DotStuffer, Step, Transaction, TransactionResult, Wait};
use tokio::time::Instant;

use super::content::Content;

/// A relay's line: the connection that is kept for the next message.
#[derive(Default)]
pub struct Line {
    pub(super) kept: Option<Connection>,
}

/// An open connection, between messages.
pub struct Connection {
    stream: LineStream,
    pub(super) client: Client,
    pub(super) host: String,
    /// Messages that went over it.
    pub(super) messages: usize,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum OpenFailure {
    Closed(CloseReason),
    /// The handshake failed; another connection may do without TLS.
    Tls(String),
}

/// Where the machine stopped.
enum Pause {
    Ready,
    StartTls,
    Finished(TransactionResult),
    Closed(CloseReason),
}

impl Connection {
    /// Runs greeting, EHLO, STARTTLS and login.
    pub(super) async fn open(
        transport: Transport,
        client: Client,
        host: &str,
        tls: &TlsConnector,
        settings: &Queue,
    ) -> Result<Self, OpenFailure> {
        let stream = LineStream::new(transport, INPUT_MAX);
        let mut connection = Self { stream, client, host: host.to_owned(), messages: 0 };
        loop {
            match connection.run(None, settings).await {
                Pause::Ready => return Ok(connection),
                Pause::Closed(reason) => return Err(OpenFailure::Closed(reason)),
                Pause::StartTls => connection = connection.start_tls(tls, settings).await?,
                // No transaction was begun, so none can end; the loop asks the machine again.
                Pause::Finished(_) => {}
            }
        }
    }

    async fn start_tls(self, tls: &TlsConnector, settings: &Queue) -> Result<Self, OpenFailure> {
        let Self { stream, mut client, host, messages } = self;
        let (transport, _) = stream.into_parts();
        let limit = settings.connect_timeout.get();
        let transport =
            tls.connect(transport, &host, limit).await.map_err(|error| OpenFailure::Tls(error.to_string()))?;
        client.tls_started();
        Ok(Self { stream: LineStream::new(transport, INPUT_MAX), client, host, messages })
    }

    pub(super) fn transport(&self) -> &Transport {
        self.stream.transport()
    }

    /// Runs one transaction; afterwards `usable` says whether the connection can take another.
    pub(super) async fn transact(
        &mut self,
        transaction: Transaction,
        content: &Content<'_>,
        settings: &Queue,
    ) -> TransactionResult {
        let recipients = transaction.recipients.len();
        self.messages += 1;
        self.client.begin(transaction);
        loop {
            match self.run(Some(content), settings).await {
                Pause::Finished(result) => return result,
                Pause::Ready | Pause::StartTls => {}
                // The machine ends a transaction before it says that the line is closed.
                Pause::Closed(reason) => {
                    let outcomes = vec![reason.outcome(&self.host); recipients];
                    return TransactionResult { outcomes, answered: false, in_doubt: false };
                }
            }
        }
    }

    /// Whether the server still listens and has sent nothing unasked.
    pub(super) fn usable(&mut self) -> bool {
        self.stream.input().is_empty() && matches!(self.client.step(), Step::Ready)
    }

    /// Says goodbye, without much patience for an answer.
    pub(super) async fn quit(mut self) {
        self.client.quit();
        let farewell = async {
            while let Step::Send(octets) = self.client.step() {
                if self.stream.write_all(&octets, FAREWELL).await.is_err() {
                    return;
                }
            }
            let _ = self.stream.fill(Instant::now() + FAREWELL).await;
        };
        farewell.await;
        self.stream.close(FAREWELL).await;
    }

    /// Runs the machine until it needs something that is not on the line.
    async fn run(&mut self, content: Option<&Content<'_>>, settings: &Queue) -> Pause {
        loop {
            match self.client.step() {
                Step::Send(octets) => {
                    if let Err(error) = self.stream.write_all(&octets, settings.command_timeout.get()).await {
                        self.client.lost(&error.to_string());
                    }
                }
                Step::Await(wait) => self.read(limit(wait, settings)).await,
                Step::StartTls => return Pause::StartTls,
                Step::Ready => return Pause::Ready,
                Step::SendData => self.send_data(content, settings).await,
                Step::Finished(result) => return Pause::Finished(result),
                Step::Closed(reason) => return Pause::Closed(reason),
            }
        }
    }

    async fn read(&mut self, limit: Duration) {
        match self.stream.fill(Instant::now() + limit).await {
            Ok(_) => {
                let input = self.stream.take(usize::MAX);
                self.client.receive(&input);
            }
            Err(error) => self.client.lost(&error.to_string()),
        }
    }

    async fn send_data(&mut self, content: Option<&Content<'_>>, settings: &Queue) {
        match self.try_send_data(content, settings).await {
            Ok(()) => self.client.data_sent(),
            Err(reason) => {
                // A server that refuses in the middle of the data often says why before it hangs up.
                if let Ok(_read) = self.stream.fill(Instant::now() + LAST_WORDS).await {
                    let input = self.stream.take(usize::MAX);
                    self.client.receive(&input);
                }
                self.client.lost(&reason);
            }
        }
    }

    async fn try_send_data(&mut self, content: Option<&Content<'_>>, settings: &Queue) -> Result<(), String> {
        let content = content.ok_or("no message to send")?;
        let limit = settings.command_timeout.get();
        let mut stuffer = DotStuffer::default();
        let (mut out, mut offset) = (Vec::new(), 0);
        loop {
            // A store that fails here leaves the data without its end: the server throws the message away.
            let chunk = content.chunk(offset).await.map_err(|error| format!("reading the message: {error}"))?;
            if chunk.is_empty() {
                break;
            }
            offset += chunk.len() as u64;
            stuffer.push(&chunk, &mut out);
            self.stream.write_all(&out, limit).await.map_err(|error| error.to_string())?;
            out.clear();
        }
        stuffer.finish(&mut out);
        self.stream.write_all(&out, limit).await.map_err(|error| error.to_string())
    }
}

fn limit(wait: Wait, settings: &Queue) -> Duration {
    match wait {
        Wait::Greeting => settings.greeting_timeout.get(),
        Wait::Command | Wait::DataStart => settings.command_timeout.get(),
        Wait::DataEnd => settings.data_timeout.get(),
    }
}

/// Octets of replies that are held unread.
const INPUT_MAX: usize = 64 * 1024;
/// Patience with a server to whom we say goodbye.
const FAREWELL: Duration = Duration::from_millis(500);
/// Patience with a server that broke off.
const LAST_WORDS: Duration = Duration::from_secs(1);
