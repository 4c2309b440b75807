//! Upgrade, drain and stop at the same time, and what those around a node see of them: a service manager, and nobody at all.
//!
//! Apart from each of them alone, because here one is asked for while another is under way.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Output};
use std::sync::Mutex;
use std::thread;

use tempfile::TempDir;

use super::upgrade::{ALICE, wrapper};
use crate::harness::client::Client;
use crate::harness::eventually;
use crate::harness::mail_client::{Imap, Smtp, half_logged_in};
use crate::harness::program::{Demo, Port, signal, wait_until_gone};

/// Settings of a store that cannot be opened, as only the try can show.
const NO_STORE: &str =
    "POSTHOUSE_STORAGE__ENGINE=foundationdb POSTHOUSE_STORAGE__FOUNDATIONDB__LIBRARY=/nowhere/libfdb_c.so";

/// A program that comes up, in either form, and cannot serve when its time comes.
fn unfit() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let program = wrapper(folder.path(), &format!(r#"[ -n "$POSTHOUSE_KEEP" ] || export {NO_STORE}"#));
    (folder, program)
}

/// A message half sent: an upgrade waits for it.
fn upload(demo: &Demo) -> Smtp {
    let mut smtp = Smtp::connect(demo);
    smtp.expect("MAIL FROM:<sender@example.org>", 250);
    smtp.expect(&format!("RCPT TO:<{ALICE}>"), 250);
    smtp.expect("DATA", 354);
    smtp.client.send("Subject: half");
    smtp
}

fn finish(smtp: &mut Smtp) {
    smtp.client.send_raw(b"\r\nthe other half\r\n.\r\n");
    assert_eq!(smtp.reply().code, 250);
}

/// The children of a process.
fn children(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("the kernel tells")
}

/// Returns once an upgrade has started the new program.
fn until_upgrading(demo: &Demo) {
    eventually("the new program starts", || (!children(demo.pid()).is_empty()).then_some(()));
}

fn check_failure(output: &Output, words: &str) {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains(words), "{errors}");
}

/// New clients come in.
fn check_open(demo: &Demo) {
    for (port, greeting) in
        [(Port::Smtp, "220 "), (Port::Submission, "220 "), (Port::Imap, "* OK"), (Port::Pop3, "+OK")]
    {
        assert!(Client::connect(demo.port(port)).line().starts_with(greeting), "{port:?}");
    }
    for (port, greeting) in [(Port::Submissions, "220 "), (Port::Imaps, "* OK"), (Port::Pop3s, "+OK")] {
        assert!(Client::connect_tls(demo.port(port), &demo.authority()).line().starts_with(greeting), "{port:?}");
    }
}

fn ended(child: &mut Child) -> i32 {
    eventually("the command ends", || child.try_wait().expect("a child of ours")).code().expect("an exit code")
}

/// What a service manager is told.
struct Manager {
    socket: UnixDatagram,
    folder: TempDir,
    heard: Mutex<Vec<String>>,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("a socket");
        socket.set_nonblocking(true).expect("a socket");
        Self { socket, folder, heard: Mutex::default() }
    }

    fn demo(&self) -> Demo {
        let demo = Demo::with(&[("NOTIFY_SOCKET", &self.folder.path().join("notify").to_string_lossy())]);
        eventually("the node says that it is ready", || self.lines().contains(&"READY=1".to_owned()).then_some(()));
        demo
    }

    /// All that was said until now, line by line.
    fn lines(&self) -> Vec<String> {
        let mut heard = self.heard.lock().expect("no panic");
        let mut message = [0; 4096];
        loop {
            match self.socket.recv(&mut message) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&message[..length]);
                    heard.extend(text.lines().map(ToOwned::to_owned));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return heard.clone(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The process that it follows.
    fn main_process(&self) -> String {
        self.lines().iter().rev().find_map(|line| line.strip_prefix("MAINPID=")).expect("a process").to_owned()
    }
}

#[test]
fn a_service_manager_knows_the_new_process_before_the_old_one_has_ended() {
    let manager = Manager::new();
    let mut demo = manager.demo();
    assert_eq!(manager.main_process(), demo.pid().to_string());
    let folder = tempfile::tempdir().expect("a folder");
    // The new one says nothing itself: it may come to that too late.
    demo.upgrade(Some(&wrapper(folder.path(), "unset NOTIFY_SOCKET")));
    assert_eq!(manager.main_process(), demo.pid().to_string());
}

#[test]
fn a_service_manager_goes_back_to_the_process_before_with_the_node() {
    let manager = Manager::new();
    let demo = manager.demo();
    let folder = tempfile::tempdir().expect("a folder");
    let says = r#"python3 -c 'import os, socket
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"MAINPID=%d" % os.getppid(), os.environ["NOTIFY_SOCKET"])'"#;
    let program = wrapper(folder.path(), &format!("{says}\nexport {NO_STORE}"));
    let before = manager.lines().len();
    check_failure(&demo.command(&["upgrade", "--binary", &program.to_string_lossy()]), "the program before goes on");
    let lines = &manager.lines()[before..];
    assert_ne!(lines[0], format!("MAINPID={}", demo.pid()), "{lines:?}");
    assert_eq!(lines[1..], [format!("MAINPID={}", demo.pid()), "READY=1".to_owned()], "{lines:?}");
}

#[test]
fn nothing_else_begins_while_an_upgrade_is_under_way() {
    let (_folder, unfit) = unfit();
    for program in [None, Some(unfit)] {
        let mut demo = Demo::with(&[("POSTHOUSE_NODE__DRAIN_NOTICE", "1s"), ("POSTHOUSE_NODE__DRAIN_SPREAD", "0s")]);
        let mut smtp = upload(&demo);
        let program = program.map(|path| path.to_string_lossy().into_owned());
        let mut arguments = vec!["upgrade", "--json"];
        arguments.extend(program.iter().flat_map(|program| ["--binary", program]));
        let output = thread::scope(|scope| {
            let upgrade = scope.spawn(|| demo.command(&arguments));
            until_upgrading(&demo);
            for command in [&["drain", "--now"][..], &["drain"]] {
                check_failure(&demo.command(command), "an upgrade is under way");
            }
            finish(&mut smtp);
            upgrade.join().expect("no panic")
        });
        if program.is_none() {
            demo.follow(&serde_json::from_slice(&output.stdout).expect("a report"));
        }
        assert_eq!(output.status.success(), program.is_none(), "{output:?}");
        smtp.expect("NOOP", 250);
        check_open(&demo);
        // And afterwards it may.
        demo.json(&["drain", "--now"]);
        assert!(smtp.client.line().starts_with("421 "));
    }
}

#[test]
fn an_upgrade_does_not_begin_while_a_drain_is_under_way() {
    let demo = Demo::with(&[("POSTHOUSE_NODE__DRAIN_NOTICE", "0s"), ("POSTHOUSE_NODE__DRAIN_SPREAD", "0s")]);
    let (_folder, unfit) = unfit();
    let mut smtp = upload(&demo);
    thread::scope(|scope| {
        let drain = scope.spawn(|| demo.json(&["drain"]));
        eventually("the drain begins", || (demo.json(&["status"])["draining"] == true).then_some(()));
        let output = demo.command(&["upgrade", "--binary", &unfit.to_string_lossy()]);
        check_failure(&output, "a drain is under way");
        finish(&mut smtp);
        assert_eq!(drain.join().expect("a drain")["cut"], 0);
    });
    check_failure(&demo.command(&["upgrade"]), "drained");
}

#[test]
fn of_two_upgrades_at_once_one_is_refused_and_both_commands_end() {
    let (_folder, unfit) = unfit();
    let unfit = unfit.to_string_lossy();
    for form in [&["upgrade", "--binary", &unfit][..], &["upgrade", "--exec", "--binary", &unfit]] {
        let demo = Demo::start();
        let mut smtp = upload(&demo);
        let mut first = demo.begin_command(form);
        until_upgrading(&demo);
        let mut second = demo.begin_command(form);
        assert_eq!(ended(&mut second), 1);
        check_failure(&second.wait_with_output().expect("it has ended"), "an upgrade is under way already");
        finish(&mut smtp);
        assert_eq!(ended(&mut first), 1);
        check_failure(&first.wait_with_output().expect("it has ended"), "the program before goes on");
        smtp.expect("NOOP", 250);
    }
}

/// Ways to end a node.
const STOPS: [fn(&Demo); 2] =
    [|demo| assert_eq!(demo.json(&["stop"])["stopping"], true), |demo| assert!(signal(demo.pid(), "-TERM"))];

/// Nobody serves any more.
fn check_gone(demo: &mut Demo) {
    demo.wait();
    check_failure(&demo.command(&["status"]), "no node is running");
}

#[test]
fn a_node_that_is_told_to_end_gives_an_upgrade_up_that_waits_for_uploads() {
    for form in [&["upgrade"][..], &["upgrade", "--exec"]] {
        for stop in STOPS {
            let mut demo = Demo::start();
            let mut smtp = upload(&demo);
            let mut upgrade = demo.begin_command(form);
            until_upgrading(&demo);
            stop(&demo);
            assert_eq!(ended(&mut upgrade), 1);
            check_failure(&upgrade.wait_with_output().expect("it has ended"), "was told to end");
            finish(&mut smtp);
            assert!(smtp.client.line().starts_with("421 "));
            check_gone(&mut demo);
        }
    }
}

/// The node is told to end when its sessions have begun to stop: too late to give the upgrade up.
fn check_stop_while_sessions_stop(form: &[&str], stop: fn(&Demo), succeeds: bool) {
    let mut demo = Demo::start();
    let mut idle = Imap::login(&demo, ALICE, "demo");
    let mut login = half_logged_in(&demo);
    let connections = |demo: &Demo| demo.json(&["status"])["connections"].clone();
    assert_eq!(connections(&demo), 2);
    let mut upgrade = demo.begin_command(&[&["upgrade", "--json"], form].concat());
    eventually("one has stopped", || (connections(&demo) == 1).then_some(()));
    stop(&demo);
    login.send("*");
    assert_eq!(ended(&mut upgrade), i32::from(!succeeds));
    let output = upgrade.wait_with_output().expect("it has ended");
    assert!(idle.client.line().starts_with("* BYE "), "{output:?}");
    if succeeds {
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a report");
        wait_until_gone(report["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a process"));
    }
    check_gone(&mut demo);
}

#[test]
fn a_new_program_ends_when_the_node_was_told_to_while_its_sessions_stopped() {
    for stop in STOPS {
        check_stop_while_sessions_stop(&[], stop, true);
        check_stop_while_sessions_stop(&["--exec"], stop, true);
    }
}

#[test]
fn a_program_that_takes_everything_back_ends_when_it_was_told_to() {
    let (_folder, unfit) = unfit();
    let unfit = unfit.to_string_lossy();
    for stop in STOPS {
        check_stop_while_sessions_stop(&["--binary", &unfit], stop, false);
        check_stop_while_sessions_stop(&["--exec", "--binary", &unfit], stop, false);
    }
}

#[test]
fn a_program_whose_output_nobody_reads_takes_over_and_ends_like_any_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let deaf = format!(
        r#"exec python3 -c 'import os, sys
read, write = os.pipe()
os.dup2(write, 1), os.dup2(write, 2), os.close(read)
os.execv(sys.argv[1], sys.argv[1:])' {} "$@""#,
        env!("CARGO_BIN_EXE_posthouse")
    );
    let program = wrapper(folder.path(), &deaf);
    let mut demo = Demo::start();
    let mut imap = Imap::login(&demo, ALICE, "demo");
    demo.upgrade(Some(&program));
    imap.expect("NOOP");
    assert_eq!(demo.json(&["status"])["pid"], demo.pid());
    assert!(signal(demo.pid(), "-HUP"));
    imap.expect("NOOP");
    demo.json(&["stop"]);
    assert!(imap.client.line().starts_with("* BYE "));
    wait_until_gone(demo.pid());
}

#[test]
fn a_new_program_whose_custodian_is_gone_serves_and_the_command_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    // A shell might wait for the custodian itself.
    let kills = format!(
        r#"[ -n "$POSTHOUSE_KEEP" ] || exec python3 -c 'import os, signal, sys
for child in open("/proc/self/task/%d/children" % os.getpid()).read().split(): os.kill(int(child), signal.SIGKILL)
os.execv(sys.argv[1], sys.argv[1:])' {} "$@""#,
        env!("CARGO_BIN_EXE_posthouse")
    );
    let program = wrapper(folder.path(), &kills);
    let demo = Demo::start();
    let mut imap = Imap::login(&demo, ALICE, "demo");
    let mut upgrade = demo.begin_command(&["upgrade", "--exec", "--binary", &program.to_string_lossy()]);
    assert_eq!(ended(&mut upgrade), 1);
    check_failure(&upgrade.wait_with_output().expect("it has ended"), "before it answered");
    assert!(imap.client.is_closed());
    eventually("it serves", || demo.command(&["status"]).status.success().then_some(()));
    assert_eq!(demo.json(&["status"])["pid"], demo.pid());
    eventually("no custodian is left", || children(demo.pid()).is_empty().then_some(()));
    check_open(&demo);
}
