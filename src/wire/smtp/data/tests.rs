//! The rules of the data receiver, each at every split of its input.

use super::*;

const LIMITS: DataLimits =
    DataLimits { message_max: 1000, text_line_max: 200, header_max: 500, header_fields_max: 10, received_max: 3 };

/// What became of an input: the message or the fault, and the octets behind its end. `None`: no end was found.
type Seen = Option<(Result<Vec<u8>, DataFault>, Vec<u8>)>;

fn receive(pieces: &[&[u8]], limits: DataLimits) -> Seen {
    let mut receiver = DataReceiver::new(limits);
    let mut message = Vec::new();
    for (i, piece) in pieces.iter().enumerate() {
        let before = message.len();
        let progress = receiver.receive(piece, &mut message);
        assert!(message.len() - before <= piece.len() + 2, "output is bounded by the input");
        if progress.ended {
            let mut rest = piece[progress.consumed..].to_vec();
            pieces[i + 1..].iter().for_each(|piece| rest.extend_from_slice(piece));
            let result = receiver.finish().map(|size| {
                assert_eq!(size, message.len() as u64, "the size is that of the message");
                message
            });
            return Some((result, rest));
        }
        assert_eq!(progress.consumed, piece.len(), "without an end everything is consumed");
    }
    None
}

/// Receives whole, octet by octet, and cut in two at every place; all must agree.
fn receive_every_way(input: &[u8], limits: DataLimits) -> Seen {
    let whole = receive(&[input], limits);
    let single: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(receive(&single, limits), whole, "octet by octet: {:?}", String::from_utf8_lossy(input));
    for cut in 0..=input.len() {
        let (a, b) = input.split_at(cut);
        assert_eq!(receive(&[a, b], limits), whole, "cut at {cut}: {:?}", String::from_utf8_lossy(input));
    }
    whole
}

fn accepts(input: &str, message: &str, rest: &str) {
    let expect = Some((Ok(message.as_bytes().to_vec()), rest.as_bytes().to_vec()));
    assert_eq!(receive_every_way(input.as_bytes(), LIMITS), expect, "{input:?}");
}

fn refuses(input: &str, fault: DataFault, rest: &str) {
    let expect = Some((Err(fault), rest.as_bytes().to_vec()));
    assert_eq!(receive_every_way(input.as_bytes(), LIMITS), expect, "{input:?}");
}

#[test]
fn rfc5321_4_1_1_4_data_ends_at_a_line_with_a_dot() {
    accepts("a: b\r\n\r\nhi\r\n.\r\n", "a: b\r\n\r\nhi\r\n", "");
    accepts(".\r\n", "", "");
    accepts("\r\n.\r\nQUIT\r\n", "\r\n", "QUIT\r\n");
    accepts("hi\r\n.\r\n.\r\n", "hi\r\n", ".\r\n");
    accepts("a.\r\n.\r\n", "a.\r\n", "");
}

#[test]
fn rfc5321_4_5_2_stuffed_dots_are_taken_out() {
    accepts("..\r\n.\r\n", ".\r\n", "");
    accepts("...a\r\n..b.\r\n.c\r\n.\r\n", "..a\r\n.b.\r\nc\r\n", "");
    accepts("a\r\n.. \r\n. \r\n.\r\n", "a\r\n. \r\n \r\n", "");
}

#[test]
fn nothing_but_crlf_dot_crlf_ends_the_data() {
    for false_end in [
        "\n.\n",
        "\n.\r\n",
        "\r\n.\n",
        "\r.\r",
        "\r.\r\n",
        "\r\n.\r",
        "\n.\r",
        "\r.\n",
        "\r\n.\r\r\n",
        "\n\n.\n\n",
        "\r\r\n.\r\r\n",
        "\r\n.\0\r\n",
        "\r\n\0.\r\n",
        "\r\n .\r\n",
        "\r\n. \r\n",
        "\n.\n\r\n",
    ] {
        let input = format!("a{false_end}MAIL FROM:<evil@x.org>\r\n.\r\nQUIT\r\n");
        let seen = receive_every_way(input.as_bytes(), LIMITS).expect("the real end is found");
        assert_eq!(seen.1, b"QUIT\r\n", "{false_end:?} hides nothing");
        let has_bare = false_end.replace("\r\n", "").contains(['\r', '\n']);
        assert_eq!(seen.0.err(), has_bare.then_some(DataFault::BareLineEnd), "{false_end:?}");
    }
}

#[test]
fn a_bare_cr_or_lf_refuses_the_message_and_keeps_the_dialogue_in_step() {
    refuses("a\nb\r\n.\r\nNOOP\r\n", DataFault::BareLineEnd, "NOOP\r\n");
    refuses("a\rb\r\n.\r\nNOOP\r\n", DataFault::BareLineEnd, "NOOP\r\n");
    refuses("a\r\r\n.\r\n", DataFault::BareLineEnd, "");
    refuses("\n.\r\n\r\n.\r\n", DataFault::BareLineEnd, "");
    refuses(".\r.\r\n.\r\n", DataFault::BareLineEnd, "");
    refuses(".\r\r\n.\r\n", DataFault::BareLineEnd, "");
    refuses(".\n\r\n.\r\n", DataFault::BareLineEnd, "");
}

#[test]
fn the_message_and_its_lines_have_a_largest_size() {
    let line = format!("{}\r\n", "x".repeat(98));
    accepts(&format!("\r\n{}xxxxxx\r\n.\r\n", line.repeat(9)), &format!("\r\n{}xxxxxx\r\n", line.repeat(9)), "");
    refuses(&format!("\r\n{}.\r\nNOOP\r\n", line.repeat(10)), DataFault::TooLarge, "NOOP\r\n");
    let longest = "y".repeat(198);
    accepts(&format!("\r\n{longest}\r\n.\r\n"), &format!("\r\n{longest}\r\n"), "");
    refuses(&format!("\r\n{longest}y\r\n.\r\n"), DataFault::LineTooLong, "");
}

#[test]
fn the_header_has_a_largest_size_and_number_of_fields() {
    let field = format!("x: {}\r\n", "y".repeat(95));
    accepts(&format!("{}\r\n.\r\n", field.repeat(4)), &format!("{}\r\n", field.repeat(4)), "");
    refuses(&format!("{}\r\n.\r\n", field.repeat(5)), DataFault::HeaderTooLarge, "");
    accepts(
        &format!("{}\r\n{}.\r\n", "a: b\r\n c\r\n".repeat(10), "d: e\r\n".repeat(20)),
        &format!("{}\r\n{}", "a: b\r\n c\r\n".repeat(10), "d: e\r\n".repeat(20)),
        "",
    );
    refuses(&format!("{}\r\n.\r\n", "a: b\r\n".repeat(11)), DataFault::TooManyFields, "");
}

#[test]
fn rfc5321_6_3_too_many_received_fields_are_a_loop() {
    accepts(&format!("{}\r\n.\r\n", "Received: x\r\n".repeat(3)), &format!("{}\r\n", "Received: x\r\n".repeat(3)), "");
    refuses(&format!("{}\r\n.\r\n", "received :x\r\n".repeat(4)), DataFault::Loop, "");
    accepts(
        &format!("{}\r\n.\r\n", "Received-SPF: x\r\n".repeat(4)),
        &format!("{}\r\n", "Received-SPF: x\r\n".repeat(4)),
        "",
    );
    let in_body = format!("\r\n{}", "Received: x\r\n".repeat(5));
    accepts(&format!("{in_body}.\r\n"), &in_body, "");
}

#[test]
fn data_without_an_end_is_no_message() {
    for input in ["", "a", "a\r\n", "a\r\n.", "a\r\n.\r", "a\n.\n", "a\r\n.\r\r\n"] {
        assert_eq!(receive_every_way(input.as_bytes(), LIMITS), None, "{input:?}");
    }
}

/// The rules of RFC 5321 said in the plainest way, for comparison.
fn by_the_book(input: &[u8]) -> Seen {
    let end = if input.starts_with(b".\r\n") {
        0
    } else {
        input.windows(5).position(|w| w == b"\r\n.\r\n").map(|at| at + 2)?
    };
    let text = &input[..end];
    let bare = (0..text.len()).any(|i| match text[i] {
        b'\r' => text.get(i + 1) != Some(&b'\n'),
        b'\n' => i == 0 || text[i - 1] != b'\r',
        _ => false,
    });
    let rest = input[end + 3..].to_vec();
    if bare {
        return Some((Err(DataFault::BareLineEnd), rest));
    }
    let mut message = Vec::new();
    let mut start = true;
    for (i, byte) in text.iter().enumerate() {
        if !(start && *byte == b'.') {
            message.push(*byte);
        }
        start = *byte == b'\n' && i > 0;
    }
    Some((Ok(message), rest))
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2000))]

    #[test]
    fn any_chunking_gives_what_the_book_says(
        input in proptest::collection::vec(proptest::sample::select(b"\r\r\n\n..a".to_vec()), 0..60),
        step in 1usize..8,
    ) {
        let wide = DataLimits { message_max: u64::MAX, text_line_max: usize::MAX, header_max: usize::MAX, header_fields_max: usize::MAX, received_max: usize::MAX };
        let pieces: Vec<&[u8]> = input.chunks(step).collect();
        proptest::prop_assert_eq!(receive(&pieces, wide), by_the_book(&input));
    }

    #[test]
    fn limits_hold_at_any_chunking(
        lines in proptest::collection::vec("[a.: ]{0,12}", 0..40),
        step in 1usize..30,
    ) {
        let tight = DataLimits { message_max: 150, text_line_max: 12, header_max: 60, header_fields_max: 6, received_max: 2 };
        let input = lines.iter().map(|line| format!("{line}\r\n")).chain(["\r\n.\r\n".to_owned()]).collect::<String>();
        let pieces: Vec<&[u8]> = input.as_bytes().chunks(step).collect();
        proptest::prop_assert_eq!(receive(&pieces, tight), receive(&[input.as_bytes()], tight));
    }
}
