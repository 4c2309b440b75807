//! The table of verbs and states, as dialogues.

use super::*;

fn policy() -> Policy {
    Policy {
        hostname: "mx.test".into(),
        message_max: 1000,
        recipients_max: 3,
        command_line_max: 512,
        errors_max: 4,
        messages_max: 2,
        starttls: true,
        dsn: true,
        vrfy_reveals: false,
    }
}

/// An owner that knows `alice` with the password `demo`, refuses forward-paths that begin with `no`, temporarily those that
/// begin with `later`, and takes every message but one of a sender that begins with `spam`.
struct Owner {
    session: SmtpSession,
    policy: Policy,
}

impl Owner {
    fn new(flavour: Flavour, tls: bool) -> Self {
        Self { session: SmtpSession::new(flavour, tls), policy: policy() }
    }

    fn take(&mut self, step: impl FnOnce(SmtpSession, &Policy) -> (SmtpSession, Effect)) -> String {
        let placeholder = SmtpSession::new(Flavour::Receive, false);
        let (session, effect) = step(std::mem::replace(&mut self.session, placeholder), &self.policy);
        self.session = session;
        self.answer(effect)
    }

    fn answer(&mut self, effect: Effect) -> String {
        match effect {
            Effect::Reply(reply) => reply.to_wire(),
            Effect::Close(reply) => format!("{}(closed)\r\n", reply.to_wire()),
            Effect::StartTls(reply) => {
                self.session = self.session.clone().on_tls();
                format!("{}(tls)\r\n", reply.to_wire())
            }
            Effect::CheckCredentials(credentials) => {
                let address = Address::parse("alice@x.org").expect("an address");
                let login = Login { account: AccountId::new(7), address };
                let right = credentials.authentication == "alice" && credentials.password.reveal() == "demo";
                let checked = if right { Ok(login) } else { Err(reply::credentials_invalid()) };
                self.take(|session, policy| session.on_credentials(checked, policy))
            }
            Effect::CheckReversePath(_) => {
                self.take(|session, policy| session.on_reverse_path(Ok(IngestId::new(1)), policy))
            }
            Effect::CheckForwardPath(path) => {
                let checked = match path.to_string() {
                    text if text.starts_with("no") => Err(reply::no_such_user()),
                    text if text.starts_with("later") => Err(reply::mailbox_full()),
                    _ => Ok(()),
                };
                self.take(|session, policy| session.on_forward_path(checked, policy))
            }
            Effect::Verify(_) => self.take(|session, policy| session.on_verified(reply::no_such_user(), policy)),
            Effect::ReceiveData(reply) => {
                let envelope = self.session.envelope().expect("data follows an envelope").clone();
                let spam = envelope.reverse_path.to_string().starts_with("spam");
                let outcome =
                    if spam { Reply::new(550, (5, 7, 1), "spam") } else { reply::message_accepted(envelope.id) };
                reply.to_wire() + &self.take(|session, policy| session.on_message(outcome, policy))
            }
        }
    }
}

/// Plays lines; every reply line must begin with what is expected, which is told in the same order.
fn check(owner: &mut Owner, dialogue: &[(&str, &str)]) {
    for (line, expect) in dialogue {
        let said = owner.take(|session, policy| session.on_line(Ok(line), policy));
        let lines: Vec<_> = said.lines().collect();
        let expect: Vec<_> = expect.split('|').collect();
        let agrees =
            lines.len() == expect.len() && lines.iter().zip(&expect).all(|(said, expect)| said.starts_with(expect));
        assert!(agrees, "{line:?} was answered {lines:#?}, expected {expect:?}");
    }
}

fn receiving(dialogue: &[(&str, &str)]) {
    check(&mut Owner::new(Flavour::Receive, false), dialogue);
}

fn submitting(tls: bool, dialogue: &[(&str, &str)]) {
    check(&mut Owner::new(Flavour::Submit, tls), dialogue);
}

const EHLO: (&str, &str) = (
    "EHLO c.test",
    "250-mx.test|250-PIPELINING|250-SIZE 1000|250-8BITMIME|250-SMTPUTF8|250-ENHANCEDSTATUSCODES|250-DSN|250 STARTTLS",
);
const EHLO_TLS: (&str, &str) = (
    "EHLO c.test",
    "250-mx.test|250-PIPELINING|250-SIZE 1000|250-8BITMIME|250-SMTPUTF8|250-ENHANCEDSTATUSCODES|250-DSN|250 AUTH PLAIN LOGIN",
);
const LOGIN: (&str, &str) = ("AUTH PLAIN AGFsaWNlAGRlbW8=", "235 2.7.0");
const MAIL: (&str, &str) = ("MAIL FROM:<a@x.org>", "250 2.1.0");
const RCPT: (&str, &str) = ("RCPT TO:<b@x.org>", "250 2.1.5");
const DATA: (&str, &str) = ("DATA", "354 |250 2.0.0");
const QUIT: (&str, &str) = ("QUIT", "221 2.0.0|(closed)");

#[test]
fn rfc5321_3_3_a_message_is_mail_rcpt_data() {
    receiving(&[EHLO, MAIL, RCPT, ("RCPT TO:<Postmaster>", "250 2.1.5"), DATA, MAIL, RCPT, DATA, QUIT]);
    receiving(&[("HELO c.test", "250 mx.test"), MAIL, RCPT, DATA, QUIT]);
}

#[test]
fn rfc5321_4_1_4_commands_out_of_sequence_are_503_and_name_what_was_expected() {
    receiving(&[("MAIL FROM:<a@x.org>", "503 5.5.1 MAIL out of sequence, expected EHLO")]);
    receiving(&[("RCPT TO:<a@x.org>", "503 5.5.1"), ("DATA", "503 5.5.1"), EHLO]);
    receiving(&[EHLO, ("RCPT TO:<a@x.org>", "503 5.5.1 RCPT out of sequence, expected MAIL"), ("DATA", "503 5.5.1")]);
    receiving(&[EHLO, MAIL, ("MAIL FROM:<a@x.org>", "503 5.5.1 MAIL out of sequence, expected RCPT"), RCPT]);
    receiving(&[EHLO, MAIL, RCPT, ("MAIL FROM:<>", "503 5.5.1 MAIL out of sequence, expected RCPT or DATA"), DATA]);
    receiving(&[EHLO, MAIL, ("STARTTLS", "503 5.5.1"), RCPT]);
}

#[test]
fn rfc5321_4_1_4_some_commands_are_always_in_sequence() {
    for before in [&[][..], &[EHLO], &[EHLO, MAIL], &[EHLO, MAIL, RCPT]] {
        let mut owner = Owner::new(Flavour::Receive, false);
        check(&mut owner, before);
        check(
            &mut owner,
            &[("NOOP", "250 2.0.0"), ("HELP", "214 2.0.0"), ("VRFY b", "252 2.5.0"), ("EXPN b", "502 5.5.1")],
        );
        let envelope = owner.session.envelope().cloned();
        assert_eq!(envelope.is_some(), before.len() > 1, "they change nothing");
        check(&mut owner, &[("RSET", "250 2.0.0")]);
        assert_eq!(owner.session.envelope(), None);
        check(&mut owner, &[QUIT]);
    }
}

#[test]
fn rset_and_ehlo_drop_the_transaction() {
    receiving(&[EHLO, MAIL, RCPT, ("RSET", "250"), ("DATA", "503"), MAIL, RCPT, DATA]);
    receiving(&[EHLO, MAIL, RCPT, EHLO, ("DATA", "503"), MAIL]);
    receiving(&[("RSET", "250"), ("MAIL FROM:<a@x.org>", "503")]);
}

#[test]
fn rfc5321_3_3_data_without_a_recipient_is_refused() {
    receiving(&[EHLO, MAIL, ("DATA", "503 5.5.1 DATA out of sequence, expected RCPT")]);
    receiving(&[EHLO, MAIL, ("RCPT TO:<no@x.org>", "550 5.1.1"), ("DATA", "554 5.5.1"), RCPT, DATA]);
}

#[test]
fn rfc1870_6_1_a_declared_size_over_the_limit_is_552() {
    receiving(&[EHLO, ("MAIL FROM:<a@x.org> SIZE=1001", "552 5.3.4"), ("MAIL FROM:<a@x.org> SIZE=1000", "250"), RCPT]);
}

#[test]
fn rfc5321_4_5_3_1_10_recipients_beyond_the_limit_are_452() {
    let more = ("RCPT TO:<e@x.org>", "452 4.5.3");
    let many = [
        EHLO,
        MAIL,
        RCPT,
        ("RCPT TO:<c@x.org>", "250"),
        ("RCPT TO:<d@x.org>", "250"),
        more,
        more,
        more,
        more,
        more,
        more,
        DATA,
    ];
    receiving(&many);
}

#[test]
fn a_recipient_that_comes_twice_is_kept_once() {
    let mut owner = Owner::new(Flavour::Receive, false);
    check(&mut owner, &[EHLO, MAIL, RCPT, RCPT]);
    assert_eq!(owner.session.envelope().map(|envelope| envelope.recipients.len()), Some(1));
}

#[test]
fn wrong_syntax_is_told_by_its_code() {
    receiving(&[("FOO", "500 5.5.1"), ("EHLO", "501 5.5.4"), EHLO, ("MAIL FROM: <a@x.org>", "501 5.1.7")]);
    receiving(&[EHLO, MAIL, ("RCPT TO:<a>", "501 5.1.3"), ("RCPT TO:<a@x.org> X=1", "555 5.5.4"), RCPT]);
    receiving(&[EHLO, ("MAIL FROM:<a@x.org> X=1", "555 5.5.4"), ("MAIL FROM:<a@x.org> SIZE=x", "501 5.5.4"), MAIL]);
    receiving(&[EHLO, ("MAIL FROM:<a@x.org> BODY=BINARYMIME", "555 5.5.4"), ("DATA x", "501 5.5.4")]);
}

#[test]
fn rfc6531_3_3_addresses_beyond_ascii_need_smtputf8() {
    receiving(&[EHLO, ("MAIL FROM:<ö@x.org>", "553 5.6.7"), MAIL, ("RCPT TO:<ö@x.org>", "553 5.6.7"), RCPT]);
    receiving(&[EHLO, ("MAIL FROM:<ö@x.org> SMTPUTF8", "250"), ("RCPT TO:<ö@x.org>", "250"), DATA]);
}

#[test]
fn dsn_parameters_need_the_extension() {
    let mut owner = Owner::new(Flavour::Receive, false);
    check(
        &mut owner,
        &[EHLO, ("MAIL FROM:<a@x.org> RET=HDRS ENVID=q1", "250"), ("RCPT TO:<b@x.org> NOTIFY=NEVER", "250")],
    );
    let envelope = owner.session.envelope().expect("a transaction");
    assert_eq!(envelope.envelope_id.as_deref(), Some("q1"));
    assert_eq!(envelope.recipients[0].notify, posthouse_mail::DsnNotify::NEVER);
    let mut owner = Owner::new(Flavour::Receive, false);
    owner.policy.dsn = false;
    check(
        &mut owner,
        &[("HELO c", "250"), ("MAIL FROM:<a@x.org> RET=HDRS", "555"), MAIL, ("RCPT TO:<b@x.org> NOTIFY=NEVER", "555")],
    );
}

#[test]
fn rfc3207_4_2_tls_forgets_what_was_said_before() {
    let mut owner = Owner::new(Flavour::Receive, false);
    check(&mut owner, &[EHLO, ("STARTTLS", "220 2.0.0|(tls)"), ("MAIL FROM:<a@x.org>", "503 5.5.1")]);
    assert!(owner.session.tls() && owner.session.hello().is_none());
    check(&mut owner, &[("EHLO c", "250-|250-|250-|250-|250-|250-|250 DSN"), ("STARTTLS", "503 5.5.1"), MAIL]);
    assert_eq!(owner.session.protocol(), "ESMTPS");
}

#[test]
fn starttls_without_a_certificate_is_not_offered() {
    let mut owner = Owner::new(Flavour::Receive, false);
    owner.policy.starttls = false;
    check(&mut owner, &[("EHLO c", "250-|250-|250-|250-|250-|250-|250 DSN"), ("STARTTLS", "502 5.5.1"), MAIL]);
}

#[test]
fn port_25_offers_no_auth() {
    receiving(&[EHLO, ("AUTH PLAIN AGFsaWNlAGRlbW8=", "502 5.5.1"), MAIL]);
    let mut owner = Owner::new(Flavour::Receive, true);
    check(&mut owner, &[("EHLO c", "250-|250-|250-|250-|250-|250-|250 DSN"), ("AUTH PLAIN", "502 5.5.1")]);
}

#[test]
fn submission_needs_tls_then_auth_then_mail() {
    submitting(
        false,
        &[EHLO, ("AUTH PLAIN AGFsaWNlAGRlbW8=", "538 5.7.11"), ("MAIL FROM:<a@x.org>", "530 5.7.0 issue STARTTLS")],
    );
    submitting(
        false,
        &[EHLO, ("RCPT TO:<a@x.org>", "530 5.7.0"), ("STARTTLS", "220|(tls)"), EHLO_TLS, LOGIN, MAIL, RCPT, DATA, QUIT],
    );
    submitting(true, &[EHLO_TLS, ("MAIL FROM:<a@x.org>", "530 5.7.0 authentication"), LOGIN, MAIL, RCPT, DATA]);
    submitting(
        true,
        &[
            ("AUTH PLAIN AGFsaWNlAGRlbW8=", "503 5.5.1"),
            EHLO_TLS,
            ("RCPT TO:<a@x.org>", "503 5.5.1 RCPT out of sequence, expected AUTH"),
        ],
    );
}

#[test]
fn rfc4954_4_auth_speaks_plain_and_login() {
    submitting(
        true,
        &[
            EHLO_TLS,
            ("AUTH PLAIN", "334 "),
            ("AGFsaWNlAGRlbW8=", "235 2.7.0"),
            ("AUTH PLAIN AGFsaWNlAGRlbW8=", "503 5.5.1"),
            MAIL,
        ],
    );
    submitting(
        true,
        &[EHLO_TLS, ("AUTH LOGIN", "334 VXNlcm5hbWU6"), ("YWxpY2U=", "334 UGFzc3dvcmQ6"), ("ZGVtbw==", "235"), MAIL],
    );
    submitting(true, &[EHLO_TLS, LOGIN, MAIL, ("AUTH PLAIN AGFsaWNlAGRlbW8=", "503 5.5.1"), RCPT]);
}

#[test]
fn rfc4954_4_a_failed_exchange_leaves_the_session_as_it_was() {
    submitting(true, &[EHLO_TLS, ("AUTH PLAIN", "334 "), ("*", "501 5.7.0"), ("AUTH PLAIN !", "501 5.5.2"), LOGIN]);
    submitting(true, &[EHLO_TLS, ("AUTH CRAM-MD5", "504 5.5.4"), ("AUTH PLAIN AGFsaWNlAHdyb25n", "535 5.7.8"), LOGIN]);
    let mut owner = Owner::new(Flavour::Submit, true);
    check(&mut owner, &[EHLO_TLS, ("AUTH LOGIN", "334 VXNlcm5hbWU6")]);
    let said = owner.take(|session, policy| session.on_line(Err(LineFault::TooLong), policy));
    assert!(said.starts_with("500 5.5.6"), "{said}");
    check(&mut owner, &[LOGIN]);
}

#[test]
fn too_many_errors_end_the_connection_with_421() {
    receiving(&[
        ("A", "500"),
        ("B", "500"),
        ("C", "500"),
        ("MAIL FROM:<>", "503"),
        ("NOOP", "250"),
        ("D", "421 4.7.0|(closed)"),
    ]);
    receiving(&[("A", "500"), ("B", "500"), ("C", "500"), EHLO, MAIL, RCPT, DATA, ("A", "500"), ("B", "500"), QUIT]);
    let wrong = ("AUTH PLAIN AGFsaWNlAHdyb25n", "535 5.7.8");
    submitting(true, &[EHLO_TLS, wrong, wrong, wrong, wrong, ("AUTH PLAIN AGFsaWNlAHdyb25n", "421 4.7.0|(closed)")]);
}

#[test]
fn refused_recipients_of_one_transaction_count_as_one_error() {
    let no = ("RCPT TO:<no@x.org>", "550 5.1.1");
    receiving(&[EHLO, MAIL, no, no, no, no, no, no, no, RCPT, DATA]);
    let again = ("RSET", "250");
    receiving(&[
        EHLO,
        MAIL,
        no,
        again,
        MAIL,
        no,
        again,
        MAIL,
        no,
        again,
        MAIL,
        no,
        again,
        MAIL,
        ("RCPT TO:<no@x.org>", "421|(closed)"),
    ]);
    let later = ("RCPT TO:<later@x.org>", "452 4.2.2");
    receiving(&[
        EHLO, MAIL, later, again, MAIL, later, again, MAIL, later, again, MAIL, later, again, MAIL, later, again, MAIL,
        later,
    ]);
}

#[test]
fn too_many_messages_end_the_connection_with_421() {
    receiving(&[
        EHLO,
        MAIL,
        RCPT,
        DATA,
        MAIL,
        RCPT,
        DATA,
        ("NOOP", "250"),
        ("MAIL FROM:<a@x.org>", "421 4.7.0|(closed)"),
    ]);
    let refused = ("DATA", "354 |550 5.7.1");
    receiving(&[
        EHLO,
        ("MAIL FROM:<spam@x.org>", "250"),
        RCPT,
        refused,
        ("MAIL FROM:<spam@x.org>", "250"),
        RCPT,
        refused,
        ("MAIL FROM:<>", "421|(closed)"),
    ]);
}

#[test]
fn a_bare_line_end_is_refused_and_drops_the_transaction() {
    let mut owner = Owner::new(Flavour::Receive, false);
    check(&mut owner, &[EHLO, MAIL, RCPT]);
    let said = owner.take(|session, policy| session.on_line(Err(LineFault::BareLineEnd), policy));
    assert!(said.starts_with("500 5.5.2"), "{said}");
    check(&mut owner, &[("DATA", "503 5.5.1")]);
}

#[test]
fn vrfy_looks_up_only_where_the_policy_says_so() {
    let mut owner = Owner::new(Flavour::Receive, false);
    owner.policy.vrfy_reveals = true;
    let tries =
        [("VRFY alice", "550 5.1.1"), ("VRFY", "501 5.5.4"), ("VRFY bob", "550 5.1.1"), ("VRFY carol", "550 5.1.1")];
    check(&mut owner, &tries);
    check(&mut owner, &[("VRFY dave", "421 4.7.0|(closed)")]);
}

#[test]
fn rfc3848_2_the_received_field_tells_how_mail_came() {
    let mut owner = Owner::new(Flavour::Submit, true);
    check(&mut owner, &[EHLO_TLS, LOGIN]);
    assert_eq!(owner.session.protocol(), "ESMTPSA");
    check(&mut owner, &[("MAIL FROM:<ö@x.org> SMTPUTF8", "250")]);
    assert_eq!(owner.session.protocol(), "UTF8SMTPSA");
    let mut owner = Owner::new(Flavour::Receive, false);
    check(&mut owner, &[("HELO c", "250")]);
    assert_eq!(owner.session.protocol(), "SMTP");
}

proptest::proptest! {
    #[test]
    fn arbitrary_dialogues_never_panic(
        submit in proptest::bool::ANY,
        lines in proptest::collection::vec("(EHLO a|HELO a|STARTTLS|AUTH PLAIN|AUTH LOGIN|AGFsaWNlAGRlbW8=|\\*|MAIL FROM:<(spam)?@x.org>|MAIL FROM:<>|RCPT TO:<(no|later)?b@x.org>|DATA|RSET|QUIT|\\PC{0,20})", 0..30),
    ) {
        let mut owner = Owner::new(if submit { Flavour::Submit } else { Flavour::Receive }, submit);
        for line in &lines {
            owner.take(|session, policy| session.on_line(Ok(line), policy));
        }
    }
}
