//! The record layer against another end that can seal anything.

use std::io;

use rustls::{AlertDescription as Alert, ContentType, SupportedCipherSuite};

use super::super::peer::{hop, pair, suites};
use super::super::record::{INPUT_MAX, MISUSE_MAX, OUTPUT_MAX, Records};

const DATA: ContentType = ContentType::ApplicationData;
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
const KEY_UPDATE_ASKING: [u8; 5] = [24, 0, 0, 1, 1];

/// What an end read: its plaintext, and how it stopped.
struct Read {
    data: Vec<u8>,
    error: Option<String>,
}

/// All records of `octets`, given in pieces of `piece` octets.
fn read_in(end: &mut Records, octets: &[u8], piece: usize) -> Read {
    let mut data = Vec::new();
    for octets in octets.chunks(piece) {
        let mut rest = octets;
        loop {
            match end.open() {
                Ok(true) => {
                    data.extend_from_slice(end.plain());
                    end.consume(end.plain().len());
                }
                Ok(false) if rest.is_empty() => break,
                Ok(false) => rest = &rest[end.receive(rest)..],
                Err(error) => return Read { data, error: Some(error.to_string()) },
            }
        }
    }
    Read { data, error: None }
}

fn read(end: &mut Records, octets: &[u8]) -> Read {
    read_in(end, octets, INPUT_MAX)
}

fn output(end: &mut Records) -> Vec<u8> {
    let octets = end.output().to_vec();
    end.sent(octets.len());
    octets
}

fn sealed(end: &mut Records, kind: ContentType, payload: &[u8]) -> Vec<u8> {
    assert!(end.seal(kind, payload).is_ok());
    output(end)
}

fn written(end: &mut Records, data: &[u8]) -> Vec<u8> {
    assert_eq!(end.write(data).expect("a write"), data.len());
    output(end)
}

/// The alert that `end` left for its peer, as the peer reads it.
fn alert_of(end: &mut Records, peer: &mut Records) -> String {
    let octets = output(end);
    read(peer, &octets).error.expect("an alert")
}

fn check_refused(ours: &mut Records, theirs: &mut Records, octets: &[u8], alert: Alert) {
    let read = read(ours, octets);
    let error = read.error.expect("refused");
    assert!(error.contains(&format!("{alert:?}")), "{error}");
    assert!(alert_of(ours, theirs).contains(&format!("{alert:?}")));
    // It moves as any other does.
    let spare = pair(ours.suite()).0;
    *ours = hop(std::mem::replace(ours, spare));
    assert!(ours.is_rx_closed());
    assert_eq!(ours.write(b"x").expect_err("closed").kind(), io::ErrorKind::BrokenPipe);
    assert!(output(ours).is_empty(), "nothing follows a fatal alert");
}

fn tls13() -> impl Iterator<Item = SupportedCipherSuite> {
    suites().into_iter().filter(|suite| suite.tls13().is_some())
}

fn tls12() -> impl Iterator<Item = SupportedCipherSuite> {
    suites().into_iter().filter(|suite| suite.tls13().is_none())
}

#[test]
fn every_suite_carries_data_both_ways_in_any_pieces() {
    assert_eq!((tls13().count(), tls12().count()), (3, 6));
    let long: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
    for suite in suites() {
        let (mut ours, mut theirs) = pair(suite);
        for piece in [1, 3, 17, 1000, INPUT_MAX] {
            for data in long.chunks(32 * 1024) {
                let octets = written(&mut theirs, data);
                assert!(octets.len() <= OUTPUT_MAX);
                let read = read_in(&mut ours, &octets, piece);
                assert!(read.error.is_none() && read.data == data, "{suite:?} in pieces of {piece}");
            }
            let octets = written(&mut ours, b"250 done\r\n");
            assert_eq!(read_in(&mut theirs, &octets, piece).data, b"250 done\r\n");
        }
    }
}

#[test]
fn a_state_taken_anywhere_in_a_record_goes_on() {
    for suite in suites() {
        let (mut ours, mut theirs) = pair(suite);
        let octets = written(&mut theirs, b"a line that is cut in each place\r\n");
        for cut in 0..octets.len() {
            let (mut ours, mut theirs) = pair(suite);
            let octets = written(&mut theirs, b"a line that is cut in each place\r\n");
            assert!(read(&mut ours, &octets[..cut]).data.is_empty());
            let mut ours = hop(ours);
            assert_eq!(read(&mut ours, &octets[cut..]).data, b"a line that is cut in each place\r\n", "{cut}");
        }
        // Opened and not read; half of our answer not sent.
        ours.receive(&octets);
        assert!(ours.open().expect("a record"));
        ours.consume(2);
        ours.write(b"half sent").expect("a write");
        let mut answer = ours.output()[..7].to_vec();
        ours.sent(7);
        let mut ours = hop(hop(ours));
        assert_eq!(ours.plain(), b"line that is cut in each place\r\n");
        answer.extend_from_slice(&output(&mut ours));
        assert_eq!(read(&mut theirs, &answer).data, b"half sent");
    }
}

#[test]
fn a_client_may_update_its_key_and_ask_for_ours() {
    for suite in tls13() {
        let (mut ours, mut theirs) = pair(suite);
        for round in 0..4 {
            let mut octets = sealed(&mut theirs, ContentType::Handshake, &KEY_UPDATE_ASKING);
            theirs.update_sending_key();
            octets.extend_from_slice(&written(&mut theirs, b"under the new key"));
            assert_eq!(read(&mut ours, &octets).data, b"under the new key");
            // The answer is owed across a hand-over, and given before the next data.
            let mut moved = hop(ours);
            let answer = written(&mut moved, b"also new");
            let alone = written(&mut moved, b"once only");
            assert!(answer.len() > alone.len() + 20, "a KeyUpdate stands before the data");
            let read_by_client = read(&mut theirs, &[answer, alone].concat());
            assert_eq!(read_by_client.data, b"also newonce only", "round {round}");
            ours = moved;
        }
    }
}

#[test]
fn a_key_update_may_come_in_parts_but_ends_its_record() {
    for suite in tls13() {
        let (mut ours, mut theirs) = pair(suite);
        for part in KEY_UPDATE {
            let octets = sealed(&mut theirs, ContentType::Handshake, &[part]);
            assert!(read(&mut ours, &octets).error.is_none());
            ours = hop(ours);
        }
        theirs.update_sending_key();
        let octets = written(&mut theirs, b"new key");
        assert_eq!(read(&mut ours, &octets).data, b"new key");

        for (parts, alert) in [
            (vec![&[24, 0, 0, 1, 0, 24][..]], Alert::UnexpectedMessage),
            (vec![&[24, 0, 0, 1, 2][..]], Alert::IllegalParameter),
            (vec![&[24, 0, 0, 2][..]], Alert::UnexpectedMessage),
            (vec![&[1, 0, 0, 1][..]], Alert::UnexpectedMessage),
            (vec![&[][..]], Alert::UnexpectedMessage),
            (vec![&[24, 0][..], &[0, 1, 0, 0][..]], Alert::UnexpectedMessage),
            (vec![&[22, 0, 0, 1, 0][..]], Alert::UnexpectedMessage),
        ] {
            let (mut ours, mut theirs) = pair(suite);
            let octets: Vec<u8> =
                parts.iter().flat_map(|part| sealed(&mut theirs, ContentType::Handshake, part)).collect();
            check_refused(&mut ours, &mut theirs, &octets, alert);
        }
        let (mut ours, mut theirs) = pair(suite);
        let mut octets = sealed(&mut theirs, ContentType::Handshake, &[24, 0]);
        octets.extend_from_slice(&written(&mut theirs, b"data between"));
        check_refused(&mut ours, &mut theirs, &octets, Alert::UnexpectedMessage);
    }
}

#[test]
fn a_key_at_its_limit_is_renewed_in_tls13_and_ends_the_connection_in_tls12() {
    for suite in suites() {
        let (mut ours, mut theirs) = pair(suite);
        let mut written_records = 0;
        let mut heard = Vec::new();
        ours.set_limit(40);
        for number in 0..200_u32 {
            let Ok(_) = ours.write(&number.to_be_bytes()) else { break };
            written_records += 1;
            let octets = output(&mut ours);
            let read = read(&mut theirs, &octets);
            assert!(read.error.is_none());
            heard.extend_from_slice(&read.data);
            if number % 50 == 7 {
                ours = hop(ours);
                ours.set_limit(40);
            }
        }
        let expected: Vec<u8> = (0..written_records).flat_map(u32::to_be_bytes).collect();
        assert_eq!(heard, expected);
        if suite.tls13().is_some() {
            assert_eq!(written_records, 200);
        } else {
            assert!((30..40).contains(&written_records), "{written_records}");
            let octets = output(&mut ours);
            assert!(read(&mut theirs, &octets).error.is_none() && theirs.is_rx_closed(), "a close_notify");
        }
    }
}

#[test]
fn a_tampered_record_is_a_bad_mac() {
    for suite in suites() {
        let octets = written(&mut pair(suite).1, b"MAIL FROM:<a@b.test>\r\n");
        for at in 5..octets.len() {
            let (mut ours, mut theirs) = pair(suite);
            let mut octets = octets.clone();
            octets[at] ^= 1;
            check_refused(&mut ours, &mut theirs, &octets, Alert::BadRecordMac);
        }
    }
}

#[test]
fn a_record_replayed_or_left_out_across_a_hand_over_is_a_bad_mac() {
    for suite in suites() {
        let (mut ours, mut theirs) = pair(suite);
        let first = written(&mut theirs, b"first");
        assert_eq!(read(&mut ours, &first).data, b"first");
        check_refused(&mut hop(ours), &mut theirs, &first, Alert::BadRecordMac);

        let (mut ours, mut theirs) = pair(suite);
        let _lost = written(&mut theirs, b"first");
        let second = written(&mut theirs, b"second");
        check_refused(&mut ours, &mut theirs, &second, Alert::BadRecordMac);
    }
}

#[test]
fn no_record_of_ours_is_sealed_under_a_number_twice() {
    for suite in suites() {
        let (mut ours, mut theirs) = pair(suite);
        let mut all = Vec::new();
        for round in 0..20_u8 {
            all.extend_from_slice(&written(&mut ours, &[round]));
            ours = hop(ours);
        }
        assert_eq!(read(&mut theirs, &all).data, (0..20).collect::<Vec<u8>>());
    }
}

#[test]
fn sizes_are_bounded() {
    for suite in suites() {
        let is_tls13 = suite.tls13().is_some();
        let (mut ours, mut theirs) = pair(suite);
        let octets = sealed(&mut theirs, DATA, &[b'x'; 1 << 14]);
        assert_eq!(read(&mut ours, &octets).data.len(), 1 << 14);
        let octets = sealed(&mut theirs, DATA, &[b'x'; (1 << 14) + 1]);
        check_refused(&mut ours, &mut theirs, &octets, Alert::RecordOverflow);

        // Refused by its header, before the rest is there.
        let (mut ours, mut theirs) = pair(suite);
        let body: u16 = if is_tls13 { (1 << 14) + 257 } else { (1 << 14) + 2049 };
        let header = [23, 3, 3, (body >> 8) as u8, body as u8];
        check_refused(&mut ours, &mut theirs, &header, Alert::RecordOverflow);

        // Too short to hold a tag.
        for body in 0..16 {
            let (mut ours, mut theirs) = pair(suite);
            let octets = [&[23, 3, 3, 0, body][..], &[0; 16][..usize::from(body)]].concat();
            check_refused(&mut ours, &mut theirs, &octets, Alert::BadRecordMac);
        }
    }
}

#[test]
fn padding_is_taken_off_and_counts_against_the_limit() {
    for suite in tls13() {
        let (mut ours, mut theirs) = pair(suite);
        // Sealed as another type, so that type and padding lie in the payload: content, 23, zeros, and a zero as type.
        let zero = ContentType::from(0);
        let padded = sealed(&mut theirs, zero, &[&b"padded"[..], &[23], &[0; 300]].concat());
        assert_eq!(read(&mut ours, &padded).data, b"padded");
        let full = sealed(&mut theirs, zero, &[&b"full"[..], &[23], &[0; (1 << 14) - 5]].concat());
        assert_eq!(read(&mut ours, &full).data, b"full");
        let all_padding = sealed(&mut theirs, zero, &[0; 100]);
        check_refused(&mut ours, &mut theirs, &all_padding, Alert::UnexpectedMessage);
        let (mut ours, mut theirs) = pair(suite);
        let over = sealed(&mut theirs, zero, &[&b"over"[..], &[23], &[0; (1 << 14) - 3]].concat());
        check_refused(&mut ours, &mut theirs, &over, Alert::RecordOverflow);
    }
}

#[test]
fn records_without_data_are_bounded() {
    for suite in suites() {
        let is_tls13 = suite.tls13().is_some();
        let warning: (ContentType, &[u8]) = if is_tls13 {
            (ContentType::Alert, &[1, 90])
        } else {
            (ContentType::Alert, &[1, 112]) // unrecognized_name
        };
        let mut idle = vec![(DATA, &b""[..]), warning];
        if is_tls13 {
            idle.push((ContentType::Handshake, &KEY_UPDATE[..]));
        }
        for (kind, payload) in idle {
            let (mut ours, mut theirs) = pair(suite);
            let send = |theirs: &mut Records| {
                let octets = sealed(theirs, kind, payload);
                if kind == ContentType::Handshake {
                    theirs.update_sending_key();
                }
                octets
            };
            for round in 0..3 {
                for _ in 0..MISUSE_MAX {
                    let octets = send(&mut theirs);
                    assert!(read(&mut ours, &octets).error.is_none());
                }
                if round < 2 {
                    let octets = written(&mut theirs, b"data");
                    assert_eq!(read(&mut ours, &octets).data, b"data");
                }
                ours = hop(ours);
            }
            let octets = send(&mut theirs);
            check_refused(&mut ours, &mut theirs, &octets, Alert::UnexpectedMessage);
        }
    }
}

#[test]
fn a_renegotiation_is_refused_once_and_then_fatal() {
    for suite in tls12() {
        let (mut ours, mut theirs) = pair(suite);
        let hello = [1, 0, 0, 2, 3, 3];
        let octets = sealed(&mut theirs, ContentType::Handshake, &hello);
        assert!(read(&mut ours, &octets).error.is_none());
        let warning = output(&mut ours);
        let mut listener = hop(theirs);
        assert!(read(&mut listener, &warning).error.is_none() && !warning.is_empty(), "a warning, no more");
        let octets =
            [written(&mut listener, b"goes on"), sealed(&mut listener, ContentType::Handshake, &hello)].concat();
        let mut ours = hop(ours);
        check_refused(&mut ours, &mut listener, &octets, Alert::UnexpectedMessage);
    }
    for suite in tls12() {
        let (mut ours, mut theirs) = pair(suite);
        let octets = sealed(&mut theirs, ContentType::Handshake, &[20, 0, 0, 0]);
        check_refused(&mut ours, &mut theirs, &octets, Alert::UnexpectedMessage);
    }
}

#[test]
fn what_has_no_place_after_the_handshake_is_refused() {
    for suite in suites() {
        let is_tls13 = suite.tls13().is_some();
        let change_cipher_spec = [20, 3, 3, 0, 1, 1];
        let (mut ours, mut theirs) = pair(suite);
        let alert = if is_tls13 { Alert::UnexpectedMessage } else { Alert::BadRecordMac };
        check_refused(&mut ours, &mut theirs, &change_cipher_spec, alert);

        let (mut ours, mut theirs) = pair(suite);
        let octets = sealed(&mut theirs, ContentType::ChangeCipherSpec, &[1]);
        check_refused(&mut ours, &mut theirs, &octets, Alert::UnexpectedMessage);

        let (mut ours, mut theirs) = pair(suite);
        check_refused(&mut ours, &mut theirs, &[23, 2, 0, 0, 20], Alert::ProtocolVersion);

        for (payload, alert) in [(&[2][..], Alert::DecodeError), (&[1, 0, 0][..], Alert::DecodeError)] {
            let (mut ours, mut theirs) = pair(suite);
            let octets = sealed(&mut theirs, ContentType::Alert, payload);
            check_refused(&mut ours, &mut theirs, &octets, alert);
        }
    }
}

#[test]
fn a_fatal_alert_ends_the_connection_without_an_answer() {
    for suite in suites() {
        let (mut ours, mut theirs) = pair(suite);
        let octets = sealed(&mut theirs, ContentType::Alert, &[2, 80]);
        assert!(read(&mut ours, &octets).error.is_some_and(|error| error.contains("InternalError")));
        assert!(output(&mut ours).is_empty() && ours.is_rx_closed());
        assert!(ours.write(b"x").is_err());
    }
}

#[test]
fn close_notify_ends_one_direction_and_nothing_behind_it_counts() {
    for suite in suites() {
        let (mut ours, mut theirs) = pair(suite);
        let mut octets = written(&mut theirs, b"QUIT\r\n");
        theirs.close();
        theirs.close();
        assert!(theirs.write(b"more").is_err());
        octets.extend_from_slice(&output(&mut theirs));
        octets.extend_from_slice(b"anything");
        let read_by_us = read(&mut ours, &octets);
        assert!(read_by_us.error.is_none() && read_by_us.data == b"QUIT\r\n" && ours.is_rx_closed());
        // The other direction is open until we close it, in the next process as well.
        let mut ours = hop(ours);
        assert!(ours.is_rx_closed());
        let answer = written(&mut ours, b"221 bye\r\n");
        assert_eq!(read(&mut theirs, &answer).data, b"221 bye\r\n");
        ours.close();
        let octets = output(&mut ours);
        assert!(read(&mut theirs, &octets).error.is_none() && theirs.is_rx_closed());
    }
}

#[test]
fn an_idle_end_holds_no_buffer() {
    for suite in suites() {
        let (mut ours, mut theirs) = pair(suite);
        let octets = written(&mut theirs, b"NOOP\r\n");
        read(&mut ours, &octets);
        ours.write(b"250 OK\r\n").expect("a write");
        output(&mut ours);
        ours.rest();
        assert_eq!(ours.buffers(), (0, 0));
        // A part of a record stays.
        let octets = written(&mut theirs, b"NOOP\r\n");
        assert!(read(&mut ours, &octets[..9]).data.is_empty());
        ours.rest();
        assert_eq!(read(&mut ours, &octets[9..]).data, b"NOOP\r\n");
    }
}

#[test]
fn numbers_at_their_end_are_errors() {
    for suite in suites() {
        let (ours, _) = pair(suite);
        let mut ours = ours.at_sequence(u64::MAX);
        assert!(ours.write(b"x").is_err());
        let read = read(&mut ours, &[&[23, 3, 3, 0, 40][..], &[0; 40]].concat());
        assert!(read.error.is_some());
    }
}
