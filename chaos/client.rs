//! Just enough SMTP, IMAP and POP3 to load a server and to read it out; what is unexpected is an error with the line in it.

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

/// The connection is gone, which a killed server excuses, and no wrong answer.
#[derive(Debug)]
struct Gone(String);

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the connection ended{}", self.0)
    }
}

impl std::error::Error for Gone {}

/// Whether an exchange failed because the connection ended.
pub fn is_gone(error: &anyhow::Error) -> bool {
    error.is::<Gone>() || error.is::<std::io::Error>()
}

struct Lines {
    stream: BufReader<Transport>,
}

impl Lines {
    /// With a file of roots under TLS from the first octet (RFC 8314 §3).
    async fn connect(address: SocketAddr, roots: Option<&Path>) -> anyhow::Result<Self> {
        let mut transport = posthouse_net::connect::connect(address, CONNECT_MAX).await?;
        if let Some(roots) = roots {
            transport = Connector::verified_by(roots)?.connect(transport, "localhost", CONNECT_MAX).await?;
        }
        Ok(Self { stream: BufReader::new(transport) })
    }

    async fn read(&mut self) -> anyhow::Result<String> {
        let mut line = Vec::new();
        let read = tokio::time::timeout(ANSWER_MAX, self.stream.read_until(b'\n', &mut line)).await;
        let octets = read.context("no answer in time")??;
        ensure!(octets > 0 && line.ends_with(b"\n"), Gone(String::new()));
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
    /// Connects and greets; with a login under TLS.
    pub async fn connect(address: SocketAddr, login: Option<Login<'_>>) -> anyhow::Result<Self> {
        let mut session = Self { lines: Lines::connect(address, login.as_ref().map(|login| login.roots)).await? };
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
        // RFC 5321 §3.8: with 421 the server closes.
        ensure!(code != 421 || wanted == 421, Gone(format!(", {} was answered {line}", command.trim_end())));
        ensure!(code == wanted, "{} was answered {line}", command.trim_end());
        Ok(())
    }

    /// One message. `Ok(true)` only after the 250 that takes it over; `Ok(false)` when it was refused as temporary.
    pub async fn send(&mut self, from: &str, recipients: &[&str], message: &[u8]) -> anyhow::Result<bool> {
        self.begin(from, recipients).await?;
        self.finish(message).await
    }

    /// The envelope of a message.
    pub async fn begin(&mut self, from: &str, recipients: &[&str]) -> anyhow::Result<()> {
        self.expect(&format!("MAIL FROM:<{from}>\r\n"), 250).await?;
        for recipient in recipients {
            self.expect(&format!("RCPT TO:<{recipient}>\r\n"), 250).await?;
        }
        Ok(())
    }

    /// The message of an envelope.
    pub async fn finish(&mut self, message: &[u8]) -> anyhow::Result<bool> {
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
    /// Connects and logs in, with a file of roots under TLS.
    pub async fn connect(
        address: SocketAddr,
        roots: Option<&Path>,
        (user, password): (&str, &str),
    ) -> anyhow::Result<Self> {
        let mut session = Self { lines: Lines::connect(address, roots).await?, commands: 0 };
        let greeting = session.lines.read().await?;
        ensure!(greeting.starts_with("* OK"), "greeted with {greeting}");
        session.command(&format!("LOGIN {user} {password}")).await?;
        Ok(session)
    }

    pub async fn examine(&mut self, mailbox: &str) -> anyhow::Result<()> {
        self.command(&format!("EXAMINE {mailbox}")).await.map(drop)
    }

    /// Asks for what only a session with a mailbox selected may (RFC 9051 §6.4.1).
    pub async fn check(&mut self) -> anyhow::Result<()> {
        self.command("UID SEARCH UID 1").await.map(drop)
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

/// A POP3 session under TLS.
pub struct Pop3 {
    lines: Lines,
}

impl Pop3 {
    pub async fn connect(address: SocketAddr, roots: &Path, (user, password): (&str, &str)) -> anyhow::Result<Self> {
        let mut session = Self { lines: Lines::connect(address, Some(roots)).await? };
        let greeting = session.lines.read().await?;
        ensure!(greeting.starts_with("+OK"), "greeted with {greeting}");
        session.command(&format!("USER {user}")).await?;
        session.command(&format!("PASS {password}")).await?;
        Ok(session)
    }

    /// The text after `+OK` of a command with an answer of one line (RFC 1939 §3).
    pub async fn command(&mut self, command: &str) -> anyhow::Result<String> {
        self.lines.write(format!("{command}\r\n").as_bytes()).await?;
        let line = self.lines.read().await?;
        // RFC 3206 §4: with this a server that goes away closes.
        ensure!(!line.starts_with("-ERR [SYS/TEMP]"), Gone(format!(", {command} was answered {line}")));
        let text = line.strip_prefix("+OK").with_context(|| format!("{command} was answered {line}"))?;
        Ok(text.trim_start().to_owned())
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
