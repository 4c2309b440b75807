//! One writer on a target at a time: a prune must not take what a running backup counts on.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use prost::Message as _;

use super::place::Place;
use super::record::LockObject;
use super::target::{Target, lock_ttl};
use crate::error::Error;

const NAME: &str = "lock";
const MAX: u64 = 4096;

/// The right to write to a target, as long as it is renewed.
pub(crate) struct Lock {
    place: Place,
    holder: String,
    ttl: Duration,
    /// When it was last written, and what.
    written: Mutex<(Instant, Bytes)>,
    /// Whether it is still to be given back.
    is_held: bool,
}

/// A command that is given up in the middle, as its client went away, gives the lock back all the same.
impl Drop for Lock {
    fn drop(&mut self) {
        if let (true, Ok(runtime)) = (self.is_held, tokio::runtime::Handle::try_current()) {
            let (place, holder) = (self.place.clone(), std::mem::take(&mut self.holder));
            runtime.spawn(async move {
                // Where it cannot be removed it ends by its age.
                let _ = place.remove_if((NAME, MAX), move |found| decode(found).holder == holder).await;
            });
        }
    }
}

impl Lock {
    /// Takes the lock, or the place of a holder that has gone silent.
    pub async fn take(target: &Target) -> Result<Self, Error> {
        let (ttl, holder) = (lock_ttl(target), format!("{:032x}", rand::random::<u128>()));
        let content = content(&holder, ttl);
        let written = Mutex::new((Instant::now(), content.clone()));
        let mut lock = Self { place: target.place.clone(), holder, ttl, written, is_held: false };
        if !lock.place.put_new(NAME, content.clone()).await? {
            lock.take_over(&target.location, content).await?;
        }
        lock.assert_held().await?;
        lock.is_held = true;
        lock.place.tidy().await?;
        Ok(lock)
    }

    /// Takes the place of a holder that has been silent for as long as both allow: the holder renews by its own settings,
    /// and what it says of the time is its own clock's word.
    async fn take_over(&self, location: &str, content: Bytes) -> Result<(), Error> {
        let found = self.place.get(NAME, MAX).await?;
        // Asked after the content was read: one that was renewed since is young.
        let age = self.place.age(NAME).await?;
        let is_taken = match (found, age) {
            (Some(found), Some(age)) => {
                let ttl = self.ttl.max(Duration::from_millis(decode(found.clone()).ttl));
                if age < ttl {
                    return Err(Error::Refused(format!(
                        "another command works on {location} (last seen {} s ago); if it was killed, wait {} s or remove \
                         the object `{NAME}`",
                        age.as_secs(),
                        ttl.saturating_sub(age).as_secs() + 1,
                    )));
                }
                self.place.replace(NAME, &found, content).await?
            }
            // Its holder has just given it back.
            _ => self.place.put_new(NAME, content).await?,
        };
        if is_taken {
            return Ok(());
        }
        Err(Error::Refused(format!("another command began to work on {location} at the same moment")))
    }

    /// Says that the holder is alive; to be called often, does something now and then.
    pub async fn renew(&self) -> Result<(), Error> {
        // Nothing can go wrong while this is held.
        let (renewed, old) = self.written.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if renewed.elapsed() < self.ttl / 4 {
            return Ok(());
        }
        // One that somebody removed is not put back: another may have been here meanwhile.
        let (now, new) = (Instant::now(), content(&self.holder, self.ttl));
        if !self.place.replace(NAME, &old, new.clone()).await? {
            return Err(taken_over());
        }
        *self.written.lock().unwrap_or_else(PoisonError::into_inner) = (now, new);
        Ok(())
    }

    pub async fn release(mut self) -> Result<(), Error> {
        self.is_held = false;
        let holder = self.holder.clone();
        let is_removed = self.place.remove_if((NAME, MAX), move |found| decode(found).holder == holder).await?;
        if is_removed { Ok(()) } else { Err(taken_over()) }
    }

    /// Asks the place, however short ago that was: before what another holder must not find done.
    pub async fn assert_held(&self) -> Result<(), Error> {
        if read(&self.place).await?.is_some_and(|found| found.holder == self.holder) {
            return Ok(());
        }
        Err(taken_over())
    }
}

fn content(holder: &str, ttl: Duration) -> Bytes {
    let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    LockObject { holder: holder.to_owned(), renewed_at: now_millis(), ttl }.encode_to_vec().into()
}

fn taken_over() -> Error {
    Error::Refused("another command took the backup's lock over".to_owned())
}

/// Renews the lock of a command that has one: what only reads a target has none.
pub(crate) async fn renew(lock: Option<&Lock>) -> Result<(), Error> {
    match lock {
        Some(lock) => lock.renew().await,
        None => Ok(()),
    }
}

async fn read(place: &Place) -> Result<Option<LockObject>, Error> {
    Ok(place.get(NAME, MAX).await?.map(decode))
}

/// One that was cut short while it was written is nobody's, and ends by its age.
fn decode(octets: Bytes) -> LockObject {
    LockObject::decode(octets).unwrap_or_default()
}

pub(crate) fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
