//! Who hears of an account's changes: one watch of its ModSeq for all sessions that look at it, and for those that sleep a
//! place in a list that each of their keepers has.
//!
//! A notice says that something changed, never what: its receiver reads the change log from where it was, so that a lost or
//! merged notice costs nothing. An account is kept here only while somebody listens.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use posthouse_mail::{AccountId, ModSeq};
use tokio::sync::{Notify, watch};

/// The hub of one node; clones share it.
#[derive(Clone, Default)]
pub struct Notices {
    listeners: Arc<Mutex<Listeners>>,
    /// Few: each listening socket has one.
    sleeping: Arc<Mutex<Vec<Weak<Sleepers>>>>,
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

    /// A list of sleepers that hear of changes from now on.
    pub fn sleepers(&self) -> Arc<Sleepers> {
        let sleepers = Arc::new(Sleepers::default());
        let mut sleeping = lock(&self.sleeping);
        sleeping.retain(|sleepers| sleepers.strong_count() > 0);
        sleeping.push(Arc::downgrade(&sleepers));
        sleepers
    }

    /// Tells of a change that was committed.
    pub fn publish(&self, account: AccountId, modseq: ModSeq) {
        self.tell_listeners(account, modseq);
        // After those who are awake: whoever falls asleep first puts himself on the list and then looks at his watch again.
        lock(&self.sleeping).iter().filter_map(Weak::upgrade).for_each(|sleepers| sleepers.tell(account));
    }

    fn tell_listeners(&self, account: AccountId, modseq: ModSeq) {
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
        lock(&self.listeners)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section leaves what it guards whole, so a poisoned one is too.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sessions that sleep at one keeper and look at accounts, by the keeper's number of each: some octets a session, no watch.
#[derive(Default)]
pub struct Sleepers {
    sleepers: Mutex<Looking>,
    news: Notify,
}

#[derive(Default)]
struct Looking {
    at: BTreeSet<(AccountId, u32)>,
    /// Accounts that changed and whose sleepers were not yet taken.
    changed: BTreeSet<AccountId>,
}

impl Sleepers {
    pub fn add(&self, account: AccountId, number: u32) {
        lock(&self.sleepers).at.insert((account, number));
    }

    pub fn remove(&self, account: AccountId, number: u32) {
        lock(&self.sleepers).at.remove(&(account, number));
    }

    /// Returns once accounts have changed at which somebody looks. Cancel-safe; for one waiter.
    pub async fn changed(&self) {
        while lock(&self.sleepers).changed.is_empty() {
            self.news.notified().await;
        }
    }

    /// Those who look at accounts that have changed; each change is told once.
    pub fn take_changed(&self) -> Vec<u32> {
        let mut looking = lock(&self.sleepers);
        let changed = std::mem::take(&mut looking.changed);
        let of = |account| looking.at.range((account, 0)..=(account, u32::MAX)).map(|(_, number)| *number);
        changed.into_iter().flat_map(of).collect()
    }

    fn tell(&self, account: AccountId) {
        let mut looking = lock(&self.sleepers);
        if looking.at.range((account, 0)..=(account, u32::MAX)).next().is_some() && looking.changed.insert(account) {
            self.news.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

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

    #[tokio::test]
    async fn sleepers_of_a_changed_account_are_told_of_once() {
        let notices = Notices::new();
        let (sleepers, others) = (notices.sleepers(), notices.sleepers());
        let bob = AccountId::new(2);
        [(ALICE, 7), (ALICE, 8), (bob, 9)].into_iter().for_each(|(account, number)| sleepers.add(account, number));
        notices.publish(AccountId::new(3), modseq(1));
        assert!(sleepers.changed().now_or_never().is_none(), "nobody looks at that account");
        notices.publish(ALICE, modseq(2));
        notices.publish(ALICE, modseq(3));
        sleepers.changed().await;
        assert_eq!(sleepers.take_changed(), [7, 8]);
        assert!(sleepers.changed().now_or_never().is_none() && others.changed().now_or_never().is_none());
        sleepers.remove(ALICE, 7);
        notices.publish(ALICE, modseq(4));
        assert_eq!(sleepers.take_changed(), [8]);
        drop(sleepers);
        notices.publish(ALICE, modseq(5));
        assert_eq!(lock(&notices.sleeping).iter().filter(|sleepers| sleepers.strong_count() > 0).count(), 1);
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
