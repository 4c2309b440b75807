//! Clients that read: curl, mutt, mbsync, fetchmail.

use std::path::Path;

use super::{LIMIT, Site};
use crate::harness::mail_client::{Imap, deliver};
use crate::harness::program::Port;
use crate::harness::tool;

#[test]
#[ignore = "needs curl: .ci/run installs it"]
fn curl_reads_over_imap_and_pop3() {
    let site = Site::start();
    deliver(&site.demo, "alice@demo.test", "for-curl");
    let authority = site.authority();
    let (imap, imaps) = (site.port(Port::Imap), site.port(Port::Imaps));
    let (pop3, pop3s) = (site.port(Port::Pop3), site.port(Port::Pop3s));
    for url in [
        format!("imap://127.0.0.1:{imap}/INBOX;MAILINDEX=1"),
        format!("imaps://localhost:{imaps}/INBOX;UID=1"),
        format!("pop3://127.0.0.1:{pop3}/1"),
        format!("pop3s://localhost:{pop3s}/1"),
    ] {
        let arguments = ["-sS", "--cacert", &authority, &url, "-u", "alice@demo.test:demo"];
        let text = tool::expect(site.folder(), LIMIT, "curl", &arguments);
        assert!(text.contains("Subject: for-curl") && text.contains("Text of for-curl."), "{url}: {text}");
    }
    let list = format!("imap://127.0.0.1:{imap}/");
    let text = tool::expect(site.folder(), LIMIT, "curl", &["-sS", &list, "-u", "alice@demo.test:demo"]);
    assert!(text.contains("INBOX") && text.contains("Drafts"), "{text}");
    let inbox = format!("imap://127.0.0.1:{imap}/INBOX");
    let arguments = ["-sS", &inbox, "-u", "alice@demo.test:demo", "-X", "FETCH 1:* ENVELOPE"];
    assert!(tool::expect(site.folder(), LIMIT, "curl", &arguments).contains("for-curl"));
    let upload = site.write("draft.eml", "Subject: uploaded\r\n\r\nText\r\n");
    let drafts = format!("imap://127.0.0.1:{imap}/Drafts");
    tool::expect(site.folder(), LIMIT, "curl", &["-sS", &drafts, "-u", "alice@demo.test:demo", "-T", &upload]);
    assert_eq!(Imap::login(&site.demo, "alice@demo.test", "demo").select("Drafts"), 1);
}

#[test]
#[ignore = "needs mutt: .ci/run installs it"]
fn mutt_opens_the_inbox_and_copies_it() {
    let site = Site::start();
    for subject in ["mutt-one", "mutt-two"] {
        deliver(&site.demo, "alice@demo.test", subject);
    }
    // Without a host name of its own mutt asks the name servers for one, and without a network that takes as long as it takes.
    let text = format!(
        "set folder=\"imaps://alice@demo.test@localhost:{}/\"\nset spoolfile=\"=INBOX\"\nset imap_pass=\"demo\"\n\
         set ssl_ca_certificates_file=\"{authority}\"\nset certificate_file=\"{authority}\"\nset header_cache=\"\"\n\
         set confirmappend=no\nset confirmcreate=no\nset delete=yes\nset move=no\nset quit=yes\nset wait_key=no\nset sleep_time=0\n\
         set hostname=\"localhost\"\nset crypt_use_gpgme=no\n",
        site.port(Port::Imaps),
        authority = site.authority(),
    );
    let rc = site.write("muttrc", &text);
    let copy = site.folder().join("copy");
    // Tag all, copy to a local file, mark the first as deleted, leave.
    let keys = format!(
        "push '<tag-pattern>~A<enter><tag-prefix><copy-message>{}<enter><first-entry><delete-message><quit>'",
        copy.display()
    );
    let muttrc = site.write("keys", &keys);
    // Its log tells what a screen that stayed empty does not.
    let command = format!("TERM=xterm timeout --foreground 60 mutt -n -d 2 -F {rc} -e 'source {muttrc}'");
    let finished = tool::run(site.folder(), LIMIT, "script", &["-qefc", &command, "/dev/null"]);
    assert!(finished.is_success, "{}\n{}", finished.output, site.read(".muttdebug0"));
    let copied = site.read("copy");
    assert!(copied.contains("Subject: mutt-one") && copied.contains("Subject: mutt-two"), "{copied}");
    assert_eq!(Imap::login(&site.demo, "alice@demo.test", "demo").select("INBOX"), 1, "mutt expunged the first");
}

#[test]
#[ignore = "needs mbsync of isync: .ci/run installs it"]
fn mbsync_mirrors_both_ways() {
    let site = Site::start();
    for number in 0..20 {
        deliver(&site.demo, "alice@demo.test", &format!("sync-{number}"));
    }
    let mail = site.folder().join("mail");
    std::fs::create_dir(&mail).expect("a folder");
    let text = format!(
        "IMAPStore server\nHost localhost\nPort {}\nUser alice@demo.test\nPass demo\nSSLType IMAPS\nCertificateFile {}\n\n\
         MaildirStore local\nPath {mail}/\nInbox {mail}/INBOX\nSubFolders Verbatim\n\n\
         Channel all\nFar :server:\nNear :local:\nPatterns *\nCreate Both\nExpunge Both\nSyncState *\n",
        site.port(Port::Imaps),
        site.authority(),
        mail = mail.display(),
    );
    let rc = site.write("mbsyncrc", &text);
    let sync = || tool::expect(site.folder(), LIMIT, "mbsync", &["-c", &rc, "all"]);
    sync();
    assert_eq!(count(&mail.join("INBOX")), 20);
    sync();
    assert_eq!(count(&mail.join("INBOX")), 20, "a second run changes nothing");

    // A local draft goes up, a local deletion too.
    std::fs::write(mail.join("Drafts/new/1.own"), "Subject: local draft\n\nText\n").expect("a maildir");
    let first =
        std::fs::read_dir(mail.join("INBOX/new")).expect("a maildir").next().expect("a message").expect("readable");
    std::fs::remove_file(first.path()).expect("a message of ours");
    sync();
    let mut imap = Imap::login(&site.demo, "alice@demo.test", "demo");
    assert_eq!(imap.select("INBOX"), 19);
    assert!(imap.messages("Drafts")[0].contains("Subject: local draft"));

    // What is new on the server comes down; what is gone there goes here.
    deliver(&site.demo, "alice@demo.test", "late");
    imap.select("INBOX");
    imap.expect("STORE 1:5 +FLAGS (\\Deleted)");
    imap.expect("EXPUNGE");
    sync();
    assert_eq!(count(&mail.join("INBOX")), 15);
    assert_eq!(site.demo.json(&["check", "--store"])["whole"], true);
}

fn count(maildir: &Path) -> usize {
    ["new", "cur"].iter().map(|part| std::fs::read_dir(maildir.join(part)).expect("a maildir").count()).sum()
}

#[test]
#[ignore = "needs fetchmail: .ci/run installs it"]
fn fetchmail_fetches_over_pop3_and_imap() {
    for (protocol, port) in [("pop3", Port::Pop3s), ("imap", Port::Imaps)] {
        let site = Site::start();
        for number in 0..10 {
            deliver(&site.demo, "alice@demo.test", &format!("fetch-{number}"));
        }
        let store = site.folder().join("fetched");
        let idle = if protocol == "imap" { " no idle" } else { "" };
        let text = format!(
            "poll localhost protocol {protocol} service {}\n  user \"alice@demo.test\" password \"demo\"{idle}\n  ssl sslcertck sslcertfile \"{}\"\n  \
             mda \"/bin/sh -c 'cat >> {}'\"\n",
            site.port(port),
            site.authority(),
            store.display(),
        );
        let rc = site.write("fetchmailrc", &text);
        let pid = site.folder().join("pid").to_string_lossy().into_owned();
        let arguments = ["-f", &rc, "--pidfile", &pid, "--nosyslog", "--nodetach", "-v"];
        let output = tool::expect(site.folder(), LIMIT, "fetchmail", &arguments);
        let fetched = site.read("fetched");
        for number in 0..10 {
            assert!(fetched.contains(&format!("Text of fetch-{number}.")), "{protocol}: {output}");
        }
        assert_eq!(
            Imap::login(&site.demo, "alice@demo.test", "demo").select("INBOX"),
            0,
            "{protocol}: fetched mail is deleted"
        );
    }
}
