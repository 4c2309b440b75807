//! `posthouse upgrade`: sessions of every protocol go on in another process, and one that does not come up changes nothing.

use std::io::Read as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};

use crate::harness::client::{Client, tls_config};
use crate::harness::mail_client::{Imap, Pop3, Smtp, deliver, mailbox, message};
use crate::harness::program::{Demo, MOMENT, Port};

const ALICE: &str = "alice@demo.test";
const BOB: &str = "bob@demo.test";

/// A client of each protocol in the middle of what it does.
struct Sessions {
    idle: Imap,
    open: Imap,
    smtp: Smtp,
    submission: Smtp,
    pop3: Pop3,
    /// Has not said anything yet.
    silent: Client,
}

impl Sessions {
    fn begin(demo: &Demo) -> Self {
        for subject in ["one", "two", "three"] {
            deliver(demo, BOB, subject);
        }
        let mut idle = Imap::login(demo, ALICE, "demo");
        assert_eq!(idle.select("INBOX"), 0);
        idle.client.send("idle IDLE");
        assert!(idle.client.line().starts_with('+'));
        let mut open = Imap::login(demo, BOB, "demo");
        assert_eq!(open.select("INBOX"), 3);
        open.expect("STORE 2 +FLAGS (\\Flagged)");
        let mut smtp = Smtp::connect(demo);
        smtp.expect("MAIL FROM:<sender@example.org>", 250);
        smtp.expect(&format!("RCPT TO:<{ALICE}>"), 250);
        let mut submission = Smtp::submit(demo, ALICE, "demo");
        submission.expect(&format!("MAIL FROM:<{ALICE}>"), 250);
        let mut pop3 = Pop3::login(demo, BOB, "demo");
        pop3.expect("DELE 1");
        let mut silent = Client::connect(demo.port(Port::Imap));
        assert!(silent.line().starts_with("* OK"));
        Self { idle, open, smtp, submission, pop3, silent }
    }

    /// Each goes on with what only its own past explains.
    fn go_on(mut self, demo: &Demo) {
        self.smtp.expect("DATA", 354);
        let text = message("sender@example.org", ALICE, "before-and-after").replace('\n', "\r\n");
        self.smtp.client.send_raw(format!("{text}.\r\n").as_bytes());
        assert_eq!(self.smtp.reply().code, 250);
        assert_eq!(self.idle.client.line(), "* 1 EXISTS");
        self.idle.client.send("DONE");
        assert!(self.idle.client.line().starts_with("idle OK"));
        self.submission.expect(&format!("RCPT TO:<{BOB}>"), 250);
        self.submission.expect("DATA", 354);
        let text = message(ALICE, BOB, "submitted").replace('\n', "\r\n");
        self.submission.client.send_raw(format!("{text}.\r\n").as_bytes());
        assert_eq!(self.submission.reply().code, 250);
        assert!(self.open.expect("FETCH 2 FLAGS")[0].contains("\\Flagged"));
        assert!(self.pop3.expect("STAT").starts_with("+OK 2 "));
        self.pop3.expect("QUIT");
        let left = mailbox(demo, BOB, "demo", "INBOX");
        assert!(!left.iter().any(|message| message.contains("Subject: one")), "{left:?}");
        self.silent.send(&format!("a LOGIN {ALICE} demo"));
        assert!(self.silent.line().starts_with("a OK"));
    }
}

#[test]
fn sessions_of_every_protocol_live_through_three_upgrades() {
    let mut demo = Demo::start();
    let sessions = Sessions::begin(&demo);
    for _ in 0..3 {
        let before = demo.pid();
        let report = demo.upgrade(None);
        assert_ne!(demo.pid(), before);
        assert_eq!((&report["moved"], &report["farewelled"]), (&6.into(), &0.into()), "{report}");
    }
    sessions.go_on(&demo);
    assert_eq!(demo.json(&["check", "--store"])["whole"], true);
    assert_eq!(demo.json(&["status"])["pid"], demo.pid());
}

#[test]
fn a_message_that_nobody_reads_moves_in_the_middle() {
    let mut demo = Demo::start();
    let body = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n".repeat(160_000);
    let text = message("sender@example.org", ALICE, "large") + &body;
    assert_eq!(Smtp::connect(&demo).deliver("sender@example.org", &[ALICE], &text).code, 250);
    let mut imap = Imap::login(&demo, ALICE, "demo");
    assert_eq!(imap.select("INBOX"), 1);
    imap.client.send("big UID FETCH 1:* (FLAGS BODY.PEEK[])");
    let mut pop3 = Pop3::login(&demo, ALICE, "demo");
    pop3.client.send("RETR 1");
    // The server can send no more than the kernel's buffers hold: the answers stand still until they are read below.
    for _ in 0..2 {
        let report = demo.upgrade(None);
        assert_eq!((&report["moved"], &report["farewelled"]), (&2.into(), &0.into()), "{report}");
    }
    let answer = imap.whole_line();
    assert!(answer.contains(&body.replace('\n', "\r\n")), "{} octets", answer.len());
    assert!(imap.client.line().starts_with("big OK"));
    assert!(pop3.client.line().starts_with("+OK"));
    let mut lines = 0;
    while pop3.client.line() != "." {
        lines += 1;
    }
    assert!(lines > 160_000, "{lines}");
}

#[test]
fn an_upload_under_way_finishes_before_its_session_moves() {
    let mut demo = Demo::start();
    let mut smtp = Smtp::connect(&demo);
    smtp.expect("MAIL FROM:<sender@example.org>", 250);
    smtp.expect(&format!("RCPT TO:<{ALICE}>"), 250);
    smtp.expect("DATA", 354);
    smtp.client.send("Subject: half");
    let text = "\r\nthe other half\r\n.\r\n";
    let report = std::thread::scope(|scope| {
        let upgrade = scope.spawn(|| demo.upgrade(None));
        // From outside nothing shows that an upgrade waits: one that comes later only finds less to wait for.
        std::thread::sleep(MOMENT);
        smtp.client.send_raw(text.as_bytes());
        assert_eq!(smtp.reply().code, 250);
        upgrade.join().expect("an upgrade")
    });
    assert_eq!((&report["moved"], &report["farewelled"]), (&1.into(), &0.into()), "{report}");
    smtp.expect("NOOP", 250);
    assert_eq!(mailbox(&demo, ALICE, "demo", "INBOX").len(), 1);
}

/// Whether a TLS client that was here before is known again.
fn resumes(demo: &Demo, config: &Arc<ClientConfig>) -> bool {
    let name = ServerName::try_from("localhost").expect("a host name");
    let connection = ClientConnection::new(config.clone(), name).expect("a TLS client");
    let socket = TcpStream::connect(("127.0.0.1", demo.port(Port::Imaps))).expect("a connection");
    let mut stream = StreamOwned::new(connection, socket);
    let mut greeting = [0; 4];
    // The tickets come before the first octet of the protocol.
    stream.read_exact(&mut greeting).expect("a greeting");
    stream.conn.handshake_kind() == Some(HandshakeKind::Resumed)
}

#[test]
fn a_client_resumes_its_tls_session_after_an_upgrade() {
    let mut demo = Demo::start();
    let config = tls_config(&demo.authority());
    assert!(!resumes(&demo, &config));
    demo.upgrade(None);
    assert!(resumes(&demo, &config));
}

/// A program that does `what` before it becomes the real one, or instead.
fn wrapper(folder: &Path, what: &str) -> PathBuf {
    let path = folder.join("wrapper");
    let text = format!("#!/bin/sh\n{what}\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_posthouse"));
    std::fs::write(&path, text).expect("a script");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("an executable");
    path
}

/// The upgrade fails with these words, and every session goes on.
fn check_refused(what: &str, words: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let demo = Demo::start();
    let (sessions, pid) = (Sessions::begin(&demo), demo.pid());
    let program = wrapper(folder.path(), what);
    let output = demo.command(&["upgrade", "--binary", &program.to_string_lossy()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains(words), "{errors}");
    assert_eq!(demo.json(&["status"])["pid"], pid);
    sessions.go_on(&demo);
    assert_eq!(demo.json(&["check", "--store"])["whole"], true);
}

#[test]
fn a_program_that_crashes_at_its_start_changes_nothing() {
    check_refused("exit 3", "ended before it took over");
}

#[test]
fn a_program_that_does_not_answer_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let demo = Demo::with(&[("POSTHOUSE_UPGRADE__START_LIMIT", "1s")]);
    let sessions = Sessions::begin(&demo);
    let program = wrapper(folder.path(), "exec sleep 1000");
    let output = demo.command(&["upgrade", "--binary", &program.to_string_lossy()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    sessions.go_on(&demo);
}

#[test]
fn a_program_that_cannot_open_the_store_gives_everything_back() {
    check_refused("export POSTHOUSE_STORAGE__KEY_FILE=/nowhere/keys", "the program before goes on");
}

#[test]
fn a_missing_program_is_a_clear_error() {
    let demo = Demo::start();
    let output = demo.command(&["upgrade", "--binary", "/nowhere/posthouse"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/posthouse"), "{output:?}");
}
