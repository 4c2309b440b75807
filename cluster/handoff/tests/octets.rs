//! What is read from the other end: golden octets that every later version must read, and octets that nobody should send.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use proptest::prelude::*;

use super::super::batch;
use super::*;

/// Files for descriptors that nobody uses.
fn files(count: usize) -> Vec<OwnedFd> {
    (0..count).map(|_| std::fs::File::open("/dev/null").expect("a file").into()).collect()
}

fn parcel(kind: &str, state: &[u8]) -> Parcel {
    Parcel { kind: kind.to_owned(), state: state.to_vec().into(), socket: files(1).remove(0), since: Instant::now() }
}

fn decode(tag: u8, body: &[u8], count: usize) -> Result<Message, String> {
    Message::decode(Frame { tag, body: body.to_vec().into(), descriptors: files(count) })
}

#[test]
fn a_greeting_keeps_its_octets() {
    let own = hello("p 1", 1..=2);
    let message = Outgoing::hello(&own);
    assert_eq!((message.tag, message.body.as_slice()), (b'H', b"POSTHOUSE\x08\x01\x10\x02\x1a\x03p 1".as_slice()));
    assert!(matches!(decode(b'H', &message.body, 0), Ok(Message::Hello(read)) if read == own));
    // A later version may say more.
    let more = [message.body.as_slice(), b"\x7a\x03new"].concat();
    assert!(matches!(decode(b'H', &more, 0), Ok(Message::Hello(read)) if read == own));
    assert!(decode(b'H', &message.body[1..], 0).is_err(), "another program");
}

#[test]
fn a_batch_keeps_its_octets() {
    let body = batch::encode(3, &[parcel("a", b"one"), parcel("bc", b"")]);
    let head = b"\x08\x03\x12\x05\x0a\x01a\x10\x03\x12\x04\x0a\x02bc";
    assert_eq!(body.as_slice(), [b"\0\0\0\x0f".as_slice(), head, b"one"].concat());
    let Ok(Message::Sessions(read)) = decode(b'S', &body, 2) else { panic!("a batch") };
    let kinds: Vec<&str> = read.parcels.iter().map(|parcel| parcel.kind.as_str()).collect();
    assert_eq!(
        (read.number, kinds, numbers(&read.parcels)),
        (3, vec!["a", "bc"], vec!["one".to_owned(), String::new()])
    );
}

#[test]
fn the_short_messages_keep_their_octets() {
    let refusal = Refusal { index: 2, reason: "no".to_owned() };
    for (message, tag, body) in [
        (Outgoing::welcome(1, "p"), b'W', b"\x08\x01\x12\x01p".as_slice()),
        (Outgoing::refused("no"), b'X', b"\x0a\x02no"),
        (Outgoing::ready(), b'R', b""),
        (Outgoing::store_is_free(), b'F', b""),
        (Outgoing::serving(), b'V', b""),
        (Outgoing::received(7, &[refusal]), b'A', b"\x08\x07\x12\x06\x08\x02\x12\x02no"),
        (Outgoing::commit(7), b'C', b"\x08\x07"),
        (Outgoing::started(7), b'G', b"\x08\x07"),
        (Outgoing::done(), b'D', b""),
        (Outgoing::finished(), b'E', b""),
    ] {
        assert_eq!((message.tag, message.body.as_slice()), (tag, body));
        assert!(decode(tag, body, 0).is_ok());
        assert!(decode(tag, body, 1).is_err(), "a file that belongs to nothing");
    }
    let doors = [Door { kind: "x".to_owned(), socket: files(1).remove(0) }];
    let message = Outgoing::doors(&doors);
    assert_eq!((message.tag, message.body.as_slice(), message.descriptors.len()), (b'L', b"\x0a\x01x".as_slice(), 1));
    assert!(decode(b'L', &message.body, 1).is_ok() && decode(b'L', &message.body, 2).is_err());
}

#[test]
fn a_batch_cut_short_or_too_long_is_none() {
    let body = batch::encode(1, &[parcel("a", b"one"), parcel("b", b"two")]);
    for cut in 0..body.len() {
        assert!(decode(b'S', &body[..cut], 2).is_err(), "cut at {cut}");
    }
    assert!(decode(b'S', &[body.as_slice(), b"!"].concat(), 2).is_err());
    for count in [0, 1, 3] {
        assert!(decode(b'S', &body, count).is_err(), "{count} files");
    }
}

#[test]
fn batches_hold_as_many_as_fit() {
    let count_of = |state: usize, count: usize| -> Vec<usize> {
        let mut waiting: VecDeque<Parcel> = (0..count).map(|_| parcel("kind", &vec![0; state])).collect();
        std::iter::from_fn(|| Some(batch::next(&mut waiting).len()).filter(|taken| *taken > 0)).collect()
    };
    assert_eq!(count_of(100, 2 * DESCRIPTORS_MAX + 1), [DESCRIPTORS_MAX, DESCRIPTORS_MAX, 1]);
    assert_eq!(count_of(STATE_MAX - 4, 2), [1, 1]);
    assert_eq!(count_of(STATE_MAX / 4, 4), [3, 1]);
    assert!(batch::fits(&parcel("kind", &vec![0; STATE_MAX - 4])));
    assert!(!batch::fits(&parcel("kind", &vec![0; STATE_MAX - 3])));
    let largest = [parcel("kind", &vec![0; STATE_MAX - 4])];
    assert!(batch::encode(u32::MAX, &largest).len() <= batch::BODY_MAX);
}

proptest! {
    #[test]
    fn a_batch_is_read_as_it_was_written(
        number: u32,
        states in proptest::collection::vec(("[a-z]{0,5}", proptest::collection::vec(any::<u8>(), 0..60)), 0..6),
    ) {
        let parcels: Vec<Parcel> = states.iter().map(|(kind, state)| parcel(kind, state)).collect();
        let body = batch::encode(number, &parcels);
        let Ok(Message::Sessions(read)) = decode(b'S', &body, parcels.len()) else { panic!("a batch") };
        assert_eq!(read.number, number);
        let read: Vec<(String, Vec<u8>)> =
            read.parcels.into_iter().map(|parcel| (parcel.kind, parcel.state.to_vec())).collect();
        assert_eq!(read, states);
    }

    /// Nothing that comes may end the process or make it take more than was sent.
    #[test]
    fn any_octets_are_a_message_or_an_error(tag: u8, body in proptest::collection::vec(any::<u8>(), 0..80), count in 0..3_usize) {
        for tag in [tag, b'S', b'L', b'A', b'H'] {
            let _ = decode(tag, &body, count);
        }
    }

    /// An altered octet of a batch never yields a batch with other sizes than its files and octets bear out.
    #[test]
    fn an_altered_batch_is_whole_or_none(at in 0..40_usize, to: u8) {
        let mut body = batch::encode(1, &[parcel("ab", b"one"), parcel("cd", b"seventeen octets.")]).to_vec();
        let at = at % body.len();
        body[at] = to;
        if let Ok(Message::Sessions(read)) = decode(b'S', &body, 2) {
            let octets: usize = read.parcels.iter().map(|parcel| parcel.state.len()).sum();
            assert_eq!((read.parcels.len(), octets), (2, 20));
        }
    }
}
