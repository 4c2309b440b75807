//! What every queue actor and its relays work with: made once per node, shared by all of them.
//!
//! Apart so that an actor's arguments list it in one word, and tests can put their own courier in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use posthouse_conf::Settings;
use posthouse_storage::Store;
use tokio::sync::{Notify, Semaphore};

use super::bounce::Reports;
use crate::relay::Courier;
use crate::spool::SpoolNudge;

/// Shared by the queues of a node.
pub struct QueueServices {
    pub store: Store,
    pub settings: Arc<Settings>,
    pub courier: Arc<dyn Courier>,
    pub reports: Reports,
    /// Reports go through the spool; its distributors hear of them here.
    pub spool: SpoolNudge,
    /// One permit a relay: `queue.relays_max`.
    pub relays: Arc<Semaphore>,
    pub busy: Busy,
}

/// Counts attempts under way, so that a stopping node can wait for them.
#[derive(Debug, Clone, Default)]
pub struct Busy(Arc<BusyState>);

#[derive(Debug, Default)]
struct BusyState {
    under_way: AtomicUsize,
    stopping: AtomicBool,
    changed: Notify,
}

/// One attempt under way, for as long as it lives.
#[derive(Debug)]
pub struct UnderWay(Arc<BusyState>);

impl Busy {
    pub fn enter(&self) -> UnderWay {
        self.0.under_way.fetch_add(1, Ordering::AcqRel);
        UnderWay(self.0.clone())
    }

    /// No further attempt is to begin.
    pub fn stop(&self) {
        self.0.stopping.store(true, Ordering::Release);
    }

    pub fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Acquire)
    }

    /// Returns when no attempt is under way.
    pub async fn idle(&self) {
        loop {
            let changed = self.0.changed.notified();
            if self.0.under_way.load(Ordering::Acquire) == 0 {
                return;
            }
            changed.await;
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if self.0.under_way.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stopping_node_waits_for_attempts_under_way() {
        let busy = Busy::default();
        busy.idle().await;
        let first = busy.enter();
        let waiting = tokio::spawn({
            let busy = busy.clone();
            async move { busy.idle().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.expect("the wait ends");
    }
}
