//! The end of a node that hands everything on: listening sockets, the store, then its sessions, to a program that waits.
//!
//! Until its sessions stop the node serves; from then on there is no way back into it, only forward: either the successor
//! has all, or what is left (`Remains`) becomes a new node in this process.
//!
//! A node that is told to end while it waits for uploads gives the upgrade up.
//!
//! Order: the successor is up and fits -> it holds the sockets -> uploads finish -> sessions park -> the store closes here
//! and opens there -> sessions in batches, each with a commit -> done.

use std::time::Duration;

use posthouse_cluster::handoff::{Door, Parcel, Refused};
use posthouse_obs::emit;
use posthouse_obs::event::handover::{HandoverEnded, SessionNotResumed, SessionsCut, SessionsLost};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout, timeout_at};

use super::Node;
use super::custody::Luggage;
use super::parcel::{pack, part_with, unpack};
use super::successor::Successor;
use crate::session::call::FAREWELL;
use crate::session::{Call, Parked};

/// What an upgrade came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeView {
    /// The process that serves now.
    pub pid: u32,
    /// What it says of itself.
    pub program: String,
    /// Sessions that went over.
    pub moved: usize,
    /// Octets of their states, all together and of one in the middle.
    pub octets: usize,
    pub octets_median: usize,
    /// Sessions that ended by themselves meanwhile.
    pub finished: usize,
    /// Sessions that reached no safe point in time, or that the new program would not take, and were ended.
    pub farewelled: usize,
    /// From the moment when sessions began to stop until the last of them went on.
    pub frozen_milliseconds: u64,
    /// From the moment when one session stopped until it went on, in the middle and at worst.
    pub session_frozen_median_microseconds: u64,
    pub session_frozen_worst_microseconds: u64,
    /// What the process that serves now has in memory.
    pub resident_octets: u64,
    /// From the command to its end.
    pub milliseconds: u64,
}

impl UpgradeView {
    /// Notes it, once the process that it names serves.
    pub fn note(&self) {
        let Self { pid, moved, farewelled, milliseconds, .. } = *self;
        emit(HandoverEnded { pid, moved, farewelled, milliseconds });
    }
}

/// Why a successor does not serve.
pub enum HandoverFailure {
    /// This node serves as before.
    Untouched(String),
    /// This node serves, and was told to end before anything had moved.
    Stopping,
    /// This node is closed; what it had is here.
    Closed { reason: String, remains: Remains },
}

/// All of a node that does not lie in its store.
#[derive(Default)]
pub struct Remains {
    pub(super) doors: Vec<Door>,
    pub(super) sessions: Vec<Parked>,
}

/// Hears how far a hand-over is: done, total, what.
pub type Steps<'a> = &'a (dyn Fn(u64, u64, &str) + Send + Sync);

/// Sessions as they stopped.
pub(super) struct Stopped {
    pub(super) parked: Vec<(Instant, Parked)>,
    finished: usize,
    pub(super) cut: usize,
    began: Instant,
}

/// Why the sessions did not go over, and those that are still this process's own.
struct Broken {
    reason: String,
    back: Vec<Parked>,
}

impl Node {
    /// Hands everything to `successor`, which is up and fits. On success this process has nothing left to do. `stop` returns
    /// when the node is to end: as long as nothing has moved that goes before.
    pub async fn hand_over(
        &self,
        mut successor: Successor,
        stop: impl Future<Output = ()>,
        steps: Steps<'_>,
    ) -> Result<UpgradeView, HandoverFailure> {
        let begun = Instant::now();
        steps(1, STEPS, "the new program is up");
        let doors = match self.offer_doors(&mut successor).await {
            Ok(doors) => doors,
            Err(reason) => return Err(HandoverFailure::Untouched(reason)),
        };
        steps(2, STEPS, "waiting for uploads under way");
        if !self.finish_uploads(stop).await {
            successor.end().await;
            return Err(HandoverFailure::Stopping);
        }
        steps(3, STEPS, "sessions stop");
        let Stopped { parked, finished, cut, began } = self.stop_sessions().await;
        self.close(Instant::now() + self.services.settings.upgrade.move_limit.get()).await;
        steps(4, STEPS, "the store moves");
        let mut view = UpgradeView { finished, farewelled: cut, ..UpgradeView::default() };
        let refused = match move_to(&mut successor, parked, &mut view).await {
            Ok(refused) => refused,
            Err(Broken { reason, back }) => {
                successor.end().await;
                return Err(HandoverFailure::Closed { reason, remains: Remains { doors, sessions: back } });
            }
        };
        part_with(refused, &self.services.settings.node.hostname).await;
        steps(5, STEPS, "sessions went over");
        view.resident_octets = successor.pid().and_then(resident_octets).unwrap_or_default();
        view.frozen_milliseconds = milliseconds(began.elapsed());
        view.program = successor.program().to_owned();
        view.pid = match successor.release().await {
            Ok(pid) => pid,
            // Its sessions went with it; this process serves again.
            Err(reason) => {
                return Err(HandoverFailure::Closed { reason, remains: Remains { doors, sessions: vec![] } });
            }
        };
        view.milliseconds = milliseconds(begun.elapsed());
        Ok(view)
    }

    async fn offer_doors(&self, successor: &mut Successor) -> Result<Vec<Door>, String> {
        let mut doors = self.services.doors.duplicates().map_err(|error| error.to_string())?;
        doors.append(&mut successor.take_luggage());
        successor.giver().doors(&doors).await.map_err(|error| error.to_string())?;
        Ok(Luggage::of(doors).1)
    }

    /// Nothing that cannot move begins any more; what is under way has its time. False if `stop` came before: everything is served
    /// again then.
    async fn finish_uploads(&self, stop: impl Future<Output = ()>) -> bool {
        let services = &self.services;
        services.switch.set(Call::Hold);
        tokio::select! {
            biased;
            () = stop => {
                services.switch.set(Call::Serve);
                false
            }
            // What takes longer is cut off when the sessions stop.
            _ = timeout(services.settings.upgrade.finish_limit.get(), services.switch.idle()) => true,
        }
    }

    /// Every session stops at its next safe point. One that cannot reach any in time hears goodbye wherever it is.
    pub(super) async fn stop_sessions(&self) -> Stopped {
        let services = &self.services;
        let (began, open) = (Instant::now(), services.switch.sessions());
        services.switch.set(Call::Move);
        let stopped = timeout_at(began + services.settings.upgrade.move_limit.get(), services.vacated()).await;
        if stopped.is_err() {
            services.switch.set(Call::End);
            let _ = timeout(FAREWELL * 2, services.vacated()).await;
        }
        let (farewelled, cut) = services.switch.ended_by_us();
        let cut = farewelled + cut + services.switch.sessions();
        if cut > 0 {
            emit(SessionsCut { sessions: cut });
        }
        let parked = services.switch.take_parked();
        Stopped { finished: open.saturating_sub(parked.len() + cut), parked, cut, began }
    }
}

/// The store, then the sessions; gives back those that the new program would not take.
async fn move_to(
    successor: &mut Successor,
    parked: Vec<(Instant, Parked)>,
    view: &mut UpgradeView,
) -> Result<Vec<Refused>, Broken> {
    if let Err(error) = successor.giver().store_is_free().await {
        return Err(Broken { reason: error.to_string(), back: parked.into_iter().map(|(_, parked)| parked).collect() });
    }
    let parcels = parked.into_iter().map(|(since, parked)| Parcel { since, ..pack(parked) }).collect();
    match successor.giver().sessions(parcels).await {
        Ok(moved) => {
            view.moved = moved.moved.len();
            (view.octets_median, _) = middle(moved.moved.iter().map(|one| one.octets).collect());
            view.octets = moved.moved.iter().map(|one| one.octets).sum();
            let frozen = moved.moved.iter().map(|one| microseconds(one.frozen)).collect();
            (view.session_frozen_median_microseconds, view.session_frozen_worst_microseconds) = middle(frozen);
            view.farewelled += moved.refused.len();
            Ok(moved.refused)
        }
        Err(interrupted) => {
            let back = interrupted.back.into_iter().chain(interrupted.so_far.refused.into_iter().map(|one| one.parcel));
            let gone = interrupted.lost + interrupted.so_far.moved.len();
            if gone > 0 {
                emit(SessionsLost { sessions: gone });
            }
            Err(Broken { reason: interrupted.error.to_string(), back: back.filter_map(own).collect() })
        }
    }
}

/// A session that comes back as it was packed here.
fn own(parcel: Parcel) -> Option<Parked> {
    let protocol = parcel.kind.clone();
    unpack(parcel).map_err(|error| emit(SessionNotResumed { protocol, reason: error.to_string() })).ok()
}

/// Steps that a hand-over is told in.
const STEPS: u64 = 5;

/// The value in the middle, and the largest.
pub(super) fn middle<T: Ord + Copy + Default>(mut values: Vec<T>) -> (T, T) {
    values.sort_unstable();
    (values.get(values.len() / 2).copied().unwrap_or_default(), values.last().copied().unwrap_or_default())
}

/// What a process has in memory, where the kernel tells.
pub(super) fn resident_octets(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

pub(super) fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
