//! The dialogue over a real socket, against maildrops that are told how to behave.

mod hops;
mod sleep;

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use posthouse_conf::{Settings, Size, Span};
use posthouse_filter::rate::Admission;
use posthouse_mail::stage::BodyRef;
use posthouse_mail::{AccountId, BlobId, MailboxId, Uid, UidValidity};
use posthouse_net::Listener;
use posthouse_storage::message::Octets;
use posthouse_wire::pop3::{Entry, Maildrop};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::session::Switch;

/// What the maildrops were asked, and how they answer.
#[derive(Default)]
struct Told {
    asked: Vec<String>,
    in_use: bool,
    lock_lost: bool,
    renew_fails: bool,
    read_fails: bool,
    remove_fails: bool,
}

#[derive(Clone)]
struct Fake {
    messages: Arc<Vec<&'static str>>,
    told: Arc<Mutex<Told>>,
    lease: Duration,
}

impl Fake {
    fn ask(&self, what: String) {
        self.told().asked.push(what);
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().expect("no test panics while it holds this")
    }
}

impl Maildrops for Fake {
    async fn log_in(&self, credentials: &Credentials, _client: IpAddr) -> Result<AccountId, AuthRefusal> {
        match credentials.password.reveal().as_str() {
            "demo" => Ok(AccountId::new(1)),
            "busy" => Err(AuthRefusal::Busy),
            _ => Err(AuthRefusal::Wrong),
        }
    }

    async fn open(&self, account: AccountId) -> Result<(Opened, Maildrop), Trouble> {
        self.ask("open".into());
        if self.told().in_use {
            return Err(Trouble::InUse);
        }
        let uids = (1..).filter_map(Uid::new);
        let sizes = self.messages.iter().map(|message| u64::try_from(message.len()).expect("small"));
        let entries = uids.zip(sizes).map(|(uid, size)| Entry { uid, size }).collect();
        let opened = Opened::new(account, MailboxId::new(1), [1; 16], self.lease);
        Ok((opened, Maildrop::new(UidValidity::FIRST, entries)))
    }

    async fn renew(&self, opened: &mut Opened) -> Result<(), Trouble> {
        self.ask("renew".into());
        if self.told().lock_lost {
            return Err(Trouble::InUse);
        }
        if self.told().renew_fails {
            return Err(Trouble::Temporary);
        }
        opened.renewed(Instant::now());
        Ok(())
    }

    async fn release(&self, _opened: &Opened) {
        self.ask("release".into());
    }

    async fn find(&self, _opened: &Opened, uid: Uid) -> Result<Option<Octets>, Trouble> {
        let index = usize::try_from(uid.get()).expect("small") - 1;
        let blob = BlobId::new([u8::try_from(index).expect("small"); 32]);
        let size = |message: &&str| u64::try_from(message.len()).expect("small");
        let body = self.messages.get(index).map(|message| BodyRef { blob, size: size(message) });
        Ok(body.map(|body| Octets { prefix: Bytes::new(), body }))
    }

    async fn read(&self, message: &Octets, range: Range<u64>) -> Result<Bytes, Trouble> {
        if self.told().read_fails && range.start > 0 {
            return Err(Trouble::Temporary);
        }
        let index = |offset: u64| usize::try_from(offset).expect("small");
        let octets = self.messages[usize::from(message.body.blob.as_bytes()[0])].as_bytes();
        Ok(Bytes::from_static(&octets[index(range.start)..index(range.end)]))
    }

    async fn remove(&self, _opened: &Opened, uids: Vec<Uid>) -> Result<(), Trouble> {
        self.ask(format!("remove {uids:?}"));
        if self.told().remove_fails { Err(Trouble::Temporary) } else { Ok(()) }
    }
}

/// A session under way and its client.
struct Case {
    client: TcpStream,
    session: tokio::task::JoinHandle<Option<Parked>>,
    switch: Switch,
    told: Arc<Mutex<Told>>,
}

const MESSAGES: [&str; 2] = ["A: 1\r\n\r\n.one\r\ntwo\r\n", "B: 2\r\n\r\nthree"];

async fn start(change: impl FnOnce(&mut Settings, &mut Told)) -> Case {
    let (session, client, switch, told) = prepare(change).await;
    Case { client, session: tokio::spawn(session.run()), switch, told }
}

async fn prepare(
    change: impl FnOnce(&mut Settings, &mut Told),
) -> (Pop3Session<Fake>, TcpStream, Switch, Arc<Mutex<Told>>) {
    let (services, switch) = services(MESSAGES.to_vec(), change);
    let told = services.maildrops.told.clone();
    let (session, client) = connect(services).await;
    (session, client, switch, told)
}

/// What sessions share, and the switch that they obey.
fn services(
    messages: Vec<&'static str>,
    change: impl FnOnce(&mut Settings, &mut Told),
) -> (Pop3Services<Fake>, Switch) {
    let (mut settings, mut told) = (Settings::default(), Told::default());
    change(&mut settings, &mut told);
    let (told, lease, switch) = (Arc::new(Mutex::new(told)), settings.pop3.lock_lease.get(), Switch::new());
    let services = Pop3Services {
        maildrops: Fake { messages: Arc::new(messages), told, lease },
        protocol: Protocol::Pop3,
        tls: None,
        settings: Arc::new(settings),
        calls: switch.calls(),
    };
    (services, switch)
}

async fn connect(services: Pop3Services<Fake>) -> (Pop3Session<Fake>, TcpStream) {
    let listener = Listener::bind("127.0.0.1:0".parse().expect("an address"), 8).expect("a free port");
    let connecting = TcpStream::connect(listener.local_addr());
    let (client, transport) = tokio::join!(connecting, listener.accept());
    let admission = Admission::new(&services.settings.limits, &services.settings.submission);
    let guard = admission.connect(transport.peer_ip()).expect("room");
    let (peer, local) = (transport.peer_addr(), transport.local_addr());
    let session = Pop3Session::new(services, Accepted { transport, peer, local, exempt: false, guard });
    (session, client.expect("a connection"))
}

#[tokio::test]
async fn a_waiting_session_is_small() {
    let (session, ..) = prepare(|_, _| {}).await;
    let octets = std::mem::size_of_val(&session.run());
    assert!(octets <= 2048, "{octets}");
}

impl Case {
    /// Sends all of `input` and shows all that comes until the server closes.
    async fn play(mut self, input: &str) -> (String, Vec<String>) {
        self.client.write_all(input.as_bytes()).await.expect("a write");
        let mut output = String::new();
        // A session that ends with unread input resets the connection; what came before counts.
        let _ = self.client.read_to_string(&mut output).await;
        self.session.await.expect("no panic");
        let asked = std::mem::take(&mut self.told.lock().expect("no panic").asked);
        (output, asked)
    }
}

const LOGIN: &str = "USER alice\r\nPASS demo\r\n";

/// Plays lines after a login; each expected line is the beginning of a line of the answer, greeting and login left out.
async fn check(change: impl FnOnce(&mut Settings, &mut Told), lines: &str, expect: &[&str], asked: &[&str]) {
    let (output, done) = start(change).await.play(&format!("{LOGIN}{lines}")).await;
    let shown: Vec<&str> = output.lines().skip(3).collect();
    assert_eq!(shown.len(), expect.len(), "{output}");
    for (line, expect) in shown.iter().zip(expect) {
        assert!(line.starts_with(expect), "{line:?}, expected {expect:?}");
    }
    assert_eq!(done, asked);
}

#[tokio::test]
async fn pipelined_commands_are_answered_in_order() {
    let lines = "STAT\r\nLIST\r\nUIDL\r\nUIDL 2\r\nNOOP\r\nQUIT\r\n";
    let expect =
        ["+OK 2 ", "+OK", "1 19", "2 13", ".", "+OK", "1 1.1", "2 1.2", ".", "+OK 2 1.2", "+OK", "+OK goodbye"];
    check(|_, _| {}, lines, &expect, &["open", "release"]).await;
}

#[tokio::test]
async fn a_message_is_stuffed_and_ended_by_a_dot_in_pieces_of_any_size() {
    let retr = ["+OK 19 octets", "A: 1", "", "..one", "two", ".", "+OK"];
    let top = ["+OK 19 octets", "A: 1", "", "..one", ".", "+OK"];
    for size in [1, 7, 1000] {
        let small = |settings: &mut Settings, _: &mut Told| settings.pop3.io_buffer = Size::bytes(size);
        check(small, "RETR 1\r\nQUIT\r\n", &retr, &["open", "release"]).await;
        check(small, "TOP 1 1\r\nQUIT\r\n", &top, &["open", "release"]).await;
    }
    check(|_, _| {}, "RETR 2\r\nQUIT\r\n", &["+OK 13", "B: 2", "", "three", ".", "+OK"], &["open", "release"]).await;
}

#[tokio::test]
async fn rfc1939_6_marks_take_effect_at_quit_only() {
    let gone = ["+OK marked", "+OK the marked messages are gone"];
    check(|_, _| {}, "DELE 2\r\nQUIT\r\n", &gone, &["open", "remove [2]", "release"]).await;
    let case = start(|_, _| {}).await;
    let told = case.told.clone();
    let Case { mut client, session, .. } = case;
    client.write_all(format!("{LOGIN}DELE 2\r\n").as_bytes()).await.expect("a write");
    client.shutdown().await.expect("a FIN");
    session.await.expect("no panic");
    assert_eq!(told.lock().expect("no panic").asked, ["open", "release"]);
}

#[tokio::test]
async fn a_removal_that_fails_is_told() {
    let fails = |_: &mut Settings, told: &mut Told| told.remove_fails = true;
    let expect = ["+OK marked", "-ERR some deleted messages not removed"];
    check(fails, "DELE 1\r\nQUIT\r\n", &expect, &["open", "remove [1]", "release"]).await;
}

#[tokio::test]
async fn a_maildrop_in_use_is_refused_and_may_be_tried_again() {
    let (output, _) = start(|_, told| told.in_use = true).await.play(&format!("{LOGIN}STAT\r\nQUIT\r\n")).await;
    let lines: Vec<&str> = output.lines().skip(2).collect();
    assert!(lines[0].starts_with("-ERR [IN-USE]") && lines[1].starts_with("-ERR STAT"), "{output}");
}

#[tokio::test]
async fn wrong_passwords_and_errors_end_the_session_at_their_limit() {
    let few = |settings: &mut Settings, _: &mut Told| settings.pop3.errors_max = 3;
    let (output, _) = start(few).await.play("USER a\r\nPASS x\r\nXX\r\nUSER a\r\nPASS busy\r\n").await;
    let lines: Vec<&str> = output.lines().collect();
    assert!(lines[2].starts_with("-ERR [AUTH]") && lines[3].starts_with("-ERR unknown"), "{output}");
    assert!(lines[5].starts_with("-ERR [SYS/TEMP]") && lines[6] == "-ERR too many errors, goodbye", "{output}");
    assert_eq!(lines.len(), 7);
}

#[tokio::test]
async fn an_overlong_line_is_refused_and_the_next_one_obeyed() {
    let (output, _) = start(|_, _| {}).await.play(&format!("{}\r\nQUIT\r\n", "x".repeat(100_000))).await;
    let lines: Vec<&str> = output.lines().skip(1).collect();
    assert_eq!(lines, ["-ERR the line is too long", "+OK goodbye"]);
}

#[tokio::test]
async fn a_lock_that_is_lost_ends_the_session_before_anything_is_removed() {
    let lost = |settings: &mut Settings, told: &mut Told| {
        settings.pop3.lock_lease = Span::ms(0);
        told.lock_lost = true;
    };
    let (output, asked) = start(lost).await.play(&format!("{LOGIN}DELE 1\r\nQUIT\r\n")).await;
    assert!(!output.contains("marked"), "{output}");
    assert_eq!(asked, ["open", "renew", "release"]);
}

/// It asked again at once, all the time until the lease was over.
#[tokio::test]
async fn a_lock_that_cannot_be_renewed_is_asked_for_now_and_then_until_its_lease_ends() {
    let fails = |settings: &mut Settings, told: &mut Told| {
        settings.pop3.lock_lease = Span::secs(4);
        told.renew_fails = true;
    };
    let (output, asked) = start(fails).await.play(&format!("{LOGIN}STAT\r\n")).await;
    assert!(output.ends_with("+OK 2 32\r\n"), "{output}");
    let renewed = asked.iter().filter(|what| *what == "renew").count();
    assert!((2..=11).contains(&renewed), "{asked:?}");
    assert_eq!(asked.last().map(String::as_str), Some("release"));
}

#[tokio::test]
async fn a_message_that_cannot_be_read_to_its_end_gets_no_final_dot() {
    let broken = |settings: &mut Settings, told: &mut Told| {
        settings.pop3.io_buffer = Size::bytes(8);
        told.read_fails = true;
    };
    let (output, _) = start(broken).await.play(&format!("{LOGIN}RETR 1\r\nQUIT\r\n")).await;
    assert!(output.ends_with("A: 1\r\n\r\n"), "{output:?}");
}

#[tokio::test]
async fn a_drain_is_told_between_commands() {
    let case = start(|_, _| {}).await;
    case.switch.set(Call::Leave);
    let (output, _) = case.play("").await;
    assert!(output.lines().nth(1).is_some_and(|line| line.starts_with("-ERR [SYS/TEMP] the server")), "{output}");
}

#[tokio::test]
async fn rfc1939_3_autologout_says_nothing() {
    let short = |settings: &mut Settings, _: &mut Told| settings.pop3.login_timeout = Span::ms(20);
    let (output, _) = start(short).await.play("USER alice\r\n").await;
    assert_eq!(output.lines().count(), 2, "{output}");
}
