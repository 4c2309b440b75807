//! Vectors of others and of ours: the openspf suite, signed messages, messages that we sign and mail-auth verifies.
//!
//! Apart from the units since a vector goes through several of them, over DNS.
#![cfg(test)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use posthouse_conf::{Filter, Span};
use posthouse_mail::stage::{BodyRef, Origin, ReceivedMessage};
use posthouse_mail::{Action, Address, BlobId, Domain, Envelope, IngestId, ReversePath, UnixMillis, Verdict};
use posthouse_net::Resolver;
use yaml_rust2::{Yaml, YamlLoader};

use crate::authentication_results::{AuthResult, DkimFinding};
use crate::budget::ContentBudget;
use crate::context::{Content, Context};
use crate::dns::Dns;
use crate::fields::body_start;
use crate::headers::render;
use crate::keys::{KeyAlgorithm, generate, public_record};
use crate::name_server::{NameServer, Script};
use crate::pipeline::{Pipeline, Progress};
use crate::signing::{Signer, SigningKey};
use crate::spf::Question;

fn resolver(server: &NameServer) -> Resolver {
    let (servers, timeout) = (vec![server.server()], Span::secs(2));
    let settings = posthouse_conf::Resolver { servers, timeout, attempts: 1, ..Default::default() };
    Resolver::new(&settings).expect("a resolver")
}

/// The folder of shared suites.
fn suites() -> PathBuf {
    let given = std::env::var_os("POSTHOUSE_SHARED").map(PathBuf::from);
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared"));
    let folder = given.unwrap_or_else(beside).join("suites");
    assert!(folder.is_dir(), "no shared suites at {}", folder.display());
    folder
}

/// A message as port 25 would hand it to the filter, from a client that is no friend.
async fn received(message: &[u8], sender: &str, now: UnixMillis) -> Context {
    let sender = Address::parse(sender).expect("an address");
    let received = ReceivedMessage {
        envelope: Envelope::new(IngestId::new(7), ReversePath::Address(sender)),
        origin: Origin {
            client_ip: [192, 0, 2, 10].into(),
            hello: "client.example.com".into(),
            protocol: "ESMTP",
            tls: None,
            account: None,
        },
        body: BodyRef { blob: BlobId::new([0; 32]), size: message.len() as u64 },
        received_at: now,
    };
    let body = Arc::new(Bytes::copy_from_slice(message));
    let content = Content::load(body, &ContentBudget::new(1 << 24), 1 << 20).await.expect("content in memory");
    Context::new(received, content)
}

async fn judge(server: &NameServer, context: &mut Context, settings: &Filter) -> Verdict {
    let resolver = resolver(server);
    // On a slow machine an answer takes its time.
    let settings = Filter { stage_timeout: Span::secs(60), ..settings.clone() };
    let pipeline = Pipeline::from_settings(&settings, &resolver).expect("good settings");
    pipeline.judge(context, &[], &Progress::default()).await
}

const NOW: UnixMillis = UnixMillis(1_668_000_000_000);

mod signing {
    use super::*;

    /// Bodies where canonical forms go wrong.
    const BODIES: &[&str] = &[
        "",
        "\r\n",
        "no line end",
        "one line\r\n",
        "blank lines at the end\r\n\r\n\r\n",
        "white space at the end\r\n \t \r\n\r\n   \r\n",
        "   \r\n\t\r\n",
        " leading and  double   spaces\t\there \r\n\r\n.dots\r\n..two\r\n",
        "a\r\n  \r\nb  ",
    ];

    const HEADER: &str = "Received: by somewhere\r\nFrom: Alice <alice@example.com>\r\nTo: bob@example.org\r\n\
        Subject:  folded\r\n\t and   spaced \r\nSubject: twice\r\nDate: Wed, 09 Nov 2022 13:20:00 +0000\r\n\
        Message-ID: <1@example.com>\r\nMIME-Version: 1.0\r\n\r\n";

    fn signer(keys: Vec<SigningKey>) -> Signer {
        let names = posthouse_conf::Dkim::default().headers;
        Signer::new(Domain::parse("example.com").expect("a domain"), keys, &names)
    }

    /// A signer with both kinds of key, and the records that publish them.
    pub(super) fn signer_and_records() -> (Signer, Script) {
        let mut keys = Vec::new();
        let mut script = Script::default();
        for (selector, algorithm) in [("rsa", KeyAlgorithm::RsaSha256), ("ed", KeyAlgorithm::Ed25519Sha256)] {
            let key = generate(algorithm, 2048).expect("a key");
            let record = public_record(algorithm, &key).expect("a record");
            script = script.txt(&format!("{selector}._domainkey.example.com"), &[record.as_bytes()]);
            keys.push(SigningKey::parse(selector, algorithm, &key).expect("a key of ours"));
        }
        (signer(keys), script)
    }

    pub(super) fn sign(signer: &Signer, message: &str) -> String {
        let start = body_start(message.as_bytes()).expect("a header section with an end");
        let mut hash = Signer::body_hash();
        hash.update(&message.as_bytes()[start..]);
        let fields = signer.sign(&message.as_bytes()[..start], &hash.finish(), NOW).expect("a signature");
        format!("{fields}{message}")
    }

    async fn results(server: &NameServer, message: &str) -> Vec<DkimFinding> {
        let mut context = received(message.as_bytes(), "alice@example.com", NOW).await;
        let settings = Filter { spf: false, dmarc: false, ..Filter::default() };
        judge(server, &mut context, &settings).await;
        context.facts.dkim
    }

    #[tokio::test]
    async fn what_we_sign_verifies_whatever_the_body() {
        let (signer, script) = signer_and_records();
        let server = script.serve();
        for body in BODIES {
            let signed = sign(&signer, &format!("{HEADER}{body}"));
            assert!(signed.lines().all(|line| line.len() <= 78), "RFC 5322 §2.1.1: short lines\n{signed}");
            let found = results(&server, &signed).await;
            let shown: Vec<_> = found.iter().map(|f| (f.result, f.algorithm)).collect();
            let expect = [(AuthResult::Pass, "rsa-sha256"), (AuthResult::Pass, "ed25519-sha256")];
            assert_eq!(shown, expect, "{body:?} {found:?}");
            let padded = format!("{signed}\r\n \t\r\n\r\n");
            let grown = if body.is_empty() || body.ends_with('\n') { padded } else { signed };
            assert!(results(&server, &grown).await.iter().all(|f| f.result == AuthResult::Pass), "{body:?} padded");
        }
    }

    #[tokio::test]
    async fn rfc6376_8_15_no_from_can_be_added_and_no_signed_field_changed() {
        let (signer, script) = signer_and_records();
        let server = script.serve();
        let signed = sign(&signer, &format!("{HEADER}body\r\n"));
        let check = async |message: String, expect: AuthResult| {
            let found = results(&server, &message).await;
            assert!(found.iter().all(|f| f.result == expect), "{found:?}\n{message}");
        };
        check(format!("From: evil@example.net\r\n{signed}"), AuthResult::Fail).await;
        check(signed.replace("Subject: twice", "Subject: thrice"), AuthResult::Fail).await;
        check(signed.replace("\r\nbody\r\n", "\r\nbodY\r\n"), AuthResult::Fail).await;
        check(signed.replace("Received: by somewhere", "Received: by elsewhere"), AuthResult::Pass).await;
        check(signed.replace("and   spaced", "and spaced"), AuthResult::Pass).await;
    }

    #[tokio::test]
    async fn a_key_that_is_revoked_missing_or_silent_is_told_apart() {
        let key = generate(KeyAlgorithm::Ed25519Sha256, 2048).expect("a key");
        let parse = |selector| SigningKey::parse(selector, KeyAlgorithm::Ed25519Sha256, &key).expect("a key of ours");
        let signed = sign(&signer(vec![parse("revoked"), parse("missing"), parse("silent")]), HEADER);
        let script = Script::default().txt("revoked._domainkey.example.com", &[b"v=DKIM1; k=ed25519; p="]);
        let server = script.silent("silent._domainkey.example.com").serve();
        let found: Vec<_> = results(&server, &signed).await.into_iter().map(|f| (f.result, f.reason)).collect();
        assert_eq!(found[0], (AuthResult::PermError, Some("key is revoked")));
        assert_eq!(found[1], (AuthResult::PermError, Some("no key")));
        assert_eq!(found[2].0, AuthResult::TempError);
    }

    #[tokio::test]
    async fn signatures_that_do_not_count_never_pass() {
        let check = async |tags: &str, expect: AuthResult, reason: &str| {
            let message = format!("DKIM-Signature: {tags}; b=AAAA; bh=AAAA; d=example.com; s=x\r\n{HEADER}");
            let found = results(&Script::default().serve(), &message).await;
            assert_eq!((found[0].result, found[0].reason), (expect, Some(reason)), "{tags}");
        };
        check("v=1; a=rsa-sha1; h=from", AuthResult::PermError, "rsa-sha1 is retired").await;
        check("v=1; a=rsa-sha256; h=to:subject", AuthResult::PermError, "From is not signed").await;
        check("v=2; a=rsa-sha256; h=from", AuthResult::PermError, "malformed signature").await;
        check("a=rsa-sha256; h=from", AuthResult::PermError, "unknown version").await;
        check("v=1; a=rsa-sha256; h=from; t=9; x=10", AuthResult::Fail, "signature expired").await;
        check("v=1; a=rsa-sha256; h=from; l=10", AuthResult::PermError, "l= is longer than the body").await;
        check("v=1; a=rsa-sha256; h=from", AuthResult::Fail, "body has changed").await;
        let many = format!("v=1; a=rsa-sha256; h=from{}", ":x".repeat(300));
        check(&many, AuthResult::PermError, "too many signed fields").await;
    }
}

mod policy {
    use super::*;

    fn message(from: &str) -> String {
        format!(
            "From: {from}\r\nTo: bob@example.org\r\nSubject: x\r\nDate: Wed, 09 Nov 2022 13:20:00 +0000\r\n\r\nbody\r\n"
        )
    }

    async fn check(script: Script, message: &str, expect: (Action, AuthResult, AuthResult)) -> String {
        let server = script.serve();
        let mut context = received(message.as_bytes(), "bounce@example.com", NOW).await;
        let verdict = judge(&server, &mut context, &Filter::default()).await;
        let spf = context.facts.spf.as_ref().expect("SPF ran").result;
        let dmarc = context.facts.dmarc.as_ref().expect("DMARC ran").result;
        assert_eq!((verdict.action, spf, dmarc), expect, "{verdict:?} {:?}", context.facts);
        render(&context.facts, &verdict, "mx.test")
    }

    fn spf(script: Script) -> Script {
        script.txt("example.com", &[b"v=spf1 ip4:192.0.2.10 -all"])
    }

    #[tokio::test]
    async fn an_aligned_spf_pass_is_a_dmarc_pass() {
        let script = spf(Script::default()).txt("_dmarc.example.com", &[b"v=DMARC1; p=reject"]);
        let shown =
            check(script, &message("a@news.example.com"), (Action::Accept, AuthResult::Pass, AuthResult::Pass)).await;
        assert!(shown.contains("spf=pass smtp.mailfrom=example.com;"), "{shown}");
        assert!(shown.contains("dmarc=pass policy.published=reject header.from=news.example.com"), "{shown}");
    }

    #[tokio::test]
    async fn the_policy_of_the_author_domain_decides_on_a_fail() {
        let policy = |text: &[u8]| spf(Script::default()).txt("_dmarc.example.net", &[text]);
        let author = message("a@example.net");
        let outcome = |action| (action, AuthResult::Pass, AuthResult::Fail);
        check(policy(b"v=DMARC1; p=reject"), &author, outcome(Action::Reject)).await;
        check(policy(b"v=DMARC1; p=quarantine"), &author, outcome(Action::Junk)).await;
        check(policy(b"v=DMARC1; p=none"), &author, outcome(Action::Accept)).await;
        check(spf(Script::default()), &author, (Action::Accept, AuthResult::Pass, AuthResult::None)).await;
    }

    #[tokio::test]
    async fn an_aligned_signature_is_enough_and_strict_alignment_is_exact() {
        let (signer, script) = signing::signer_and_records();
        let signed = signing::sign(&signer, &message("a@example.com"));
        let script = script.txt("_dmarc.example.com", &[b"v=DMARC1; p=reject; adkim=s"]);
        let shown = check(script, &signed, (Action::Accept, AuthResult::None, AuthResult::Pass)).await;
        assert!(shown.contains("dkim=pass header.d=example.com header.s=rsa"), "{shown}");
        assert!(shown.contains("header.a=ed25519-sha256"), "{shown}");
        let (signer, script) = signing::signer_and_records();
        let signed = signing::sign(&signer, &message("a@sub.example.com"));
        let script = script.txt("_dmarc.example.com", &[b"v=DMARC1; p=reject; adkim=s"]);
        check(script, &signed, (Action::Reject, AuthResult::None, AuthResult::Fail)).await;
    }

    #[tokio::test]
    async fn dns_that_fails_never_refuses_mail() {
        let script = Script::default().silent("example.com").silent("_dmarc.example.com");
        let expect = (Action::Accept, AuthResult::TempError, AuthResult::TempError);
        check(script, &message("a@example.com"), expect).await;
    }

    #[tokio::test]
    async fn a_trusted_client_is_not_judged_by_its_address() {
        let script =
            Script::default().txt("example.com", &[b"v=spf1 -all"]).txt("_dmarc.example.com", &[b"v=DMARC1; p=reject"]);
        let server = script.serve();
        let mut context = received(message("a@example.com").as_bytes(), "a@example.com", NOW).await;
        context.message.origin.client_ip = [127, 0, 0, 1].into();
        let verdict = judge(&server, &mut context, &Filter::default()).await;
        assert_eq!(verdict.action, Action::Accept);
        let shown = render(&context.facts, &verdict, "mx.test");
        assert!(shown.contains("spf=fail (trusted client, not applied)"), "{shown}");
        assert!(shown.contains("dmarc=fail (trusted client, not applied)"), "{shown}");
        assert!(verdict.score() < 0.1, "{shown}");
    }

    #[tokio::test]
    async fn several_from_fields_are_junk() {
        let two = format!("From: b@example.net\r\n{}", message("a@example.com"));
        check(spf(Script::default()), &two, (Action::Junk, AuthResult::Pass, AuthResult::None)).await;
    }

    #[tokio::test]
    async fn a_giant_header_and_a_crowd_of_signatures_stay_cheap() {
        let one = "DKIM-Signature: v=1; a=rsa-sha256; d=example.com; s=x; h=from; bh=AAAA; b=AAAA\r\n";
        let crowd = format!("{}{}", one.repeat(2000), message("a@example.com"));
        let mut context = received(crowd.as_bytes(), "a@example.com", NOW).await;
        judge(&Script::default().serve(), &mut context, &Filter::default()).await;
        assert_eq!(context.facts.dkim.len(), Filter::default().dkim_signatures_max);
        let crowd = format!("{one}{}{}", "X: y\r\n".repeat(100_000), message("a@example.com"));
        let mut context = received(crowd.as_bytes(), "a@example.com", NOW).await;
        judge(&Script::default().serve(), &mut context, &Filter::default()).await;
        assert_eq!(context.facts.dkim[0].reason, Some("too many header fields"));
    }
}

mod dkim_suite {
    use super::*;

    /// Signed messages from the field: key records, an empty line, the message.
    #[tokio::test]
    #[ignore = "needs ../shared"]
    async fn signed_messages_of_others_verify() {
        let folder = suites();
        let mut passed = 0;
        let mut files: Vec<_> = std::fs::read_dir(folder.join("dkim")).expect("a folder").flatten().collect();
        files.sort_by_key(std::fs::DirEntry::path);
        for file in files {
            let text = std::fs::read_to_string(file.path()).expect("a file of text").replace("\r\n", "\n");
            let (records, message) = text.split_once("\n\n").expect("records, then a message");
            let mut script = Script::default();
            for (owner, record) in records.lines().filter_map(|line| line.split_once(' ')) {
                script = script.txt(owner, &[record.as_bytes()]);
            }
            let server = script.serve();
            let message = message.replace('\n', "\r\n");
            let mut context = received(message.as_bytes(), "a@example.com", NOW).await;
            // One of them expired days before the others were signed.
            context.message.received_at = UnixMillis(1_667_900_000_000);
            judge(&server, &mut context, &Filter { spf: false, dmarc: false, ..Filter::default() }).await;
            let shown: Vec<_> = context.facts.dkim.iter().map(|f| (f.result, f.algorithm, f.reason)).collect();
            eprintln!("{}: {shown:?}", file.path().display());
            passed += usize::from(context.facts.dkim.iter().any(|f| f.result == AuthResult::Pass));
        }
        assert_eq!(passed, 6);
    }
}

mod spf_suite {
    use super::*;

    fn octets(text: &str) -> Vec<u8> {
        text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect()
    }

    fn text(value: &Yaml) -> String {
        match value {
            Yaml::String(text) | Yaml::Real(text) => text.clone(),
            Yaml::Integer(number) => number.to_string(),
            _ => String::new(),
        }
    }

    fn strings(value: &Yaml) -> Vec<String> {
        value.as_vec().map_or_else(|| vec![text(value)], |list| list.iter().map(text).collect())
    }

    fn script(zones: &Yaml) -> Script {
        let mut script = Script::default();
        for (owner, records) in zones.as_hash().expect("zones by name") {
            let owner = text(owner);
            let records: Vec<&Yaml> = records.as_vec().into_iter().flatten().collect();
            let has_txt = records.iter().any(|record| !record["TXT"].is_badvalue());
            for record in records {
                let Some(fields) = record.as_hash() else {
                    script = script.silent(&owner);
                    continue;
                };
                for (kind, value) in fields {
                    script = add(script, &owner, (&text(kind), value), has_txt);
                }
            }
        }
        script
    }

    fn add(script: Script, owner: &str, (kind, value): (&str, &Yaml), has_txt: bool) -> Script {
        match kind {
            // The suite's own rule: a record of the retired type SPF stands for TXT unless there are TXT records.
            "SPF" if has_txt => script,
            "TXT" if text(value) == "NONE" => script,
            "SPF" | "TXT" => {
                let strings: Vec<Vec<u8>> = strings(value).iter().map(|string| octets(string)).collect();
                let strings: Vec<&[u8]> = strings.iter().map(Vec::as_slice).collect();
                script.txt(owner, &strings)
            }
            "A" | "AAAA" => script.address(owner, text(value).parse().expect("an address")),
            "MX" => {
                let preference = value[0].as_i64().and_then(|number| u16::try_from(number).ok()).expect("a preference");
                script.mx(owner, preference, &text(&value[1]))
            }
            "PTR" => script.ptr(owner, &text(value)),
            "CNAME" => script.cname(owner, &text(value)),
            _ => script,
        }
    }

    #[tokio::test]
    #[ignore = "needs ../shared"]
    async fn openspf_suite() {
        let folder = suites();
        let source = std::fs::read_to_string(folder.join("spf/rfc7208-tests.yml")).expect("the suite");
        let (mut passed, mut failed) = (0, Vec::new());
        for section in YamlLoader::load_from_str(&source).expect("YAML") {
            let server = script(&section["zonedata"]).serve();
            for (name, case) in section["tests"].as_hash().expect("cases by name") {
                let dns = Arc::new(Dns::new(&resolver(&server), Duration::from_secs(60)));
                let sender = text(&case["mailfrom"]);
                let hello = text(&case["helo"]);
                let question = Question {
                    client: text(&case["host"]).parse().expect("an address"),
                    hello: &hello,
                    sender: Some(sender.as_str()).filter(|sender| !sender.is_empty()),
                };
                let result = dns.ask(question.ask(&dns), |_| false).await.map_or("temperror", AuthResult::as_str);
                let allowed = strings(&case["result"]);
                if allowed.iter().any(|allowed| allowed == result) {
                    passed += 1;
                    continue;
                }
                failed.push(format!("{}: {result}, wanted {allowed:?}", text(name)));
            }
        }
        eprintln!("openspf: {passed} passed, {} failed\n{}", failed.len(), failed.join("\n"));
        assert_eq!((passed, failed.len()), (203, 0));
    }
}
