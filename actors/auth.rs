//! Checks passwords: argon2id on a bounded pool, a memory of recent successes, limits on failures.
//!
//! Apart from the sessions because its bounds are the node's, not a connection's, and because what a failure costs must not
//! depend on why it failed: an unknown name, a closed account and a wrong password take the same work and the same wait.

mod memory;
mod pool;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use posthouse_filter::rate::Admission;
use posthouse_mail::{AccountId, Address, Secret};
use posthouse_obs::emit;
use posthouse_obs::event::auth::{LoginFailed, LoginRefused, LoginSucceeded};
use posthouse_storage::{Store, account};
use tokio::time::{Instant, sleep};

use memory::Successes;
use pool::Pool;

/// Octets of a password or name that we look at; a longer one is wrong.
const SECRET_MAX: usize = 1024;

/// Who has logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub account: AccountId,
    /// The account's primary address, whatever name the client used.
    pub address: Address,
}

/// Why nobody has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthRefusal {
    #[error("wrong user name or password")]
    Wrong,
    /// Too many failures from there or for that name; the password was not looked at.
    #[error("too many failed logins, try again later")]
    Limited,
    /// Too many logins at once.
    #[error("too many logins at the moment, try again later")]
    Busy,
    /// The store did not answer.
    #[error("temporary authentication failure")]
    Unavailable,
}

/// Cheap to clone; all clones share pool, memory and limits.
#[derive(Clone)]
pub struct Authenticator {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    admission: Arc<Admission>,
    pool: Pool,
    successes: Successes,
    failure_delay: Duration,
}

/// What the store knows of a name.
struct Credential {
    login: Login,
    /// A PHC string.
    hash: Secret<String>,
}

impl Authenticator {
    pub fn new(store: Store, admission: Arc<Admission>, settings: &posthouse_conf::Auth) -> Self {
        let shared = Shared {
            store,
            admission,
            pool: Pool::new(settings),
            successes: Successes::new(settings.success_ttl.get(), settings.success_max),
            failure_delay: settings.failure_delay.get(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Checks a password; a wrong one is answered after `auth.failure_delay`.
    pub async fn check(&self, name: &str, password: &Secret<String>, client: IpAddr) -> Result<Login, AuthRefusal> {
        let Shared { admission, failure_delay, .. } = self.shared.as_ref();
        if let Err(refusal) = admission.login(client, name) {
            emit(LoginRefused { client, reason: refusal.reason() });
            return Err(AuthRefusal::Limited);
        }
        match self.verify(name, password).await {
            Ok(Some(login)) => {
                emit(LoginSucceeded { account: login.account, client });
                Ok(login)
            }
            Ok(None) => {
                admission.login_failed(client, name);
                emit(LoginFailed { name: shown(name), client });
                sleep(*failure_delay).await;
                Err(AuthRefusal::Wrong)
            }
            Err(refusal) => {
                let reason = if refusal == AuthRefusal::Busy { "busy" } else { "unavailable" };
                emit(LoginRefused { client, reason });
                Err(refusal)
            }
        }
    }

    /// Hashes a new password as `auth.memory` and `auth.passes` say; returns a PHC string.
    pub async fn hash_password(&self, password: Secret<String>) -> Result<Secret<String>, AuthRefusal> {
        self.shared.pool.hash(password).await
    }

    /// Drops what is remembered of an account. A changed password needs no such call; a changed account may.
    pub fn forget(&self, account: AccountId) {
        self.shared.successes.forget(account);
    }

    async fn verify(&self, name: &str, password: &Secret<String>) -> Result<Option<Login>, AuthRefusal> {
        let Shared { pool, successes, .. } = self.shared.as_ref();
        if password.reveal().len() > SECRET_MAX || name.len() > SECRET_MAX {
            return Ok(None);
        }
        let Some(Credential { login, hash }) = self.credential(name).await? else {
            // RFC 4954 §9 and common care: who asks must not learn which names exist, so the work is done all the same.
            pool.verify(password.clone(), pool.decoy()).await?;
            return Ok(None);
        };
        // The digest covers the stored hash: with a new password the old digest matches nothing any more.
        let digest = successes.digest(login.account, &hash, password);
        if successes.contains(&digest, Instant::now()) {
            return Ok(Some(login));
        }
        let right = pool.verify(password.clone(), hash).await?;
        if right {
            successes.remember(login.account, digest, Instant::now());
        }
        Ok(right.then_some(login))
    }

    async fn credential(&self, name: &str) -> Result<Option<Credential>, AuthRefusal> {
        let Ok(address) = Address::parse(name) else {
            return Ok(None);
        };
        let store = &self.shared.store;
        let found = account::by_address(store, &address).await.map_err(|_| AuthRefusal::Unavailable)?;
        let Some(found) = found.filter(|account| account.enabled) else {
            return Ok(None);
        };
        let hash = account::password_hash(store, found.id).await.map_err(|_| AuthRefusal::Unavailable)?;
        Ok(hash.map(|hash| Credential { login: Login { account: found.id, address: found.address }, hash }))
    }
}

/// A name from the network, fit for a log line.
fn shown(name: &str) -> String {
    name.chars().take(100).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use posthouse_conf::{Auth, Limits, Settings, Size, Span, Submission};
    use posthouse_mail::{DomainId, UnixMillis};
    use posthouse_storage::account::{AccountChange, NewAccount};
    use posthouse_storage::{Writer, domain, keys};

    struct Setup {
        _dir: tempfile::TempDir,
        store: Store,
        auth: Authenticator,
        writer: Writer,
    }

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn secret(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    /// A store with the account `alice@demo.test`, password `demo`.
    async fn setup(failures_max: u32) -> Setup {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Store::open(dir.path(), &Settings::default().storage).await.expect("a store");
        let limits = Limits { failed_logins_per_hour_max: failures_max, ..Default::default() };
        let admission = Arc::new(Admission::new(&limits, &Submission::default()));
        let settings = Auth { memory: Size::kib(64), passes: 1, failure_delay: Span::ms(1), ..Default::default() };
        let auth = Authenticator::new(store.clone(), admission, &settings);
        let (id, account, now) = (DomainId::new(1), AccountId::new(1), UnixMillis(1));
        let domain_fence = store.fence(keys::domain_shard(id));
        let name = "demo.test".parse().expect("a domain");
        domain::create(&store, domain_fence, id, &name, now).await.expect("a domain");
        let writer = Writer { fence: store.fence(keys::account_shard(account)), account, now };
        let new = NewAccount {
            address: "alice@demo.test".parse().expect("an address"),
            password_hash: Some(auth.hash_password(secret("demo")).await.expect("a hash")),
            quota_max: None,
            admin: false,
            disabled: false,
        };
        account::create(&store, &writer, domain_fence, &new).await.expect("an account");
        Setup { _dir: dir, store, auth, writer }
    }

    impl Setup {
        async fn check(&self, name: &str, password: &str, expect: Result<(), AuthRefusal>) {
            let outcome = self.auth.check(name, &secret(password), CLIENT).await;
            assert_eq!(
                outcome.map(|login| assert_eq!(login.account, self.writer.account)),
                expect,
                "{name} {password}"
            );
        }

        async fn change(&self, change: AccountChange) {
            account::change(&self.store, &self.writer, &change).await.expect("a change");
        }
    }

    #[tokio::test]
    async fn only_the_right_name_and_password_log_in() {
        let setup = setup(100).await;
        setup.check("alice@demo.test", "demo", Ok(())).await;
        setup.check("Alice@DEMO.test", "demo", Ok(())).await;
        let wrong = [("alice@demo.test", "Demo"), ("bob@demo.test", "demo"), ("alice", "demo"), ("", "")];
        for (name, password) in wrong {
            setup.check(name, password, Err(AuthRefusal::Wrong)).await;
        }
        setup.check("alice@demo.test", &"x".repeat(SECRET_MAX + 1), Err(AuthRefusal::Wrong)).await;
    }

    #[tokio::test]
    async fn a_new_password_and_a_closed_account_count_at_once() {
        let setup = setup(100).await;
        setup.check("alice@demo.test", "demo", Ok(())).await;
        let hash = setup.auth.hash_password(secret("new")).await.expect("a hash");
        setup.change(AccountChange { password_hash: Some(hash), ..Default::default() }).await;
        setup.check("alice@demo.test", "demo", Err(AuthRefusal::Wrong)).await;
        setup.check("alice@demo.test", "new", Ok(())).await;
        setup.change(AccountChange { enabled: Some(false), ..Default::default() }).await;
        setup.check("alice@demo.test", "new", Err(AuthRefusal::Wrong)).await;
    }

    #[tokio::test]
    async fn after_too_many_failures_even_the_right_password_is_not_looked_at() {
        let setup = setup(2).await;
        setup.check("alice@demo.test", "a", Err(AuthRefusal::Wrong)).await;
        setup.check("nobody@demo.test", "b", Err(AuthRefusal::Wrong)).await;
        setup.check("alice@demo.test", "demo", Err(AuthRefusal::Limited)).await;
    }

    #[test]
    fn a_name_in_a_log_line_stays_on_its_line() {
        assert_eq!(shown("a\nlogin account=a1"), "a\\nlogin account=a1");
    }
}
