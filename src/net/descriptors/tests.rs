//! Proves that files work after they moved, that a frame comes whole or not at all, and that no wait is without an end.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileTypeExt as _;
use std::time::Duration;

use proptest::prelude::*;
use rustix::io::{FdFlags, fcntl_getfd};

use super::*;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// A connection over loopback: what the server holds, and its client.
fn connection() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("a client");
    (listener.accept().expect("its server").0.into(), client)
}

/// A channel beside the bare socket at its other end.
fn bare_pair() -> (UnixStream, Channel) {
    let (bare, other) = UnixStream::pair().expect("a pair");
    (bare, Channel::new(other))
}

/// An error of the channel that a result must be.
fn error_of(received: Result<Frame, Error>) -> Error {
    received.err().expect("no frame")
}

#[tokio::test]
async fn octets_and_connections_arrive_and_work() {
    let (mut one, mut other) = Channel::pair().expect("a pair");
    let pairs: Vec<(OwnedFd, TcpStream)> = (0..3).map(|_| connection()).collect();
    let files: Vec<BorrowedFd<'_>> = pairs.iter().map(|(server, _)| server.as_fd()).collect();
    one.send(7, b"three", &files, soon()).await.expect("sent");
    one.send(8, b"", &[], soon()).await.expect("sent");

    let frame = other.receive(100, soon()).await.expect("a frame");
    assert_eq!((frame.tag, frame.body.as_slice(), frame.descriptors.len()), (7, b"three".as_slice(), 3));
    let next = other.receive(100, soon()).await.expect("a frame");
    assert_eq!((next.tag, next.body.len(), next.descriptors.len()), (8, 0, 0));

    for (file, (server, mut client)) in frame.descriptors.into_iter().zip(pairs) {
        assert_ne!(file.as_raw_fd(), server.as_raw_fd(), "a duplicate");
        assert!(fcntl_getfd(&file).expect("flags").contains(FdFlags::CLOEXEC));
        drop(server);
        TcpStream::from(file).write_all(b"moved").expect("the duplicate writes");
        let mut heard = String::new();
        client.read_to_string(&mut heard).expect("the client reads to the end: no copy is left");
        assert_eq!(heard, "moved");
    }
}

#[tokio::test]
async fn two_hundred_files_go_in_one_frame_and_one_more_is_refused() {
    let (mut one, mut other) = Channel::pair().expect("a pair");
    let (server, _client) = connection();
    let files = vec![server.as_fd(); DESCRIPTORS_MAX + 1];
    one.send(1, b"all", &files[1..], soon()).await.expect("sent");
    assert_eq!(other.receive(10, soon()).await.expect("a frame").descriptors.len(), DESCRIPTORS_MAX);

    let unsent = one.send(1, b"one too many", &files, soon()).await.expect_err("too many");
    assert!(matches!(unsent.error, Error::Frame(_)) && !unsent.is_begun, "{unsent:?}");
    one.send(2, b"", &[], soon()).await.expect("nothing was sent, so the channel is whole");
    assert_eq!(other.receive(10, soon()).await.expect("a frame").tag, 2);
}

#[tokio::test]
async fn a_frame_with_other_files_than_it_says_is_no_frame() {
    let (server, _client) = connection();
    for (said, sent) in [(0_u8, 1_usize), (1, 0), (2, 1), (1, 2), (201, 0), (201, 200), (255, 200)] {
        let (bare, mut channel) = bare_pair();
        let files = vec![server.as_fd(); sent];
        let octets = [9, said, 0, 0, 0, 0];
        send_first(&bare, &[IoSlice::new(&octets)], &files).expect("sent");
        let error = error_of(channel.receive(10, soon()).await);
        assert!(matches!(error, Error::Frame(_)), "{said} said, {sent} sent: {error}");
        assert!(matches!(error_of(channel.receive(10, soon()).await), Error::Closed), "closed for good");
    }
}

#[tokio::test]
async fn more_files_than_fit_are_told_and_the_next_frame_is_read() {
    let (server, _client) = connection();
    let (bare, mut channel) = bare_pair();
    // What a receiver sees that may open no more files: the kernel cuts the list and says so.
    let files = vec![server.as_fd(); DESCRIPTORS_MAX + 40];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX + 40))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
    let octets = [9, 200, 0, 0, 0, 2, b'h', b'i'];
    sendmsg(bare.as_fd(), &[IoSlice::new(&octets)], &mut control, SendFlags::NOSIGNAL).expect("sent");
    send_first(&bare, &[IoSlice::new(&[4, 0, 0, 0, 0, 0])], &[]).expect("sent");
    assert!(matches!(error_of(channel.receive(10, soon()).await), Error::DescriptorsLost));
    assert_eq!(channel.receive(10, soon()).await.expect("a frame").tag, 4);
}

#[tokio::test]
async fn a_frame_cut_at_any_octet_is_the_end() {
    let (server, _client) = connection();
    let whole = [3, 1, 0, 0, 0, 4, b'm', b'a', b'i', b'l'];
    for cut in 0..whole.len() {
        let (bare, mut channel) = bare_pair();
        if cut > 0 {
            send_first(&bare, &[IoSlice::new(&whole[..cut])], &[server.as_fd()]).expect("sent");
        }
        drop(bare);
        assert!(matches!(error_of(channel.receive(10, soon()).await), Error::Closed), "cut at {cut}");
    }
}

#[tokio::test]
async fn a_frame_that_comes_octet_by_octet_is_whole() {
    let (server, _client) = connection();
    let (bare, mut channel) = bare_pair();
    let whole = [3, 1, 0, 0, 0, 4, b'm', b'a', b'i', b'l'];
    let reading = tokio::spawn(async move { channel.receive(10, soon()).await });
    for (at, octet) in whole.iter().enumerate() {
        let files: &[BorrowedFd<'_>] = if at == 0 { &[server.as_fd()] } else { &[] };
        send_first(&bare, &[IoSlice::new(&[*octet])], files).expect("sent");
        tokio::task::yield_now().await;
    }
    let frame = reading.await.expect("no panic").expect("a frame");
    assert_eq!((frame.tag, frame.body.as_slice(), frame.descriptors.len()), (3, b"mail".as_slice(), 1));
}

#[tokio::test]
async fn a_frame_over_the_bound_is_refused_before_it_is_read() {
    let (mut one, mut other) = Channel::pair().expect("a pair");
    one.send(1, &[0; 11], &[], soon()).await.expect("sent");
    let error = error_of(other.receive(10, soon()).await);
    assert!(matches!(error, Error::FrameTooLarge { size: 11, max: 10 }), "{error}");
    assert!(matches!(one.receive(10, soon()).await, Err(Error::Closed)), "the other end closed");
}

#[tokio::test]
async fn a_large_frame_goes_through_a_small_buffer() {
    let (mut one, mut other) = Channel::pair().expect("a pair");
    let body: Vec<u8> = (0..3_000_000_u32).map(|at| at.to_le_bytes()[0]).collect();
    let (server, _client) = connection();
    let files = vec![server.as_fd(); 5];
    let (sent, frame) = tokio::join!(one.send(1, &body, &files, soon()), other.receive(body.len(), soon()));
    sent.expect("sent");
    let frame = frame.expect("a frame");
    assert!(frame.body.as_slice() == body, "another body");
    assert_eq!(frame.descriptors.len(), 5);
}

#[tokio::test]
async fn who_sends_knows_whether_anything_went_out() {
    let (mut one, other) = Channel::pair().expect("a pair");
    drop(other);
    let unsent = one.send(1, b"to nobody", &[], soon()).await.expect_err("nobody is there");
    assert!(matches!(unsent.error, Error::Closed) && !unsent.is_begun, "{unsent:?}");
    let unsent = one.send(1, b"again", &[], soon()).await.expect_err("closed");
    assert!(!unsent.is_begun, "{unsent:?}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stalls_meets_the_deadline() {
    let (mut one, mut other) = Channel::pair().expect("a pair");
    let deadline = Instant::now() + Duration::from_secs(5);
    assert!(matches!(error_of(other.receive(10, deadline).await), Error::ReadTimeout));
    assert_eq!(Instant::now(), deadline);

    // More than the socket's buffer, and nobody reads.
    let deadline = Instant::now() + Duration::from_secs(5);
    let unsent = one.send(1, &vec![0; 8_000_000], &[], deadline).await.expect_err("nobody reads");
    assert!(matches!(unsent.error, Error::WriteTimeout) && unsent.is_begun, "{unsent:?}");
    // The wait before found nothing, so it lost nothing; this one ends in the middle of a frame.
    assert!(matches!(error_of(other.receive(8_000_000, soon()).await), Error::Closed));
}

#[tokio::test(start_paused = true)]
async fn half_a_frame_meets_the_deadline_and_closes() {
    let (bare, mut channel) = bare_pair();
    send_first(&bare, &[IoSlice::new(&[1, 0, 0, 0, 0, 9, 1, 2, 3])], &[]).expect("sent");
    assert!(matches!(error_of(channel.receive(10, soon()).await), Error::ReadTimeout));
    assert!(matches!(error_of(channel.receive(10, soon()).await), Error::Closed));
}

#[tokio::test]
async fn a_dropped_wait_loses_nothing() {
    let (mut one, mut other) = Channel::pair().expect("a pair");
    tokio::select! {
        biased;
        _ = other.receive(10, soon()) => panic!("nothing was sent"),
        () = tokio::task::yield_now() => {}
    }
    one.send(6, b"later", &[], soon()).await.expect("sent");
    assert_eq!(other.receive(10, soon()).await.expect("a frame").tag, 6);
}

#[tokio::test]
async fn an_invitation_is_for_one_peer_of_this_user() {
    let dir = tempfile::tempdir().expect("a folder");
    let invitation = Invitation::bind(dir.path()).expect("a socket");
    let path = invitation.path().to_owned();
    let found = std::fs::symlink_metadata(&path).expect("the socket");
    assert!(found.file_type().is_socket() && found.mode() & 0o777 == 0o600, "{:o}", found.mode());

    let (accepted, connected) =
        tokio::join!(invitation.accept(own_uid(), soon()), Channel::connect(&path, own_uid(), soon()));
    let (mut one, mut other) = (accepted.expect("accepted"), connected.expect("connected"));
    assert!(!path.exists(), "nobody else finds it");
    assert_eq!(one.peer_pid(), Some(std::process::id()));
    one.send(1, b"hello", &[], soon()).await.expect("sent");
    assert_eq!(other.receive(10, soon()).await.expect("a frame").body.as_slice(), b"hello");
}

#[tokio::test]
async fn the_process_at_the_other_end_is_killed_although_it_is_no_child() {
    let dir = tempfile::tempdir().expect("a folder");
    let invitation = Invitation::bind(dir.path()).expect("a socket");
    // The shell's child connects.
    let connects = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.recv(1)";
    let mut shell = std::process::Command::new("sh")
        .args(["-c", r#"python3 -c "$1" "$2"; exit 7"#, "sh", connects])
        .arg(invitation.path())
        .spawn()
        .expect("a shell");
    let channel = invitation.accept(own_uid(), soon()).await.expect("accepted");
    assert_ne!(channel.peer_pid(), Some(shell.id()));
    let peer = channel.peer_process().expect("it runs");
    peer.kill();
    tokio::time::timeout_at(soon(), peer.ended()).await.expect("it ends");
    assert_eq!(shell.wait().expect("a child").code(), Some(7), "only the one that connected was killed");
}

#[tokio::test]
async fn a_process_of_another_user_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let invitation = Invitation::bind(dir.path()).expect("a socket");
    let path = invitation.path().to_owned();
    let another = own_uid() + 1;
    let (accepted, connected) =
        tokio::join!(invitation.accept(another, soon()), Channel::connect(&path, own_uid(), soon()));
    assert!(matches!(accepted, Err(Error::Stranger { uid }) if uid == own_uid()));
    let mut other = connected.expect("connected");
    assert!(matches!(error_of(other.receive(10, soon()).await), Error::Closed), "without a word");

    let invitation = Invitation::bind(dir.path()).expect("a socket");
    let refused = Channel::connect(invitation.path(), another, soon()).await;
    assert!(matches!(refused, Err(Error::Stranger { .. })));
}

#[tokio::test(start_paused = true)]
async fn an_invitation_that_nobody_follows_ends_and_leaves_no_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = local_socket::handoff_path(dir.path()).expect("a path");
    std::fs::write(&path, b"left by a process that was killed").expect("written");
    let invitation = Invitation::bind(dir.path()).expect("a stale file is no hindrance");
    assert!(matches!(invitation.accept(own_uid(), soon()).await, Err(Error::ReadTimeout)));
    assert!(!path.exists());
}

#[tokio::test]
async fn an_invitation_leaves_the_file_of_the_next_one_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let first = Invitation::bind(dir.path()).expect("a socket");
    let second = Invitation::bind(dir.path()).expect("in place of the first");
    drop(first);
    let path = second.path().to_owned();
    let (accepted, connected) =
        tokio::join!(second.accept(own_uid(), soon()), Channel::connect(&path, own_uid(), soon()));
    accepted.and(connected.map(drop)).expect("the second waits still");
    assert!(!path.exists());
}

proptest! {
    /// Whatever comes, a channel gives back a frame that was in it or an error, and never waits for more than it was sent.
    #[test]
    fn any_octets_are_a_frame_or_an_error(octets in proptest::collection::vec(any::<u8>(), 0..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (bare, mut channel) = bare_pair();
            if !octets.is_empty() {
                send_first(&bare, &[IoSlice::new(&octets)], &[]).expect("sent");
            }
            drop(bare);
            if let Ok(frame) = channel.receive(30, soon()).await {
                let length = frame.body.len();
                assert_eq!(octets[..HEAD], [frame.tag, 0, 0, 0, 0, u8::try_from(length).expect("short")]);
                assert_eq!(octets[HEAD..HEAD + length], **frame.body);
            }
        });
    }
}
