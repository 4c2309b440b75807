//! How a supervisor restarts a child that is always there (a listener, a distributor): back-off, and a window of intensity.

use std::collections::VecDeque;
use std::time::Duration;

use posthouse_conf::Supervise;
use posthouse_obs::emit;
use posthouse_obs::event::actor::{ActorParked, ActorRestarted};
use tokio::time::Instant;

/// The failures of one child.
#[derive(Debug)]
pub struct Restarts {
    kind: &'static str,
    name: String,
    settings: Supervise,
    times: VecDeque<Instant>,
}

impl Restarts {
    pub fn new(kind: &'static str, name: String, settings: Supervise) -> Self {
        Self { kind, name, settings, times: VecDeque::new() }
    }

    /// Notes a failure; returns how long to wait before the next start. After `restarts_max` failures within the window the
    /// child is parked: it is started again after `parked_retry`, the others go on.
    pub fn next_start(&mut self, reason: String) -> Duration {
        let now = Instant::now();
        while self.times.front().is_some_and(|t| now - *t > self.settings.window.get()) {
            self.times.pop_front();
        }
        self.times.push_back(now);
        emit(ActorRestarted { kind: self.kind, entity: self.name.clone(), reason });
        if self.times.len() >= self.settings.restarts_max {
            emit(ActorParked { kind: self.kind, entity: self.name.clone(), failures: self.times.len() });
            self.times.clear();
            return self.settings.parked_retry.get();
        }
        let doublings = u32::try_from(self.times.len() - 1).unwrap_or(u32::MAX).min(16);
        self.settings.backoff_min.get().saturating_mul(1 << doublings).min(self.settings.backoff_max.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_double_and_the_fifth_failure_parks() {
        let settings = Supervise::default();
        let mut restarts = Restarts::new("test", "one".to_owned(), settings.clone());
        let waits: Vec<u64> =
            (0..5).map(|_| u64::try_from(restarts.next_start("bug".to_owned()).as_millis()).unwrap_or(0)).collect();
        assert_eq!(waits, [10, 20, 40, 80, 3_600_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn old_failures_are_forgotten() {
        let mut restarts = Restarts::new("test", "one".to_owned(), Supervise::default());
        for _ in 0..4 {
            restarts.next_start("bug".to_owned());
        }
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(restarts.next_start("bug".to_owned()), Duration::from_millis(10));
    }
}
