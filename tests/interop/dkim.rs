//! DKIM judged from outside: what leaves the queue is verified by dkimpy with the records that `domain dns` prints.

use super::{LIMIT, Site, script};
use crate::harness::dns::Zone;
use crate::harness::mail_client::Smtp;
use crate::harness::program::{Demo, PATIENT, free_port};
use crate::harness::remote_host::{Manner, RemoteHost};
use crate::harness::tool;

#[test]
#[ignore = "needs dkimpy for python3: .ci/run installs it"]
fn dkimpy_verifies_both_signatures_of_submitted_mail() {
    let dns = Zone::new().mx("remote.test", 10, "mx.remote.test").a("mx.remote.test", [127, 0, 0, 11]).serve();
    let port = free_port();
    let (server, port_text) = (dns.server(), port.to_string());
    let environment = [("POSTHOUSE_RESOLVER__SERVERS", server.as_str()), ("POSTHOUSE_QUEUE__REMOTE_PORT", &port_text)];
    let demo = Demo::with(&[environment, PATIENT].concat());
    let folder = tempfile::tempdir().expect("a folder");
    let site = Site { demo, folder };
    let host = RemoteHost::listen([127, 0, 0, 11], port, Manner::Accept);
    // Trailing white space and empty lines are where canonicalisations differ; the last body is empty.
    let bodies = ["Plain text.\n", "Odd  white \t space   \n \t \n\n\n   \n\n", "Ümlaut — and a line\n.dot\n\n \n", ""];
    for (index, body) in bodies.iter().enumerate() {
        let text = format!(
            "From: Alice <alice@demo.test>\nTo: someone@remote.test\nSubject: signed-{index} with  two   spaces\n\tfolded\n\
             MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n{body}"
        );
        let mut smtp = Smtp::submit(&site.demo, "alice@demo.test", "demo");
        smtp.expect("MAIL FROM:<alice@demo.test> BODY=8BITMIME", 250);
        smtp.expect("RCPT TO:<someone@remote.test>", 250);
        smtp.expect("DATA", 354);
        let wire = text.replace('\n', "\r\n").replace("\r\n.", "\r\n..");
        smtp.client.send_raw(format!("{wire}.\r\n").as_bytes());
        let reply = smtp.reply();
        assert_eq!(reply.code, 250, "{reply:?}");
        let received = host.wait_for(&format!("Subject: signed-{index}"));
        site.write(&format!("{index}.eml"), &received.data);
    }
    let records = site.demo.json(&["domain", "dns", "demo.test"]);
    let records = site.write("records.json", &records.to_string());
    let output = tool::expect(
        site.folder(),
        LIMIT,
        "python3",
        &[&script("dkim_verify.py"), &records, "0.eml", "1.eml", "2.eml", "3.eml"],
    );
    assert!(output.contains("8 signatures verified"), "{output}");
}
