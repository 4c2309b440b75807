//! A mail server that takes everything and remembers it: the remote host of a scenario.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::workload;

/// A silent client is let go after this.
const IDLE_MAX: Duration = Duration::from_secs(120);
const MESSAGE_MAX: usize = 16 << 20;

/// What arrived: a try and its recipient, and how often.
#[derive(Debug, Clone, Default)]
pub struct Sink {
    taken: Arc<Mutex<HashMap<String, usize>>>,
}

impl Sink {
    /// Starts to listen on a free port.
    pub async fn start() -> anyhow::Result<(Self, SocketAddr)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let sink = Self::default();
        let server = sink.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let sink = server.clone();
                // The peer is killed in mid-sentence all the time.
                tokio::spawn(async move { sink.serve(stream).await.unwrap_or_default() });
            }
        });
        Ok((sink, address))
    }

    /// What arrived so far.
    pub fn taken(&self) -> HashMap<String, usize> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn serve(&self, stream: TcpStream) -> anyhow::Result<()> {
        let mut stream = BufReader::new(stream);
        stream.write_all(b"220 sink.test ESMTP\r\n").await?;
        let mut recipients = Vec::new();
        loop {
            let line = read_line(&mut stream).await?;
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
            let reply: &[u8] = match verb.as_str() {
                "EHLO" => b"250-sink.test\r\n250-8BITMIME\r\n250-PIPELINING\r\n250 SIZE 16777216\r\n",
                "MAIL" => {
                    recipients.clear();
                    b"250 2.1.0 ok\r\n"
                }
                "RCPT" => {
                    recipients.extend(path(&line));
                    b"250 2.1.5 ok\r\n"
                }
                "DATA" => {
                    stream.write_all(b"354 go on\r\n").await?;
                    let message = read_message(&mut stream).await?;
                    // Counted before the reply: a client that is killed while it reads the reply must send again, and
                    // that repeat is one that RFC 5321 §6.1 admits.
                    self.count(&message, &recipients);
                    b"250 2.0.0 taken\r\n"
                }
                "QUIT" => {
                    stream.write_all(b"221 2.0.0 bye\r\n").await?;
                    return Ok(());
                }
                _ => b"250 2.0.0 ok\r\n",
            };
            stream.write_all(reply).await?;
        }
    }

    fn count(&self, message: &[u8], recipients: &[String]) {
        let name = workload::verify(message).unwrap_or_else(|reason| format!("damaged ({reason})"));
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        for recipient in recipients {
            *taken.entry(format!("{name} {recipient}")).or_default() += 1;
        }
    }
}

/// The text between the angle brackets.
fn path(line: &str) -> Option<String> {
    Some(line.split_once('<')?.1.split_once('>')?.0.to_owned())
}

async fn read_line(stream: &mut BufReader<TcpStream>) -> anyhow::Result<Vec<u8>> {
    let mut line = Vec::new();
    let octets = tokio::time::timeout(IDLE_MAX, stream.read_until(b'\n', &mut line)).await??;
    ensure!(octets > 0, "the client is gone");
    Ok(line)
}

/// Up to the lone dot, doubled dots undone (RFC 5321 §4.5.2).
async fn read_message(stream: &mut BufReader<TcpStream>) -> anyhow::Result<Vec<u8>> {
    let mut message = Vec::new();
    loop {
        let line = read_line(stream).await?;
        if line == b".\r\n" {
            return Ok(message);
        }
        message.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        ensure!(message.len() <= MESSAGE_MAX, "the message is too long");
    }
}
