//! A remote mail host: takes SMTP connections as a test tells it to and keeps what it accepted.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::{PATIENCE, eventually};

/// How the host answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    Accept,
    /// 550 to each recipient whose address contains `refused`.
    RefuseSome,
    /// 451 to the end of data.
    Defer,
    /// 554 to the end of data.
    RefuseData,
}

/// What the host accepted.
#[derive(Clone, Debug)]
pub struct Received {
    pub from: String,
    pub to: Vec<String>,
    /// As on the wire, dots unstuffed, CRLF line ends.
    pub data: String,
}

/// A listening host; it stops when it is dropped.
pub struct RemoteHost {
    received: Arc<Mutex<Vec<Received>>>,
    manner: Arc<Mutex<Manner>>,
    connections: Arc<Mutex<u32>>,
    is_stopped: Arc<AtomicBool>,
}

impl RemoteHost {
    /// Listens on a loopback address: `127.0.0.11` and the like are all ours.
    pub fn listen(address: [u8; 4], port: u16, manner: Manner) -> Self {
        let listener = TcpListener::bind((std::net::Ipv4Addr::from(address), port))
            .unwrap_or_else(|error| panic!("{address:?}:{port}: {error}"));
        listener.set_nonblocking(true).expect("a listener that can be polled");
        let host = Self {
            received: Arc::default(),
            manner: Arc::new(Mutex::new(manner)),
            connections: Arc::default(),
            is_stopped: Arc::default(),
        };
        let (received, manner) = (Arc::clone(&host.received), Arc::clone(&host.manner));
        let (connections, is_stopped) = (Arc::clone(&host.connections), Arc::clone(&host.is_stopped));
        thread::spawn(move || {
            while !is_stopped.load(Ordering::Relaxed) {
                let Ok((stream, _)) = listener.accept() else {
                    thread::sleep(Duration::from_millis(20));
                    continue;
                };
                *connections.lock().expect("no session panicked") += 1;
                let (received, manner) = (Arc::clone(&received), Arc::clone(&manner));
                thread::spawn(move || serve(stream, &received, &manner));
            }
        });
        host
    }

    pub fn set_manner(&self, manner: Manner) {
        *self.manner.lock().expect("no session panicked") = manner;
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().expect("no session panicked").clone()
    }

    pub fn connections(&self) -> u32 {
        *self.connections.lock().expect("no session panicked")
    }

    /// Waits for the first message with this text in it.
    pub fn wait_for(&self, text: &str) -> Received {
        eventually(&format!("a message with {text:?} at the remote host"), || {
            self.received().into_iter().find(|message| message.data.contains(text))
        })
    }
}

impl Drop for RemoteHost {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }
}

fn serve(stream: TcpStream, received: &Mutex<Vec<Received>>, manner: &Mutex<Manner>) {
    // A client that leaves in the middle is its own affair; the test looks at what was kept.
    let _ = session(stream, received, manner);
}

fn session(stream: TcpStream, received: &Mutex<Vec<Received>>, manner: &Mutex<Manner>) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut output = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    let mut say = |text: &str| output.write_all(format!("{text}\r\n").as_bytes());
    let mut message = Received { from: String::new(), to: Vec::new(), data: String::new() };
    say("220 remote.example.test ESMTP")?;
    let mut line = String::new();
    while next_line(&mut input, &mut line)? {
        let manner = *manner.lock().expect("no test panicked");
        let verb = line.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" => {
                say("250-remote.example.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 100000000")?
            }
            "MAIL" => {
                message = Received { from: path(&line), to: Vec::new(), data: String::new() };
                say("250 2.1.0 sender noted")?;
            }
            "RCPT" if manner == Manner::RefuseSome && line.contains("refused") => say("550 5.1.1 nobody of that name")?,
            "RCPT" => {
                message.to.push(path(&line));
                say("250 2.1.5 recipient noted")?;
            }
            "DATA" if message.to.is_empty() => say("554 5.5.1 no recipient")?,
            "DATA" => {
                say("354 go on")?;
                message.data = data(&mut input)?;
                match manner {
                    Manner::Defer => say("451 4.3.0 later, please")?,
                    Manner::RefuseData => say("554 5.6.0 not this text")?,
                    Manner::Accept | Manner::RefuseSome => {
                        received.lock().expect("no session panicked").push(message.clone());
                        say("250 2.0.0 kept")?;
                    }
                }
            }
            "QUIT" => return say("221 2.0.0 farewell"),
            "RSET" | "NOOP" => say("250 2.0.0 done")?,
            _ => say("502 5.5.1 unknown here")?,
        }
    }
    Ok(())
}

fn next_line(input: &mut impl BufRead, line: &mut String) -> std::io::Result<bool> {
    let mut bytes = Vec::new();
    let count = input.read_until(b'\n', &mut bytes)?;
    *line = String::from_utf8_lossy(&bytes).into_owned();
    Ok(count > 0)
}

fn data(input: &mut impl BufRead) -> std::io::Result<String> {
    let mut text = String::new();
    let mut line = String::new();
    while next_line(input, &mut line)? && line != ".\r\n" {
        text.push_str(line.strip_prefix('.').unwrap_or(&line));
    }
    Ok(text)
}

fn path(line: &str) -> String {
    line.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(path, _)| path.to_owned()).unwrap_or_default()
}
