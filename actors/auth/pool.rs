//! Runs argon2id on blocking threads: so many at once, so many waiting, and no longer than the configured wait.

use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use posthouse_mail::Secret;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::AuthRefusal;

pub(super) struct Pool {
    /// Jobs under way; each holds `auth.memory`.
    running: Arc<Semaphore>,
    /// Jobs under way or waiting.
    admitted: Arc<Semaphore>,
    wait_max: Duration,
    params: Params,
}

impl Pool {
    pub(super) fn new(settings: &posthouse_conf::Auth) -> Self {
        let running = settings.concurrent_max.clamp(1, Semaphore::MAX_PERMITS / 2);
        let admitted = running.saturating_add(settings.waiting_max).min(Semaphore::MAX_PERMITS);
        let memory_kib = u32::try_from(settings.memory.get() / 1024).unwrap_or(u32::MAX).max(Params::MIN_M_COST);
        let params = Params::new(memory_kib, settings.passes.max(1), 1, None);
        Self {
            running: Arc::new(Semaphore::new(running)),
            admitted: Arc::new(Semaphore::new(admitted)),
            wait_max: settings.wait_max.get(),
            params: params.unwrap_or_default(),
        }
    }

    /// Whether the password belongs to the PHC string.
    pub(super) async fn verify(&self, password: Secret<String>, hash: Secret<String>) -> Result<bool, AuthRefusal> {
        self.run(move || {
            let parsed = PasswordHash::new(hash.reveal()).ok();
            parsed.is_some_and(|hash| Argon2::default().verify_password(password.reveal().as_bytes(), &hash).is_ok())
        })
        .await
    }

    /// A new PHC string with a salt of its own.
    pub(super) async fn hash(&self, password: Secret<String>) -> Result<Secret<String>, AuthRefusal> {
        let argon2 = self.argon2();
        let hashed = self.run(move || argon2.hash_password(password.reveal().as_bytes()).map(|hash| hash.to_string()));
        hashed.await?.map(Secret::new).map_err(|_| AuthRefusal::Unavailable)
    }

    /// A PHC string that no password belongs to, of the cost of a real one.
    pub(super) fn decoy(&self) -> Secret<String> {
        let (salt, output): ([u8; 16], [u8; 32]) = (rand::random(), rand::random());
        let (memory, passes) = (self.params.m_cost(), self.params.t_cost());
        let (salt, output) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(output));
        Secret::new(format!("$argon2id$v=19$m={memory},t={passes},p=1${salt}${output}"))
    }

    fn argon2(&self) -> Argon2<'static> {
        Argon2::new(Algorithm::Argon2id, Version::V0x13, self.params.clone())
    }

    async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T, AuthRefusal> {
        let admitted = Arc::clone(&self.admitted).try_acquire_owned().map_err(|_| AuthRefusal::Busy)?;
        let running = timeout(self.wait_max, Arc::clone(&self.running).acquire_owned());
        let running = running.await.map_err(|_| AuthRefusal::Busy)?.map_err(|_| AuthRefusal::Unavailable)?;
        let job = tokio::task::spawn_blocking(move || {
            // The job runs on even when its session is gone; its places are free only when it ends.
            let _places = (admitted, running);
            job()
        });
        job.await.map_err(|_| AuthRefusal::Unavailable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use posthouse_conf::{Auth, Size, Span};

    fn pool(change: impl FnOnce(&mut Auth)) -> Pool {
        let mut settings = Auth { memory: Size::kib(64), passes: 1, ..Default::default() };
        change(&mut settings);
        Pool::new(&settings)
    }

    fn secret(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    #[tokio::test]
    async fn a_hash_belongs_to_its_password_and_a_decoy_to_none() {
        let pool = pool(|_| {});
        let hash = pool.hash(secret("demo")).await.expect("a hash");
        assert!(hash.reveal().starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{}", hash.reveal());
        assert_eq!(pool.verify(secret("demo"), hash.clone()).await, Ok(true));
        assert_eq!(pool.verify(secret("Demo"), hash).await, Ok(false));
        let decoy = pool.decoy();
        let parsed = PasswordHash::new(decoy.reveal()).expect("a hash like any other");
        assert_eq!(Params::try_from(&parsed).expect("its parameters").m_cost(), 64);
        assert_eq!(pool.verify(secret("demo"), decoy).await, Ok(false));
        assert_eq!(pool.verify(secret("demo"), secret("not a hash")).await, Ok(false));
    }

    #[tokio::test]
    async fn a_full_pool_refuses_at_once_and_a_long_wait_ends() {
        let pool = pool(|auth| {
            auth.concurrent_max = 1;
            auth.waiting_max = 1;
            auth.wait_max = Span::ms(10);
        });
        let _job = pool.running.clone().acquire_owned().await.expect("a place");
        let _its_place = pool.admitted.clone().acquire_owned().await.expect("a place");
        assert_eq!(pool.verify(secret("a"), pool.decoy()).await, Err(AuthRefusal::Busy));
        let _waiting = pool.admitted.clone().acquire_owned().await.expect("a place");
        assert_eq!(pool.run(|| ()).await, Err(AuthRefusal::Busy));
    }
}
