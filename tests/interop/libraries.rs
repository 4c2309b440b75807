//! Mail libraries of other languages: Python's smtplib, imaplib and poplib, IMAPClient, and imapflow for Node.

use super::{LIMIT, Site, script};
use crate::harness::program::Port;
use crate::harness::tool;

fn run(site: &Site, interpreter: &str, name: &str, ports: &[Port]) -> String {
    let mut arguments = vec![script(name), site.authority()];
    arguments.extend(ports.iter().map(|port| site.port(*port)));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    tool::expect(site.folder(), LIMIT, interpreter, &arguments)
}

#[test]
#[ignore = "needs python3: .ci/run installs it"]
fn smtplib_imaplib_and_poplib_send_and_read() {
    let site = Site::start();
    let ports = [Port::Smtp, Port::Submission, Port::Submissions, Port::Imap, Port::Imaps, Port::Pop3, Port::Pop3s];
    assert!(run(&site, "python3", "stdlib.py", &ports).contains("all good"));
    assert_eq!(site.demo.json(&["check", "--store"])["whole"], true);
}

#[test]
#[ignore = "needs IMAPClient for python3: .ci/run installs it"]
fn imapclient_searches_idles_and_moves() {
    let site = Site::start();
    assert!(run(&site, "python3", "imapclient_session.py", &[Port::Smtp, Port::Imaps]).contains("all good"));
}

#[test]
#[ignore = "needs imapflow for node: .ci/run installs it"]
fn imapflow_reads_appends_and_moves() {
    let site = Site::start();
    assert!(run(&site, "node", "imapflow_session.cjs", &[Port::Smtp, Port::Imaps]).contains("all good"));
}
