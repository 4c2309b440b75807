//! Stopping, killing, starting again: what was acknowledged is there, and numbers go on where they were.

use std::process::Command;

use crate::harness::mail_client::{Imap, deliver, mailbox};
use crate::harness::program::{Demo, Port};

fn status_of(imap: &mut Imap) -> String {
    imap.expect("STATUS INBOX (MESSAGES UIDNEXT UIDVALIDITY)").join("")
}

#[test]
fn mail_survives_a_kill_and_numbers_go_on() {
    let mut demo = Demo::start();
    deliver(&demo, "alice@demo.test", "before");
    let before = status_of(&mut Imap::login(&demo, "alice@demo.test", "demo"));
    demo.kill();
    demo.run();
    let mut imap = Imap::login(&demo, "alice@demo.test", "demo");
    assert_eq!(status_of(&mut imap), before);
    deliver(&demo, "alice@demo.test", "after");
    let messages = mailbox(&demo, "alice@demo.test", "demo", "INBOX");
    assert_eq!(messages.len(), 2);
    assert!(messages[0].contains("Subject: before") && messages[1].contains("Subject: after"));
    assert_eq!(demo.json(&["check", "--store"])["whole"], true);
}

#[test]
fn a_signal_ends_it_cleanly_and_it_starts_again() {
    let mut demo = Demo::start();
    deliver(&demo, "alice@demo.test", "kept");
    assert_eq!(demo.stop(), 0);
    demo.run();
    assert_eq!(mailbox(&demo, "alice@demo.test", "demo", "INBOX").len(), 1);
    // `posthouse stop` does the same from outside.
    let output = demo.command(&["stop"]);
    assert!(output.status.success(), "{output:?}");
    demo.wait();
    demo.run();
}

#[test]
fn a_node_whose_end_was_waited_for_has_freed_its_store() {
    let mut demo = Demo::start();
    deliver(&demo, "alice@demo.test", "kept");
    let output = demo.command(&["stop", "--wait"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "stopped\n", "{output:?}");
    // At once, and on a stopped node only.
    assert_eq!(demo.json(&["check", "--store", "--repair"])["whole"], true);
    demo.wait();
    let output = demo.command(&["stop", "--wait"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("no node is running"), "{output:?}");
}

#[test]
fn a_stopped_store_can_be_checked() {
    let mut demo = Demo::start();
    deliver(&demo, "alice@demo.test", "kept");
    assert_eq!(demo.stop(), 0);
    let output = demo.command(&["check", "--store"]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_taken_port_is_an_error_that_names_it() {
    let demo = Demo::start();
    let folder = tempfile::tempdir().expect("a folder");
    let offset = demo.port(Port::Smtp) - 2525;
    let output = Command::new(env!("CARGO_BIN_EXE_posthouse"))
        .args(["demo", "--port-offset", &offset.to_string(), "--data"])
        .arg(folder.path().join("data"))
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    let is_named = [
        Port::Smtp,
        Port::Submission,
        Port::Submissions,
        Port::Imap,
        Port::Imaps,
        Port::Pop3,
        Port::Pop3s,
        Port::Metrics,
    ]
    .into_iter()
    .any(|port| errors.contains(&demo.port(port).to_string()));
    assert!(is_named, "{errors}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("ready"));
}

#[test]
fn one_folder_serves_one_node() {
    let demo = Demo::start();
    let output = Command::new(env!("CARGO_BIN_EXE_posthouse"))
        .args(["demo", "--port-offset", "31000", "--data"])
        .arg(demo.data())
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("in use by another process"), "{output:?}");
}
