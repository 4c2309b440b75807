//! Fails fast where no name server answers, so that a machine without network pays for a few time-outs and not for each.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct Breaker {
    silences_max: u32,
    pause: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    silences: u32,
    open_until: Option<Instant>,
}

impl Breaker {
    pub(super) fn new(settings: &posthouse_conf::Resolver) -> Self {
        let silences_max = settings.silences_max.max(1);
        Self { silences_max, pause: settings.pause.get(), state: Mutex::default() }
    }

    /// Whether to answer without asking.
    pub(super) fn is_open(&self) -> bool {
        self.state().open_until.is_some_and(|until| Instant::now() < until)
    }

    /// Notes whether a question got any answer. After a pause one more silence opens it again.
    pub(super) fn note(&self, answered: bool) {
        let mut state = self.state();
        if answered {
            *state = State::default();
            return;
        }
        state.silences = state.silences.saturating_add(1);
        if state.silences >= self.silences_max {
            state.open_until = Some(Instant::now() + self.pause);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Two plain numbers: a panic elsewhere cannot leave them half changed.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_silences_in_a_row_and_closes_with_an_answer() {
        let settings = posthouse_conf::Resolver::default();
        let breaker = Breaker::new(&settings);
        breaker.note(false);
        breaker.note(true);
        breaker.note(false);
        breaker.note(false);
        assert!(!breaker.is_open());
        breaker.note(false);
        assert!(breaker.is_open());
        tokio::time::advance(settings.pause.get()).await;
        assert!(!breaker.is_open());
        breaker.note(false);
        assert!(breaker.is_open());
        tokio::time::advance(settings.pause.get()).await;
        breaker.note(true);
        breaker.note(false);
        assert!(!breaker.is_open());
    }
}
