//! Who may write the owned rows of a store that several processes can reach: one of them, the owner.
//!
//! Taking the store raises its epoch and writes that into the fence row of every shard, in one transaction. So whatever a
//! former owner still believes, its next owned write reads another epoch than its own and aborts: safety rests on the fence,
//! never on the heartbeat. The heartbeat only keeps a second process from taking what is in use: it is a counter that the
//! newcomer watches with its own clock, so that no two clocks are compared. Where the engine's own lock proves that nobody
//! else is there, the store is taken at once.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use posthouse_obs::emit;
use posthouse_obs::event::store as event;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, interval, sleep};

use crate::codec::{self, Record};
use crate::engine::Engine;
use crate::error::Error;
use crate::keys;
use crate::shard::{Epoch, ShardId};
use crate::store::{Retry, transact};
use crate::transaction::Transaction;

/// Beats of the owner within the time after which it counts as gone.
const BEATS: u32 = 4;

/// Beats by which an owner proves that it lives: one may have been on its way when it was killed.
const PROOF: u32 = 2;

/// The row that names the owner.
#[derive(Clone, PartialEq, prost::Message)]
struct OwnerRow {
    /// Drawn anew by each process.
    #[prost(uint64, tag = "1")]
    incarnation: u64,
    /// For whoever is refused.
    #[prost(string, tag = "2")]
    process: String,
    #[prost(uint64, tag = "3")]
    epoch: u64,
    /// It left in order.
    #[prost(bool, tag = "4")]
    is_released: bool,
}

impl Record for OwnerRow {}

/// How a store is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// By a lock that nobody else can hold, where nobody else can come while it is held.
    Locked,
    /// By such a lock, with a heartbeat of this length for those who come later.
    Served(Duration),
    /// After the last owner's heart stood still for this long.
    After(Duration),
}

/// The right to write owned rows, for as long as nobody else takes it.
pub(crate) struct Ownership {
    engine: Engine,
    retry: Retry,
    incarnation: u64,
    epoch: Epoch,
    lost: watch::Receiver<bool>,
    heart: Option<AbortHandle>,
}

impl Drop for Ownership {
    fn drop(&mut self) {
        if let Some(heart) = &self.heart {
            heart.abort();
        }
    }
}

/// The epoch that every fence has to have; `None`: nobody ever took the store.
pub(crate) async fn epoch(txn: &mut Transaction<'_>) -> Result<Option<u64>, Error> {
    let owner: Option<OwnerRow> = codec::get(txn, &keys::meta("owner")).await?;
    Ok(owner.map(|owner| owner.epoch))
}

/// Makes every fence the owner's again; a lost owner's row is made anew, with the epoch that the fences have. For a repair,
/// beside which nobody else writes.
pub(crate) async fn mend(txn: &mut Transaction<'_>, of_fences: u64) -> Result<(), Error> {
    let owner: Option<OwnerRow> = codec::get(txn, &keys::meta("owner")).await?;
    let epoch = owner.as_ref().map_or(of_fences, |owner| owner.epoch);
    if owner.is_none() {
        let row = OwnerRow { incarnation: 0, process: "a repair".to_owned(), epoch, is_released: true };
        codec::put(txn, &keys::meta("owner"), &row)?;
    }
    for shard in (0..ShardId::COUNT).filter_map(ShardId::new) {
        txn.set(&keys::fence(shard), &epoch.to_be_bytes());
    }
    Ok(())
}

/// Whether any process ever took this store.
pub(crate) async fn is_taken(engine: &Engine, retry: Retry) -> Result<bool, Error> {
    Ok(transact(engine, retry, |txn| Box::pin(look(txn))).await?.0.is_some())
}

impl Ownership {
    /// Takes the store. `Owned` when its owner is alive.
    pub(crate) async fn take(engine: &Engine, retry: Retry, claim: Claim) -> Result<Self, Error> {
        let incarnation = rand::random();
        let mut seen = transact(engine, retry, |txn| Box::pin(look(txn))).await?;
        let mut vigil = Vigil::begin();
        loop {
            let is_free = match (&seen.0, claim) {
                (None, _) | (_, Claim::Locked | Claim::Served(_)) => true,
                (Some(owner), Claim::After(lease)) => owner.is_released || vigil.since.elapsed() >= lease,
            };
            if is_free {
                let taken = transact(engine, retry, |txn| take(txn, incarnation, seen.clone())).await?;
                if let Some(epoch) = taken {
                    emit(event::StoreTaken { epoch: epoch.get() });
                    return Ok(Self::start(engine, retry, (incarnation, epoch), claim));
                }
            } else if let Claim::After(lease) = claim {
                sleep(lease / BEATS).await;
            }
            let asked = Instant::now();
            let now = transact(engine, retry, |txn| Box::pin(look(txn))).await?;
            // While the store itself is away its owner can't beat either.
            vigil.since += asked.elapsed();
            vigil.compare(&seen, &now)?;
            seen = now;
        }
    }

    fn start(engine: &Engine, retry: Retry, (incarnation, epoch): (u64, Epoch), claim: Claim) -> Self {
        let (lose, lost) = watch::channel(false);
        let heart = match claim {
            Claim::Locked => None,
            Claim::Served(lease) | Claim::After(lease) => {
                let beats = beat(engine.clone(), retry, incarnation, lease / BEATS);
                Some(tokio::spawn(beats.map(move |()| lose.send_replace(true))).abort_handle())
            }
        };
        Self { engine: engine.clone(), retry, incarnation, epoch, lost, heart }
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Returns when another process took the store. Never where a lock stands for it: that is lost with the process only.
    pub(crate) fn lost(&self) -> impl Future<Output = ()> + Send + 'static {
        let (has_heart, mut lost) = (self.heart.is_some(), self.lost.clone());
        async move {
            // An error: the heart stopped, by a fault or with the store's last handle.
            if !has_heart || lost.wait_for(|lost| *lost).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Leaves the store to whoever comes next, without a wait.
    pub(crate) async fn release(&self) -> Result<(), Error> {
        if let Some(heart) = &self.heart {
            heart.abort();
        }
        let own = self.incarnation;
        transact(&self.engine, self.retry, |txn| Box::pin(release(txn, own))).await
    }
}

/// What a newcomer has seen of an owner's heart.
struct Vigil {
    /// Since when it has stood still.
    since: Instant,
    beats: u32,
}

impl Vigil {
    fn begin() -> Self {
        Self { since: Instant::now(), beats: 0 }
    }

    /// Compares two looks. `Owned` when the owner has proved that it lives.
    fn compare(&mut self, before: &Seen, now: &Seen) -> Result<(), Error> {
        if now.0 != before.0 {
            *self = Self::begin();
        } else if let Some(owner) = &now.0
            && now.1 != before.1
        {
            *self = Self { since: Instant::now(), beats: self.beats + 1 };
            if self.beats >= PROOF {
                return Err(Error::Owned { by: owner.process.clone() });
            }
        }
        Ok(())
    }
}

/// The owner and its heartbeat.
type Seen = (Option<OwnerRow>, Option<bytes::Bytes>);

async fn look(txn: &mut Transaction<'_>) -> Result<Seen, Error> {
    let owner = codec::get(txn, &keys::meta("owner")).await?;
    Ok((owner, txn.get(&keys::meta("owner-beat")).await?))
}

/// Takes the store from the owner that was seen; `None` when somebody else did.
fn take<'t>(txn: &'t mut Transaction<'_>, incarnation: u64, seen: Seen) -> BoxFuture<'t, Result<Option<Epoch>, Error>> {
    Box::pin(async move {
        let now: Option<OwnerRow> = codec::get(txn, &keys::meta("owner")).await?;
        let before = match now {
            // An earlier try of ours, whose outcome was unknown.
            Some(own) if own.incarnation == incarnation => return Ok(Some(Epoch::new(own.epoch))),
            now if now != seen.0 => return Ok(None),
            now => now.map_or(Epoch::FIRST.get(), |owner| owner.epoch),
        };
        let epoch = before + 1;
        let row = OwnerRow { incarnation, process: this_process(), epoch, is_released: false };
        codec::put(txn, &keys::meta("owner"), &row)?;
        for shard in (0..ShardId::COUNT).filter_map(ShardId::new) {
            txn.set(&keys::fence(shard), &epoch.to_be_bytes());
        }
        Ok(Some(Epoch::new(epoch)))
    })
}

async fn release(txn: &mut Transaction<'_>, own: u64) -> Result<(), Error> {
    let owner: Option<OwnerRow> = codec::get(txn, &keys::meta("owner")).await?;
    if let Some(row) = owner.filter(|row| row.incarnation == own) {
        codec::put(txn, &keys::meta("owner"), &OwnerRow { is_released: true, ..row })?;
    }
    Ok(())
}

/// Beats until another process owns the store.
async fn beat(engine: Engine, retry: Retry, own: u64, pause: Duration) {
    let mut beats = interval(pause);
    for count in 0.. {
        beats.tick().await;
        match transact(&engine, retry, |txn| Box::pin(beat_once(txn, own, count))).await {
            Ok(true) => {}
            Ok(false) => break,
            // Whether the store is ours is not known now; the fence knows it at each write.
            Err(error) => emit(event::StoreFailed { operation: "heartbeat", reason: error.to_string() }),
        }
    }
    emit(event::StoreLost {});
}

async fn beat_once(txn: &mut Transaction<'_>, own: u64, count: u64) -> Result<bool, Error> {
    let owner: Option<OwnerRow> = codec::get(txn, &keys::meta("owner")).await?;
    let is_ours = owner.is_some_and(|owner| owner.incarnation == own);
    if is_ours {
        txn.set(&keys::meta("owner-beat"), &count.to_be_bytes());
    }
    Ok(is_ours)
}

/// What an operator finds this process by.
fn this_process() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("process {} on {}", std::process::id(), if host.is_empty() { "another machine" } else { host.trim() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::Fence;
    use crate::transaction::check_fence;

    const LEASE: Claim = Claim::After(Duration::from_millis(600));
    /// Its heart beats often enough on a slow machine too.
    const LONG: Claim = Claim::After(Duration::from_secs(8));
    const RETRY: Retry = Retry { tries_max: 50, timeout: Duration::from_secs(20) };

    async fn engine() -> (Engine, tempfile::TempDir) {
        let dir = tempfile::tempdir().expect("a directory");
        let embedded = crate::engine::Embedded::open(dir.path(), &posthouse_conf::Storage::default()).await;
        (Engine::Embedded(embedded.expect("an engine")), dir)
    }

    async fn may_write(engine: &Engine, epoch: Epoch) -> bool {
        let shard = ShardId::new(7).expect("a shard");
        let checked = transact(engine, RETRY, |txn| Box::pin(check_fence(txn, Fence { shard, epoch }))).await;
        checked.is_ok()
    }

    #[tokio::test]
    async fn a_store_has_one_owner() {
        let (engine, _dir) = engine().await;
        assert_eq!(is_taken(&engine, RETRY).await, Ok(false));
        let first = Ownership::take(&engine, RETRY, LONG).await.expect("nobody has it");
        let second = Ownership::take(&engine, RETRY, LONG).await.map(drop);
        assert!(matches!(second, Err(Error::Owned { .. })), "{second:?}");
        assert!(may_write(&engine, first.epoch()).await && !may_write(&engine, Epoch::FIRST).await);
        first.release().await.expect("left");
        let second = Ownership::take(&engine, RETRY, LEASE).await.expect("free");
        assert!(may_write(&engine, second.epoch()).await && !may_write(&engine, first.epoch()).await);
    }

    #[tokio::test]
    async fn an_owner_whose_heart_stands_still_is_replaced_and_fenced() {
        let (engine, _dir) = engine().await;
        let first = Ownership::take(&engine, RETRY, LEASE).await.expect("nobody has it");
        let epoch = first.epoch();
        // As after a kill: nothing is released.
        drop(first);
        let second = Ownership::take(&engine, RETRY, LEASE).await.expect("its heart stood still");
        assert!(may_write(&engine, second.epoch()).await && !may_write(&engine, epoch).await);
    }

    #[test]
    fn a_last_beat_that_was_on_its_way_keeps_nobody_out() {
        let owner = OwnerRow { incarnation: 7, process: "the first".to_owned(), epoch: 3, is_released: false };
        let seen = |beat: u8| (Some(owner.clone()), Some(bytes::Bytes::from(vec![beat])));
        let mut vigil = Vigil::begin();
        assert_eq!(vigil.compare(&seen(1), &seen(2)), Ok(()));
        assert_eq!(vigil.compare(&seen(2), &seen(2)), Ok(()));
        // A new owner's first beat is no proof either.
        let other = (Some(OwnerRow { incarnation: 8, ..owner.clone() }), seen(3).1);
        assert_eq!(vigil.compare(&seen(2), &other), Ok(()));
        assert_eq!(vigil.compare(&seen(4), &seen(5)), Ok(()));
        assert_eq!(vigil.compare(&seen(5), &seen(6)), Err(Error::Owned { by: "the first".to_owned() }));
    }

    #[tokio::test]
    async fn an_owner_hears_that_it_lost_the_store() {
        let (engine, _dir) = engine().await;
        let first = Ownership::take(&engine, RETRY, LEASE).await.expect("nobody has it");
        let second = Ownership::take(&engine, RETRY, Claim::Locked).await.expect("by force");
        first.lost().await;
        assert!(first.epoch() < second.epoch());
        first.release().await.expect("nothing of ours is left");
        assert!(may_write(&engine, second.epoch()).await);
    }
}
