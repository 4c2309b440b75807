//! Taking a backup: bodies, site, mail under way, accounts, bodies again, and at last the point.

use std::collections::HashSet;

use posthouse_mail::UnixMillis;
use posthouse_obs::emit;
use posthouse_obs::event::backup as event;

use super::account::{self, Taking};
use super::bodies;
use super::bundle::{Bundle, BundleWriter};
use super::damage::Damage;
use super::known;
use super::lock::{Lock, now_millis};
use super::point::{self, Accounts};
use super::record::{FORMAT, PackRow, PointRow};
use super::restore;
use super::site::{self, Transit};
use super::target::Target;
use super::verify::{self, Verified};
use super::{Phase, Progress, Step};
use crate::error::Error;
use crate::shard::ShardId;
use crate::store::Store;

/// A backup that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    pub point: String,
    pub accounts: u64,
    pub messages: u64,
    /// Messages in spool and queue.
    pub under_way: u64,
    /// Bodies that were not there before.
    pub bodies: u64,
    /// Octets that the point added to the target.
    pub written: u64,
    /// What the store itself can no longer read; the point has everything else.
    pub damaged: Vec<String>,
    /// What was read back.
    pub verified: Verified,
}

/// Takes a backup of the whole site.
pub async fn run(store: &Store, target: &Target, hostname: &str, progress: Progress<'_>) -> Result<Taken, Error> {
    // A store that is half restored would be a site that lost half of its accounts, at a point that says nothing of it.
    if let Some(point) = restore::unfinished(store).await? {
        return Err(Error::Refused(format!(
            "point {point} is being restored to this store: bring that to its end first, with `posthouse restore`"
        )));
    }
    let lock = Lock::take(target).await?;
    let outcome = Run { store, target, lock: &lock }.all(hostname, progress).await;
    // What went wrong first is what matters.
    let released = lock.release().await;
    match &outcome {
        Ok(taken) => tell(taken),
        Err(error) => emit(event::BackupFailed { reason: error.to_string() }),
    }
    let taken = outcome?;
    released?;
    Ok(taken)
}

fn tell(taken: &Taken) {
    let Taken { accounts, messages, written, .. } = *taken;
    emit(event::BackupTaken { point: taken.point.clone(), accounts, messages, octets: written });
    let mut wrong = taken.damaged.iter().chain(&taken.verified.findings);
    let count = taken.damaged.len() + taken.verified.findings.len();
    if let Some(first) = wrong.next() {
        emit(event::BackupNotWhole { findings: count, first: first.clone() });
    }
}

struct Run<'a> {
    store: &'a Store,
    target: &'a Target,
    lock: &'a Lock,
}

impl Taken {
    /// Everything was taken and could be read back.
    pub fn is_whole(&self) -> bool {
        self.damaged.is_empty() && self.verified.is_whole()
    }
}

impl Run<'_> {
    async fn all(&self, hostname: &str, progress: Progress<'_>) -> Result<Taken, Error> {
        let started_at = UnixMillis(now_millis());
        self.target.mend_headers().await?;
        let before = self.before().await?;
        let known = known::packs(self.target, self.lock).await?;
        let first = bodies::take(self.store, (self.target, self.lock), known, progress).await?;
        progress(&Step::of(Phase::Site));
        // The spool comes before the accounts that its mail goes to, the domains after the accounts that they hold.
        let transit = site::take_transit(self.store, (self.target, self.lock)).await?;
        let accounts = self.accounts(started_at, &transit, before, progress).await?;
        let site = site::take(self.store, (self.target, self.lock)).await?;
        let second = bodies::take(self.store, (self.target, self.lock), first.packs.clone(), progress).await?;
        let packs = self.packs(&second.packs).await?;
        let mut row = PointRow {
            format: FORMAT,
            started_at: started_at.0,
            finished_at: now_millis(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            hostname: hostname.to_owned(),
            site: site.bundle.names,
            transit: transit.bundle.names,
            accounts: accounts.bundle.names,
            packs: packs.names,
            account_count: accounts.count,
            messages: accounts.messages,
            written: 0,
            naming: naming(self.store),
        };
        let octets: HashSet<&str> = first.written.iter().chain(&second.written).map(String::as_str).collect();
        let of_packs: u64 = second.packs.iter().filter(|p| octets.contains(p.name.as_str())).map(|p| p.octets).sum();
        row.written = of_packs + site.bundle.written + transit.bundle.written + accounts.written + packs.written;
        let id = self.id(started_at).await?;
        // A prune by who took the lock over may have removed what this point names.
        self.lock.assert_held().await?;
        point::save(self.target, &id, &row).await?;
        let written = Written { packs: octets.into_iter().map(str::to_owned).collect() };
        let verified = verify::after_run((self.target, self.lock), (&id, &row), &written, progress).await?;
        let mut damaged = accounts.damaged;
        for part in [site.damaged, transit.damaged, first.damaged, second.damaged] {
            damaged.absorb("", part);
        }
        Ok(Taken {
            point: id,
            accounts: row.account_count,
            messages: row.messages,
            under_way: transit.messages,
            bodies: first.bodies + second.bodies,
            written: row.written,
            damaged: damaged.into_words(),
            verified,
        })
    }

    /// Points stand in the order of their ids, also where the clock was put back.
    async fn id(&self, started_at: UnixMillis) -> Result<String, Error> {
        let newest = point::ids(self.target).await?.last().and_then(|id| id.parse::<u64>().ok());
        let free = newest.map_or(0, |newest| newest.saturating_add(1));
        Ok(point::id_at(UnixMillis(started_at.0.max(free))))
    }

    /// The newest point that can be read. One of another store, from which this one came back, names bodies that are not
    /// here: nothing of it can be taken over.
    async fn before(&self) -> Result<Option<PointRow>, Error> {
        let naming = naming(self.store);
        for id in point::ids(self.target).await?.iter().rev() {
            match point::load(self.target, id).await {
                Err(Error::BackupDamaged(_)) => {}
                row => return Ok(Some(row?).filter(|row| row.naming == naming)),
            }
        }
        Ok(None)
    }

    /// Every account, one after the other.
    async fn accounts(
        &self,
        started_at: UnixMillis,
        transit: &Transit,
        before: Option<PointRow>,
        progress: Progress<'_>,
    ) -> Result<TakenAccounts, Error> {
        let oldest_spooled = transit.oldest_spooled.unwrap_or_else(|| account::none_spooled(started_at));
        let taking = Taking { store: self.store, target: self.target, lock: self.lock, oldest_spooled };
        let mut before = Accounts::of(self.target, before);
        let mut list = BundleWriter::new(self.target);
        let mut done = TakenAccounts::default();
        for number in 0..ShardId::COUNT {
            let shard = ShardId::new(number).expect("every number below COUNT is a shard");
            for id in crate::account::in_shard(self.store, shard).await? {
                let earlier = before.find(id).await?;
                match account::take(&taking, id, earlier.as_ref()).await {
                    Ok(Some(taken)) => {
                        done.count += 1;
                        done.messages += taken.entry.messages;
                        done.written += taken.written;
                        let address = &taken.entry.address;
                        done.damaged.absorb(&format!("of {address}: "), taken.damaged);
                        list.push(&taken.entry).await?;
                    }
                    Ok(None) => {}
                    Err(Error::Corrupt(reason)) => done.damaged.add(format!("account {id}: {reason}")),
                    Err(error) => return Err(error),
                }
                self.lock.renew().await?;
            }
            if number.is_multiple_of(64) {
                // Shards without an account take their time too.
                self.lock.renew().await?;
            }
            let TakenAccounts { count, messages, written, .. } = done;
            progress(&Step {
                done: u64::from(number) + 1,
                total: u64::from(ShardId::COUNT),
                accounts: count,
                messages,
                octets: written,
                ..Step::of(Phase::Accounts)
            });
        }
        done.bundle = list.finish().await?;
        done.written += done.bundle.written;
        Ok(done)
    }

    async fn packs(&self, packs: &[PackRow]) -> Result<Bundle, Error> {
        let mut list = BundleWriter::new(self.target);
        for pack in packs {
            list.push(pack).await?;
        }
        list.finish().await
    }
}

/// What tells whether two stores give a content the same id.
fn naming(store: &Store) -> Vec<u8> {
    store.body_hasher().finalize().as_bytes().to_vec()
}

#[derive(Default)]
struct TakenAccounts {
    bundle: Bundle,
    count: u64,
    messages: u64,
    written: u64,
    damaged: Damage,
}

/// Names of the packs that a run wrote.
pub(crate) struct Written {
    pub packs: HashSet<String>,
}
