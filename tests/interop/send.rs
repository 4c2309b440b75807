//! Clients that send: swaks, curl, msmtp, mutt in batch mode, smtp-source.

use super::{LIMIT, Site};
use crate::harness::mail_client::{mailbox, message};
use crate::harness::program::Port;
use crate::harness::{eventually, tool};

fn arrived(site: &Site, account: &str, text: &str) {
    eventually(&format!("{text:?} at {account}"), || {
        mailbox(&site.demo, account, "demo", "INBOX").iter().any(|message| message.contains(text)).then_some(())
    });
}

#[test]
#[ignore = "needs swaks: .ci/run installs it"]
fn swaks_sends_from_outside_and_submits() {
    let site = Site::start();
    let server = format!("127.0.0.1:{}", site.port(Port::Smtp));
    let outside = ["--server", &server, "--from", "you@example.org", "--to", "alice@demo.test"];
    tool::expect(site.folder(), LIMIT, "swaks", &[&outside[..], &["--header", "Subject: from outside"]].concat());
    tool::expect(site.folder(), LIMIT, "swaks", &[&outside[..], &["--tls", "--header", "Subject: under TLS"]].concat());
    let login = [
        "--auth-user",
        "bob@demo.test",
        "--auth-password",
        "demo",
        "--from",
        "bob@demo.test",
        "--to",
        "alice@demo.test",
    ];
    for (mechanism, tls, port) in [
        ("PLAIN", "--tls", Port::Submission),
        ("LOGIN", "--tls", Port::Submission),
        ("PLAIN", "--tls-on-connect", Port::Submissions),
    ] {
        let server = format!("127.0.0.1:{}", site.port(port));
        let subject = format!("Subject: {mechanism} {tls}");
        let how = ["--server", &server, tls, "--auth", mechanism, "--header", &subject];
        tool::expect(site.folder(), LIMIT, "swaks", &[&how[..], &login[..]].concat());
        arrived(&site, "alice@demo.test", &subject);
    }
    arrived(&site, "alice@demo.test", "Subject: from outside");
    arrived(&site, "alice@demo.test", "Subject: under TLS");

    let refused = ["--server", &server, "--from", "you@example.org", "--to", "someone@elsewhere.test"];
    assert!(!tool::run(site.folder(), LIMIT, "swaks", &refused).is_success, "an open relay");
}

#[test]
#[ignore = "needs curl: .ci/run installs it"]
fn curl_sends_from_outside_and_submits() {
    let site = Site::start();
    let file =
        site.write("mail.eml", &message("you@example.org", "alice@demo.test", "curl-outside").replace('\n', "\r\n"));
    let url = format!("smtp://127.0.0.1:{}", site.port(Port::Smtp));
    let arguments = ["-sS", &url, "--mail-from", "you@example.org", "--mail-rcpt", "alice@demo.test", "-T", &file];
    tool::expect(site.folder(), LIMIT, "curl", &arguments);
    let file =
        site.write("own.eml", &message("bob@demo.test", "alice@demo.test", "curl-submitted").replace('\n', "\r\n"));
    let authority = site.authority();
    for url in [
        format!("smtps://localhost:{}", site.port(Port::Submissions)),
        format!("smtp://localhost:{}", site.port(Port::Submission)),
    ] {
        let arguments = [
            "-sS",
            "--ssl-reqd",
            "--cacert",
            &authority,
            &url,
            "-u",
            "bob@demo.test:demo",
            "--mail-from",
            "bob@demo.test",
            "--mail-rcpt",
            "alice@demo.test",
            "-T",
            &file,
        ];
        tool::expect(site.folder(), LIMIT, "curl", &arguments);
    }
    arrived(&site, "alice@demo.test", "Subject: curl-outside");
    arrived(&site, "alice@demo.test", "Subject: curl-submitted");
    // What was submitted goes through the spool.
    let count = || mailbox(&site.demo, "alice@demo.test", "demo", "INBOX").len();
    eventually("three messages", || (count() == 3).then_some(()));
}

#[test]
#[ignore = "needs msmtp: .ci/run installs it"]
fn msmtp_submits() {
    let site = Site::start();
    let text = format!(
        "account default\nhost localhost\nport {}\ntls on\ntls_starttls on\ntls_trust_file {}\nauth plain\n\
         user alice@demo.test\npassword demo\nfrom alice@demo.test\n",
        site.port(Port::Submission),
        site.authority()
    );
    let rc = site.write("msmtprc", &text);
    let mail = message("alice@demo.test", "bob@demo.test", "msmtp-works");
    let sent = tool::run_with_input(site.folder(), LIMIT, "msmtp", &["-C", &rc, "bob@demo.test"], &mail);
    assert!(sent.is_success, "{}", sent.output);
    arrived(&site, "bob@demo.test", "Subject: msmtp-works");
}

#[test]
#[ignore = "needs mutt: .ci/run installs it"]
fn mutt_submits() {
    let site = Site::start();
    let text = format!(
        "set smtp_url=\"smtp://alice@demo.test@localhost:{}/\"\nset smtp_pass=\"demo\"\nset smtp_authenticators=\"plain\"\n\
         set ssl_starttls=yes\nset ssl_force_tls=yes\nset ssl_ca_certificates_file=\"{}\"\nset certificate_file=\"{}\"\n\
         set from=\"alice@demo.test\"\nset use_from=yes\nset use_envelope_from=yes\nset copy=no\n",
        site.port(Port::Submission),
        site.authority(),
        site.authority(),
    );
    let rc = site.write("muttrc", &text);
    let arguments = ["-F", &rc, "-s", "mutt-works", "--", "bob@demo.test"];
    let sent = tool::run_with_input(site.folder(), LIMIT, "mutt", &arguments, "Text from mutt.\n");
    assert!(sent.is_success, "{}", sent.output);
    arrived(&site, "bob@demo.test", "Subject: mutt-works");
}

#[test]
#[ignore = "needs smtp-source of postfix: .ci/run installs it"]
fn smtp_source_sends_two_hundred_over_twenty_sessions() {
    let site = Site::start();
    let server = format!("127.0.0.1:{}", site.port(Port::Smtp));
    let arguments = ["-s", "20", "-m", "200", "-l", "4096", "-f", "you@example.org", "-t", "alice@demo.test", &server];
    tool::expect(site.folder(), LIMIT, "smtp-source", &arguments);
    assert_eq!(mailbox(&site.demo, "alice@demo.test", "demo", "INBOX").len(), 200);
    assert_eq!(site.demo.json(&["check", "--store"])["whole"], true);
}
