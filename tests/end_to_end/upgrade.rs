//! `posthouse upgrade`: sessions of every protocol go on in another process, and one that does not come up changes nothing.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};

use crate::harness::client::{Client, tls_config};
use crate::harness::eventually;
use crate::harness::mail_client::{Imap, Pop3, Smtp, deliver, half_logged_in, mailbox, message};
use crate::harness::program::{Demo, MOMENT, Port};

pub const ALICE: &str = "alice@demo.test";
pub const BOB: &str = "bob@demo.test";

/// A client of each protocol in the middle of what it does.
pub struct Sessions {
    idle: Imap,
    open: Imap,
    smtp: Smtp,
    submission: Smtp,
    pop3: Pop3,
    /// Has not said anything yet.
    silent: Client,
}

impl Sessions {
    pub fn begin(demo: &Demo) -> Self {
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
    pub fn go_on(mut self, demo: &Demo) {
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
fn sessions_live_through_three_programs_in_the_same_process() {
    let demo = Demo::start();
    let (sessions, pid) = (Sessions::begin(&demo), demo.pid());
    for _ in 0..3 {
        let report = demo.upgrade_in_place();
        assert_eq!((&report["moved"], &report["farewelled"]), (&6.into(), &0.into()), "{report}");
        assert_eq!(demo.json(&["status"])["pid"], pid);
    }
    sessions.go_on(&demo);
    assert_eq!(demo.json(&["check", "--store"])["whole"], true);
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("the kernel tells");
    assert_eq!(children, "", "no custodian is left");
}

#[test]
fn the_report_tells_how_long_sessions_stood_still_and_what_they_weigh() {
    let mut demo = Demo::start();
    let _sessions = Sessions::begin(&demo);
    for report in [demo.upgrade(None), demo.upgrade_in_place()] {
        let number = |name: &str| report[name].as_u64().unwrap_or_else(|| panic!("{name}: {report}"));
        let (median, worst) =
            (number("session_frozen_median_microseconds"), number("session_frozen_worst_microseconds"));
        assert!(0 < median && median <= worst && worst / 1000 <= number("milliseconds"), "{report}");
        // Six sessions of some hundred octets each.
        assert!((100..2000).contains(&number("octets_median")), "{report}");
        assert!(number("octets") > 5 * 100 && number("resident_octets") > 1 << 20, "{report}");
    }
}

#[test]
fn who_is_in_the_middle_of_something_when_the_time_is_over_hears_goodbye() {
    let mut demo =
        Demo::with(&[("POSTHOUSE_UPGRADE__FINISH_LIMIT", "500ms"), ("POSTHOUSE_UPGRADE__MOVE_LIMIT", "500ms")]);
    let mut smtp = Smtp::connect(&demo);
    smtp.expect("MAIL FROM:<sender@example.org>", 250);
    smtp.expect(&format!("RCPT TO:<{ALICE}>"), 250);
    smtp.expect("DATA", 354);
    smtp.client.send("Subject: half");
    let mut literal = Imap::login(&demo, ALICE, "demo");
    literal.client.send("a APPEND INBOX {100}");
    assert!(literal.client.line().starts_with('+'));
    let mut asked = Imap::login(&demo, ALICE, "demo");
    asked.client.send("a SELECT {5}");
    assert!(asked.client.line().starts_with('+'));
    let mut login = half_logged_in(&demo);
    let report = demo.upgrade(None);
    assert_eq!((&report["moved"], &report["farewelled"]), (&0.into(), &4.into()), "{report}");
    assert!(smtp.client.line().starts_with("421 "));
    assert!(literal.client.line().starts_with("* BYE "));
    assert!(asked.client.line().starts_with("* BYE "));
    assert!(login.line().starts_with("421 "));
    for client in [&mut smtp.client, &mut literal.client, &mut asked.client, &mut login] {
        assert!(client.is_closed());
    }
    assert!(mailbox(&demo, ALICE, "demo", "INBOX").is_empty());
}

#[test]
fn clients_that_do_not_begin_their_handshake_hold_nothing_up() {
    let mut demo = Demo::with(&[("POSTHOUSE_TLS__HANDSHAKE_TIMEOUT", "60s")]);
    let mut silent: Vec<Client> =
        [Port::Imaps, Port::Pop3s, Port::Submissions].map(|port| Client::connect(demo.port(port))).into();
    let mut asked = Client::connect(demo.port(Port::Imap));
    assert!(asked.line().starts_with("* OK"));
    asked.send("a STARTTLS");
    assert!(asked.line().starts_with("a OK"));
    // Half a record of a ClientHello.
    let mut half = Client::connect(demo.port(Port::Imaps));
    half.send_raw(&[0x16, 3, 1, 2, 0, 1]);
    eventually("they are let in", || (demo.json(&["status"])["connections"] == 5).then_some(()));
    let report = demo.upgrade(None);
    assert_eq!(report["moved"], 3, "{report}");
    assert!(report["milliseconds"].as_u64().expect("a time") < 20_000, "{report}");
    assert!(asked.is_closed() && half.is_closed(), "they begin anew");
    for (client, greeting) in silent.iter_mut().zip(["* OK", "+OK", "220"]) {
        client.start_tls(&demo.authority());
        assert!(client.line().starts_with(greeting));
    }
}

#[test]
fn a_message_that_nobody_reads_moves_in_the_middle() {
    let mut demo = Demo::start();
    let body = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n".repeat(160_000);
    let text = message("sender@example.org", ALICE, "large") + &body;
    assert_eq!(Smtp::connect(&demo).deliver("sender@example.org", &[ALICE], &text).code, 250);
    let mut imap = Imap::login(&demo, ALICE, "demo");
    assert_eq!(imap.select("INBOX"), 1);
    for _ in 1..5 {
        assert_eq!(Smtp::connect(&demo).deliver("sender@example.org", &[ALICE], &text).code, 250);
    }
    assert_eq!(imap.select("INBOX"), 5);
    // 50 MB.
    imap.client.send("big UID FETCH 1:* (FLAGS BODY.PEEK[])");
    let mut pop3 = Pop3::login(&demo, ALICE, "demo");
    pop3.client.send("RETR 1");
    // The server can send no more than the kernel's buffers hold: the answers stand still until they are read below.
    for _ in 0..2 {
        let report = demo.upgrade(None);
        assert_eq!((&report["moved"], &report["farewelled"]), (&2.into(), &0.into()), "{report}");
    }
    let body = body.replace('\n', "\r\n");
    for _ in 0..5 {
        let answer = imap.whole_line();
        assert!(answer.contains(&body), "{} octets", answer.len());
    }
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
pub fn wrapper(folder: &Path, what: &str) -> PathBuf {
    let path = folder.join("wrapper");
    let text = format!("#!/bin/sh\n{what}\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_posthouse"));
    std::fs::write(&path, text).expect("a script");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("an executable");
    path
}

/// Settings of a store that cannot be opened, as only the try can show.
pub const NO_STORE: &str =
    "POSTHOUSE_STORAGE__ENGINE=foundationdb POSTHOUSE_STORAGE__FOUNDATIONDB__LIBRARY=/nowhere/libfdb_c.so";

/// The upgrade fails with these words, and every session goes on.
pub fn check_refused(what: &str, words: &str) {
    check_refused_by(&[], what, words);
    check_refused_by(&["--exec"], what, words);
}

pub fn check_refused_by(form: &[&str], what: &str, words: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let demo = Demo::start();
    let (sessions, pid) = (Sessions::begin(&demo), demo.pid());
    let program = wrapper(folder.path(), what);
    let output = demo.command(&[&["upgrade", "--binary", &program.to_string_lossy()], form].concat());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains(words), "{errors}");
    assert_eq!(demo.json(&["status"])["pid"], pid);
    assert!(ignores_broken_pipes(pid), "the next client that is gone would be the end of it");
    sessions.go_on(&demo);
    assert_eq!(demo.json(&["check", "--store"])["whole"], true);
}

/// Whether a write to a connection that was reset is an error of that connection alone.
fn ignores_broken_pipes(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the kernel tells");
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("a mask").trim();
    // SIGPIPE is 13.
    u64::from_str_radix(ignored, 16).expect("hexadecimal") & 1 << 12 != 0
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
    check_refused_by(&[], &format!("export {NO_STORE}"), "the program before goes on");
}

#[test]
fn a_program_that_would_not_do_in_this_process_changes_nothing() {
    check_refused_by(&["--exec"], "export POSTHOUSE_TLS__PRIVATE_KEY=/nowhere/key", "the node serves as before");
}

#[test]
fn a_program_that_fails_in_this_process_becomes_the_program_before() {
    // The rehearsal is well, only the image that is to serve fails.
    let fails = format!(r#"[ -n "$POSTHOUSE_KEEP" ] || export {NO_STORE}"#);
    check_refused_by(&["--exec"], &fails, "the program before goes on");
}

#[test]
fn a_program_that_is_gone_when_its_time_comes_gives_everything_back() {
    // The custodian comes up, and takes the program's file away.
    check_refused_by(&["--exec"], r#"rm "$0""#, "the program before goes on");
}

#[test]
fn a_file_that_is_no_program_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("text");
    std::fs::write(&file, "no program").expect("a file");
    let demo = Demo::start();
    let (sessions, pid) = (Sessions::begin(&demo), demo.pid());
    for form in [&["upgrade", "--exec"][..], &["upgrade"]] {
        let output = demo.command(&[form, &["--binary", &file.to_string_lossy()]].concat());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("cannot be started"), "{output:?}");
    }
    assert_eq!(demo.json(&["status"])["pid"], pid);
    sessions.go_on(&demo);
}

#[test]
fn a_program_that_may_open_too_few_files_gives_everything_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let demo = Demo::start();
    let mut many: Vec<Client> = (0..100).map(|_| Client::connect(demo.port(Port::Imap))).collect();
    assert!(many.iter_mut().all(|client| client.line().starts_with("* OK")));
    // Room for the store and the listeners, not for the sessions.
    let program = wrapper(folder.path(), "ulimit -n 90");
    let output = demo.command(&["upgrade", "--binary", &program.to_string_lossy()]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(errors.contains("may open no more") && errors.contains("the program before goes on"), "{errors}");
    for client in &mut many {
        client.send("a NOOP");
        assert!(client.line().starts_with("a OK"));
    }
}

#[test]
#[ignore = "needs root"]
fn a_process_of_another_user_takes_nothing_over() {
    // Somebody gave the socket away, as its mode forbids: the kernel tells whose process connects.
    let what = r#"for path in "$POSTHOUSE_TAKE_OVER" "$(dirname "$POSTHOUSE_TAKE_OVER")" \
    "$(dirname "$(dirname "$POSTHOUSE_TAKE_OVER")")"; do chmod 777 "$path"; done
exec setpriv --reuid=65534 --regid=65534 --clear-groups /usr/bin/python3 -c \
    'import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.recv(1)' "$POSTHOUSE_TAKE_OVER""#;
    check_refused_by(&[], what, "a process of user 65534");
}

#[test]
fn a_client_in_the_middle_of_a_record_notices_nothing() {
    let mut demo = Demo::start();
    let mut imap = Imap::login(&demo, ALICE, "demo");
    for tag in ["a", "b"] {
        imap.client.send_in_two(format!("{tag} NOOP\r\n").as_bytes(), || {
            let report = if tag == "a" { demo.upgrade(None) } else { demo.upgrade_in_place() };
            assert_eq!((&report["moved"], &report["farewelled"]), (&1.into(), &0.into()), "{report}");
        });
        assert!(imap.client.line().starts_with(&format!("{tag} OK")));
    }
}

/// Sends lines to `openssl s_client`, which takes a `K` for a KeyUpdate that asks for one in return, a `k` for one that does not.
#[test]
fn keys_change_before_and_after_an_upgrade() {
    let mut demo = Demo::start();
    let address = format!("localhost:{}", demo.port(Port::Imaps));
    let mut client = Command::new("openssl")
        .args(["s_client", "-connect", &address, "-CAfile", &demo.authority().to_string_lossy()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl; .ci/run installs it");
    let mut input = client.stdin.take().expect("a pipe");
    let mut said = BufReader::new(client.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
    let mut lines = BufReader::new(client.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    let mut until = |begin: &str| assert!(lines.any(|line| line.starts_with(begin)), "no {begin}");
    until("* OK");
    for round in 0..3 {
        for key in ["K", "k"] {
            input.write_all(format!("{key}\n").as_bytes()).expect("openssl reads");
            // What came together with the letter would be taken for a part of the command.
            assert!(said.any(|line| line.contains("KEYUPDATE")), "openssl has sent it");
            if round > 0 {
                let report = demo.upgrade(None);
                assert_eq!(report["moved"], 1, "{report}");
            }
            input.write_all(format!("t{key}{round} NOOP\r\n").as_bytes()).expect("openssl reads");
            until(&format!("t{key}{round} OK"));
        }
    }
    drop(input);
    client.kill().expect("a child");
    client.wait().expect("a child");
}

#[test]
fn a_missing_program_is_a_clear_error() {
    let demo = Demo::start();
    let output = demo.command(&["upgrade", "--binary", "/nowhere/posthouse"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/posthouse"), "{output:?}");
}
