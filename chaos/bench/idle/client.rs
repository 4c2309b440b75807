//! An IMAP client under TLS with small buffers, since thousands of it run in one process.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use posthouse_net::Transport;
use posthouse_net::tls::Connector;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpSocket;

const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Connections from one of our addresses, fewer than it has ports.
const PER_ADDRESS: u32 = 10_000;

/// Where a server listens, and how its accounts are called.
#[derive(Clone)]
pub struct Place {
    pub address: SocketAddr,
    pub domain: &'static str,
    pub password: &'static str,
}

impl Place {
    pub fn user(&self, account: usize) -> String {
        format!("user{account}@{}", self.domain)
    }
}

pub struct Client {
    stream: BufReader<Transport>,
}

impl Client {
    /// Logs in and opens INBOX.
    pub async fn log_in(place: &Place, account: usize) -> anyhow::Result<Self> {
        static CONNECTIONS: AtomicU32 = AtomicU32::new(0);
        let socket = TcpSocket::new_v4()?;
        let from = 100 + CONNECTIONS.fetch_add(1, Ordering::Relaxed) / PER_ADDRESS;
        socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, u8::try_from(from)?), 0)))?;
        let transport = Transport::plain(socket.connect(place.address).await?)?;
        // The same for every server: nobody else is on loopback.
        let transport = Connector::opportunistic().connect(transport, "localhost", ANSWER_MAX).await?;
        let mut client = Self { stream: BufReader::with_capacity(512, transport) };
        client.until("* OK").await?;
        let user = place.user(account);
        client.send(&format!("a LOGIN {user} {}\r\n", place.password)).await?;
        client.until("a OK").await?;
        client.send("b SELECT INBOX\r\n").await?;
        client.until("b OK").await?;
        Ok(client)
    }

    pub async fn idle(&mut self) -> anyhow::Result<()> {
        self.send("i IDLE\r\n").await?;
        self.until("+").await
    }

    pub async fn noop(&mut self) -> anyhow::Result<()> {
        self.send("n NOOP\r\n").await?;
        self.until("n OK").await
    }

    /// Waits for news of another message.
    pub async fn exists(&mut self) -> anyhow::Result<()> {
        loop {
            let line = self.line().await?;
            if line.ends_with(" EXISTS") {
                return Ok(());
            }
            // Dovecot tells that it is still there, and that a message is recent.
            ensure!(line.starts_with("* OK") || line.ends_with(" RECENT"), "{line}");
        }
    }

    pub async fn append(&mut self) -> anyhow::Result<()> {
        let message = "Subject: news\r\n\r\nnews\r\n";
        self.send(&format!("p APPEND INBOX {{{}}}\r\n", message.len())).await?;
        self.until("+").await?;
        self.send(&format!("{message}\r\n")).await?;
        self.until("p OK").await
    }

    async fn send(&mut self, text: &str) -> anyhow::Result<()> {
        self.stream.write_all(text.as_bytes()).await?;
        Ok(self.stream.flush().await?)
    }

    async fn until(&mut self, begin: &str) -> anyhow::Result<()> {
        loop {
            let line = self.line().await?;
            if line.starts_with(begin) {
                return Ok(());
            }
            ensure!(line.starts_with("* ") && !line.starts_with("* BYE"), "not {begin} but {line}");
        }
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        let read = tokio::time::timeout(ANSWER_MAX, self.stream.read_line(&mut line)).await;
        read.context("no answer in time")??;
        ensure!(line.ends_with('\n'), "the connection ended");
        Ok(line.trim_end().to_owned())
    }
}
