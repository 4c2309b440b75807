//! Signs submitted mail with the keys of its author's domain, which it keeps read while they do not change.
//!
//! No actor: sessions call it side by side. Each domain's keys are watched, so a change elsewhere is seen at the next message.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use posthouse_filter::{Content, ContentBudget, Signer as DomainSigner, SigningKey};
use posthouse_mail::stage::BodyRef;
use posthouse_mail::{Address, Domain, UnixMillis};
use posthouse_obs::emit;
use posthouse_obs::event::filter::MessageSigned;
use posthouse_storage::domain::{DkimAlgorithm, DkimKey};
use posthouse_storage::{Store, Watch, domain, keys};
use tokio::time::Instant;

use super::{DomainError, signing_algorithm};
use crate::filter::body::StoredBody;

/// Keys are read again after this even if nothing changed: a further key begins to sign some time after its making.
const FRESH: Duration = Duration::from_secs(600);

/// The way to sign; clones share what is read.
#[derive(Clone)]
pub struct Signer {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    settings: posthouse_conf::Dkim,
    budget: ContentBudget,
    header_max: u64,
    read: Mutex<HashMap<Domain, Entry>>,
}

/// The signer of one domain, `None` where it has no key.
struct Entry {
    signer: Option<Arc<DomainSigner>>,
    read_at: Instant,
    changed: Watch,
}

impl Signer {
    /// Content is held within `filter.memory_max`, header sections up to `filter.parse_max`.
    pub fn new(store: Store, dkim: posthouse_conf::Dkim, filter: &posthouse_conf::Filter) -> Self {
        let budget = ContentBudget::new(filter.memory_max.get());
        let header_max = filter.parse_max.get();
        Self { shared: Arc::new(Shared { store, settings: dkim, budget, header_max, read: Mutex::default() }) }
    }

    /// The DKIM-Signature fields for a message with its header as it will be sent, each ending in CRLF; empty where the
    /// author's domain has no key, or where `dkim.sign` is off. The body has to be staged or stored.
    pub async fn sign(&self, author: &Address, body: BodyRef, now: UnixMillis) -> Result<Vec<u8>, DomainError> {
        if !self.shared.settings.sign {
            return Ok(Vec::new());
        }
        let result = self.sign_as(&author.domain, body, now).await;
        let outcome = match &result {
            Ok(fields) if fields.is_empty() => "no key",
            Ok(_) => "signed",
            Err(_) => "failed",
        };
        emit(MessageSigned { domain: author.domain.clone(), outcome });
        result
    }

    async fn sign_as(&self, domain: &Domain, body: BodyRef, now: UnixMillis) -> Result<Vec<u8>, DomainError> {
        let Some(signer) = self.signer(domain, now).await? else {
            return Ok(Vec::new());
        };
        let Shared { store, budget, header_max, .. } = self.shared.as_ref();
        let content = Content::load(Arc::new(StoredBody::new(store.clone(), body)), budget, *header_max).await?;
        let mut hash = DomainSigner::body_hash();
        content.each_chunk(|chunk| hash.update(chunk)).await?;
        Ok(signer.sign(content.header(), &hash.finish(), now)?.into_bytes())
    }

    /// What is read and still true, else what the store says now.
    async fn signer(&self, name: &Domain, now: UnixMillis) -> Result<Option<Arc<DomainSigner>>, DomainError> {
        if let Some(entry) = self.lock().get_mut(name)
            && entry.read_at.elapsed() < FRESH
            && (&mut entry.changed).now_or_never().is_none()
        {
            return Ok(entry.signer.clone());
        }
        let Some(local) = domain::by_name(&self.shared.store, name).await? else {
            self.lock().remove(name);
            return Ok(None);
        };
        // The watch comes before the read, so that no change slips between.
        let changed = self.shared.store.watch(&keys::domain(local.id)).await?;
        let rows = domain::dkim_keys(&self.shared.store, local.id).await?;
        let chosen = choose(&rows, now, self.shared.settings.activation_delay.get());
        let parse = |key: &DkimKey| {
            SigningKey::parse(key.selector.as_str(), signing_algorithm(key.algorithm), &key.private_key)
        };
        let chosen = chosen.into_iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        let signer = (!chosen.is_empty())
            .then(|| Arc::new(DomainSigner::new(name.clone(), chosen, &self.shared.settings.headers)));
        let mut read = self.lock();
        if read.len() >= self.shared.settings.signers_max {
            read.clear();
        }
        read.insert(name.clone(), Entry { signer: signer.clone(), read_at: Instant::now(), changed });
        Ok(signer)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Domain, Entry>> {
        // Every critical section is one map operation, so a poisoned map is a whole map.
        self.shared.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of each algorithm the newest key that was given time to be published, else the oldest there is.
fn choose(rows: &[DkimKey], now: UnixMillis, delay: Duration) -> Vec<&DkimKey> {
    let of_kind = |algorithm: DkimAlgorithm| {
        let all = || rows.iter().filter(move |key| key.algorithm == algorithm);
        let ripe = all().filter(|key| key.created_at.after(delay) <= now).max_by_key(|key| key.created_at);
        ripe.or_else(|| all().min_by_key(|key| key.created_at))
    };
    [DkimAlgorithm::Rsa, DkimAlgorithm::Ed25519].into_iter().filter_map(of_kind).collect()
}

#[cfg(test)]
mod tests {
    use posthouse_mail::Secret;

    use super::*;

    #[test]
    fn a_further_key_signs_once_it_had_time_to_be_published() {
        let key = |selector: &str, created_at| DkimKey {
            selector: Domain::parse(selector).expect("a label"),
            algorithm: DkimAlgorithm::Rsa,
            private_key: Secret::new(Vec::new()),
            created_at: UnixMillis(created_at),
        };
        let rows = [key("first", 1_000), key("second", 50_000), key("third", 90_000)];
        let check = |now, count: usize, expect: &[&str]| {
            let chosen = choose(&rows[..count], UnixMillis(now), Duration::from_secs(30));
            let names: Vec<_> = chosen.iter().map(|key| key.selector.as_str()).collect();
            assert_eq!(names, expect, "{now}");
        };
        check(1_000, 1, &["first"]);
        check(51_000, 2, &["first"]);
        check(80_000, 2, &["second"]);
        check(100_000, 3, &["second"]);
        check(120_000, 3, &["third"]);
        check(120_000, 0, &[]);
    }
}
