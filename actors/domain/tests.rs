//! Domains in a store of their own: keys, records, signatures, rotation.

use posthouse_mail::stage::BodyRef;
use posthouse_storage::StagedBody;

use super::signer::Signer;
use super::*;

struct Parent;

struct Nothing;

impl ractor::Message for Nothing {}

impl Actor for Parent {
    type Msg = Nothing;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _myself: ActorRef<Nothing>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

struct Bench {
    domains: Domains,
    signer: Signer,
    store: Store,
    id: DomainId,
    parent: ActorRef<Nothing>,
    _dir: tempfile::TempDir,
}

async fn bench() -> Bench {
    let dir = tempfile::tempdir().expect("a directory");
    let mut settings = posthouse_conf::Settings::default();
    settings.node.hostname = "mx.example.test".to_owned();
    settings.dkim.activation_delay = posthouse_conf::Span::ms(0);
    let store = Store::open(dir.path(), &settings.storage).await.expect("a store");
    let id = DomainId::new(7);
    let name = Domain::parse("example.test").expect("a domain");
    let fence = store.fence(posthouse_storage::keys::domain_shard(id));
    domain::create(&store, fence, id, &name, UnixMillis(1)).await.expect("a domain of ours");
    let (parent, _) = Actor::spawn(None, Parent, ()).await.expect("a parent");
    let placement = Placement::local(store.clone());
    let domains = Domains::start(store.clone(), placement, &settings, parent.get_cell()).await.expect("domains");
    let signer = Signer::new(store.clone(), settings.dkim, &settings.filter);
    Bench { domains, signer, store, id, parent, _dir: dir }
}

impl Bench {
    async fn stage(&self, message: &str) -> StagedBody {
        let mut writer = self.store.body_writer();
        writer.write(message.as_bytes()).await.expect("written");
        writer.finish().await.expect("staged")
    }

    async fn sign(&self, body: BodyRef) -> String {
        let author = Address::parse("alice@example.test").expect("an address");
        let fields = self.signer.sign(&author, body, clock::now()).await.expect("signed or not");
        String::from_utf8(fields).expect("text")
    }

    async fn selectors(&self) -> Vec<String> {
        let keys = self.domains.keys(self.id).await.expect("keys");
        keys.iter().map(|key| key.selector.to_string()).collect()
    }

    async fn end(self) {
        self.parent.stop(None);
        self.store.close().await.expect("closed");
    }
}

#[tokio::test]
async fn a_domain_gets_a_key_of_each_kind_once_and_its_records_name_them() {
    let bench = bench().await;
    bench.domains.ensure_keys(bench.id).await.expect("keys");
    bench.domains.ensure_keys(bench.id).await.expect("the same keys");
    assert_eq!(bench.selectors().await.len(), 2);
    let records = bench.domains.dns_records(bench.id).await.expect("records");
    let shown: Vec<_> = records.iter().map(|r| format!("{} {} {:.20}", r.name, r.kind, r.value)).collect();
    assert_eq!(shown[0], "example.test MX 10 mx.example.test.");
    assert_eq!(shown[1], "example.test TXT v=spf1 mx -all");
    assert!(shown[2].starts_with("ed25519-") && shown[2].ends_with("TXT v=DKIM1; k=ed25519; "), "{shown:?}");
    assert!(shown[3].starts_with("rsa-") && shown[3].contains("._domainkey.example.test TXT v=DKIM1; k=rsa;"));
    assert_eq!(shown[4], "_dmarc.example.test TXT v=DMARC1; p=quaranti");
    bench.end().await;
}

#[tokio::test]
async fn the_signer_sees_keys_that_come_and_go() {
    let bench = bench().await;
    let body = bench.stage("From: Alice <alice@example.test>\r\nSubject: x\r\n\r\nbody\r\n").await;
    assert_eq!(bench.sign(body.body).await, "", "no key yet");
    bench.domains.ensure_keys(bench.id).await.expect("keys");
    let fields = bench.sign(body.body).await;
    assert_eq!(fields.matches("DKIM-Signature:").count(), 2, "{fields}");
    assert!(
        fields.contains("a=rsa-sha256") && fields.contains("a=ed25519-sha256") && fields.contains("d=example.test")
    );
    for selector in bench.selectors().await {
        let selector = Domain::parse(&selector).expect("a label");
        bench.domains.remove_key(bench.id, &selector).await.expect("removed");
    }
    assert_eq!(bench.sign(body.body).await, "", "the watch told of it");
    let missing = Domain::parse("gone").expect("a label");
    let error = bench.domains.remove_key(bench.id, &missing).await.expect_err("no such key");
    assert!(matches!(error, DomainError::Store(posthouse_storage::Error::NotFound)));
    bench.end().await;
}

#[tokio::test]
async fn keys_are_rotated_once_a_day_and_a_repeat_of_the_request_changes_nothing() {
    let bench = bench().await;
    let state = DomainState {
        id: bench.id,
        fence: bench.store.fence(posthouse_storage::keys::domain_shard(bench.id)),
        store: bench.store.clone(),
        rsa_bits: 2048,
        passivate_after: Duration::from_secs(60),
        used_at: Instant::now(),
    };
    let now = UnixMillis(1_800_000_000_000);
    state.apply(Change::RotateKeys, now).await.expect("rotated");
    state.apply(Change::RotateKeys, now).await.expect("the same request again");
    assert_eq!(bench.selectors().await, ["ed25519-20270115", "rsa-20270115"]);
    let again = state.apply(Change::RotateKeys, now.after(Duration::from_secs(1))).await;
    assert!(matches!(again, Err(DomainError::Store(posthouse_storage::Error::Exists))), "{again:?}");
    state.apply(Change::RotateKeys, now.after(Duration::from_secs(86_400))).await.expect("the next day");
    assert_eq!(bench.selectors().await.len(), 4);
    bench.end().await;
}

#[test]
fn days_are_those_of_the_calendar() {
    let check = |seconds: u64, expect| assert_eq!(civil_day(UnixMillis(seconds * 1000)), expect);
    check(0, (1970, 1, 1));
    check(951_782_400, (2000, 2, 29));
    check(951_868_800, (2000, 3, 1));
    check(1_798_761_599, (2026, 12, 31));
    check(4_107_542_400, (2100, 3, 1));
}
