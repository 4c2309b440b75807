//! Wakes the queues of destinations that have due work, and measures how much waits.
//!
//! Apart from the queue actors because they sleep: after a start, or when a hint was lost, nobody else knows.
//!
//! Owns: nothing.   Receives: Scan, Wake.   Sends: nudges to queues.
//! Bounds: one scan at a time, each queue.scan_interval; WAKES_MAX timers.
//! On failure: a scan that meets an error is made again at the next interval.   Standards: RFC 5321 §4.5.4.1.

use std::time::Duration;

use posthouse_mail::{Domain, UnixMillis};
use posthouse_obs::emit;
use posthouse_obs::event::queue::{QueueMeasured, QueueStoreFailed};
use posthouse_storage::Error;
use posthouse_storage::queue;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};

use super::Queues;
use crate::clock;

pub(super) enum KeeperMsg {
    Scan,
    Wake(Domain),
}

impl ractor::Message for KeeperMsg {}

struct KeeperActor;

/// Starts the keeper; its first scan comes at once.
pub(super) async fn start(queues: Queues, parent: ActorCell) -> Result<(), SpawnErr> {
    Actor::spawn_linked(None, KeeperActor, queues, parent).await.map(|_| ())
}

impl Actor for KeeperActor {
    type Msg = KeeperMsg;
    type State = Queues;
    type Arguments = Queues;

    async fn pre_start(&self, myself: ActorRef<KeeperMsg>, queues: Queues) -> Result<Queues, ActorProcessingErr> {
        myself.cast(KeeperMsg::Scan)?;
        Ok(queues)
    }

    async fn handle(
        &self,
        myself: ActorRef<KeeperMsg>,
        message: KeeperMsg,
        queues: &mut Queues,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            KeeperMsg::Scan => {
                let interval = queues.services.settings.queue.scan_interval.get().max(INTERVAL_MIN);
                if let Err(error) = scan(queues, &myself, interval).await {
                    emit(QueueStoreFailed { destination: "all".to_owned(), reason: error.to_string() });
                }
                myself.send_after(interval, || KeeperMsg::Scan);
            }
            KeeperMsg::Wake(destination) => {
                // A queue that comes to life slowly must not keep the next one waiting.
                let queues = queues.clone();
                tokio::spawn(async move { queues.nudge(&destination).await });
            }
        }
        Ok(())
    }
}

/// Wakes what is due, and sets timers for what falls due before the next scan.
async fn scan(queues: &Queues, myself: &ActorRef<KeeperMsg>, interval: Duration) -> Result<(), Error> {
    let store = &queues.services.store;
    let now = clock::now();
    let mut due = queue::destinations(store).await?;
    due.retain(|(_, at)| *at <= now.after(interval));
    due.sort_by_key(|(_, at)| *at);
    for (destination, at) in due.into_iter().take(WAKES_MAX) {
        myself.send_after(at.since(now), move || KeeperMsg::Wake(destination));
    }
    let counts = queue::counts(store).await?;
    let age = |since: Option<UnixMillis>| since.map_or(0, |since| now.since(since).as_secs());
    emit(QueueMeasured {
        spool: counts.spool_messages,
        fresh: counts.fresh,
        deferred: counts.deferred,
        spool_age_seconds: age(counts.oldest_spooled_at),
        queue_age_seconds: age(counts.oldest_queued_at),
    });
    Ok(())
}

/// Queues woken by one scan; the rest waits for the next, the oldest first.
const WAKES_MAX: usize = 2000;
const INTERVAL_MIN: Duration = Duration::from_millis(50);
