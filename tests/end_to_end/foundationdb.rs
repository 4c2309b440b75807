//! One program, with and without FoundationDB: it links no library of it, and serves mail from a cluster of its own.

#[path = "../../chaos/foundationdb.rs"]
mod cluster;

use std::process::Command;

use super::send::{FIRST, queue, submit, world_with};
use crate::harness::eventually;
use crate::harness::mail_client::{deliver, mailbox, message};
use crate::harness::remote_host::{Manner, RemoteHost};

#[test]
fn the_program_links_no_foundationdb() {
    let output = Command::new("ldd").arg(env!("CARGO_BIN_EXE_posthouse")).output().expect("ldd runs");
    let libraries = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && libraries.contains("libc.so"), "{output:?}");
    assert!(!libraries.contains("fdb"), "{libraries}");
}

#[test]
#[ignore = "needs a FoundationDB server"]
fn fdb_mail_goes_in_and_out_and_survives_kills() {
    println!("{}", cluster::version().expect("FoundationDB's server"));
    let mut cluster = cluster::Cluster::start(1).expect("a FoundationDB cluster");
    let (file, library) = (cluster.cluster_file(), cluster::client_library().expect("FoundationDB's client library"));
    let mut world = world_with(&[
        ("POSTHOUSE_STORAGE__ENGINE", "foundationdb"),
        ("POSTHOUSE_STORAGE__FOUNDATIONDB__CLUSTER_FILE", &file.to_string_lossy()),
        ("POSTHOUSE_STORAGE__FOUNDATIONDB__LIBRARY", &library.to_string_lossy()),
    ]);
    deliver(&world.demo, "alice@demo.test", "inbound");
    assert!(mailbox(&world.demo, "alice@demo.test", "demo", "INBOX")[0].contains("Subject: inbound"));
    let host = RemoteHost::listen(FIRST, world.port, Manner::Accept);
    submit(&world.demo, &["someone@remote.test"], &message("alice@demo.test", "someone@remote.test", "outbound"));
    host.wait_for("Subject: outbound");
    eventually("an empty queue", || queue(&world.demo).is_empty().then_some(()));
    // A killed server of the cluster is waited for; a killed node finds its mail.
    cluster.kill_server(0).expect("killed");
    cluster.start_server(0).expect("started again");
    deliver(&world.demo, "alice@demo.test", "while it recovers");
    world.demo.kill();
    world.demo.run();
    let messages = mailbox(&world.demo, "alice@demo.test", "demo", "INBOX");
    assert_eq!(messages.len(), 2);
    assert!(messages[1].contains("Subject: while it recovers"));
    assert_eq!(world.demo.json(&["check", "--store"])["whole"], true);
    // The library's thread ends before the process: else it may crash on the way out.
    assert_eq!(world.demo.stop(), 0);
}
