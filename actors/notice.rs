//! Who hears of an account's changes: one watch of its ModSeq for all sessions that look at it.
//!
//! A notice says that something changed, never what: its receiver reads the change log from where it was, so that a lost or
//! merged notice costs nothing. An account is kept here only while somebody listens.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use posthouse_mail::{AccountId, ModSeq};
use tokio::sync::watch;

/// The hub of one node; clones share it.
#[derive(Clone, Default)]
pub struct Notices {
    listeners: Arc<Mutex<Listeners>>,
}

#[derive(Default)]
struct Listeners {
    accounts: HashMap<AccountId, watch::Sender<Option<ModSeq>>>,
    /// Accounts held when those without a listener are looked for next.
    tidy_at: usize,
}

/// Fewer accounts than this are never looked through.
const TIDY_MIN: usize = 64;

impl Notices {
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes the receiver after each change of an account. It holds the newest ModSeq told of, `None` before the first.
    pub fn subscribe(&self, account: AccountId) -> watch::Receiver<Option<ModSeq>> {
        let mut listeners = self.lock();
        if listeners.accounts.len() >= listeners.tidy_at.max(TIDY_MIN) {
            listeners.accounts.retain(|_, sender| sender.receiver_count() > 0);
            // Doubling keeps the cost of a look small for each subscription.
            listeners.tidy_at = listeners.accounts.len() * 2;
        }
        listeners.accounts.entry(account).or_insert_with(|| watch::Sender::new(None)).subscribe()
    }

    /// Tells of a change that was committed.
    pub fn publish(&self, account: AccountId, modseq: ModSeq) {
        let mut listeners = self.lock();
        let Some(sender) = listeners.accounts.get(&account) else { return };
        if sender.receiver_count() == 0 {
            listeners.accounts.remove(&account);
            return;
        }
        sender.send_if_modified(|told| {
            let is_news = told.is_none_or(|told| told < modseq);
            if is_news {
                *told = Some(modseq);
            }
            is_news
        });
    }

    /// Accounts held.
    pub fn len(&self) -> usize {
        self.lock().accounts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Listeners> {
        // Every critical section leaves the map whole, so a poisoned one is too.
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: AccountId = AccountId::new(1);

    fn modseq(number: u64) -> ModSeq {
        ModSeq::new(number).expect("it is not zero")
    }

    #[tokio::test]
    async fn every_listener_hears_the_newest_change() {
        let notices = Notices::new();
        let (mut one, mut two) = (notices.subscribe(ALICE), notices.subscribe(ALICE));
        notices.publish(AccountId::new(2), modseq(9));
        notices.publish(ALICE, modseq(5));
        notices.publish(ALICE, modseq(4));
        for listener in [&mut one, &mut two] {
            listener.changed().await.expect("the hub lives");
            assert_eq!(*listener.borrow_and_update(), Some(modseq(5)));
            assert_eq!(listener.has_changed().ok(), Some(false));
        }
    }

    #[test]
    fn an_account_without_listeners_is_forgotten() {
        let notices = Notices::new();
        drop(notices.subscribe(ALICE));
        notices.publish(ALICE, modseq(2));
        assert!(notices.is_empty());
        let kept = notices.subscribe(ALICE);
        for number in 10..10_000 {
            drop(notices.subscribe(AccountId::new(number)));
        }
        assert!(notices.len() <= 2 * TIDY_MIN, "{}", notices.len());
        drop(kept);
    }
}
