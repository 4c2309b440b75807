//! Small clients of SMTP, IMAP and POP3 over `Client`, with just the commands that tests need.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::client::Client;
use super::program::{Demo, Port};

/// An SMTP client after its EHLO.
pub struct Smtp {
    pub client: Client,
    /// The lines of the last EHLO reply.
    pub capabilities: Vec<String>,
}

/// A reply: its code and the text of its lines.
#[derive(Debug, Clone, PartialEq)]
pub struct SmtpReply {
    pub code: u16,
    pub lines: Vec<String>,
}

impl Smtp {
    /// Port 25 of the demo.
    pub fn connect(demo: &Demo) -> Self {
        Self::greeted(Client::connect(demo.port(Port::Smtp)))
    }

    /// Submission on 587: STARTTLS, then AUTH PLAIN.
    pub fn submit(demo: &Demo, login: &str, password: &str) -> Self {
        let mut smtp = Self::greeted(Client::connect(demo.port(Port::Submission)));
        smtp.expect("STARTTLS", 220);
        smtp.client.start_tls(&demo.authority());
        smtp.hello();
        let secret = STANDARD.encode(format!("\0{login}\0{password}"));
        smtp.expect(&format!("AUTH PLAIN {secret}"), 235);
        smtp
    }

    pub fn greeted(client: Client) -> Self {
        let mut smtp = Self { client, capabilities: Vec::new() };
        assert_eq!(smtp.reply().code, 220, "a greeting");
        smtp.hello();
        smtp
    }

    fn hello(&mut self) {
        self.capabilities = self.expect("EHLO client.example.org", 250).lines;
    }

    pub fn reply(&mut self) -> SmtpReply {
        let mut lines = Vec::new();
        loop {
            let line = self.client.line();
            let code = line.get(..3).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no reply: {line}"));
            lines.push(line.get(4..).unwrap_or_default().to_owned());
            if line.as_bytes().get(3) != Some(&b'-') {
                return SmtpReply { code, lines };
            }
        }
    }

    pub fn command(&mut self, line: &str) -> SmtpReply {
        self.client.send(line);
        self.reply()
    }

    pub fn expect(&mut self, line: &str, code: u16) -> SmtpReply {
        let reply = self.command(line);
        assert_eq!(reply.code, code, "{line}: {reply:?}");
        reply
    }

    /// One transaction; `text` has LF or CRLF line ends and no dot to stuff.
    pub fn deliver(&mut self, from: &str, to: &[&str], text: &str) -> SmtpReply {
        self.expect(&format!("MAIL FROM:<{from}>"), 250);
        for recipient in to {
            self.expect(&format!("RCPT TO:<{recipient}>"), 250);
        }
        self.expect("DATA", 354);
        let text = text.replace("\r\n", "\n").replace('\n', "\r\n");
        let text = text.trim_end_matches("\r\n");
        self.client.send_raw(format!("{text}\r\n.\r\n").as_bytes());
        self.reply()
    }
}

/// A client of the submission port in the middle of AUTH, which cannot move.
pub fn half_logged_in(demo: &Demo) -> Client {
    let mut login = Client::connect_tls(demo.port(Port::Submissions), &demo.authority());
    assert!(login.line().starts_with("220"));
    login.send("EHLO client.example.org");
    while !login.line().starts_with("250 ") {}
    login.send("AUTH PLAIN");
    assert!(login.line().starts_with("334"), "a challenge");
    login
}

/// A small message with a subject.
pub fn message(from: &str, to: &str, subject: &str) -> String {
    format!(
        "From: <{from}>\nTo: <{to}>\nSubject: {subject}\nDate: Sat, 21 Nov 2026 10:00:00 +0000\nMessage-ID: <{subject}@example.org>\n\nText of {subject}.\n"
    )
}

/// Delivers a small message from outside to a local address.
pub fn deliver(demo: &Demo, to: &str, subject: &str) {
    let from = "sender@example.org";
    let reply = Smtp::connect(demo).deliver(from, &[to], &message(from, to, subject));
    assert_eq!(reply.code, 250, "{reply:?}");
}

/// An IMAP client that has logged in.
pub struct Imap {
    pub client: Client,
    count: u32,
}

/// The untagged lines of a command, literals inside, and its tagged answer without the tag.
#[derive(Debug)]
pub struct ImapAnswer {
    pub untagged: Vec<String>,
    pub tagged: String,
}

impl Imap {
    pub fn login(demo: &Demo, login: &str, password: &str) -> Self {
        let mut client = Client::connect_tls(demo.port(Port::Imaps), &demo.authority());
        let greeting = client.line();
        assert!(greeting.starts_with("* OK"), "{greeting}");
        let mut imap = Self { client, count: 0 };
        imap.expect(&format!("LOGIN {login} {password}"));
        imap
    }

    pub fn command(&mut self, command: &str) -> ImapAnswer {
        self.count += 1;
        let tag = format!("a{}", self.count);
        self.client.send(&format!("{tag} {command}"));
        let mut untagged = Vec::new();
        loop {
            let line = self.whole_line();
            if let Some(tagged) = line.strip_prefix(&format!("{tag} ")) {
                return ImapAnswer { untagged, tagged: tagged.to_owned() };
            }
            untagged.push(line);
        }
    }

    /// A command that must be answered with OK.
    pub fn expect(&mut self, command: &str) -> Vec<String> {
        let answer = self.command(command);
        assert!(answer.tagged.starts_with("OK"), "{command}: {answer:?}");
        answer.untagged
    }

    /// A line with the literals that it announces.
    pub fn whole_line(&mut self) -> String {
        let mut whole = self.client.line();
        while let Some(size) = literal_size(&whole) {
            let literal = self.client.octets(size);
            whole.push_str("\r\n");
            whole.push_str(&String::from_utf8_lossy(&literal));
            whole.push_str(&self.client.line());
        }
        whole
    }

    /// Appends a text as it stands.
    pub fn append(&mut self, mailbox: &str, flags: &str, date: &str, text: &str) {
        self.client.send(&format!("append APPEND {mailbox} ({flags}) \"{date}\" {{{}}}", text.len()));
        let line = self.client.line();
        assert!(line.starts_with('+'), "{line}");
        self.client.send(text);
        let mut line = self.client.line();
        while !line.starts_with("append ") {
            line = self.client.line();
        }
        assert!(line.starts_with("append OK"), "{line}");
    }

    /// The numbers that a SEARCH finds; a key outside ASCII goes as a literal.
    pub fn search(&mut self, command: &str) -> String {
        let command = command.split(' ').map(|word| match word.is_ascii() {
            true => word.to_owned(),
            false => format!("{{{}+}}\r\n{word}", word.len()),
        });
        let lines = self.expect(&command.collect::<Vec<_>>().join(" "));
        let found = lines.iter().find_map(|line| line.strip_prefix("* SEARCH"));
        found.unwrap_or_else(|| panic!("no SEARCH response: {lines:?}")).trim().to_owned()
    }

    /// Selects a mailbox and counts its messages.
    pub fn select(&mut self, mailbox: &str) -> u32 {
        let lines = self.expect(&format!("SELECT {mailbox}"));
        let exists = lines.iter().find_map(|line| line.strip_prefix("* ")?.strip_suffix(" EXISTS"));
        exists.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no EXISTS: {lines:?}"))
    }

    /// All messages of a mailbox, raw.
    pub fn messages(&mut self, mailbox: &str) -> Vec<String> {
        if self.select(mailbox) == 0 {
            return Vec::new();
        }
        let lines = self.expect("FETCH 1:* BODY.PEEK[]");
        lines.into_iter().filter(|line| line.contains(" FETCH ")).collect()
    }
}

fn literal_size(line: &str) -> Option<usize> {
    line.strip_suffix('}')?.rsplit_once('{')?.1.parse().ok()
}

/// The messages in a mailbox of an account, through a fresh connection.
pub fn mailbox(demo: &Demo, login: &str, password: &str, mailbox: &str) -> Vec<String> {
    Imap::login(demo, login, password).messages(mailbox)
}

/// A POP3 client that has logged in.
pub struct Pop3 {
    pub client: Client,
}

impl Pop3 {
    pub fn login(demo: &Demo, login: &str, password: &str) -> Self {
        let mut client = Client::connect_tls(demo.port(Port::Pop3s), &demo.authority());
        let greeting = client.line();
        assert!(greeting.starts_with("+OK"), "{greeting}");
        let mut pop3 = Self { client };
        pop3.expect(&format!("USER {login}"));
        pop3.expect(&format!("PASS {password}"));
        pop3
    }

    pub fn expect(&mut self, command: &str) -> String {
        self.client.send(command);
        let line = self.client.line();
        assert!(line.starts_with("+OK"), "{command}: {line}");
        line
    }

    /// A command with an answer of many lines, dots taken off.
    pub fn lines(&mut self, command: &str) -> Vec<String> {
        self.expect(command);
        let mut lines = Vec::new();
        loop {
            let line = self.client.line();
            if line == "." {
                return lines;
            }
            lines.push(line.strip_prefix('.').map_or(line.clone(), str::to_owned));
        }
    }
}
