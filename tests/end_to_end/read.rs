//! Reading: several sessions on one mailbox, and what each of them may see.

use crate::harness::mail_client::{Imap, Pop3, Smtp, deliver, message};
use crate::harness::program::{Demo, MOMENT};

#[test]
fn an_expunge_in_one_session_never_breaks_the_numbers_of_another() {
    let demo = Demo::start();
    for subject in ["one", "two", "three"] {
        deliver(&demo, "alice@demo.test", subject);
    }
    let mut first = Imap::login(&demo, "alice@demo.test", "demo");
    let mut second = Imap::login(&demo, "alice@demo.test", "demo");
    assert_eq!(first.select("INBOX"), 3);
    assert_eq!(second.select("INBOX"), 3);
    first.expect("STORE 1 +FLAGS (\\Deleted)");
    assert_eq!(first.expect("EXPUNGE"), ["* 1 EXPUNGE"]);
    // RFC 3501 §7.4.1: no EXPUNGE response while FETCH, STORE or SEARCH run, so message 3 is still message 3.
    let lines = second.expect("FETCH 3 BODY.PEEK[HEADER.FIELDS (SUBJECT)]");
    assert!(lines.iter().any(|line| line.starts_with("* 3 FETCH") && line.contains("Subject: three")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("EXPUNGE")), "{lines:?}");
    let lines = second.expect("NOOP");
    assert!(lines.contains(&"* 1 EXPUNGE".to_owned()), "{lines:?}");
    let lines = second.expect("FETCH 2 BODY.PEEK[HEADER.FIELDS (SUBJECT)]");
    assert!(lines.iter().any(|line| line.contains("Subject: three")), "{lines:?}");
}

#[test]
fn an_idle_session_hears_of_new_mail_and_flags() {
    let demo = Demo::start();
    let mut idle = Imap::login(&demo, "alice@demo.test", "demo");
    assert_eq!(idle.select("INBOX"), 0);
    idle.client.send("i IDLE");
    assert!(idle.client.line().starts_with('+'));
    deliver(&demo, "alice@demo.test", "news");
    let mut line = idle.client.line();
    while !line.ends_with("EXISTS") {
        line = idle.client.line();
    }
    assert_eq!(line, "* 1 EXISTS");
    let mut other = Imap::login(&demo, "alice@demo.test", "demo");
    other.select("INBOX");
    other.expect("STORE 1 +FLAGS (\\Flagged)");
    let mut line = idle.client.line();
    while !line.contains("FETCH") {
        line = idle.client.line();
    }
    assert!(line.starts_with("* 1 FETCH") && line.contains("\\Flagged"), "{line}");
    idle.client.send("DONE");
    let mut line = idle.client.line();
    while !line.starts_with("i ") {
        line = idle.client.line();
    }
    assert!(line.starts_with("i OK"), "{line}");
}

#[test]
fn a_message_appended_in_one_session_is_searched_and_copied_in_another() {
    let demo = Demo::start();
    let mut imap = Imap::login(&demo, "alice@demo.test", "demo");
    let text = message("alice@demo.test", "bob@demo.test", "draft").replace('\n', "\r\n");
    imap.client.send(&format!("p APPEND Drafts (\\Draft \\Seen) {{{}}}", text.len()));
    assert!(imap.client.line().starts_with('+'));
    imap.client.send(&text);
    let mut line = imap.client.line();
    while !line.starts_with("p ") {
        line = imap.client.line();
    }
    // RFC 4315 §3: the Uid of what was appended.
    assert!(line.starts_with("p OK [APPENDUID "), "{line}");
    let mut other = Imap::login(&demo, "alice@demo.test", "demo");
    assert_eq!(other.select("Drafts"), 1);
    assert_eq!(other.expect("SEARCH DRAFT SUBJECT draft"), ["* SEARCH 1"]);
    other.expect("COPY 1 Archive");
    other.expect("MOVE 1 Trash");
    assert_eq!(other.select("Drafts"), 0);
    assert_eq!(other.select("Archive"), 1);
    assert_eq!(other.select("Trash"), 1);
}

#[test]
fn a_maildrop_belongs_to_one_pop3_session_at_a_time() {
    let demo = Demo::start();
    deliver(&demo, "alice@demo.test", "one");
    deliver(&demo, "alice@demo.test", "two");
    let mut pop3 = Pop3::login(&demo, "alice@demo.test", "demo");
    let mut second =
        crate::harness::client::Client::connect_tls(demo.port(crate::harness::program::Port::Pop3s), &demo.authority());
    second.line();
    second.send("USER alice@demo.test");
    second.line();
    second.send("PASS demo");
    // RFC 1939 §4: an exclusive-access lock on the maildrop; RFC 2449 §8.1.2: IN-USE.
    let refused = second.line();
    assert!(refused.starts_with("-ERR [IN-USE]"), "{refused}");
    pop3.expect("DELE 1");
    assert!(pop3.expect("STAT").starts_with("+OK 1 "));
    pop3.expect("QUIT");
    let mut imap = Imap::login(&demo, "alice@demo.test", "demo");
    assert_eq!(imap.select("INBOX"), 1);
}

#[test]
fn accounts_do_not_see_each_other() {
    let demo = Demo::start();
    deliver(&demo, "alice@demo.test", "private");
    let mut bob = Imap::login(&demo, "bob@demo.test", "demo");
    assert_eq!(bob.select("INBOX"), 0);
    let mut imap = crate::harness::client::Client::connect(demo.port(crate::harness::program::Port::Imap));
    imap.line();
    imap.send("a LOGIN alice@demo.test wrong");
    let line = imap.line();
    assert!(line.starts_with("a NO [AUTHENTICATIONFAILED]"), "{line}");
    imap.send("b SELECT INBOX");
    let line = imap.line();
    assert!(line.starts_with("b BAD") || line.starts_with("b NO"), "{line}");
}

#[test]
fn a_silent_connection_stays_open_and_quiet() {
    let demo = Demo::start();
    let mut smtp = Smtp::connect(&demo);
    assert!(smtp.client.is_silent(MOMENT));
    smtp.expect("NOOP", 250);
    smtp.expect("QUIT", 221);
    assert!(smtp.client.is_closed());
}
