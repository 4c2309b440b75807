//! Speaks a script with a demo: sends, expects, and on a difference shows the dialogue so far.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::pattern::{self, Captures};
use super::script::{Action, Script, Step};
use crate::harness::client::Client;
use crate::harness::mail_client;
use crate::harness::program::{Demo, Port};

/// Makes the names of fresh accounts differ.
static ACCOUNTS: AtomicU32 = AtomicU32::new(1);

struct Connection {
    client: Client,
    port: Port,
}

struct Dialogue<'a> {
    demo: &'a Demo,
    connections: BTreeMap<String, Connection>,
    captures: Captures,
    spoken: Vec<String>,
}

/// Speaks a script to its end, or says where it differs.
pub fn speak(demo: &Demo, script: &Script) -> Result<(), String> {
    let mut dialogue = Dialogue { demo, connections: BTreeMap::new(), captures: Captures::new(), spoken: Vec::new() };
    for step in &script.steps {
        dialogue.step(step).map_err(|reason| {
            let spoken = dialogue.spoken.join("\n    ");
            format!("{}:{}: {reason}\n    {spoken}", script.name, step.line)
        })?;
    }
    Ok(())
}

impl Dialogue<'_> {
    fn step(&mut self, step: &Step) -> Result<(), String> {
        match &step.action {
            Action::Connect(port) => self.connect(&step.connection, *port),
            Action::Account => self.account(),
            Action::Deliver { to, subject } => {
                let to = self.address(&pattern::fill(to, &self.captures));
                mail_client::deliver(self.demo, &to, &pattern::fill(subject, &self.captures));
            }
            Action::StartTls => {
                let authority = self.demo.authority();
                self.connection(&step.connection)?.client.start_tls(&authority);
            }
            Action::Close => {
                if let Some(line) = self.connection(&step.connection)?.client.try_line() {
                    return Err(format!("expected the end, got `{line}`"));
                }
            }
            Action::Login(who) => self.login(&step.connection, who)?,
            Action::Send { text, with_end, with_escapes } => {
                let filled = pattern::fill(text, &self.captures);
                let mut octets = if *with_escapes { pattern::unescape(&filled)? } else { filled.clone().into_bytes() };
                if *with_end {
                    octets.extend_from_slice(b"\r\n");
                }
                self.spoken.push(format!("{} C: {filled}", step.connection));
                // A server that has closed already is judged by what it said.
                let _ = self.connection(&step.connection)?.client.try_send_raw(&octets);
            }
            Action::Expect(wanted) => {
                let line = self.next_line(&step.connection)?;
                if !pattern::fits(wanted, &line, &mut self.captures) {
                    return Err(format!("expected `{wanted}`"));
                }
            }
            Action::Await(wanted) => loop {
                let line = self.next_line(&step.connection).map_err(|_| format!("`{wanted}` never came"))?;
                if pattern::fits(wanted, &line, &mut self.captures) {
                    break;
                }
            },
        }
        Ok(())
    }

    fn connect(&mut self, name: &str, port: Port) {
        let number = self.demo.port(port);
        let is_tls = matches!(port, Port::Submissions | Port::Imaps | Port::Pop3s);
        let client = if is_tls { Client::connect_tls(number, &self.demo.authority()) } else { Client::connect(number) };
        self.connections.insert(name.to_owned(), Connection { client, port });
    }

    fn connection(&mut self, name: &str) -> Result<&mut Connection, String> {
        self.connections.get_mut(name).ok_or_else(|| format!("no connection `{name}`"))
    }

    fn next_line(&mut self, name: &str) -> Result<String, String> {
        let line = self.connection(name)?.client.try_line().ok_or("the server closed the connection")?;
        self.spoken.push(format!("{name} S: {line}"));
        Ok(line)
    }

    /// A fresh account: `{account}` is its address, `{user}` its local part; the password is `pw`.
    fn account(&mut self) {
        let user = format!("t{}", ACCOUNTS.fetch_add(1, Ordering::Relaxed));
        let address = self.demo.create_account(&user);
        self.captures.insert("account".to_owned(), address);
        self.captures.insert("user".to_owned(), user);
    }

    /// `alice` is `alice@demo.test`; `account` is the fresh one.
    fn address(&self, who: &str) -> String {
        match self.captures.get("account") {
            Some(address) if who == "account" => address.clone(),
            _ if who.contains('@') => who.to_owned(),
            _ => format!("{who}@demo.test"),
        }
    }

    /// Logs in by the protocol's own words.
    fn login(&mut self, name: &str, who: &str) -> Result<(), String> {
        let address = self.address(who);
        let password = if who == "account" { "pw" } else { "demo" };
        let (commands, good): (Vec<String>, &str) = match self.connection(name)?.port {
            Port::Imap | Port::Imaps => (vec![format!("login LOGIN {address} {password}")], "login OK"),
            Port::Pop3 | Port::Pop3s => (vec![format!("USER {address}"), format!("PASS {password}")], "+OK"),
            _ => (vec![format!("AUTH PLAIN {}", STANDARD.encode(format!("\0{address}\0{password}")))], "235"),
        };
        for command in commands {
            self.connection(name)?.client.send(&command);
            loop {
                let line = self.next_line(name)?;
                if line.starts_with(good) {
                    break;
                }
                if !line.starts_with("* ") {
                    return Err(format!("{command}: {line}"));
                }
            }
        }
        Ok(())
    }
}
