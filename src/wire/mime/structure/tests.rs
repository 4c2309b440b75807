//! Tests of the structure scanner: apart for their length only.
#![allow(clippy::unwrap_used)]

use super::*;

/// `type/subtype start..body..end lines` of every part, nested ones in brackets.
fn show(part: &BodyPart) -> String {
    let mut out = format!(
        "{}/{} {}..{}..{} {}",
        part.media_type, part.media_subtype, part.header_start, part.body_start, part.body_end, part.line_count
    );
    if !part.children.is_empty() {
        let children: Vec<_> = part.children.iter().map(show).collect();
        out.push_str(&format!(" [{}]", children.join(", ")));
    }
    out
}

fn parse(message: &[u8]) -> MessageStructure {
    parse_structure(message, message.len() as u64, Limits::default())
}

fn check(message: &str, expect: &str) {
    let structure = parse(message.as_bytes());
    assert_eq!(show(structure.root.as_ref().unwrap()), expect, "{message:?}");
    // However the message is cut into chunks, the result is the same.
    for size in 1..6 {
        let mut builder = StructureBuilder::new(Limits::default());
        message.as_bytes().chunks(size).for_each(|chunk| builder.push(chunk));
        assert_eq!(builder.finish(message.len() as u64), structure, "chunks of {size}: {message:?}");
    }
}

#[test]
fn a_plain_message_is_one_part() {
    check("A: b\r\n\r\nhello\r\n", "text/plain 0..8..15 1");
    check("A: b\r\n\r\nhello", "text/plain 0..8..13 1");
    check("A: b\r\n\r\na\r\n\r\n", "text/plain 0..8..13 2");
    check("A: b\n\na\n", "text/plain 0..6..8 1");
    check("A: b\r\n", "text/plain 0..6..6 0");
    check("A: b", "text/plain 0..4..4 0");
    check("\r\nbody", "text/plain 0..2..6 1");
    check("", "text/plain 0..0..0 0");
    check("no header at all", "text/plain 0..16..16 0");
}

#[test]
fn rfc2046_5_1_1_the_line_break_before_a_boundary_is_not_of_the_part() {
    check(
        "Content-Type: multipart/mixed; boundary=b\r\n\r\npre\r\n--b\r\n\r\none\r\n--b\r\nA: b\r\n\r\ntwo\r\n\r\n--b--\r\nepi\r\n",
        "multipart/mixed 0..45..94 0 [text/plain 55..57..60 1, text/plain 67..75..80 1]",
    );
    check(
        "Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b--",
        "multipart/mixed 0..43..57 0 [text/plain 47..48..51 1]",
    );
    check(
        "Content-Type: multipart/mixed; boundary=b\n\n--b\n--b  \nA: b\n--b--\n",
        "multipart/mixed 0..43..64 0 [text/plain 47..47..47 0, text/plain 53..57..57 0]",
    );
}

#[test]
fn rfc2046_5_1_2_inner_and_outer_boundaries() {
    check(
        "Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: multipart/alternative; boundary=ab\n\n--ab\n\nx\n--ab--\n--a\n\ny\n--a--\n",
        "multipart/mixed 0..43..125 0 [multipart/alternative 47..97..111 0 [text/plain 102..103..104 1], text/plain 116..117..118 1]",
    );
    // The inner one is never closed: the outer boundary ends it.
    check(
        "Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nx\n--a--\n",
        "multipart/mixed 0..43..103 0 [multipart/mixed 47..90..96 0 [text/plain 94..95..96 1]]",
    );
}

#[test]
fn rfc2046_5_2_1_a_message_holds_one_message() {
    let message = "Content-Type: message/rfc822\n\nSubject: in\nFrom: a@b\n\nbody\nmore\n";
    check(message, "message/rfc822 0..30..63 5 [text/plain 30..53..63 2]");
    let root = parse(message.as_bytes()).root.unwrap();
    let envelope = root.inner_envelope.unwrap();
    assert_eq!(envelope.subject.as_deref(), Some(b"in".as_slice()));
    assert_eq!(envelope.from.len(), 1);
}

#[test]
fn rfc2046_5_1_5_parts_of_a_digest_are_messages() {
    check(
        "Content-Type: multipart/digest; boundary=b\n\n--b\n\nSubject: x\n\ny\n--b--\n",
        "multipart/digest 0..44..69 0 [message/rfc822 48..49..62 3 [text/plain 49..61..62 1]]",
    );
}

#[test]
fn truncated_and_malformed_multiparts_still_have_a_child() {
    check(
        "Content-Type: multipart/mixed; boundary=b\n\nbody\n",
        "multipart/mixed 0..43..48 0 [text/plain 43..43..48 1]",
    );
    check("Content-Type: multipart/mixed\n\nbody", "multipart/mixed 0..31..35 0 [text/plain 31..31..35 1]");
    check(
        "Content-Type: multipart/mixed; boundary=b\n\n--b\nA: b\n\nx",
        "multipart/mixed 0..43..54 0 [text/plain 47..53..54 1]",
    );
    check("Content-Type: message/rfc822", "message/rfc822 0..28..28 0 [text/plain 28..28..28 0]");
    check("no colon here\nContent-Type: text/html\n\nx", "text/html 0..39..40 1");
    check("Content-Type: nonsense\n\nx", "text/plain 0..24..25 1");
}

#[test]
fn a_prefix_knows_its_end_from_the_total() {
    let prefix = b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b\n\ntw";
    let structure = parse_structure(prefix, 5000, Limits::default());
    assert!(structure.truncated);
    assert_eq!(
        show(&structure.root.unwrap()),
        "multipart/mixed 0..43..5000 0 [text/plain 47..48..51 1, text/plain 56..57..5000 1]"
    );
}

#[test]
fn parameters_and_disposition_are_kept() {
    let message = b"Content-Type: text/plain; charset=utf-8; name*=utf-8''%c3%a9\nContent-Disposition: Attachment; filename=x.txt\n\
        Content-Transfer-Encoding: BASE64\nContent-ID: <1@x>\nContent-Language: de, en\nContent-Description: d\n\nx\n";
    let root = parse(message).root.unwrap();
    assert_eq!(
        root.parameters[0],
        posthouse_mail::structure::Parameter { name: "charset".into(), value: "utf-8".into() }
    );
    assert_eq!(root.parameters[1].value, "é");
    assert_eq!(root.disposition.as_deref(), Some("attachment"));
    assert_eq!(root.disposition_parameters[0].value, "x.txt");
    assert_eq!(root.transfer_encoding, "base64");
    assert_eq!(root.content_id.as_deref(), Some("<1@x>"));
    assert_eq!(root.languages, ["de", "en"]);
}

#[test]
fn the_summary_of_a_message() {
    let structure =
        parse(b"Subject: Re: hi\nMessage-ID: <1@x>\nReferences: <0@x>\nDate: 1 Jan 1970 00:00:01 +0000\nTo: a@b\n\n");
    assert_eq!(structure.base_subject, "hi");
    assert_eq!(structure.thread_ids, ["1@x", "0@x"]);
    assert_eq!(structure.sent_at, Some(1));
    assert_eq!(structure.envelope.unwrap().to.len(), 1);
    assert!(!structure.truncated);
}

fn depth(part: &BodyPart) -> usize {
    1 + part.children.iter().map(depth).max().unwrap_or(0)
}

fn count(part: &BodyPart) -> usize {
    1 + part.children.iter().map(count).sum::<usize>()
}

#[test]
fn nesting_stops_at_the_depth_limit() {
    let mut message = String::new();
    for i in 0..10_000 {
        message.push_str(&format!("Content-Type: multipart/mixed; boundary=b{i}x\n\n--b{i}x\n"));
    }
    let structure = parse(message.as_bytes());
    assert!(structure.truncated);
    assert_eq!(depth(structure.root.as_ref().unwrap()), 65);
    let nested = "Content-Type: message/rfc822\n\n".repeat(20_000);
    let structure = parse(nested.as_bytes());
    assert!(structure.truncated);
    assert_eq!(depth(structure.root.as_ref().unwrap()), 65);
}

#[test]
fn parts_and_headers_stop_at_their_limits() {
    let message = format!("Content-Type: multipart/mixed; boundary=b\n\n{}", "--b\n\nx\n".repeat(50_000));
    let structure = parse(message.as_bytes());
    assert!(structure.truncated);
    assert_eq!(count(structure.root.as_ref().unwrap()), 10_000);

    let message = format!("Content-Type: text/html\n{}\nbody", "X-Header: y\n".repeat(100_000));
    let structure = parse(message.as_bytes());
    assert!(structure.truncated, "the header is over its limit");
    let root = structure.root.unwrap();
    assert_eq!((root.media_subtype.as_str(), root.body_size()), ("html", 4));
}

#[test]
fn what_is_kept_of_names_is_bounded() {
    let part = format!("--b\nContent-Type: text/plain; name={}\n\nx\n", "y".repeat(10_000));
    let message = format!("Content-Type: multipart/mixed; boundary=b\n\n{}", part.repeat(200));
    let structure = parse(message.as_bytes());
    assert!(structure.truncated);
    let root = structure.root.unwrap();
    assert_eq!(count(&root), 201);
    let kept: usize = root.children.iter().map(header::cost).sum();
    assert!(kept <= Limits::default().retained_octets);
}

#[test]
fn one_line_without_end_is_not_held() {
    let mut builder = StructureBuilder::new(Limits::default());
    builder.push(b"A: b\r\n\r\n");
    for _ in 0..1000 {
        builder.push(&[b'-'; 10_000]);
    }
    assert!(builder.line.prefix.len() <= PREFIX_MAX);
    assert_eq!(show(&builder.finish(0).root.unwrap()), "text/plain 0..8..10000008 1");
}

/// A child lies within its parent's body, and siblings follow one another.
fn assert_nested(part: &BodyPart) {
    assert!(part.header_start <= part.body_start && part.body_start <= part.body_end, "{part:?}");
    let mut from = part.body_start;
    for child in &part.children {
        assert!(child.header_start >= from && child.body_end <= part.body_end, "{part:?}");
        from = child.body_end;
        assert_nested(child);
    }
    assert!(!(part.is_multipart() || part.is_message()) || !part.children.is_empty());
}

#[test]
fn the_shared_suite_of_messages_is_read_whole() {
    let shared = std::env::var_os("POSTHOUSE_SHARED").map_or_else(
        || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        std::path::PathBuf::from,
    );
    let mut read = 0;
    for folder in ["rfc", "legacy", "malformed", "thirdparty"] {
        let Ok(entries) = std::fs::read_dir(shared.join("suites/mime").join(folder)) else {
            continue;
        };
        for path in
            entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "eml"))
        {
            let message = std::fs::read(&path).unwrap();
            let structure = parse(&message);
            assert_nested(structure.root.as_ref().unwrap());
            let mut builder = StructureBuilder::new(Limits::default());
            message.chunks(7).for_each(|chunk| builder.push(chunk));
            assert_eq!(builder.finish(0), structure, "{path:?}");
            read += 1;
        }
    }
    if read == 0 {
        println!("skipped: no suite of messages at {shared:?}");
    }
}

proptest::proptest! {
    #[test]
    fn no_message_panics_and_ranges_nest(lines in proptest::collection::vec(0_usize..14, 0..60), cut in 1_usize..20) {
        const LINES: [&str; 14] = [
            "--a\n", "--a\r\n", "--ab\n", "--a--\n", "--ab--", "\n", "\r\n", "text\r\n", "A: b\n", " folded\n",
            "Content-Type: multipart/mixed; boundary=a\n", "Content-Type: multipart/digest; boundary=ab\n",
            "Content-Type: message/rfc822\r\n", "text",
        ];
        let message: String = lines.iter().map(|i| LINES[*i]).collect();
        let structure = parse(message.as_bytes());
        assert_nested(structure.root.as_ref().unwrap());
        assert_eq!(structure.root.as_ref().unwrap().body_end, message.len() as u64);
        let mut builder = StructureBuilder::new(Limits::default());
        message.as_bytes().chunks(cut).for_each(|chunk| builder.push(chunk));
        assert_eq!(builder.finish(0), structure);
    }

    #[test]
    fn no_octets_panic(message in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
        assert_nested(parse(&message).root.as_ref().unwrap());
    }
}
