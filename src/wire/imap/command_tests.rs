//! Every command's grammar as data: what is read, and what is refused; apart because the table is long.

use proptest::prelude::*;

use super::*;

const LIMITS: ParseLimits = ParseLimits { search_depth_max: 50 };

/// `Ok` with the command printed, or the error.
fn read(text: &str) -> Result<String, ParseError> {
    parse(text.as_bytes(), LIMITS).map(|tagged| format!("{:?}", tagged.command)).map_err(|unreadable| unreadable.error)
}

/// Each part of `expect` stands in the printed command; no part: the command is refused.
fn check(text: &str, expect: &[&str]) {
    match read(&format!("a1 {text}")) {
        Ok(printed) => {
            assert!(!expect.is_empty(), "{text:?} should be refused, is {printed}");
            for part in expect {
                assert!(printed.contains(part), "{text:?}: no {part:?} in {printed}");
            }
        }
        Err(error) => assert!(expect.is_empty(), "{text:?}: {error}"),
    }
}

#[test]
fn commands_without_arguments() {
    for (text, expect) in [
        ("CAPABILITY", "Capability"),
        ("noop", "Noop"),
        ("LOGOUT", "Logout"),
        ("STARTTLS", "StartTls"),
        ("NAMESPACE", "Namespace"),
        ("CHECK", "Check"),
        ("CLOSE", "Close"),
        ("UNSELECT", "Unselect"),
        ("EXPUNGE", "Expunge(None)"),
        ("IDLE", "Idle"),
    ] {
        check(text, &[expect]);
        check(&format!("{text} x"), &[]);
        check(&format!("{text} "), &[]);
    }
}

#[test]
fn logging_in() {
    check("LOGIN alice secret", &["user: \"alice\"", "(secret)"]);
    check("LOGIN \"al ice\" {6}\r\nse\"ret", &["user: \"al ice\""]);
    check("LOGIN alice", &[]);
    check("LOGIN alice a b", &[]);
    check("AUTHENTICATE plain", &["\"plain\"", "None"]);
    check("AUTHENTICATE PLAIN AGEAYg==", &["Some((secret))"]);
    check("AUTHENTICATE PLAIN =", &["Some((secret))"]);
    check("AUTHENTICATE PLAIN a b", &[]);
    check("ID NIL", &["Id([])"]);
    check("ID (\"name\" \"mutt\" \"os\" NIL)", &["(\"name\", Some(\"mutt\"))", "(\"os\", None)"]);
    check("ID (\"name\")", &[]);
    check("ENABLE condstore X-FOO", &["\"CONDSTORE\", \"X-FOO\""]);
    check("ENABLE", &[]);
}

#[test]
fn mailbox_commands() {
    check("SELECT inbox", &["\"INBOX\"", "read_only: false"]);
    check("EXAMINE \"Sent Mail\"", &["\"Sent Mail\"", "read_only: true"]);
    check("SELECT {5}\r\nINBOX", &["\"INBOX\""]);
    check("SELECT", &[]);
    check("SELECT a b", &[]);
    check("CREATE Entw&APw-rfe/", &["\"Entwürfe/\""]);
    check("CREATE Keep (USE (\\Archive \\Flagged))", &["[Some(Archive), None]"]);
    check("CREATE Keep (USE \\Archive)", &[]);
    check("DELETE a", &["Delete"]);
    check("RENAME a b", &["from", "to"]);
    check("RENAME a", &[]);
    check("SUBSCRIBE a", &["on: true"]);
    check("UNSUBSCRIBE a", &["on: false"]);
    check("STATUS a (MESSAGES uidnext)", &["[Messages, UidNext]"]);
    check("STATUS a (RECENT UIDVALIDITY UNSEEN)", &["[Recent, UidValidity, Unseen]"]);
    check("STATUS a ()", &[]);
    check("STATUS a (FOO)", &[]);
    check("STATUS a MESSAGES", &[]);
    check("APPEND INBOX hello", &[]);
    check("APPEND INBOX {5}\r\nhello", &[]);
}

#[test]
fn listing() {
    check("LIST \"\" *", &["patterns: Some", "extended: false"]);
    check("LIST \"\" \"\"", &["patterns: None"]);
    check("LIST a/ %", &["ListPattern(['a', '/', '%'])"]);
    check("LSUB \"\" %", &["shows_parents: true"]);
    check("LIST (SUBSCRIBED) \"\" (a* b%)", &["subscribed: true", "'b'"]);
    check("LIST (SPECIAL-USE REMOTE) \"\" *", &["special_use: true", "remote: true"]);
    check("LIST () \"\" * RETURN (CHILDREN SUBSCRIBED SPECIAL-USE)", &["children: true"]);
    check("LIST \"\" * RETURN (STATUS (MESSAGES))", &["status: [Messages]"]);
    check("LIST (SUBSCRIBED RECURSIVEMATCH) \"\" *", &["recursive_match: true"]);
    check("LIST (RECURSIVEMATCH) \"\" *", &[]);
    check("LIST (FOO) \"\" *", &[]);
    check("LIST \"\" * RETURN (FOO)", &[]);
    check("LIST \"\"", &[]);
}

#[test]
fn fetching() {
    check("FETCH 1:2,* FLAGS", &["Sequence", "[Flags]"]);
    check("FETCH 1 all", &["[Flags, InternalDate, Rfc822Size, Envelope]"]);
    check("FETCH 1 FAST", &["[Flags, InternalDate, Rfc822Size]"]);
    check("FETCH 1 FULL", &["Envelope, Body]"]);
    check("FETCH 1 (UID BODY BODYSTRUCTURE)", &["[Uid, Body, BodyStructure]"]);
    check("FETCH 1 (FLAGS FLAGS)", &["items: [Flags]"]);
    check("UID FETCH 1 FLAGS", &["kind: Uid", "[Uid, Flags]"]);
    check("UID FETCH 1 (FLAGS UID)", &["[Uid, Flags]"]);
    check("FETCH 1 BODY[]", &["path: [], text: None", "peek: false"]);
    check("FETCH 1 BODY.PEEK[1.2.MIME]<5.10>", &["[1, 2]", "Mime", "first: 5, count: 10", "peek: true"]);
    check("FETCH 1 (BODY.PEEK[HEADER.FIELDS (From To)])", &["Only([\"From\", \"To\"])"]);
    check("FETCH 1 BODY[2.HEADER.FIELDS.NOT (X)]", &["Except([\"X\"])"]);
    check("FETCH 1 BODY[TEXT]", &["Text"]);
    check("FETCH 1 RFC822", &["alias: Some(\"RFC822\")", "peek: false"]);
    check("FETCH 1 RFC822.HEADER", &["Header", "peek: true"]);
    check("FETCH 1 RFC822.TEXT", &["Text", "peek: false"]);
    check("FETCH 1 RFC822.SIZE", &["Rfc822Size"]);
    check("FETCH 1 ()", &[]);
    check("FETCH 1 (ALL)", &[]);
    check("FETCH 1 BODY[]<0.0>", &[]);
    check("FETCH 1 BODY[", &[]);
    check("FETCH 1 BODY.PEEK", &[]);
    check("FETCH 0 FLAGS", &[]);
    check("FETCH 1", &[]);
}

#[test]
fn changing_messages() {
    check("STORE 1 +FLAGS (\\Deleted)", &["Add", "silent: false", "\\Deleted"]);
    check("STORE 1 -FLAGS.SILENT \\Seen $X", &["Remove", "silent: true", "$X"]);
    check("UID STORE 1:* flags ()", &["Replace", "flags: {}", "kind: Uid"]);
    check("STORE 1 +-FLAGS ()", &[]);
    check("STORE 1 FLAGS (\\Recent)", &[]);
    check("STORE 1 FLAGS", &[]);
    check("COPY 1 x", &["remove: false"]);
    check("UID MOVE 1:3 x", &["remove: true", "Uid"]);
    check("MOVE 1", &[]);
    check("UID EXPUNGE 1:5", &["Expunge(Some"]);
    check("UID EXPUNGE", &[]);
    check("UID NOOP", &[]);
    check("UID UID FETCH 1 FLAGS", &[]);
}

#[test]
fn searching() {
    for (text, expect) in [
        ("ALL", "All"),
        ("1:3,5", "Sequence("),
        ("*", "Sequence("),
        ("UID 4", "key: Uid("),
        ("ANSWERED", "Flag(\\Answered)"),
        ("UNDELETED", "Not(Flag(\\Deleted))"),
        ("NEW", "And([Recent, Not(Flag(\\Seen))])"),
        ("OLD", "Not(Recent)"),
        ("KEYWORD $Work", "Flag($Work)"),
        ("UNKEYWORD $Work", "Not(Flag($Work))"),
        ("SENTSINCE 1-Feb-1994", "field: Sent, test: Since, day: 1994-02-01"),
        ("BEFORE \"01-Feb-1994\"", "field: Internal, test: Before"),
        ("LARGER 5000000000", "Larger(5000000000)"),
        ("HEADER Message-ID <x@y>", "field: \"Message-ID\", text: \"<x@y>\""),
        ("FROM \"a b\"", "field: \"FROM\", text: \"a b\""),
        ("BODY {2}\r\nü", "Body(\"ü\")"),
        ("CHARSET utf-8 TEXT x", "Text(\"x\")"),
        ("CHARSET \"US-ASCII\" ALL", "All"),
        ("NOT SEEN", "Not(Flag(\\Seen))"),
        ("OR SEEN (DRAFT 1)", "Or(Flag(\\Seen), And("),
        ("SEEN DRAFT", "And([Flag(\\Seen), Flag(\\Draft)])"),
        ("((SEEN))", "key: Flag(\\Seen)"),
    ] {
        check(&format!("SEARCH {text}"), &[expect]);
        check(&format!("UID SEARCH {text}"), &["kind: Uid"]);
    }
    for text in [
        "",
        "()",
        "FOO",
        "NOT",
        "OR SEEN",
        "SEEN)",
        "(SEEN",
        "SEEN  DRAFT",
        "SINCE yesterday",
        "LARGER x",
        "KEYWORD \\Seen",
    ] {
        check(&format!("SEARCH {text}"), &[]);
    }
    assert_eq!(read("a SEARCH CHARSET latin-1 TEXT x"), Err(ParseError::Charset));
    assert!(matches!(read("a SEARCH CHARSET latin-1 FOO"), Err(ParseError::Expected(_))));
}

#[test]
fn deep_nesting_is_refused() {
    for (open, close) in [("(", ")"), ("NOT ", ""), ("OR SEEN ", "")] {
        for (depth, refused) in [(40, false), (60, true), (100_000, true)] {
            let text = format!("a SEARCH {}SEEN{}", open.repeat(depth), close.repeat(depth));
            assert_eq!(read(&text).is_err(), refused, "{open:?} × {depth}");
        }
    }
    let wide = format!("a SEARCH {}", ["SEEN"; 2000].join(" "));
    assert_eq!(read(&wide), Err(ParseError::TooMany("search keys")));
}

#[test]
fn a_command_without_tag_or_verb_is_refused() {
    for text in ["", " ", "a1", "a1 ", "a1 FROB", "+ NOOP", "(a) NOOP", " NOOP", "a1  NOOP", "a\u{0} NOOP"] {
        assert!(read(text).is_err(), "{text:?}");
    }
    let unreadable = parse(b"a1 FROB x", LIMITS).expect_err("unknown");
    assert_eq!(unreadable.error, ParseError::UnknownCommand);
    assert_eq!(unreadable.tag.as_ref().map(Tag::as_str), Some("a1"));
    assert!(read(&format!("{} NOOP", "t".repeat(TAG_MAX + 1))).is_err());
    assert!(read(&format!("{} NOOP", "t".repeat(TAG_MAX))).is_ok());
}

#[test]
fn a_name_that_is_no_utf_7_is_no_syntax_error() {
    assert_eq!(read("a SELECT a&b"), Err(ParseError::MailboxName));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(input in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&input, LIMITS);
    }

    #[test]
    fn arbitrary_words_never_panic(words in prop::collection::vec(prop::sample::select(vec![
        "a ", "UID ", "FETCH ", "SEARCH ", "STORE ", "LIST ", "1:*", ",", " ", "(", ")", "BODY[", "]", "<", "0.", "1>", "\"", "\\",
        "HEADER.FIELDS ", "OR ", "NOT ", "{3}\r\n", "abc", "*", "%", "&", "-", "+FLAGS ", "\\Seen", "1-Feb-2000", "NIL", "APPEND ",
    ]), 0..20)) {
        let _ = parse(words.concat().as_bytes(), LIMITS);
    }
}
