//! Upgrades that something outside spoils: files that do not load, addresses that are taken, a store that somebody else has.
//!
//! Apart from the upgrades that go well, and from programs that do not come up, because here the fault lies around them.

use std::fs::File;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Output};
use std::thread;

use super::upgrade::{NO_STORE, Sessions, check_refused, wrapper};
use crate::harness::client::Client;
use crate::harness::eventually;
use crate::harness::program::{Demo, Port, free_port, signal, wait_until_gone};

/// The upgrade to this very program, in this form, is refused with these words and changes nothing.
fn check_unchanged(demo: &Demo, form: &[&str], words: &str) {
    let (mut clients, pid) = (silent(demo, 3), demo.pid());
    let mut secure = Client::connect_tls(demo.port(Port::Imaps), &demo.authority());
    assert!(secure.line().starts_with("* OK"));
    clients.push(secure);
    check_failure(&demo.command(&[&["upgrade"], form].concat()), &[words, "the node serves as before"]);
    assert_eq!(demo.json(&["status"])["pid"], pid);
    check_alive(clients);
    check_open(demo);
}

fn check_failure(output: &Output, words: &[&str]) {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(words.iter().all(|words| errors.contains(words)), "{errors}");
}

/// New clients come in, plain and under TLS.
fn check_open(demo: &Demo) {
    for (port, greeting) in [(Port::Smtp, "220 "), (Port::Imap, "* OK"), (Port::Pop3, "+OK")] {
        assert!(Client::connect(demo.port(port)).line().starts_with(greeting), "{port:?}");
    }
    for (port, greeting) in [(Port::Submissions, "220 "), (Port::Imaps, "* OK"), (Port::Pop3s, "+OK")] {
        assert!(Client::connect_tls(demo.port(port), &demo.authority()).line().starts_with(greeting), "{port:?}");
    }
}

/// An address that somebody else listens on.
fn taken() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    (listener, address)
}

/// Connections, each a session that has said nothing yet.
fn silent(demo: &Demo, count: usize) -> Vec<Client> {
    let mut many: Vec<Client> = (0..count).map(|_| Client::connect(demo.port(Port::Imap))).collect();
    assert!(many.iter_mut().all(|client| client.line().starts_with("* OK")));
    many
}

fn check_alive(mut clients: Vec<Client>) {
    for client in &mut clients {
        client.send("a NOOP");
        assert!(client.line().starts_with("a OK"));
    }
}

/// A file of the node is spoiled; neither form of the upgrade changes anything, and the reason names the file.
fn check_spoiled(file: &str) {
    let demo = Demo::start();
    std::fs::write(demo.data().join(file), "no key").expect("a file");
    for form in [&[][..], &["--exec"]] {
        check_unchanged(&demo, form, file);
    }
}

#[test]
fn a_private_key_that_does_not_load_changes_nothing() {
    check_spoiled("key.pem");
}

#[test]
fn keys_of_the_store_that_do_not_load_change_nothing() {
    check_spoiled("storage.keys");
}

#[test]
fn a_node_that_takes_everything_back_has_the_certificate_that_it_had() {
    let folder = tempfile::tempdir().expect("a folder");
    let demo = Demo::start();
    let many = silent(&demo, 100);
    // The new program finds its key well and fails later: it has no room for the sessions. By then the old one's key is gone.
    let key = demo.data().join("key.pem");
    let what = format!(
        "cp {key} \"$0.key\"; echo no key > {key}; export POSTHOUSE_TLS__PRIVATE_KEY=\"$0.key\"; ulimit -n 90",
        key = key.display()
    );
    let program = wrapper(folder.path(), &what);
    let output = demo.command(&["upgrade", "--binary", &program.to_string_lossy()]);
    check_failure(&output, &["may open no more", "the program before goes on"]);
    check_alive(many);
    check_open(&demo);
}

#[test]
fn a_password_file_that_is_missing_changes_nothing() {
    let what = "export POSTHOUSE_QUEUE__SMARTHOST=mx.example.org:587 POSTHOUSE_QUEUE__SMARTHOST_USER=us \
        POSTHOUSE_QUEUE__SMARTHOST_PASSWORD_FILE=/nowhere/password";
    check_refused(what, "No such file or directory (os error 2); the node serves as before");
}

#[test]
fn an_address_that_is_taken_changes_nothing() {
    let (_other, address) = taken();
    for key in ["LISTEN__METRICS", "LISTEN__POP3"] {
        check_refused(
            &format!("export POSTHOUSE_{key}={address}"),
            "is taken by another program; the node serves as before",
        );
    }
}

#[test]
fn an_address_that_is_taken_in_a_new_configuration_changes_nothing() {
    let (_other, address) = taken();
    let mut demo = Demo::start();
    assert_eq!(demo.stop(), 0);
    demo.serve();
    let text = std::fs::read_to_string(demo.config()).expect("a configuration");
    let changed = text.replacen("imap = [", &format!("imap = [\"{address}\", "), 1);
    assert_ne!(text, changed);
    std::fs::write(demo.config(), changed).expect("a file");
    for form in [&["--exec"][..], &[]] {
        check_unchanged(&demo, form, "is taken by another program");
    }
}

#[test]
fn a_program_that_serves_again_needs_no_configuration_but_the_one_that_it_had() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut demo = Demo::start();
    assert_eq!(demo.stop(), 0);
    demo.serve();
    let (sessions, pid) = (Sessions::begin(&demo), demo.pid());
    // The image that is to serve has a configuration that can be read once. It fails at the store.
    let what = format!(
        r#"if [ -z "$POSTHOUSE_KEEP" ]; then
    mkfifo {once}
    cat {config} > {once} &
    export {NO_STORE}
    exec {program} serve --config {once}
fi"#,
        once = demo.data().join("once.toml").display(),
        config = demo.config().display(),
        program = env!("CARGO_BIN_EXE_posthouse"),
    );
    let program = wrapper(folder.path(), &what);
    let output = demo.command(&["upgrade", "--exec", "--binary", &program.to_string_lossy()]);
    check_failure(&output, &["the program before goes on"]);
    assert_eq!(demo.json(&["status"])["pid"], pid);
    sessions.go_on(&demo);
    check_open(&demo);
}

#[test]
fn new_addresses_open_and_protocols_change_places() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut demo = Demo::start();
    let many = silent(&demo, 3);
    let (imap, pop3, new) = (demo.port(Port::Imap), demo.port(Port::Pop3), free_port());
    let what = format!(
        "export POSTHOUSE_LISTEN__IMAP=127.0.0.1:{pop3},127.0.0.1:{new} POSTHOUSE_LISTEN__POP3=127.0.0.1:{imap}"
    );
    let program = wrapper(folder.path(), &what);
    demo.upgrade(Some(&program));
    for (port, greeting) in [(imap, "+OK"), (pop3, "* OK"), (new, "* OK")] {
        assert!(Client::connect(port).line().starts_with(greeting), "{port}");
    }
    check_alive(many);
}

/// Has the store's lock from the moment when the node closes the store, until the log has these words.
fn hold_store(demo: &Demo, until: &str) -> thread::JoinHandle<()> {
    // Another file in place of the one that the node has locked: whoever comes next finds this one.
    let (place, new) = (demo.data().join("store/store.lock"), demo.data().join("store/new.lock"));
    let file = File::create(&new).expect("a file");
    file.lock().expect("nobody knows it yet");
    std::fs::rename(new, place).expect("the same folder");
    let (log, until) = (demo.log_reader(), until.to_owned());
    thread::spawn(move || {
        eventually(&until, || log().contains(&until).then_some(()));
        drop(file);
    })
}

#[test]
fn a_command_that_has_the_store_for_a_moment_is_waited_for() {
    let mut demo = Demo::start();
    let sessions = Sessions::begin(&demo);
    let other = hold_store(&demo, "another process has the store");
    let report = demo.upgrade(None);
    assert_eq!((&report["moved"], &report["farewelled"]), (&6.into(), &0.into()), "{report}");
    other.join().expect("it had the store");
    sessions.go_on(&demo);
}

#[test]
fn who_takes_everything_back_waits_for_the_store_as_well() {
    let folder = tempfile::tempdir().expect("a folder");
    let demo = Demo::start();
    let sessions = Sessions::begin(&demo);
    let program = wrapper(folder.path(), r#"rm "$0""#);
    let other = hold_store(&demo, "another process has the store");
    let output = demo.command(&["upgrade", "--exec", "--binary", &program.to_string_lossy()]);
    check_failure(&output, &["the program before goes on"]);
    other.join().expect("it had the store");
    sessions.go_on(&demo);
}

#[test]
fn a_store_that_opens_late_in_the_same_process_loses_no_session() {
    let demo = Demo::with(&[("POSTHOUSE_UPGRADE__START_LIMIT", "6s")]);
    let sessions = Sessions::begin(&demo);
    // The custodian waits no longer then; the process that has the store at last comes back to it.
    let other = hold_store(&demo, "a process that was to have the sessions failed");
    let report = demo.upgrade_in_place();
    assert_eq!((&report["moved"], &report["farewelled"]), (&6.into(), &0.into()), "{report}");
    other.join().expect("it had the store");
    sessions.go_on(&demo);
}

/// A program whose image after exec ends at once; its custodian leaves its process id in the folder.
fn deserter(folder: &Path) -> std::path::PathBuf {
    let what = r#"[ -n "$POSTHOUSE_KEEP" ] || exit 3; echo $$ > "$(dirname "$0")/custodian""#;
    wrapper(folder, what)
}

/// A node that is gone, whose custodian waits.
struct Deserted {
    custodian: u32,
    /// Waits for an answer: its connection lies with the custodian too.
    command: Child,
}

impl Deserted {
    fn new(demo: &mut Demo, folder: &Path) -> Self {
        let program = deserter(folder);
        let command = demo.begin_command(&["upgrade", "--exec", "--binary", &program.to_string_lossy()]);
        demo.wait();
        let text = std::fs::read_to_string(folder.join("custodian")).expect("its process id");
        Self { custodian: text.trim().parse().expect("a number"), command }
    }

    fn wait(mut self) {
        wait_until_gone(self.custodian);
        assert!(!self.command.wait().expect("a child of ours").success(), "nobody answered");
    }
}

impl Drop for Deserted {
    fn drop(&mut self) {
        if thread::panicking() {
            signal(self.custodian, "-KILL");
        }
    }
}

#[test]
fn a_custodian_that_waits_obeys_a_signal() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut demo = Demo::with(&[("POSTHOUSE_UPGRADE__START_LIMIT", "40s")]);
    let mut many = silent(&demo, 3);
    let deserted = Deserted::new(&mut demo, folder.path());
    assert!(signal(deserted.custodian, "-TERM"));
    deserted.wait();
    assert!(many.iter_mut().all(|client| client.line().starts_with("* BYE ") && client.is_closed()));
    demo.run();
    check_open(&demo);
}

#[test]
fn a_custodian_waits_on_when_somebody_only_looks_in() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut demo = Demo::start();
    let sessions = Sessions::begin(&demo);
    let deserted = Deserted::new(&mut demo, folder.path());
    let socket = demo.data().join("custody.sock");
    for words in [&b""[..], b"no frame of ours, whatever it is"] {
        let mut stream = UnixStream::connect(&socket).expect("the custodian waits");
        let _ = stream.write_all(words);
    }
    demo.run();
    deserted.wait();
    sessions.go_on(&demo);
}

#[test]
fn a_program_that_runs_as_a_child_of_what_was_started_is_ended_as_well() {
    let folder = tempfile::tempdir().expect("a folder");
    let demo = Demo::start();
    let many = silent(&demo, 100);
    let what = format!("ulimit -n 90\n{} \"$@\"\nexit", env!("CARGO_BIN_EXE_posthouse"));
    let program = wrapper(folder.path(), &what);
    let output = demo.command(&["upgrade", "--binary", &program.to_string_lossy()]);
    check_failure(&output, &["may open no more", "the program before goes on"]);
    check_alive(many);
    check_open(&demo);
}

#[test]
fn a_program_that_reads_none_of_the_states_changes_nothing() {
    let forms = r#"{"state":9,"stream":1,"directory":1,"records":1}"#;
    let what = format!(
        "for name in FORMS KEEP; do eval \"[ -n \\\"\\$POSTHOUSE_$name\\\" ]\" && export POSTHOUSE_$name='{forms}'; done"
    );
    check_refused(&what, "states of sessions have form 9, this program reads up to 1; the node serves as before");
}
