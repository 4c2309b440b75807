//! SEARCH: every key of RFC 3501 §6.4.4 once, against four messages that differ in all that the keys ask about.

use crate::harness::mail_client::Imap;
use crate::harness::program::Demo;

/// Flags, internal date and text of each message.
const MESSAGES: [(&str, &str, &str); 4] = [
    (
        "\\Seen \\Answered",
        "01-Mar-2024 10:00:00 +0000",
        "From: Anna <anna@example.org>\r\nTo: alice@demo.test\r\nCc: carl@example.org\r\nBcc: blind@example.org\r\n\
         Subject: Apples and pears\r\nDate: Thu, 29 Feb 2024 23:30:00 +0000\r\nX-Colour: red\r\n\r\nFirst text.\r\n",
    ),
    (
        "\\Flagged $Work",
        "15-Jun-2025 23:59:59 +0200",
        "From: Bert <bert@example.org>\r\nTo: bob@demo.test\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\
         Date: Sun, 15 Jun 2025 12:00:00 +0200\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Transfer-Encoding: base64\r\n\r\nw5xiZXJyYXNjaHVuZw==\r\n",
    ),
    (
        "\\Deleted \\Draft",
        "20-Nov-2026 08:00:00 +0000",
        "From: Anna <anna@example.org>\r\nTo: alice@demo.test\r\nSubject: Long one\r\n\
         Date: Fri, 20 Nov 2026 08:00:00 +0000\r\n\r\nneedle in a haystack",
    ),
    ("", "21-Nov-2026 08:00:00 +0000", "From: Dora <dora@example.org>\r\nSubject: last\r\n\r\n\r\n"),
];

/// A key and the messages that it finds.
const CASES: [(&str, &str); 51] = [
    ("ALL", "1 2 3 4"),
    ("2:3", "2 3"),
    ("*", "4"),
    ("UID 1,4", "1 4"),
    ("ANSWERED", "1"),
    ("UNANSWERED", "2 3 4"),
    ("DELETED", "3"),
    ("UNDELETED", "1 2 4"),
    ("DRAFT", "3"),
    ("UNDRAFT", "1 2 4"),
    ("FLAGGED", "2"),
    ("UNFLAGGED", "1 3 4"),
    ("SEEN", "1"),
    ("UNSEEN", "2 3 4"),
    ("KEYWORD $Work", "2"),
    ("KEYWORD $work", "2"),
    ("UNKEYWORD $Work", "1 3 4"),
    ("FROM anna", "1 3"),
    ("FROM bert@EXAMPLE.org", "2"),
    ("TO alice", "1 3"),
    ("CC carl", "1"),
    ("BCC blind", "1"),
    ("SUBJECT \"apples AND\"", "1"),
    ("SUBJECT grüße", "2"),
    ("HEADER X-Colour red", "1"),
    ("HEADER X-Colour \"\"", "1"),
    ("HEADER X-Colour blue", ""),
    ("BODY needle", "3"),
    ("BODY ÜBERRASCHUNG", "2"),
    ("BODY apples", ""),
    ("TEXT apples", "1"),
    ("TEXT needle", "3"),
    ("BEFORE 15-Jun-2025", "1"),
    ("ON 15-Jun-2025", "2"),
    ("SINCE 15-Jun-2025", "2 3 4"),
    ("SENTBEFORE 1-Mar-2024", "1"),
    ("SENTON 29-Feb-2024", "1"),
    ("SENTSINCE 1-Jan-2026", "3"),
    ("LARGER 150", "1 2"),
    ("SMALLER 60", "4"),
    ("NEW", ""),
    ("NOT SEEN", "2 3 4"),
    ("NOT (SEEN ANSWERED)", "2 3 4"),
    ("OR FLAGGED DRAFT", "2 3"),
    ("OR (FROM anna SEEN) (OR FLAGGED 4)", "1 2 4"),
    ("FROM anna UNSEEN", "3"),
    ("OLD", "1 2 3 4"),
    ("RECENT", ""),
    ("NOT NOT SEEN", "1"),
    ("1:* NOT 2", "1 3 4"),
    ("SINCE 1-Jan-2030", ""),
];

#[test]
fn every_search_key_finds_what_its_definition_says() {
    let demo = Demo::start();
    let mut imap = Imap::login(&demo, "alice@demo.test", "demo");
    for (flags, date, text) in MESSAGES {
        imap.append("Archive", flags, date, text);
    }
    assert_eq!(imap.select("Archive"), 4);
    // What is recent depends on who looked first: a second look sees none.
    imap.expect("UNSELECT");
    assert_eq!(imap.select("Archive"), 4);
    let mut wrong = Vec::new();
    for (keys, wanted) in CASES {
        let charset = if keys.is_ascii() { "" } else { "CHARSET UTF-8 " };
        let answer = imap.search(&format!("SEARCH {charset}{keys}"));
        if answer != wanted {
            wrong.push(format!("{keys}: found {answer:?}, wanted {wanted:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(imap.search("UID SEARCH UID 2:3 NOT DELETED"), "2");
}
