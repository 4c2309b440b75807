//! Proves the hand-over: what arrives works, and whoever dies when, no session is in two hands.

mod deaths;
mod octets;
mod stalls;

use std::io::{IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use posthouse_net::Error as NetError;
use posthouse_net::descriptors::{Channel, DESCRIPTORS_MAX, Frame, Invitation, own_uid};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::time::Instant;

use super::link::Link;
use super::message::{Message, Outgoing};
use super::*;

const LIMITS: Limits = Limits {
    hello: Duration::from_secs(20),
    answer: Duration::from_secs(20),
    store: Duration::from_secs(20),
    pause: Duration::from_secs(20),
};

fn hello(program: &str, versions: RangeInclusive<u32>) -> Hello {
    Hello { program: program.to_owned(), versions }
}

/// A session of its number: its parcel, and the client at its other end.
fn session(listener: &TcpListener, number: usize) -> (Parcel, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("a client");
    let socket = listener.accept().expect("its server").0.into();
    let state = Zeroizing::new(number.to_string().into_bytes());
    (Parcel { kind: "echo".to_owned(), state, socket, since: Instant::now() }, client)
}

/// A thousand clients and servers in one process are more files than some shells allow.
fn allow_files() {
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files).expect("as many files as allowed");
}

fn sessions(count: usize) -> (Vec<Parcel>, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    (0..count).map(|number| session(&listener, number)).unzip()
}

/// What a process does that uses a session: writes its number to the client.
fn use_session(parcel: Parcel) {
    TcpStream::from(parcel.socket).write_all(&parcel.state).expect("the socket works");
}

/// All that a client hears until the last copy of its connection is closed.
fn heard(client: &mut TcpStream) -> String {
    let mut words = String::new();
    client.read_to_string(&mut words).expect("the end of the connection");
    words
}

fn numbers(parcels: &[Parcel]) -> Vec<String> {
    parcels.iter().map(|parcel| String::from_utf8_lossy(&parcel.state).into_owned()).collect()
}

/// An invitation in a folder of its own.
struct Place {
    _folder: tempfile::TempDir,
    invitation: Invitation,
    path: PathBuf,
}

fn place() -> Place {
    let folder = tempfile::tempdir().expect("a folder");
    let invitation = Invitation::bind(folder.path()).expect("a socket");
    let path = invitation.path().to_owned();
    Place { _folder: folder, invitation, path }
}

/// Two ends that have greeted each other.
async fn ends() -> (Giver, Taker) {
    let place = place();
    let (giver, taker) = tokio::join!(
        Giver::invite(place.invitation, Hello::of("old"), LIMITS),
        Taker::connect(&place.path, Hello::of("new"), LIMITS),
    );
    (giver.expect("a giver"), taker.expect("a taker"))
}

/// A giver, and the bare connection of a taker that does as the test says.
async fn giver_and_link() -> (Giver, Link) {
    let place = place();
    let (giver, link) = tokio::join!(Giver::invite(place.invitation, Hello::of("old"), LIMITS), async {
        let mut link = connect(&place.path).await;
        link.tell("test", &Outgoing::hello(&Hello::of("new")), LIMITS.answer).await.expect("told");
        assert!(matches!(link.hear("test", LIMITS.answer).await, Ok(Message::Welcome(_))));
        link
    });
    (giver.expect("a giver"), link)
}

async fn connect(path: &std::path::Path) -> Link {
    Link::new(Channel::connect(path, own_uid(), Instant::now() + LIMITS.answer).await.expect("connected"))
}

/// A taker, and the bare connection of a giver that does as the test says.
async fn link_and_taker() -> (Link, Taker) {
    let place = place();
    let (link, taker) = tokio::join!(
        async {
            let channel = place.invitation.accept(own_uid(), Instant::now() + LIMITS.hello).await;
            let mut link = Link::new(channel.expect("accepted"));
            assert!(matches!(link.hear("test", LIMITS.answer).await, Ok(Message::Hello(_))));
            link.tell("test", &Outgoing::welcome(1, "old"), LIMITS.answer).await.expect("told");
            link
        },
        Taker::connect(&place.path, Hello::of("new"), LIMITS),
    );
    (link, taker.expect("a taker"))
}

#[tokio::test]
async fn an_invitation_stands_although_others_look_in() {
    let place = place();
    let (giver, taker) = tokio::join!(Giver::invite_until(place.invitation, Hello::of("old"), LIMITS), async {
        drop(connect(&place.path).await);
        let mut other = connect(&place.path).await;
        other.tell("test", &Outgoing::ready(), LIMITS.answer).await.expect("told");
        Taker::connect(&place.path, Hello::of("new"), LIMITS).await
    });
    giver.expect("a giver");
    taker.expect("a taker");
    assert!(!place.path.exists());
}

/// A message as its octets, for a giver that goes on or dies where no giver would.
fn octets_of(message: &Outgoing<'_>) -> Vec<u8> {
    assert!(message.descriptors.is_empty());
    let length = u32::try_from(message.body.len()).expect("short").to_be_bytes();
    [&[message.tag, 0], length.as_slice(), &message.body].concat()
}

/// Reads a message of that tag from a bare socket.
fn read_message(stream: &mut impl std::io::Read, tag: u8) {
    let mut head = [0; 6];
    stream.read_exact(&mut head).expect("a head");
    assert_eq!(head[0], tag);
    let mut body = vec![0; usize::from(head[5])];
    stream.read_exact(&mut body).expect("a body");
    let frame = Frame { tag, body: body.into(), descriptors: Vec::new() };
    assert!(Message::decode(frame).is_ok());
}

/// Takes every batch but for sessions of the numbers in `refused`, and uses what it took.
async fn take_all(taker: &mut Taker, refused: &[&str]) -> usize {
    let mut batches = 0;
    while let Some(parcels) = taker.next_batch().await.expect("a batch or the end") {
        let mut refusals = Vec::new();
        let mut taken = Vec::new();
        for (index, parcel) in parcels.into_iter().enumerate() {
            match numbers(std::slice::from_ref(&parcel))[0].as_str() {
                number if refused.contains(&number) => {
                    refusals.push(Refusal { index, reason: format!("{number} is not for me") });
                }
                _ => taken.push(parcel),
            }
        }
        let committed = taker.accept(&refusals).await.expect("the giver's word");
        taken.into_iter().for_each(use_session);
        taker.started(committed).await.expect("told");
        batches += 1;
    }
    batches
}

#[tokio::test]
async fn a_whole_hand_over_moves_doors_store_and_a_thousand_sessions() {
    allow_files();
    let (mut giver, mut taker) = ends().await;
    assert_eq!((giver.taker().program.as_str(), taker.giver()), ("new", "old"));
    assert_eq!((giver.version(), taker.version()), (1, 1));
    assert_eq!(giver.taker_pid(), Some(std::process::id()));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address");
    let door = Door { kind: "echo 1".to_owned(), socket: listener.into() };
    let (parcels, mut clients) = sessions(1000);

    let giving = async {
        giver.doors(&[door]).await.expect("the taker has them");
        giver.store_is_free().await.expect("the taker serves");
        let moved = giver.sessions(parcels).await.expect("all sessions move");
        giver.done().await.expect("the taker knows");
        let octets: usize = moved.moved.iter().map(|one| one.octets).sum();
        (moved.moved.len(), octets, moved.refused.len())
    };
    let taking = async {
        let doors = taker.doors().await.expect("the listeners");
        taker.ready().await.expect("told");
        taker.store_is_free().await.expect("the store");
        taker.serving().await.expect("told");
        (doors, take_all(&mut taker, &[]).await)
    };
    let (given, (doors, batches)) = tokio::join!(giving, taking);
    assert_eq!(given, (1000, 10 + 2 * 90 + 3 * 900, 0));
    assert_eq!(batches, 5);
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(heard(client), number.to_string());
    }

    let [Door { kind, socket }] = doors.try_into().expect("one listener");
    assert_eq!(kind, "echo 1");
    let mut client = TcpStream::connect(address).expect("a new client");
    TcpListener::from(socket).accept().expect("the moved listener").0.write_all(b"here").expect("written");
    assert_eq!(heard(&mut client), "here");
}

#[tokio::test]
async fn refused_sessions_stay_and_the_others_go() {
    let (mut giver, mut taker) = ends().await;
    let (mut parcels, mut clients) = sessions(5);
    parcels[1].state = Zeroizing::new(vec![0; STATE_MAX]);
    let giving = async {
        let moved = giver.sessions(parcels).await.expect("what can move moves");
        giver.done().await.expect("the taker knows");
        moved
    };
    let (moved, _) = tokio::join!(giving, take_all(&mut taker, &["3"]));
    let reasons: Vec<&str> = moved.refused.iter().map(|refused| refused.reason.as_str()).collect();
    assert_eq!((moved.moved.len(), reasons), (3, vec!["its state is too large to move", "3 is not for me"]));
    moved.refused.into_iter().for_each(|Refused { mut parcel, .. }| {
        parcel.state = Zeroizing::new(b"stayed".to_vec());
        use_session(parcel);
    });
    let heard: Vec<String> = clients.iter_mut().map(heard).collect();
    assert_eq!(heard, ["0", "stayed", "2", "stayed", "4"]);
}

#[tokio::test]
async fn a_refused_batch_is_back_and_the_next_one_goes() {
    let (mut giver, mut taker) = ends().await;
    let (mut parcels, mut clients) = sessions(2);
    let second = parcels.pop().expect("two");
    let giving = async {
        let interrupted = giver.sessions(parcels).await.expect_err("refused");
        assert!(matches!(&interrupted.error, HandoffError::Refused(reason) if reason == "not now"), "{interrupted:?}");
        assert_eq!((interrupted.back.len(), interrupted.lost), (1, 0));
        interrupted.back.into_iter().for_each(use_session);
        assert_eq!(giver.sessions(vec![second]).await.expect("moved").moved.len(), 1);
        giver.done().await.expect("the taker knows");
    };
    let taking = async {
        let parcels = taker.next_batch().await.expect("a batch").expect("sessions");
        drop(parcels);
        taker.refuse("not now").await.expect("told");
        take_all(&mut taker, &[]).await
    };
    assert_eq!(tokio::join!(giving, taking).1, 1);
    assert_eq!((heard(&mut clients[0]), heard(&mut clients[1])), ("0".to_owned(), "1".to_owned()));
}

#[tokio::test]
async fn a_taker_says_why_it_cannot_serve() {
    let (mut giver, mut taker) = ends().await;
    let refusing = async {
        taker.doors().await.expect("the listeners");
        taker.refuse("another address in my configuration").await.expect("told");
        taker.store_is_free().await.expect("the giver asks on");
        taker.refuse(&"long ".repeat(500)).await.expect("told");
    };
    let asking = async {
        let refused = giver.doors(&[]).await.expect_err("refused");
        assert_eq!(refused.to_string(), "the other process refuses: another address in my configuration");
        let refused = giver.store_is_free().await.expect_err("refused");
        assert!(matches!(refused, HandoffError::Refused(reason) if reason.len() == 500), "cut");
    };
    tokio::join!(refusing, asking);
}

/// Whether two programs agree, and on what.
async fn agreed(old: RangeInclusive<u32>, new: RangeInclusive<u32>) -> Result<u32, (HandoffError, HandoffError)> {
    let place = place();
    let (giver, taker) = tokio::join!(
        Giver::invite(place.invitation, hello("posthouse 1", old), LIMITS),
        Taker::connect(&place.path, hello("posthouse 3", new), LIMITS),
    );
    match (giver, taker) {
        (Ok(giver), Ok(taker)) => {
            assert_eq!(giver.version(), taker.version());
            Ok(giver.version())
        }
        (Err(giver), Err(taker)) => Err((giver, taker)),
        _ => panic!("one end believes that they agree"),
    }
}

#[tokio::test]
async fn the_newest_common_version_is_spoken_and_none_is_refused_by_name() {
    for (old, new, common) in [(1..=1, 1..=1, 1), (1..=1, 1..=2, 1), (1..=2, 2..=3, 2), (2..=3, 1..=2, 2)] {
        assert_eq!(agreed(old, new).await.expect("a common version"), common);
    }
    for (old, new) in [(1..=1, 2..=3), (2..=3, 1..=1)] {
        let (giver, taker) = agreed(old, new).await.expect_err("no common version");
        assert!(matches!(giver, HandoffError::Versions { .. }), "{giver}");
        let HandoffError::Refused(words) = taker else { panic!("{taker}") };
        assert!(words.contains("posthouse 1 speaks") && words.contains("posthouse 3 speaks"), "{words}");
    }
}

#[tokio::test]
async fn a_process_of_another_user_is_refused() {
    let place = place();
    let (giver, taker) = tokio::join!(
        Giver::invite_user(own_uid() + 1, place.invitation, Hello::of("old"), LIMITS),
        Taker::connect(&place.path, Hello::of("new"), LIMITS),
    );
    let stranger = giver.err().expect("refused");
    assert!(matches!(stranger, HandoffError::Link { source: NetError::Stranger { .. }, .. }), "{stranger}");
    assert!(taker.err().expect("refused").is_gone());
}

#[tokio::test]
async fn what_does_not_belong_here_ends_the_hand_over() {
    for (tag, words) in [(b'?', "the unknown kind 63"), (b'V', "SERVING out of turn"), (b'A', "RECEIVED out of turn")] {
        let (mut giver, mut link) = giver_and_link().await;
        let message = Outgoing { tag, ..Outgoing::ready() };
        link.tell("test", &message, LIMITS.answer).await.expect("told");
        let error = giver.doors(&[]).await.expect_err("no answer");
        assert!(error.to_string().contains(words), "{error}");
        assert!(giver.doors(&[]).await.expect_err("closed").is_gone());
    }
    let (mut link, mut taker) = link_and_taker().await;
    let (parcels, _clients) = sessions(2);
    let mut message = Outgoing::sessions(1, &parcels);
    message.descriptors.pop();
    link.tell("test", &message, LIMITS.answer).await.expect("told");
    let error = taker.next_batch().await.expect_err("no batch");
    assert!(error.to_string().contains("2 sessions with 1 files"), "{error}");
    assert!(taker.accept(&[]).await.is_err(), "nothing to accept");

    let (giver, mut link) = giver_and_link().await;
    let message = Outgoing { descriptors: vec![parcels[0].socket.as_fd()], ..Outgoing::finished() };
    link.tell("test", &message, LIMITS.answer).await.expect("told");
    assert!(matches!(giver.done().await, Err(HandoffError::Broken { .. })), "a file that has no place there");
}

#[tokio::test]
async fn a_batch_whose_files_find_no_room_is_refused_with_the_reason_and_the_next_one_comes() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("giver");
    let listener = UnixListener::bind(&path).expect("a socket");
    let giving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the taker");
        stream.write_all(&octets_of(&Outgoing::welcome(1, "old"))).expect("written");
        // More files than a frame may have look to the receiver like files that it has no room for: the kernel cuts the list.
        let file = std::fs::File::open("/dev/null").expect("a file");
        let files = vec![file.as_fd(); DESCRIPTORS_MAX + 40];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX + 40))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
        let head = [b'S', 200, 0, 0, 0, 0];
        sendmsg(&stream, &[IoSlice::new(&head)], &mut control, SendFlags::empty()).expect("sent");
        read_message(&mut stream, b'H');
        read_message(&mut stream, b'X');
        stream.write_all(&octets_of(&Outgoing::done())).expect("written");
        read_message(&mut stream, b'E');
    });
    let mut taker = Taker::connect(&path, Hello::of("new"), LIMITS).await.expect("a taker");
    let error = taker.next_batch().await.expect_err("no room");
    assert!(error.to_string().contains("may open no more"), "{error}");
    assert!(taker.next_batch().await.expect("the end").is_none());
    giving.join().expect("no panic");
}

#[tokio::test]
async fn refusals_that_are_of_no_batch_end_the_hand_over() {
    let refusal = |index| Refusal { index, reason: String::new() };
    for (number, places) in [(1, vec![2]), (1, vec![1, 0]), (1, vec![0, 0]), (2, vec![])] {
        let (mut giver, mut link) = giver_and_link().await;
        let (parcels, _clients) = sessions(2);
        let refusals: Vec<Refusal> = places.into_iter().map(refusal).collect();
        link.tell("test", &Outgoing::received(number, &refusals), LIMITS.answer).await.expect("told");
        let interrupted = giver.sessions(parcels).await.expect_err("no answer to this batch");
        assert!(matches!(interrupted.error, HandoffError::Broken { .. }), "{interrupted:?}");
        assert_eq!((interrupted.back.len(), interrupted.lost), (2, 0));
    }
}
