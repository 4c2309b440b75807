//! What the frame reader makes of bytes, whole and cut anywhere; apart because the file it tests is long.

use proptest::prelude::*;

use super::*;

const LIMITS: FrameLimits = FrameLimits { line_max: 100, literal_max: 20, literals_total_max: 30, append_max: 50 };

/// Every frame that the input gives, printed; messages are accepted up to the limit.
fn frames(input: &[u8], step: usize) -> Vec<String> {
    let mut reader = FrameReader::new(LIMITS);
    let mut buffer = BytesMut::new();
    let mut out: Vec<String> = Vec::new();
    for piece in input.chunks(step.max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            match reader.next_frame(&mut buffer) {
                Frame::NeedInput => break,
                Frame::Continue => out.push("+".into()),
                Frame::Command(text) => out.push(format!("C {}", text.escape_ascii())),
                Frame::Append(text, head) => {
                    out.push(format!("A {} {}", text.escape_ascii(), head.size));
                    if head.size > LIMITS.append_max {
                        reader.refuse_message();
                    } else if reader.accept_message() {
                        out.push("+".into());
                    }
                }
                Frame::MessageChunk(bytes) => match out.last_mut().and_then(|last| last.strip_prefix("M ")) {
                    Some(so_far) => {
                        let joined = format!("M {so_far}{}", bytes.escape_ascii());
                        out.pop();
                        out.push(joined);
                    }
                    None => out.push(format!("M {}", bytes.escape_ascii())),
                },
                Frame::MessageEnd { clean } => out.push(format!("E {clean}")),
                Frame::Line(text) => out.push(format!("L {}", text.escape_ascii())),
                Frame::Refused(text, error) => {
                    let tag = text.split(|&b| b == b' ').next().unwrap_or_default();
                    out.push(format!("R {} {error:?}", tag.escape_ascii()));
                }
                Frame::Broken(error) => {
                    out.push(format!("B {error:?}"));
                    return out;
                }
            }
        }
    }
    out
}

fn check(input: &str, expect: &[&str]) {
    for step in [1, 2, 3, 7, input.len()] {
        assert_eq!(frames(input.as_bytes(), step), expect, "{input:?} in pieces of {step}");
    }
}

#[test]
fn lines_and_literals_make_commands() {
    check("a NOOP\r\nb NOOP\r\n", &["C a NOOP", "C b NOOP"]);
    check("a NOOP\n\r\n\nb NOOP\r\n", &["C a NOOP", "C b NOOP"]);
    check("a LOGIN {2}\r\nxy {1+}\r\nz\r\n", &["+", "C a LOGIN {2}\\r\\nxy {1+}\\r\\nz"]);
    check("a LOGIN {0}\r\n {0+}\r\n\r\n", &["+", "C a LOGIN {0}\\r\\n {0+}\\r\\n"]);
    check("a LOGIN {2}\r\n\r\n x\r\n", &["+", "C a LOGIN {2}\\r\\n\\r\\n x"]);
    check("a X {y}\r\n", &["C a X {y}"]);
    check("a X {}\r\n", &["C a X {}"]);
}

#[test]
fn an_append_streams_its_message() {
    check("a APPEND x {3}\r\nabc\r\nb NOOP\r\n", &["A a APPEND x {3}\\r\\n 3", "+", "M abc", "E true", "C b NOOP"]);
    check(
        "a append {1+}\r\nx (\\Seen) {3+}\r\nabc\r\n",
        &["A a append {1+}\\r\\nx (\\\\Seen) {3+}\\r\\n 3", "M abc", "E true"],
    );
    check("a APPEND x {2+}\r\nab junk\r\nb NOOP\r\n", &["A a APPEND x {2+}\\r\\n 2", "M ab", "E false", "C b NOOP"]);
    check("a APPEND x {0+}\r\n\r\nb NOOP\r\n", &["A a APPEND x {0+}\\r\\n 0", "E true", "C b NOOP"]);
    check(
        "a APPEND x {2+}\r\nab {3+}\r\nxyz\r\nb NOOP\r\n",
        &["A a APPEND x {2+}\\r\\n 2", "M ab", "E false", "C b NOOP"],
    );
}

#[test]
fn a_refused_message_is_skipped_only_if_it_comes() {
    check("a APPEND x {51}\r\nb NOOP\r\n", &["A a APPEND x {51}\\r\\n 51", "C b NOOP"]);
    let long = format!("a APPEND x {{60+}}\r\n{}\r\nb NOOP\r\n", "m".repeat(60));
    check(&long, &["A a APPEND x {60+}\\r\\n 60", "C b NOOP"]);
    check("a APPEND x {99999+}\r\nm", &["A a APPEND x {99999+}\\r\\n 99999", "B LiteralTooLarge"]);
}

#[test]
fn long_lines_are_refused_and_skipped() {
    let long = format!("tag {}\r\nb NOOP\r\n", "x".repeat(200));
    check(&long, &["R tag LineTooLong", "C b NOOP"]);
    check(&"x".repeat(5000), &["B LineTooLong"]);
    let with_literal = format!("tag {} {{5+}}\r\n12345\r\nb NOOP\r\n", "x".repeat(200));
    check(&with_literal, &["R tag LineTooLong", "C b NOOP"]);
}

#[test]
fn large_literals_are_refused_and_skipped() {
    check("a LOGIN {21}\r\nb NOOP\r\n", &["R a LiteralTooLarge", "C b NOOP"]);
    let sent = format!("a LOGIN {{21+}}\r\n{} x\r\nb NOOP\r\n", "y".repeat(21));
    check(&sent, &["R a LiteralTooLarge", "C b NOOP"]);
    let total = format!("a X {{20+}}\r\n{} {{11+}}\r\n{}\r\nb NOOP\r\n", "y".repeat(20), "z".repeat(11));
    check(&total, &["R a LiteralTooLarge", "C b NOOP"]);
    check("a X {99999999999999999999999}\r\n", &["B LiteralTooLarge"]);
    check("a X {9999999+}\r\n", &["B LiteralTooLarge"]);
}

#[test]
fn a_plain_line_can_be_asked_for() {
    let mut reader = FrameReader::new(LIMITS);
    let mut input = BytesMut::from("DONE\r\na NOOP\r\n");
    reader.expect_line();
    assert_eq!(reader.next_frame(&mut input), Frame::Line(b"DONE".to_vec()));
    assert_eq!(reader.next_frame(&mut input), Frame::Command(b"a NOOP".to_vec()));
    assert!(reader.is_between_commands() && input.is_empty());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_and_cuts_change_nothing(
        words in prop::collection::vec(
            prop::sample::select(vec!["a ", "APPEND ", "x ", "{3}\r\n", "{30+}\r\n", "\r\n", "{", "}", "\0", "zzz", "\"", "{60+}\r\n"]),
            0..40,
        ),
        step in 1usize..9,
    ) {
        let input = words.concat();
        prop_assert_eq!(frames(input.as_bytes(), step), frames(input.as_bytes(), input.len()));
    }

    #[test]
    fn arbitrary_bytes_never_panic(input in prop::collection::vec(any::<u8>(), 0..400), step in 1usize..50) {
        frames(&input, step);
    }
}

#[test]
fn a_command_that_is_put_back_comes_again() {
    let (mut reader, mut input) =
        (FrameReader::new(LIMITS), BytesMut::from(&b"a APPEND x {3}\r\nabc\r\nb NOOP\r\n"[..]));
    for _ in 0..3 {
        let Frame::Append(text, head) = reader.next_frame(&mut input) else { panic!("an APPEND") };
        assert_eq!((head.size, &text[..]), (3, &b"a APPEND x {3}\r\n"[..]));
        assert!(reader.put_back(&text, &mut input) && reader.is_between_commands());
        // As well by a reader that knows nothing of it.
        reader = FrameReader::new(LIMITS);
    }
    assert!(matches!(reader.next_frame(&mut input), Frame::Append(..)));
    assert!(reader.accept_message());
    assert_eq!(reader.next_frame(&mut input), Frame::MessageChunk(Bytes::from_static(b"abc")));
    assert_eq!(reader.next_frame(&mut input), Frame::MessageEnd { clean: true });
    assert_eq!(reader.next_frame(&mut input), Frame::Command(b"b NOOP".to_vec()));
    assert!(!reader.put_back(b"a APPEND {1}\r\nx {3}\r\n", &mut input) && input.is_empty());
}
