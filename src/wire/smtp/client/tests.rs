//! Dialogues of the client machine with servers of all manners; apart for their length only.
#![allow(clippy::unwrap_used)]

use posthouse_mail::{DsnNotify, DsnReturn, ForwardPath, Recipient, ReversePath};

use super::*;

fn settings(tls: ClientTls) -> ClientSettings {
    ClientSettings {
        hostname: "us.test".into(),
        peer: "mx.test".into(),
        tls,
        login: None,
        reply_limits: ReplyLimits::default(),
    }
}

fn transaction(recipients: usize) -> Transaction {
    let recipient = |i| Recipient::new(ForwardPath::parse(&format!("r{i}@there.test")).unwrap());
    Transaction {
        reverse_path: ReversePath::parse("s@us.test").unwrap(),
        recipients: (0..recipients).map(recipient).collect(),
        size: 100,
        eight_bit: false,
        smtputf8: false,
        envelope_id: None,
        dsn_return: None,
    }
}

fn show(outcome: &DeliveryOutcome) -> String {
    let code = |reply: &Option<RemoteReply>| reply.as_ref().map_or("-".to_owned(), |reply| reply.code.to_string());
    match outcome {
        DeliveryOutcome::Delivered { reply, .. } => format!("delivered {}", reply.code),
        DeliveryOutcome::Deferred { status, reply, .. } => format!("deferred {status} {}", code(reply)),
        DeliveryOutcome::Bounced { status, reply, .. } => format!("bounced {status} {}", code(reply)),
    }
}

/// Plays a script of `S:` lines of the server and shows what the client did, one step a line.
fn play(mut client: Client, mut work: Vec<Transaction>, script: &[&str]) -> Vec<String> {
    let mut shown = Vec::new();
    let mut script = script.iter();
    work.reverse();
    loop {
        match client.step() {
            Step::Send(octets) => shown.push(format!("C: {}", String::from_utf8_lossy(&octets).replace("\r\n", "|"))),
            Step::Await(_) => match script.next() {
                Some(text) => client.receive(text.replace('|', "\r\n").as_bytes()),
                None => client.lost("end of stream"),
            },
            Step::StartTls => {
                shown.push("tls".into());
                client.tls_started();
            }
            Step::Ready => match work.pop() {
                Some(transaction) => client.begin(transaction),
                None => client.quit(),
            },
            Step::SendData => {
                shown.push("data".into());
                client.data_sent();
            }
            Step::Finished(result) => {
                let doubt = if result.in_doubt { " in doubt" } else { "" };
                let stale = if result.answered { "" } else { " unanswered" };
                let outcomes: Vec<_> = result.outcomes.iter().map(show).collect();
                shown.push(format!("{}{doubt}{stale}", outcomes.join(", ")));
            }
            Step::Closed(reason) => {
                shown.push(match reason {
                    CloseReason::Refused(reply) => format!("closed {}", reply.code),
                    CloseReason::Lost(why) => format!("lost: {why}"),
                    other => format!("{other:?}"),
                });
                return shown;
            }
        }
    }
}

fn check(tls: ClientTls, work: Vec<Transaction>, script: &[&str], expect: &[&str]) {
    assert_eq!(play(Client::new(settings(tls)), work, script), expect, "{script:?}");
}

const MAIL: &str = "C: MAIL FROM:<s@us.test>|";
const EHLO: &str = "C: EHLO us.test|";
const QUIT: &str = "C: QUIT|";

#[test]
fn rfc5321_4_1_a_message_without_extensions_goes_command_by_command() {
    check(
        ClientTls::IfOffered,
        vec![transaction(2)],
        &["220 mx|", "250 mx|", "250 ok|", "250 ok|", "250 ok|", "354 go|", "250 taken|", "221 bye|"],
        &[
            EHLO,
            MAIL,
            "C: RCPT TO:<r0@there.test>|",
            "C: RCPT TO:<r1@there.test>|",
            "C: DATA|",
            "data",
            "delivered 250, delivered 250",
            QUIT,
            "Quit",
        ],
    );
}

#[test]
fn rfc2920_3_1_pipelined_commands_go_in_one_group() {
    let group = "C: MAIL FROM:<s@us.test> SIZE=100|RCPT TO:<r0@there.test>|RCPT TO:<r1@there.test>|DATA|";
    check(
        ClientTls::Never,
        vec![transaction(2), transaction(1)],
        &[
            "220 mx|",
            "250-mx|250-PIPELINING|250 SIZE|",
            "250 ok|550 5.1.1 no|250 ok|354 go|",
            "250 a|",
            "250 ok|450 4.2.0 later|354 go|",
            "554 nobody|",
            "221|",
        ],
        &[
            EHLO,
            group,
            "data",
            "bounced 5.1.1 550, delivered 250",
            "C: MAIL FROM:<s@us.test> SIZE=100|RCPT TO:<r0@there.test>|DATA|",
            // 354 with every recipient refused: a lone dot.
            "C: .|",
            "deferred 4.2.0 450",
            QUIT,
            "Quit",
        ],
    );
}

#[test]
fn a_refused_sender_refuses_every_recipient() {
    let pipelined = ["220 mx|", "250-mx|250 PIPELINING|", "550 5.7.1 no|503 mail|503 mail|503 rcpt|", "221|"];
    let group = "C: MAIL FROM:<s@us.test>|RCPT TO:<r0@there.test>|RCPT TO:<r1@there.test>|DATA|";
    let both = "bounced 5.7.1 550, bounced 5.7.1 550";
    check(ClientTls::Never, vec![transaction(2)], &pipelined, &[EHLO, group, both, QUIT, "Quit"]);
    let plain = ["220 mx|", "250 mx|", "550 5.7.1 no|", "221|"];
    check(ClientTls::Never, vec![transaction(2)], &plain, &[EHLO, MAIL, both, QUIT, "Quit"]);
}

#[test]
fn a_transaction_that_stopped_short_is_reset_before_the_next() {
    check(
        ClientTls::Never,
        vec![transaction(1), transaction(1)],
        &["220 mx|", "250 mx|", "250 ok|", "550 no|", "250 reset|", "250 ok|", "250 ok|", "354|", "250 ok|", "221|"],
        &[
            EHLO,
            MAIL,
            "C: RCPT TO:<r0@there.test>|",
            "bounced 5.0.0 550",
            "C: RSET|",
            MAIL,
            "C: RCPT TO:<r0@there.test>|",
            "C: DATA|",
            "data",
            "delivered 250",
            QUIT,
            "Quit",
        ],
    );
}

#[test]
fn rfc5321_3_8_421_may_come_at_any_time() {
    let none = Vec::new;
    check(ClientTls::Never, none(), &["421 busy|"], &["closed 421"]);
    check(ClientTls::Never, none(), &["220 mx|", "421 busy|"], &[EHLO, "closed 421"]);
    check(
        ClientTls::Never,
        vec![transaction(1)],
        &["220 mx|", "250 mx|", "421 stale|"],
        &[EHLO, MAIL, "deferred 4.3.2 421 unanswered", "closed 421"],
    );
    check(
        ClientTls::Never,
        vec![transaction(2)],
        &["220 mx|", "250-mx|250 PIPELINING|", "250 ok|550 no|421 enough|"],
        &[
            EHLO,
            "C: MAIL FROM:<s@us.test>|RCPT TO:<r0@there.test>|RCPT TO:<r1@there.test>|DATA|",
            "bounced 5.0.0 550, deferred 4.3.2 421",
            "closed 421",
        ],
    );
}

#[test]
fn rfc5321_6_1_a_line_lost_after_the_data_leaves_a_doubt() {
    check(
        ClientTls::Never,
        vec![transaction(1)],
        &["220 mx|", "250-mx|250 PIPELINING|", "250|250|354|"],
        &[
            EHLO,
            "C: MAIL FROM:<s@us.test>|RCPT TO:<r0@there.test>|DATA|",
            "data",
            "deferred 4.4.2 - in doubt",
            "lost: end of stream",
        ],
    );
    check(
        ClientTls::Never,
        vec![transaction(1)],
        &["220 mx|", "250 mx|", "250|"],
        &[EHLO, MAIL, "C: RCPT TO:<r0@there.test>|", "deferred 4.4.2 -", "lost: end of stream"],
    );
}

#[test]
fn rfc5321_3_2_helo_is_the_fallback() {
    check(
        ClientTls::IfOffered,
        vec![],
        &["220 mx|", "502 what|", "250 mx|", "221|"],
        &[EHLO, "C: HELO us.test|", QUIT, "Quit"],
    );
    check(ClientTls::Required, vec![], &["220 mx|", "500 what|", "250 mx|"], &[EHLO, "C: HELO us.test|", "TlsMissing"]);
    check(ClientTls::Never, vec![], &["220 mx|", "451 later|"], &[EHLO, "closed 451"]);
    check(ClientTls::Never, vec![], &["554 no mail here|"], &["closed 554"]);
}

#[test]
fn rfc3207_4_starttls_is_followed_by_a_new_ehlo() {
    let offered = "250-mx|250 STARTTLS|";
    check(
        ClientTls::IfOffered,
        vec![],
        &["220 mx|", offered, "220 go|", "250 mx|", "221|"],
        &[EHLO, "C: STARTTLS|", "tls", EHLO, QUIT, "Quit"],
    );
    check(
        ClientTls::IfOffered,
        vec![],
        &["220 mx|", offered, "454 not now|", "221|"],
        &[EHLO, "C: STARTTLS|", QUIT, "Quit"],
    );
    check(ClientTls::Required, vec![], &["220 mx|", offered, "454 no|"], &[EHLO, "C: STARTTLS|", "TlsMissing"]);
    check(ClientTls::Never, vec![], &["220 mx|", offered, "221|"], &[EHLO, QUIT, "Quit"]);
    check(
        ClientTls::IfOffered,
        vec![],
        &["220 mx|", offered, "220 go|250 injected|"],
        &[EHLO, "C: STARTTLS|", "lost: octets in the clear behind the reply to STARTTLS"],
    );
}

#[test]
fn rfc4954_4_a_login_needs_tls() {
    let login = |clear_allowed| {
        let mut settings = settings(ClientTls::IfOffered);
        let password = Secret::new("p".to_owned());
        settings.login = Some(ClientLogin { user: "u".into(), password, clear_allowed });
        Client::new(settings)
    };
    let offered = "250-mx|250 AUTH LOGIN PLAIN|";
    assert_eq!(play(login(false), vec![], &["220 mx|", offered]), [EHLO, "LoginRefused(None)"]);
    let command = "C: AUTH PLAIN AHUAcA==|";
    assert_eq!(play(login(true), vec![], &["220 mx|", offered, "235 ok|", "221|"]), [EHLO, command, QUIT, "Quit"]);
    let refused = play(login(true), vec![], &["220 mx|", offered, "535 5.7.8 no|"]);
    assert!(refused[2].starts_with("LoginRefused(Some(535"), "{refused:?}");
}

#[test]
fn what_the_server_cannot_take_is_returned_unsent() {
    let hello = ["220 mx|", "250-mx|250 SIZE 50|", "221|"];
    check(ClientTls::Never, vec![transaction(1)], &hello, &[EHLO, "bounced 5.3.4 -", QUIT, "Quit"]);
    let hello = ["220 mx|", "250 mx|", "221|"];
    let eight_bit = Transaction { eight_bit: true, ..transaction(1) };
    check(ClientTls::Never, vec![eight_bit], &hello, &[EHLO, "bounced 5.6.3 -", QUIT, "Quit"]);
    let mut utf8 = transaction(1);
    utf8.recipients[0] = Recipient::new(ForwardPath::parse("dömi@there.test").unwrap());
    check(ClientTls::Never, vec![utf8], &hello, &[EHLO, "bounced 5.6.7 -", QUIT, "Quit"]);
}

#[test]
fn rfc3461_4_parameters_go_to_servers_that_know_them() {
    let mut with_dsn = transaction(1);
    with_dsn.envelope_id = Some("QQ 1".into());
    with_dsn.dsn_return = Some(DsnReturn::Headers);
    with_dsn.recipients[0].notify = DsnNotify { success: true, failure: true, delay: false };
    let mut silent = transaction(1);
    silent.recipients[0].notify = DsnNotify::NEVER;
    check(
        ClientTls::Never,
        vec![with_dsn, silent],
        &["220 mx|", "250-mx|250-PIPELINING|250 DSN|", "250|250|354|", "250 ok|", "250|250|354|", "250 ok|", "221|"],
        &[
            EHLO,
            "C: MAIL FROM:<s@us.test> RET=HDRS ENVID=QQ+201|RCPT TO:<r0@there.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;r0@there.test|DATA|",
            "data",
            "delivered 250",
            "C: MAIL FROM:<s@us.test>|RCPT TO:<r0@there.test> NOTIFY=NEVER ORCPT=rfc822;r0@there.test|DATA|",
            "data",
            "delivered 250",
            QUIT,
            "Quit",
        ],
    );
}

#[test]
fn odd_answers_never_bounce() {
    let upto_data = |last: &'static str| ["220 mx|", "250-mx|250 PIPELINING|", last, "221|"];
    let group = "C: MAIL FROM:<s@us.test>|RCPT TO:<r0@there.test>|DATA|";
    check(
        ClientTls::Never,
        vec![transaction(1)],
        &upto_data("250|250|250 what|"),
        &[EHLO, group, "deferred 4.0.0 250", QUIT, "Quit"],
    );
    check(
        ClientTls::Never,
        vec![transaction(1)],
        &upto_data("250|354 what|503|"),
        &[EHLO, group, "deferred 4.0.0 354", QUIT, "Quit"],
    );
    check(
        ClientTls::Never,
        vec![transaction(1)],
        &upto_data("250|552 too many|503|"),
        &[EHLO, group, "deferred 4.0.0 552", QUIT, "Quit"],
    );
    let garbage = ["220 mx|", "250 mx|", "HTTP/1.1 400|"];
    check(
        ClientTls::Never,
        vec![transaction(1)],
        &garbage,
        &[EHLO, MAIL, "deferred 4.4.2 - unanswered", "lost: the server's reply has no code"],
    );
}

#[test]
fn a_refusal_in_the_middle_of_the_data_counts() {
    let mut client = Client::new(settings(ClientTls::Never));
    client.receive(b"220 mx\r\n");
    client.step();
    client.receive(b"250-mx\r\n250 PIPELINING\r\n");
    assert_eq!(client.step(), Step::Ready);
    client.begin(transaction(1));
    client.step();
    client.receive(b"250 ok\r\n250 ok\r\n354 go\r\n");
    assert_eq!(client.step(), Step::SendData);
    client.receive(b"552 5.3.4 too much\r\n");
    client.lost("broken pipe");
    let Step::Finished(result) = client.step() else { panic!("a result is due") };
    assert_eq!(show(&result.outcomes[0]), "bounced 5.3.4 552");
    assert!(!result.in_doubt);
}

#[test]
fn many_recipients_go_in_several_groups() {
    let mut script = vec!["220 mx|".to_owned(), "250-mx|250 PIPELINING|".to_owned()];
    script.push("250|".repeat(50));
    script.push("250|".repeat(50));
    script.push("250|354|".to_owned());
    script.push("250 ok|".to_owned());
    script.push("221|".to_owned());
    let script: Vec<_> = script.iter().map(String::as_str).collect();
    let shown = play(Client::new(settings(ClientTls::Never)), vec![transaction(100)], &script);
    let groups: Vec<_> =
        shown.iter().filter(|line| line.contains("RCPT")).map(|line| line.matches('|').count()).collect();
    assert_eq!(groups, [50, 50, 2]);
    assert!(shown.contains(&["delivered 250"; 100].join(", ")));
}

proptest::proptest! {
    #[test]
    fn every_recipient_ends_with_one_outcome(codes in proptest::collection::vec(0_usize..8, 0..20), recipients in 1_usize..4) {
        const REPLIES: [&str; 8] =
            ["250 ok|", "354 go|", "450 later|", "550 no|", "421 bye|", "250-mx|250 PIPELINING|", "garbage|", "220 x|"];
        let mut script = vec!["220 mx|"];
        script.extend(codes.iter().map(|i| REPLIES[*i]));
        let shown = play(Client::new(settings(ClientTls::IfOffered)), vec![transaction(recipients)], &script);
        let results: Vec<_> = shown.iter().filter(|line| ["deliv", "defer", "bounc"].iter().any(|w| line.starts_with(w))).collect();
        proptest::prop_assert!(results.len() <= 1);
        for result in results {
            proptest::prop_assert_eq!(result.split(", ").count(), recipients);
        }
    }
}
