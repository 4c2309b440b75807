//! Sessions against a real store over loopback, without a node: every command, two clients at once, limits.

mod harness;
mod hops;
mod sleep;

use std::time::Duration;

use harness::{Client, Server};
use posthouse_conf::Size;

const MESSAGE: &str = "From: Alice <alice@demo.test>\r\nTo: Bob <bob@demo.test>\r\nSubject: Lunch\r\n\
    Date: Mon, 9 Mar 2026 23:30:00 -0800\r\nMessage-ID: <1@demo.test>\r\n\r\nShall we meet at noon?\r\n";

/// A mailbox with the messages given, by a client that has it open.
async fn open(server: &Server, messages: &[&str]) -> Client {
    let mut client = server.logged_in().await;
    for message in messages {
        client.append("INBOX", "", message).await;
    }
    client.ok("SELECT INBOX").await;
    client
}

#[tokio::test]
async fn a_session_greets_logs_in_and_says_goodbye() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    assert!(client.line().await.starts_with("* OK [CAPABILITY IMAP4rev1 "));
    assert!(client.ok("CAPABILITY").await[0].contains("AUTH=PLAIN"));
    assert!(client.status("SELECT INBOX").await.starts_with("BAD "));
    assert!(client.status("LOGIN alice wrong").await.starts_with("NO [AUTHENTICATIONFAILED]"));
    assert!(client.status("STARTTLS").await.starts_with("NO "));
    assert!(client.status("AUTHENTICATE CRAM-MD5").await.starts_with("NO "));
    // RFC 4959: initial response; \0alice\0pw
    assert!(client.status("AUTHENTICATE PLAIN AGFsaWNlAHB3").await.starts_with("OK [CAPABILITY"));
    assert!(client.status("LOGIN alice pw").await.starts_with("BAD "));
    assert_eq!(client.ok("NAMESPACE").await[0], "* NAMESPACE ((\"\" \"/\")) NIL NIL");
    assert!(client.ok("ID NIL").await[0].contains("Posthouse"));
    let goodbye = client.ok("LOGOUT").await;
    assert!(goodbye[0].starts_with("* BYE "));
    assert_eq!(client.line().await, "");
}

#[tokio::test]
async fn authenticate_asks_for_the_response_and_can_be_cancelled() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.line().await;
    client.send("a AUTHENTICATE PLAIN\r\n").await;
    assert_eq!(client.line().await, "+ ");
    client.send("*\r\n").await;
    assert!(client.line().await.starts_with("a BAD "));
    client.send("b AUTHENTICATE PLAIN\r\n").await;
    client.line().await;
    client.send("AGFsaWNlAHB3\r\n").await;
    assert!(client.line().await.starts_with("b OK "));
}

#[tokio::test]
async fn select_tells_the_state_of_the_mailbox() {
    let server = Server::start().await;
    let mut client = server.logged_in().await;
    client.append("INBOX", "(\\Seen $Work) ", MESSAGE).await;
    client.append("INBOX", "", MESSAGE).await;
    let told = client.ok("SELECT inbox").await.join("\n");
    for expect in [
        "* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft $Work)",
        "* 2 EXISTS",
        "* 0 RECENT",
        "* OK [UNSEEN 2]",
        "* OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft $Work \\*)]",
        "* OK [UIDVALIDITY ",
        "* OK [UIDNEXT 3]",
        "OK [READ-WRITE]",
    ] {
        assert!(told.contains(expect), "{expect} in {told}");
    }
    assert!(client.status("EXAMINE INBOX").await.starts_with("OK [READ-ONLY]"));
    assert!(client.status("STORE 1 +FLAGS (\\Seen)").await.starts_with("NO "));
    assert!(client.status("EXPUNGE").await.starts_with("NO "));
    assert!(client.status("SELECT nowhere").await.starts_with("NO [NONEXISTENT]"));
    assert!(client.status("FETCH 1 FLAGS").await.starts_with("BAD "), "a failed SELECT leaves nothing open");
}

#[tokio::test]
async fn fetch_gives_every_item() {
    let server = Server::start().await;
    let mut client = server.logged_in().await;
    client.append("INBOX", "(\\Flagged) \"10-Mar-2026 10:00:00 +0100\" ", MESSAGE).await;
    client.ok("SELECT INBOX").await;
    let all = client.ok("FETCH 1 (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE)").await.join("\n");
    for expect in [
        "* 1 FETCH (UID 1 FLAGS (\\Flagged) INTERNALDATE \"10-Mar-2026 09:00:00 +0000\"",
        &format!("RFC822.SIZE {}", MESSAGE.len()),
        "ENVELOPE (\"Mon, 9 Mar 2026 23:30:00 -0800\" \"Lunch\" ((\"Alice\" NIL \"alice\" \"demo.test\"))",
        "BODYSTRUCTURE (\"text\" \"plain\"",
    ] {
        assert!(all.contains(expect), "{expect} in {all}");
    }
    let header = client.ok("FETCH 1 BODY.PEEK[HEADER.FIELDS (Subject)]").await.join("\r\n");
    assert!(header.contains("BODY[HEADER.FIELDS (Subject)] {18}\r\nSubject: Lunch\r\n\r\n)"), "{header}");
    let partial = client.ok("FETCH 1 BODY.PEEK[TEXT]<6.7>").await.join("\r\n");
    assert!(partial.contains("BODY[TEXT]<6> {7}\r\nwe meet)"), "{partial}");
    assert!(client.ok("FETCH 1 BODY.PEEK[7]").await[0].contains("BODY[7] NIL"));
    assert!(client.ok("FETCH 1 FLAGS").await[0].contains("(\\Flagged)"), "PEEK leaves \\Seen alone");
    let whole = client.ok("UID FETCH 1 BODY[]").await.join("\r\n");
    assert!(whole.contains(&format!("BODY[] {{{}}}\r\n{MESSAGE}", MESSAGE.len())), "{whole}");
    assert!(whole.contains("FLAGS (\\Seen \\Flagged)"), "{whole}");
    let again = client.ok("FETCH 1 RFC822.TEXT").await.join("\r\n");
    assert!(again.contains("RFC822.TEXT {24}\r\nShall we meet at noon?\r\n)"), "{again}");
    assert!(client.status("FETCH 2 FLAGS").await.starts_with("BAD "));
    assert_eq!(client.ok("UID FETCH 7 FLAGS").await.len(), 1);
}

#[tokio::test]
async fn a_large_message_streams_both_ways() {
    let server = Server::start().await;
    let mut client = server.logged_in().await;
    let line = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n";
    let message = format!("Subject: big\r\n\r\n{}", line.repeat(40_000));
    client.append("INBOX", "", &message).await;
    client.ok("SELECT INBOX").await;
    let whole = client.ok("FETCH 1 BODY[]").await.join("\r\n");
    assert!(whole.contains(&message));
    let needle = client.ok("SEARCH TEXT 0123456789abcdef0123456789abcd").await;
    assert_eq!(needle[0], "* SEARCH 1");
}

#[tokio::test]
async fn every_search_key_finds_what_it_says() {
    let server = Server::start().await;
    let mut client = server.logged_in().await;
    let second = "From: =?utf-8?q?J=C3=BCrgen?= <j@x.test>\r\nCc: carol@demo.test\r\nBcc: dave@demo.test\r\n\
        Subject: Report\r\nDate: Thu, 2 Apr 2026 10:00:00 +0000\r\nX-Id: 7\r\nMIME-Version: 1.0\r\n\
        Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\nR3LDvMOfZSBhdXMgS8O2bG4=\r\n";
    client.append("INBOX", "(\\Seen \\Answered $Work) \"10-Mar-2026 10:00:00 +0000\" ", MESSAGE).await;
    client.append("INBOX", "(\\Flagged \\Draft) \"12-Mar-2026 10:00:00 +0000\" ", second).await;
    client.append("INBOX", "(\\Deleted) \"14-Mar-2026 10:00:00 +0000\" ", "Subject: third\r\n\r\nnothing\r\n").await;
    client.ok("SELECT INBOX").await;
    for (keys, expect) in [
        ("ALL", "1 2 3"),
        ("2:*", "2 3"),
        ("UID 1,3", "1 3"),
        ("ANSWERED", "1"),
        ("BCC dave", "2"),
        ("BEFORE 12-Mar-2026", "1"),
        ("BODY noon", "1"),
        ("BODY Lunch", ""),
        ("CC carol", "2"),
        ("DELETED", "3"),
        ("DRAFT", "2"),
        ("FLAGGED", "2"),
        ("FROM alice", "1"),
        ("HEADER X-Id \"\"", "2"),
        ("HEADER Message-ID <1@demo.test>", "1"),
        ("KEYWORD $work", "1"),
        ("LARGER 200", "2"),
        ("NEW", ""),
        ("NOT ANSWERED", "2 3"),
        ("OLD", "1 2 3"),
        ("ON 12-Mar-2026", "2"),
        ("OR ANSWERED FLAGGED", "1 2"),
        ("RECENT", ""),
        ("SEEN", "1"),
        ("SENTBEFORE 10-Mar-2026", "1"),
        ("SENTON 9-Mar-2026", "1"),
        ("SENTSINCE 10-Mar-2026", "2"),
        ("SINCE 12-Mar-2026", "2 3"),
        ("SMALLER 50", "3"),
        ("SUBJECT report", "2"),
        ("TEXT lunch", "1"),
        ("TO bob", "1"),
        ("UNANSWERED", "2 3"),
        ("UNDELETED", "1 2"),
        ("UNDRAFT", "1 3"),
        ("UNFLAGGED", "1 3"),
        ("UNKEYWORD $work", "2 3"),
        ("UNSEEN", "2 3"),
        ("(OR SEEN DELETED) NOT UID 3", "1"),
        ("CHARSET UTF-8 FROM {7+}\r\nJÜRGEN", "2"),
        ("CHARSET UTF-8 BODY {5+}\r\nköln", "2"),
    ] {
        let found = client.ok(&format!("SEARCH {keys}")).await;
        let expect = if expect.is_empty() { "* SEARCH".to_owned() } else { format!("* SEARCH {expect}") };
        assert_eq!(found[0], expect, "{keys}");
    }
    client.ok("STORE 1 +FLAGS.SILENT (\\Deleted)").await;
    client.ok("EXPUNGE").await;
    assert_eq!(client.ok("SEARCH ALL").await[0], "* SEARCH 1");
    assert_eq!(client.ok("UID SEARCH ALL").await[0], "* SEARCH 2");
    assert!(client.status("SEARCH 5").await.starts_with("BAD "));
    assert!(client.status("SEARCH CHARSET latin-1 ALL").await.starts_with("NO [BADCHARSET"));
}

#[tokio::test]
async fn an_expunge_in_one_session_moves_no_number_of_another() {
    let server = Server::start().await;
    let mut one = open(&server, &[MESSAGE, "Subject: two\r\n\r\n2\r\n", "Subject: three\r\n\r\n3\r\n"]).await;
    let mut other = server.logged_in().await;
    other.ok("SELECT INBOX").await;

    one.ok("STORE 1 +FLAGS (\\Deleted)").await;
    let told = one.ok("EXPUNGE").await;
    assert_eq!(told[0], "* 1 EXPUNGE");

    let fetched = other.ok("FETCH 3 (BODY.PEEK[HEADER.FIELDS (Subject)])").await.join("\r\n");
    assert!(fetched.contains("Subject: three") && !fetched.contains("EXPUNGE"), "{fetched}");
    assert_eq!(other.ok("SEARCH SUBJECT two").await[0], "* SEARCH 2");
    let stored = other.ok("STORE 2 +FLAGS (\\Flagged)").await.join("\n");
    assert!(stored.contains("* 2 FETCH (FLAGS (\\Flagged))") && !stored.contains("EXPUNGE"), "{stored}");
    assert!(other.status("FETCH 1 FLAGS").await.starts_with("OK [EXPUNGEISSUED]"));
    assert_eq!(other.ok("NOOP").await[0], "* 1 EXPUNGE");
    let fetched = other.ok("FETCH 1 (BODY.PEEK[HEADER.FIELDS (Subject)])").await.join("\r\n");
    assert!(fetched.contains("Subject: two"), "{fetched}");

    // The flag set by the other is told to the first, its own is not told to itself again.
    let told = one.ok("NOOP").await;
    assert_eq!(told[0], "* 1 FETCH (UID 2 FLAGS (\\Flagged))");
    assert_eq!(other.ok("NOOP").await.len(), 1);
}

#[tokio::test]
async fn idle_hears_of_deliveries_flags_and_expunges() {
    let server = Server::start().await;
    let mut idler = open(&server, &[MESSAGE]).await;
    let mut other = server.logged_in().await;
    other.ok("SELECT INBOX").await;
    idler.send("i IDLE\r\n").await;
    assert!(idler.line().await.starts_with("+ "));
    other.append("INBOX", "", MESSAGE).await;
    assert_eq!(idler.line().await, "* 2 EXISTS");
    other.ok("STORE 1 +FLAGS.SILENT (\\Deleted)").await;
    assert_eq!(idler.line().await, "* 1 FETCH (UID 1 FLAGS (\\Deleted))");
    other.ok("EXPUNGE").await;
    assert_eq!(idler.line().await, "* 1 EXPUNGE");
    idler.send("DONE\r\n").await;
    assert!(idler.line().await.starts_with("i OK "));
}

#[tokio::test]
async fn copy_and_move_tell_where_the_messages_are() {
    let server = Server::start().await;
    let mut client = open(&server, &[MESSAGE, MESSAGE, MESSAGE]).await;
    let copied = client.status("COPY 1:2 Archive").await;
    assert!(copied.starts_with("OK [COPYUID ") && copied.contains(" 1:2 1:2]"), "{copied}");
    assert!(client.status("COPY 1 nowhere").await.starts_with("NO [TRYCREATE]"));
    let moved = client.ok("UID MOVE 2:3 Trash").await;
    assert!(moved[0].starts_with("* OK [COPYUID ") && moved[0].contains(" 2:3 1:2]"), "{moved:?}");
    assert_eq!(moved[1..3], ["* 3 EXPUNGE", "* 2 EXPUNGE"]);
    assert_eq!(client.ok("STATUS Trash (MESSAGES UIDNEXT)").await[0], "* STATUS Trash (MESSAGES 2 UIDNEXT 3)");
    assert!(client.status("UID COPY 99 Archive").await.starts_with("OK "));
    assert!(client.status("MOVE 1 INBOX").await.starts_with("NO [CANNOT]"));
}

#[tokio::test]
async fn uid_expunge_and_close_take_what_they_should() {
    let server = Server::start().await;
    let mut client = open(&server, &[MESSAGE, MESSAGE, MESSAGE]).await;
    client.ok("STORE 1:2 +FLAGS.SILENT (\\Deleted)").await;
    let told = client.ok("UID EXPUNGE 2:3").await;
    assert_eq!(told[0], "* 2 EXPUNGE");
    assert_eq!(told.len(), 2);
    assert_eq!(client.ok("CLOSE").await.len(), 1);
    assert_eq!(client.ok("STATUS INBOX (MESSAGES UNSEEN)").await[0], "* STATUS INBOX (MESSAGES 1 UNSEEN 1)");
    client.ok("SELECT INBOX").await;
    client.ok("STORE 1 +FLAGS (\\Deleted)").await;
    client.ok("UNSELECT").await;
    assert_eq!(client.ok("STATUS INBOX (MESSAGES)").await[0], "* STATUS INBOX (MESSAGES 1)");
}

#[tokio::test]
async fn mailboxes_are_made_listed_renamed_and_deleted() {
    let server = Server::start().await;
    let mut client = server.logged_in().await;
    let listed = client.ok("LIST \"\" *").await.join("\n");
    for expect in ["* LIST (\\HasNoChildren) \"/\" INBOX", "* LIST (\\HasNoChildren \\Trash) \"/\" Trash"] {
        assert!(listed.contains(expect), "{expect} in {listed}");
    }
    client.ok("CREATE Entw&APw-rfe/2026").await;
    assert!(client.status("CREATE inbox").await.starts_with("NO [ALREADYEXISTS]"));
    assert!(client.status("CREATE a//b").await.starts_with("NO [CANNOT]"));
    assert_eq!(client.ok("LIST \"\" Entw%").await[0], "* LIST (\\HasChildren) \"/\" Entw&APw-rfe");
    assert!(client.status("DELETE Entw&APw-rfe").await.starts_with("NO "));
    client.ok("RENAME Entw&APw-rfe Old").await;
    assert_eq!(client.ok("LIST \"\" Old/%").await[0], "* LIST (\\HasNoChildren) \"/\" Old/2026");
    client.ok("SUBSCRIBE Old/2026").await;
    assert_eq!(client.ok("LSUB \"\" Ol%").await[0], "* LSUB (\\Noselect \\NonExistent) \"/\" Old");
    client.ok("DELETE Old/2026").await;
    assert_eq!(client.ok("LSUB \"\" Old/*").await[0], "* LSUB () \"/\" Old/2026");
    let gone = client.ok("LIST (SUBSCRIBED) \"\" Old/*").await;
    assert_eq!(gone[0], "* LIST (\\Noselect \\NonExistent \\Subscribed) \"/\" Old/2026");
    client.ok("UNSUBSCRIBE Old/2026").await;
    assert_eq!(client.ok("LSUB \"\" Old/*").await.len(), 1);
    assert!(client.status("DELETE INBOX").await.starts_with("NO [CANNOT]"));
    assert!(client.status("DELETE nowhere").await.starts_with("NO [NONEXISTENT]"));
    assert_eq!(client.ok("LIST \"\" \"\"").await[0], "* LIST (\\Noselect) \"/\" \"\"");
    let special = client.ok("LIST (SPECIAL-USE) \"\" * RETURN (STATUS (MESSAGES))").await;
    assert_eq!(special.len(), 11, "five mailboxes with a use, a STATUS each, and the end: {special:?}");
    assert!(client.status("CREATE Keep (USE (\\Archive))").await.starts_with("NO [USEATTR]"));
}

#[tokio::test]
async fn deleting_a_mailbox_ends_the_sessions_that_have_it_open() {
    let server = Server::start().await;
    let mut client = server.logged_in().await;
    client.ok("CREATE Work").await;
    client.ok("SELECT Work").await;
    let mut other = server.logged_in().await;
    other.ok("SELECT Work").await;
    let told = client.ok("DELETE Work").await;
    assert!(told[0].starts_with("* OK [CLOSED]"));
    other.send("n NOOP\r\n").await;
    assert!(other.line().await.starts_with("* BYE "));
}

#[tokio::test]
async fn append_refuses_what_it_cannot_keep() {
    let server = Server::with(|settings| settings.imap.append_max = Size::bytes(1000)).await;
    let mut client = server.logged_in().await;
    for (text, expect) in [
        ("APPEND INBOX {1001}", "NO [TOOBIG]"),
        ("APPEND nowhere {5}", "NO [TRYCREATE]"),
        ("APPEND INBOX {0}", "NO [CANNOT]"),
        ("APPEND INBOX (\\Recent) hello", "BAD "),
    ] {
        let status = client.status(text).await;
        assert!(status.starts_with(expect), "{text}: {status}");
    }
    let status = client.status(&format!("APPEND INBOX {{1001+}}\r\n{}", "x".repeat(1001))).await;
    assert!(status.starts_with("NO [TOOBIG]"), "{status}");
    let status = client.status("APPEND INBOX {3+}\r\nabc (more").await;
    assert!(status.starts_with("BAD "), "{status}");
    client.append("INBOX", "", MESSAGE).await;
    assert_eq!(client.ok("STATUS INBOX (MESSAGES)").await[0], "* STATUS INBOX (MESSAGES 1)");
}

#[tokio::test]
async fn rfc5530_3_more_keywords_than_a_message_may_have_are_refused() {
    let server = Server::with(|settings| settings.mailbox.keywords_max = 2).await;
    let mut client = open(&server, &[MESSAGE]).await;
    for (text, expect) in [
        ("STORE 1 +FLAGS (\\Seen a b)", "OK "),
        ("STORE 1 +FLAGS (c)", "NO [LIMIT]"),
        ("STORE 1 FLAGS (\\Answered a c)", "OK "),
        ("STORE 1 FLAGS (a b c)", "NO [LIMIT]"),
        ("APPEND INBOX (a b c) {5}", "NO [LIMIT]"),
    ] {
        let status = client.status(text).await;
        assert!(status.starts_with(expect), "{text}: {status}");
    }
    assert_eq!(client.ok("FETCH 1 FLAGS").await[0], "* 1 FETCH (FLAGS (\\Answered a c))");
}

#[tokio::test]
async fn limits_are_answered() {
    let server = Server::with(|settings| {
        settings.imap.line_max = Size::bytes(200);
        settings.imap.literal_max = Size::bytes(50);
        settings.imap.errors_max = 3;
    })
    .await;
    let mut client = server.logged_in().await;
    assert!(client.status(&format!("NOOP {}", "x".repeat(300))).await.starts_with("BAD "));
    assert!(client.status("SELECT {51}").await.starts_with("BAD "));
    client.ok("NOOP").await;
    assert!(client.status("FROB").await.starts_with("BAD "));
    assert!(client.status("SELECT nowhere").await.starts_with("NO "));
    assert!(client.status("FROB").await.starts_with("BAD "));
    client.send("x FROB\r\n").await;
    assert!(client.line().await.starts_with("x BAD "));
    assert!(client.line().await.starts_with("* BYE "));
    assert_eq!(client.line().await, "");
}

#[tokio::test]
async fn a_silent_client_is_logged_out() {
    let server = Server::with(|settings| settings.imap.login_timeout = posthouse_conf::Span::ms(50)).await;
    let mut client = server.connect().await;
    client.line().await;
    assert!(client.line().await.starts_with("* BYE "));
}

#[tokio::test]
async fn a_drain_says_goodbye_between_commands_and_in_idle() {
    let server = Server::start().await;
    let mut waiting = server.logged_in().await;
    let mut idling = open(&server, &[]).await;
    idling.send("i IDLE\r\n").await;
    idling.line().await;
    server.drain();
    for client in [&mut waiting, &mut idling] {
        let bye = tokio::time::timeout(Duration::from_secs(60), client.line()).await.expect("in time");
        assert!(bye.starts_with("* BYE [UNAVAILABLE]"), "{bye}");
    }
}

#[tokio::test]
async fn a_waiting_session_is_small() {
    let server = Server::start().await;
    let octets = server.session_octets().await;
    assert!(octets < 4096, "{octets} octets");
}

/// What a client knows of its mailbox from what it has been told; 0 where it has seen a number and no Uid.
#[derive(Default)]
struct Told(Vec<u32>);

impl Told {
    fn hear(&mut self, lines: &[String], command: &str) {
        for line in lines {
            let words: Vec<&str> = line.split([' ', '(', ')']).filter(|word| !word.is_empty()).collect();
            match words[..] {
                ["*", number, "EXPUNGE"] => {
                    let counts_numbers = ["FETCH", "STORE", "SEARCH"].iter().any(|verb| command.starts_with(verb));
                    assert!(!counts_numbers, "EXPUNGE told in {command}");
                    self.0.remove(number.parse::<usize>().expect("a number") - 1);
                }
                ["*", count, "EXISTS"] => {
                    let count: usize = count.parse().expect("a number");
                    assert!(count >= self.0.len(), "EXISTS took messages away");
                    self.0.resize(count, 0);
                }
                ["*", number, "FETCH", "UID", uid, ..] => {
                    let known = &mut self.0[number.parse::<usize>().expect("a number") - 1];
                    let uid = uid.parse().expect("a Uid");
                    assert!(*known == 0 || *known == uid, "{command}: {number} was {known}, is {uid}");
                    *known = uid;
                }
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn sessions_at_work_on_one_mailbox_agree_with_the_store() {
    let server = Server::start().await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = open(&server, &[MESSAGE, MESSAGE]).await;
        let mut told = Told::default();
        told.hear(&client.ok("SELECT INBOX").await, "SELECT");
        clients.push((client, told));
    }
    // A fixed row of choices: a failure can be repeated.
    let mut state: u32 = 20_261_121;
    let mut choose = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % below.max(1)
    };
    for _ in 0..400 {
        let (client, told) = &mut clients[choose(3)];
        let number = 1 + choose(told.0.len());
        let flag = ["\\Seen", "\\Deleted", "\\Deleted", "$Work"][choose(4)];
        let command = match choose(12) {
            0..3 => format!("APPEND INBOX {{{}+}}\r\n{MESSAGE}", MESSAGE.len()),
            3 => format!("STORE {number} +FLAGS ({flag})"),
            4 => format!("STORE {number} +FLAGS.SILENT ({flag})"),
            5 => "EXPUNGE".to_owned(),
            6 => format!("COPY {number} INBOX"),
            7 => format!("MOVE {number} Trash"),
            8 => "SEARCH ALL".to_owned(),
            9 => "UID FETCH 1:* FLAGS".to_owned(),
            10 => "FETCH 1:* (UID FLAGS)".to_owned(),
            _ => "NOOP".to_owned(),
        };
        if told.0.is_empty() && (command.contains(&format!(" {number} ")) || command.contains("1:*")) {
            continue;
        }
        let lines = client.answer(&command).await;
        assert!(!lines.last().is_some_and(|status| status.starts_with("BAD")), "{command}: {lines:?}");
        told.hear(&lines, &command);
    }
    let mut views = Vec::new();
    for (client, told) in &mut clients {
        told.hear(&client.ok("NOOP").await, "NOOP");
        told.hear(&client.ok("FETCH 1:* (UID)").await, "FETCH");
        views.push(told.0.clone());
    }
    assert!(!views[0].is_empty());
    assert_eq!(views[0], views[1]);
    assert_eq!(views[0], views[2]);
}

#[tokio::test]
async fn pipelined_commands_are_answered_in_order() {
    let server = Server::start().await;
    let mut client = server.logged_in().await;
    client.send("a SELECT INBOX\r\nb FETCH 1:* FLAGS\r\nc UID FETCH 1:* FLAGS\r\nd NOOP\r\n").await;
    let mut tags = Vec::new();
    while tags.len() < 4 {
        let line = client.line().await;
        if !line.starts_with('*') {
            tags.push(line[..4].to_owned());
        }
    }
    assert_eq!(tags, ["a OK", "b BA", "c OK", "d OK"]);
}
