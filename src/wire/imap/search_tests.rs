//! Every SEARCH key against one message, and that dear facts are asked for last; apart because the file it tests is long.

use posthouse_mail::FlagSet;

use super::*;
use crate::imap::command::{Command, ParseLimits, parse};

struct Message {
    flags: FlagSet,
    level: Level,
    found: Vec<bool>,
}

impl Message {
    fn known(&self, level: Level) -> Option<()> {
        (self.level >= level).then_some(())
    }
}

/// Number 2, Uid 20, arrived on 2026-03-10, sent on 2026-03-09, 1000 octets, \Seen $Work.
impl MessageFacts for Message {
    fn seq(&self) -> SeqNum {
        SeqNum::new(2).expect("not zero")
    }
    fn uid(&self) -> Uid {
        Uid::new(20).expect("not zero")
    }
    fn has_flag(&self, flag: &Flag) -> bool {
        self.flags.contains(flag)
    }
    fn is_recent(&self) -> bool {
        false
    }
    fn internal_day(&self) -> Option<Date> {
        self.known(Level::Email).map(|()| Date::constant(2026, 3, 10))
    }
    fn sent_day(&self) -> Option<Option<Date>> {
        self.known(Level::Email).map(|()| Some(Date::constant(2026, 3, 9)))
    }
    fn size(&self) -> Option<u64> {
        self.known(Level::Email).map(|()| 1000)
    }
    fn header_contains(&self, field: &str, text: &str) -> Option<bool> {
        let fields =
            [("From", "Alice <alice@demo.test>"), ("To", "bob@demo.test"), ("Subject", "Lunch"), ("X-Id", "7")];
        self.known(Level::Header).map(|()| {
            fields.iter().any(|(name, value)| name.eq_ignore_ascii_case(field) && needle::contains(value, text))
        })
    }
    fn found(&self, needle: usize) -> Option<bool> {
        self.known(Level::Body).and(self.found.get(needle).copied())
    }
}

fn program(keys: &str) -> Program {
    let text = format!("a SEARCH {keys}");
    let limits = ParseLimits { search_depth_max: 50 };
    match parse(text.as_bytes(), limits).expect("a command").command {
        Command::Search(search) => Program::new(&search.key, 3, Uid::new(30)).expect("a program"),
        other => panic!("{other:?}"),
    }
}

fn judge(keys: &str, level: Level) -> Truth {
    let program = program(keys);
    let mut search = needle::NeedleSearch::new(program.needles());
    search.feed(true, "From: Alice <alice@demo.test>\nSubject: Lunch\n");
    search.end_part();
    search.feed(false, "Shall we meet at noon?");
    let flags = ["\\Seen", "$Work"].iter().filter_map(|flag| Flag::parse(flag)).collect();
    program.judge(&Message { flags, level, found: search.found() })
}

#[test]
fn every_key_judges_as_rfc_3501_6_4_4_says() {
    for (keys, matches) in [
        ("ALL", true),
        ("2", true),
        ("1:*", true),
        ("3", false),
        ("ANSWERED", false),
        ("BCC x", false),
        ("BEFORE 10-Mar-2026", false),
        ("BEFORE 11-Mar-2026", true),
        ("BODY NOON", true),
        ("BODY lunch", false),
        ("CC x", false),
        ("DELETED", false),
        ("DRAFT", false),
        ("FLAGGED", false),
        ("FROM ALICE", true),
        ("HEADER X-Id \"\"", true),
        ("HEADER X-None \"\"", false),
        ("HEADER subject lun", true),
        ("KEYWORD $work", true),
        ("KEYWORD $play", false),
        ("LARGER 999", true),
        ("LARGER 1000", false),
        ("NEW", false),
        ("NOT SEEN", false),
        ("OLD", true),
        ("ON 10-Mar-2026", true),
        ("ON 9-Mar-2026", false),
        ("OR SEEN DELETED", true),
        ("OR DRAFT DELETED", false),
        ("RECENT", false),
        ("SEEN", true),
        ("SENTBEFORE 10-Mar-2026", true),
        ("SENTBEFORE 9-Mar-2026", false),
        ("SENTON 9-Mar-2026", true),
        ("SENTSINCE 9-Mar-2026", true),
        ("SENTSINCE 10-Mar-2026", false),
        ("SINCE 10-Mar-2026", true),
        ("SINCE 11-Mar-2026", false),
        ("SMALLER 1001", true),
        ("SMALLER 1000", false),
        ("SUBJECT LUNCH", true),
        ("TEXT lunch", true),
        ("TEXT noon", true),
        ("TEXT never", false),
        ("TO bob", true),
        ("UID 20", true),
        ("UID 21:*", false),
        ("UNANSWERED", true),
        ("UNDELETED", true),
        ("UNDRAFT", true),
        ("UNFLAGGED", true),
        ("UNKEYWORD $work", false),
        ("UNSEEN", false),
        ("(SEEN (UID 20))", true),
        ("SEEN DELETED", false),
        ("NOT (OR DELETED (SEEN TEXT never))", true),
    ] {
        let expect = if matches { Truth::Yes } else { Truth::No };
        assert_eq!(judge(keys, Level::Body), expect, "{keys}");
    }
}

#[test]
fn dear_facts_are_asked_for_only_when_cheap_ones_leave_it_open() {
    for (keys, level, expect) in [
        ("TEXT noon DELETED", Level::Row, Truth::No),
        ("OR TEXT noon SEEN", Level::Row, Truth::Yes),
        ("TEXT noon SEEN", Level::Row, Truth::Needs(Level::Body)),
        ("TEXT noon LARGER 1", Level::Row, Truth::Needs(Level::Email)),
        ("TEXT noon LARGER 1", Level::Email, Truth::Needs(Level::Body)),
        ("TEXT noon LARGER 5000", Level::Email, Truth::No),
        ("NOT FROM alice", Level::Email, Truth::Needs(Level::Header)),
    ] {
        assert_eq!(judge(keys, level), expect, "{keys} at {level:?}");
    }
}

#[test]
fn uids_that_cannot_match_need_not_be_read() {
    for (keys, expect) in [
        ("ALL", Some(0..=u32::MAX)),
        ("UID 7:9", Some(7..=9)),
        ("UID 3,9 UNSEEN", Some(3..=9)),
        ("UID 3:9 (UID 8:20 SEEN)", Some(8..=9)),
        ("UID 1:2 UID 5:9", None),
        ("OR UID 7 SEEN", Some(0..=u32::MAX)),
        ("NOT UID 7", Some(0..=u32::MAX)),
    ] {
        assert_eq!(program(keys).uids(), expect, "{keys}");
    }
}

#[test]
fn a_number_beyond_the_mailbox_is_refused() {
    let key = Key::Sequence(SequenceSet::parse(&mut crate::imap::scan::Scanner::new(b"4")).expect("a set"));
    assert!(Program::new(&key, 3, None).is_err());
    assert!(Program::new(&Key::Not(Box::new(key)), 4, None).is_ok());
}
