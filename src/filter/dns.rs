//! The resolver in the form that mail-auth takes; the only place that knows both.
//!
//! Servers and cache are `net`'s; nothing is cached twice. Where no server answers at all, each message would wait for the
//! full deadline of each stage: after a few such waits in a row the stages are told at once that DNS is away, for a while.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mail_auth::MessageAuthenticator;
use posthouse_net::Resolver;
use tokio::time::{Instant, timeout};

use crate::error::Error;

/// Look-ups in a row without an answer after which DNS counts as away.
const SILENCES_MAX: u32 = 3;
/// How long it then counts as away before it is asked again.
const PAUSE: Duration = Duration::from_secs(15);

/// DNS as the stages ask it.
pub struct Dns {
    authenticator: MessageAuthenticator,
    /// Longest time of one question and all that it leads to.
    limit: Duration,
    silences: AtomicU32,
    away_until: Mutex<Option<Instant>>,
}

impl Dns {
    pub fn new(resolver: &Resolver, limit: Duration) -> Self {
        let authenticator = MessageAuthenticator(resolver.hickory());
        Self { authenticator, limit, silences: AtomicU32::new(0), away_until: Mutex::new(None) }
    }

    pub(crate) fn authenticator(&self) -> &MessageAuthenticator {
        &self.authenticator
    }

    /// Asks, and gives up in time.
    pub(crate) async fn ask<T>(&self, question: impl Future<Output = T>) -> Result<T, Error> {
        if self.is_away() {
            return Err(Error::TimedOut("DNS"));
        }
        match timeout(self.limit, question).await {
            Ok(answer) => {
                self.silences.store(0, Ordering::Relaxed);
                Ok(answer)
            }
            Err(_) => {
                if self.silences.fetch_add(1, Ordering::Relaxed) + 1 >= SILENCES_MAX {
                    self.silences.store(0, Ordering::Relaxed);
                    *self.away() = Some(Instant::now() + PAUSE);
                }
                Err(Error::TimedOut("DNS"))
            }
        }
    }

    fn is_away(&self) -> bool {
        let mut away = self.away();
        let still = away.is_some_and(|until| Instant::now() < until);
        if !still {
            *away = None;
        }
        still
    }

    fn away(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.away_until.lock().expect("nothing panics while it holds this lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dns(limit: Duration) -> Dns {
        let settings = posthouse_conf::Resolver { servers: vec!["127.0.0.1:9".into()], ..Default::default() };
        Dns::new(&Resolver::new(&settings).expect("a resolver"), limit)
    }

    #[tokio::test(start_paused = true)]
    async fn dns_that_never_answers_is_not_waited_for_each_time() {
        let dns = dns(Duration::from_secs(5));
        let start = Instant::now();
        for _ in 0..10 {
            assert!(dns.ask(std::future::pending::<()>()).await.is_err());
        }
        assert_eq!(start.elapsed(), Duration::from_secs(15), "three waits, then none");
        tokio::time::advance(PAUSE).await;
        assert!(dns.ask(std::future::ready(())).await.is_ok());
    }
}
