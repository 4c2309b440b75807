//! Just enough SMTP and IMAP to load a server and to read it out; what is unexpected is an error with the line in it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use posthouse_net::Transport;
use posthouse_net::tls::Connector;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

/// The longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);
const CONNECT_MAX: Duration = Duration::from_secs(5);

struct Lines {
    stream: BufReader<Transport>,
}

impl Lines {
    async fn read(&mut self) -> anyhow::Result<String> {
        let mut line = Vec::new();
        let read = tokio::time::timeout(ANSWER_MAX, self.stream.read_until(b'\n', &mut line)).await;
        let octets = read.context("no answer in time")??;
        ensure!(octets > 0 && line.ends_with(b"\n"), "the connection ended");
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    async fn write(&mut self, octets: &[u8]) -> anyhow::Result<()> {
        tokio::time::timeout(ANSWER_MAX, self.stream.write_all(octets)).await.context("no room in time")??;
        Ok(self.stream.flush().await?)
    }
}

/// An SMTP session.
pub struct Smtp {
    lines: Lines,
}

/// Who submits, and what he trusts.
pub struct Login<'a> {
    pub roots: &'a Path,
    /// AUTH PLAIN's initial response, in base64.
    pub plain: &'a str,
}

impl Smtp {
    /// Connects and greets; with a login under TLS from the first octet (RFC 8314 §3.3).
    pub async fn connect(address: SocketAddr, login: Option<Login<'_>>) -> anyhow::Result<Self> {
        let mut transport = posthouse_net::connect::connect(address, CONNECT_MAX).await?;
        if let Some(login) = &login {
            let connector = Connector::verified_by(login.roots)?;
            transport = connector.connect(transport, "localhost", CONNECT_MAX).await?;
        }
        let mut session = Self { lines: Lines { stream: BufReader::new(transport) } };
        session.expect("", 220).await?;
        session.expect("EHLO chaos.test\r\n", 250).await?;
        if let Some(login) = login {
            session.expect(&format!("AUTH PLAIN {}\r\n", login.plain), 235).await?;
        }
        Ok(session)
    }

    /// Sends a command and reads its reply (RFC 5321 §4.2.1: the last line has a space after the code).
    async fn command(&mut self, command: &str) -> anyhow::Result<(u16, String)> {
        self.lines.write(command.as_bytes()).await?;
        loop {
            let line = self.lines.read().await?;
            let code = line.get(..3).and_then(|code| code.parse().ok()).with_context(|| format!("no reply: {line}"))?;
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok((code, line));
            }
        }
    }

    async fn expect(&mut self, command: &str, wanted: u16) -> anyhow::Result<()> {
        let (code, line) = self.command(command).await?;
        ensure!(code == wanted, "{} was answered {line}", command.trim_end());
        Ok(())
    }

    /// One message. `Ok(true)` only after the 250 that takes it over; `Ok(false)` when it was refused as temporary.
    pub async fn send(&mut self, from: &str, recipients: &[&str], message: &[u8]) -> anyhow::Result<bool> {
        self.expect(&format!("MAIL FROM:<{from}>\r\n"), 250).await?;
        for recipient in recipients {
            self.expect(&format!("RCPT TO:<{recipient}>\r\n"), 250).await?;
        }
        self.expect("DATA\r\n", 354).await?;
        // The workload writes no line that begins with a dot, so that nothing has to be doubled.
        self.lines.write(message).await?;
        let (code, line) = self.command(".\r\n").await?;
        match code {
            250 => Ok(true),
            400..=499 => Ok(false),
            _ => bail!("the message was answered {line}"),
        }
    }
}

/// An IMAP session.
pub struct Imap {
    lines: Lines,
    commands: u32,
}

/// One untagged answer: its text, and its literals in their order.
struct Answer {
    text: String,
    literals: Vec<Vec<u8>>,
}

impl Imap {
    pub async fn connect(address: SocketAddr, user: &str, password: &str) -> anyhow::Result<Self> {
        let transport = posthouse_net::connect::connect(address, CONNECT_MAX).await?;
        let mut session = Self { lines: Lines { stream: BufReader::new(transport) }, commands: 0 };
        let greeting = session.lines.read().await?;
        ensure!(greeting.starts_with("* OK"), "greeted with {greeting}");
        session.command(&format!("LOGIN {user} {password}")).await?;
        Ok(session)
    }

    /// Whether the session still answers.
    pub async fn is_alive(&mut self) -> bool {
        self.command("NOOP").await.is_ok()
    }

    async fn command(&mut self, command: &str) -> anyhow::Result<Vec<Answer>> {
        self.commands += 1;
        let tag = format!("c{} ", self.commands);
        self.lines.write(format!("{tag}{command}\r\n").as_bytes()).await?;
        let mut answers = Vec::new();
        loop {
            let answer = self.answer().await?;
            let Some(status) = answer.text.strip_prefix(&tag) else {
                answers.push(answer);
                continue;
            };
            ensure!(status.starts_with("OK"), "{command} was answered {status}");
            return Ok(answers);
        }
    }

    /// A line, and while it ends in a literal's length (RFC 9051 §4.3) the literal and the line after it.
    async fn answer(&mut self) -> anyhow::Result<Answer> {
        let mut answer = Answer { text: self.lines.read().await?, literals: Vec::new() };
        while let Some(length) = literal_length(&answer.text) {
            let mut literal = vec![0; length];
            let read = tokio::time::timeout(ANSWER_MAX, self.lines.stream.read_exact(&mut literal)).await;
            read.context("no literal in time")??;
            answer.literals.push(literal);
            answer.text.push_str(&self.lines.read().await?);
        }
        Ok(answer)
    }

    /// The names of all mailboxes.
    pub async fn mailboxes(&mut self) -> anyhow::Result<Vec<String>> {
        let answers = self.command("LIST \"\" *").await?;
        let lists = answers.iter().filter(|answer| answer.text.starts_with("* LIST"));
        Ok(lists.filter_map(|answer| answer.text.rsplit(' ').next()).map(str::to_owned).collect())
    }

    /// Every message of a mailbox, whole, handed over one by one.
    pub async fn read_mailbox(
        &mut self,
        mailbox: &str,
        mut take: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let answers = self.command(&format!("EXAMINE {mailbox}")).await?;
        let exists =
            answers.iter().find_map(|answer| answer.text.strip_prefix("* ")?.strip_suffix(" EXISTS")?.parse().ok());
        let exists: u32 = exists.context("EXAMINE told no EXISTS")?;
        let mut seen = 0;
        for first in (1..=exists).step_by(200) {
            let last = exists.min(first + 199);
            for answer in self.command(&format!("FETCH {first}:{last} (UID BODY.PEEK[])")).await? {
                if let [message] = answer.literals.as_slice() {
                    take(message)?;
                    seen += 1;
                }
            }
        }
        ensure!(seen == exists, "{mailbox} has {exists} messages and yielded {seen}");
        Ok(())
    }
}

fn literal_length(line: &str) -> Option<usize> {
    line.strip_suffix('}')?.rsplit_once('{')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_is_announced_at_the_end_of_its_line() {
        assert_eq!(literal_length("* 1 FETCH (UID 1 BODY[] {42}"), Some(42));
        assert_eq!(literal_length("* 1 FETCH (UID 1)"), None);
        assert_eq!(literal_length("* OK {x}"), None);
    }
}
