//! Backups of a running node, and back: a whole site into an empty store, a mailbox beside another.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::Value;

use crate::harness::mail_client::{Imap, Smtp, deliver, mailbox, message};
use crate::harness::object_store::Moto;
use crate::harness::program::{Demo, Port};
use crate::harness::{PATIENCE, tool};

fn folder(demo: &Demo) -> String {
    demo.data().with_file_name("backup").to_str().expect("a plain name").to_owned()
}

/// What an account's mailboxes hold, message by message with flags and dates; headers of delivery included.
fn contents(demo: &Demo, login: &str) -> BTreeMap<String, Vec<String>> {
    let mut imap = Imap::login(demo, login, "demo");
    let mut all = BTreeMap::new();
    for name in ["INBOX", "Archive", "Kept"] {
        if imap.command(&format!("EXAMINE {name}")).tagged.starts_with("OK") {
            all.insert(name.to_owned(), imap.expect("UID FETCH 1:* (FLAGS INTERNALDATE BODY.PEEK[])"));
        }
    }
    all
}

/// Mail for alice, which stands still, so that it can be compared.
fn fill(demo: &Demo) {
    let mut imap = Imap::login(demo, "alice@demo.test", "demo");
    imap.expect("CREATE Kept");
    imap.append("Kept", "\\Seen $Label1", "01-Feb-2024 03:04:05 +0000", &message("a@x.test", "b@y.test", "kept"));
    imap.append("Kept", "\\Flagged", "02-Feb-2024 03:04:05 +0000", &message("a@x.test", "b@y.test", "also"));
    for number in 0..20 {
        deliver(demo, "alice@demo.test", &format!("before {number}"));
    }
}

/// Takes a backup while mail for bob goes on.
fn take_under_load(demo: &Demo, backup: &[&str]) -> Value {
    let stop = Arc::new(AtomicBool::new(false));
    let taken = thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut count = 0;
            loop {
                let mut smtp = Smtp::connect(demo);
                smtp.expect("EHLO me.test", 250);
                let text = message("you@example.org", "bob@demo.test", &format!("load {count}"));
                assert_eq!(smtp.deliver("you@example.org", &["bob@demo.test"], &text).code, 250);
                count += 1;
                if stop.load(Ordering::Acquire) {
                    break count;
                }
            }
        });
        let taken = demo.json(&[&["backup"], backup].concat());
        stop.store(true, Ordering::Release);
        assert!(load.join().expect("the load ends") > 0);
        taken
    });
    assert_eq!(taken["whole"], true, "{taken}");
    taken
}

/// Brings the site back into a node that has lost its store, and starts that.
fn bring_back(demo: &mut Demo, backup: &[&str], taken: &Value) {
    assert_eq!(demo.stop(), 0);
    std::fs::remove_dir_all(demo.data().join("store")).expect("the store is lost");
    let restored = demo.json(&[&["restore"], backup].concat());
    assert_eq!(restored["messages"], taken["messages"], "{restored}");
    assert_eq!(demo.json(&["check", "--store"])["whole"], true);
    demo.run();
}

#[test]
fn a_site_taken_under_load_comes_back_message_by_message() {
    let mut demo = Demo::start();
    fill(&demo);
    let backup = folder(&demo);
    let alice = contents(&demo, "alice@demo.test");
    let taken = take_under_load(&demo, &[&backup]);
    let bob = mailbox(&demo, "bob@demo.test", "demo", "INBOX");
    bring_back(&mut demo, &[&backup], &taken);
    assert_eq!(contents(&demo, "alice@demo.test"), alice);
    // Of what came meanwhile the backup has the beginning.
    let then = mailbox(&demo, "bob@demo.test", "demo", "INBOX");
    assert!(then.len() <= bob.len() && then == bob[..then.len()], "{} of {}", then.len(), bob.len());
}

#[test]
#[ignore = "needs moto: .ci/run installs it"]
fn a_site_taken_to_a_bucket_comes_back_elsewhere() {
    let moto = Moto::start();
    let environment = [
        ("POSTHOUSE_BACKUP__OBJECT_STORE__ENDPOINT", moto.endpoint.as_str()),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ];
    let demo = Demo::with(&environment);
    let key = demo.data().with_file_name("key");
    std::fs::write(&key, "a long passphrase\n").expect("a key file");
    let backup = ["s3://mail/demo", "--key-file", key.to_str().expect("a plain name")];
    fill(&demo);
    let first = demo.json(&[&["backup"], &backup[..]].concat());
    let then = mailbox(&demo, "alice@demo.test", "demo", "INBOX");
    deliver(&demo, "alice@demo.test", "later");
    let alice = contents(&demo, "alice@demo.test");
    let taken = take_under_load(&demo, &backup);
    let bob = mailbox(&demo, "bob@demo.test", "demo", "INBOX");
    let mut elsewhere = Demo::with(&environment);
    bring_back(&mut elsewhere, &backup, &taken);
    assert_eq!(contents(&elsewhere, "alice@demo.test"), alice);
    let came = mailbox(&elsewhere, "bob@demo.test", "demo", "INBOX");
    assert!(came.len() <= bob.len() && came == bob[..came.len()], "{} of {}", came.len(), bob.len());

    // One mailbox as it was at the first point; then that point goes.
    let point = first["point"].as_str().expect("a point");
    let part = ["--point", point, "--account", "alice@demo.test", "--mailbox", "INBOX", "--into", "Restored"];
    elsewhere.json(&[&["restore"], &backup[..], &part].concat());
    assert_eq!(mailbox(&elsewhere, "alice@demo.test", "demo", "Restored"), then);
    elsewhere.json(&[&["backup", "prune"], &backup[..], &["--keep", "1"]].concat());
    let points = elsewhere.json(&[&["backup", "list"], &backup[..]].concat());
    assert_eq!(points.as_array().map(Vec::len), Some(1), "{points}");
    assert_eq!(elsewhere.json(&[&["backup", "--verify"], &backup[..]].concat())["whole"], true);
    let wrong = elsewhere.command(&["backup", "list", "s3://other/demo"]);
    let told = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(wrong.status.code() == Some(1) && told.contains("no such bucket"), "{told}");
}

#[test]
fn a_mailbox_comes_back_beside_what_is_there() {
    let demo = Demo::start();
    let backup = folder(&demo);
    let key = demo.data().with_file_name("key");
    std::fs::write(&key, "a long passphrase\n").expect("a key file");
    let key = key.to_str().expect("a plain name");
    for subject in ["one", "two", "three"] {
        deliver(&demo, "alice@demo.test", subject);
    }
    let first = demo.json(&["backup", &backup, "--key-file", key]);
    let then = mailbox(&demo, "alice@demo.test", "demo", "INBOX");
    let mut imap = Imap::login(&demo, "alice@demo.test", "demo");
    imap.select("INBOX");
    imap.expect("STORE 1:2 +FLAGS (\\Deleted)");
    imap.expect("EXPUNGE");
    demo.json(&["backup", &backup, "--key-file", key]);

    let points = demo.json(&["backup", "list", &backup, "--key-file", key]);
    assert_eq!(points.as_array().map(Vec::len), Some(2), "{points}");
    let point = first["point"].as_str().expect("a point");
    let order = ["restore", &backup, "--key-file", key, "--point", point, "--account", "alice@demo.test"];
    let refused = demo.command(&[&order[..], &["--mailbox", "INBOX"]].concat());
    assert_eq!(refused.status.code(), Some(1), "nothing is written over: {refused:?}");
    let restored = demo.json(&[&order[..], &["--mailbox", "INBOX", "--into", "Restored"]].concat());
    assert_eq!(restored["messages"], 3, "{restored}");
    assert_eq!(mailbox(&demo, "alice@demo.test", "demo", "Restored"), then);
    assert_eq!(mailbox(&demo, "alice@demo.test", "demo", "INBOX").len(), 1);

    // An account that was deleted comes back whole.
    demo.json(&["account", "delete", "alice@demo.test"]);
    demo.json(&order);
    assert_eq!(mailbox(&demo, "alice@demo.test", "demo", "INBOX"), then);
    assert_eq!(demo.json(&["check", "--store"])["whole"], true);

    // One that nobody could log in to does not come back open.
    demo.json(&["account", "set", "alice@demo.test", "--enabled", "false"]);
    let third = demo.json(&["backup", &backup, "--key-file", key]);
    demo.json(&["account", "delete", "alice@demo.test"]);
    let point = third["point"].as_str().expect("a point");
    demo.json(&["restore", &backup, "--key-file", key, "--point", point, "--account", "alice@demo.test"]);
    let shown = demo.json(&["account", "show", "alice@demo.test"]);
    assert_eq!((&shown["enabled"], &shown["messages"]), (&false.into(), &3.into()), "{shown}");

    let wrong = demo.command(&["backup", "list", &backup]);
    assert_eq!(wrong.status.code(), Some(1), "without its key nothing opens: {wrong:?}");
    demo.json(&["backup", "prune", &backup, "--key-file", key, "--keep", "1"]);
    assert_eq!(demo.json(&["backup", &backup, "--verify", "--key-file", key])["whole"], true);
}

#[test]
fn a_message_whose_body_is_damaged_is_whole_again_once_it_is_restored() {
    let mut demo = Demo::start();
    let text = (0..3000).map(|line| format!("line {line} of a body that is not short\n")).collect::<String>();
    let text = format!("{}{text}", message("a@x.test", "b@y.test", "long"));
    Imap::login(&demo, "alice@demo.test", "demo").append("INBOX", "", "01-Feb-2024 03:04:05 +0000", &text);
    let backup = folder(&demo);
    demo.json(&["backup", &backup]);
    let then = mailbox(&demo, "alice@demo.test", "demo", "INBOX");

    assert_eq!(demo.stop(), 0);
    let segments = std::fs::read_dir(demo.data().join("store/segments")).expect("a folder");
    for segment in segments {
        let path = segment.expect("a segment").path();
        let mut octets = std::fs::read(&path).expect("a file");
        // Behind the header of the file.
        octets.iter_mut().skip(16).for_each(|octet| *octet ^= 1);
        std::fs::write(&path, octets).expect("written");
    }
    demo.run();
    assert_eq!(demo.command(&["check", "--store"]).status.code(), Some(1), "the body is damaged");
    demo.json(&["restore", &backup, "--account", "alice@demo.test", "--mailbox", "INBOX", "--into", "Restored"]);
    assert_eq!(mailbox(&demo, "alice@demo.test", "demo", "Restored"), then);
    assert_eq!(mailbox(&demo, "alice@demo.test", "demo", "INBOX"), then, "whoever has the body has it again");
    assert_eq!(demo.json(&["check", "--store"])["whole"], true);
}

#[test]
fn a_site_is_restored_on_a_stopped_node_and_served_when_it_is_whole() {
    let mut demo = Demo::start();
    fill(&demo);
    let backup = folder(&demo);
    let taken = demo.json(&["backup", &backup]);
    let alice = contents(&demo, "alice@demo.test");
    let refused = demo.command(&["restore", &backup]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && told.contains("the node is running"), "{told}");

    // A pack that cannot be read is away, not lost: the restore ends in the middle.
    assert_eq!(demo.stop(), 0);
    std::fs::remove_dir_all(demo.data().join("store")).expect("the store is lost");
    let pack = only_file(Path::new(&backup).join("packs"));
    let aside = pack.with_extension("aside");
    std::fs::rename(&pack, &aside).expect("moved");
    std::os::unix::fs::symlink(&pack, &pack).expect("a link that leads nowhere");
    assert_eq!(demo.command(&["restore", &backup]).status.code(), Some(1));
    let offset = (demo.port(Port::Smtp) - 2525).to_string();
    let data = demo.data();
    let start = ["demo", "--port-offset", &offset, "--data", data.to_str().expect("a plain name")];
    let started = tool::run(&data, PATIENCE, env!("CARGO_BIN_EXE_posthouse"), &start);
    let point = taken["point"].as_str().expect("a point");
    assert!(!started.is_success && started.output.contains(&format!("--point {point}")), "{}", started.output);
    std::fs::remove_file(&pack).expect("removed");
    std::fs::rename(&aside, &pack).expect("moved");
    let restored = demo.json(&["restore", &backup]);
    assert_eq!(restored["messages"], taken["messages"], "{restored}");
    assert_eq!(demo.json(&["check", "--store"])["whole"], true);
    demo.run();
    assert_eq!(contents(&demo, "alice@demo.test"), alice);
}

fn only_file(folder: PathBuf) -> PathBuf {
    let mut entries = std::fs::read_dir(&folder).expect("a folder");
    let path = entries.next().expect("an entry").expect("an entry").path();
    if path.is_dir() { only_file(path) } else { path }
}
