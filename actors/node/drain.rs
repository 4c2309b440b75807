//! The drain: no new clients, those who are here leave by and by, mail under way to others is finished.
//!
//! One way out for `drain`, `stop` and a signal, which differ in their haste only. Order: `/health/ready` says no, for a while in
//! which a balancer sees it -> the listening sockets close -> sessions say goodbye between two commands, in groups over a
//! time, so that they do not all come back to the next node at once -> who is in the middle of something has until the limit ->
//! the rest hears goodbye wherever it is.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use posthouse_obs::emit;
use posthouse_obs::event::handover::{DrainBegun, DrainEnded};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};

use super::Services;
use crate::session::Call;
use crate::session::call::{FAREWELL, TURNS};

/// What a drain came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainView {
    /// Sessions that were open when the listeners closed.
    pub sessions: usize,
    /// Of these, those that ended by themselves.
    pub finished: usize,
    /// Those that were bidden goodbye.
    pub farewelled: usize,
    /// Those that could not even be told.
    pub cut: usize,
    /// Every delivery to another host that was under way came to its end.
    pub deliveries_finished: bool,
    pub milliseconds: u64,
}

/// How much time clients and their balancers get.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Between the first word of it and the closing of the listeners.
    pub notice: Duration,
    /// In which sessions leave one after the other.
    pub spread: Duration,
}

impl Pace {
    pub(crate) const AT_ONCE: Self = Self { notice: Duration::ZERO, spread: Duration::ZERO };
}

/// How often it is told how far a drain is.
const TOLD_EVERY: Duration = Duration::from_millis(500);

impl Services {
    /// Drains the node; it is not to be dropped half way. Whoever asks again while it runs waits for the same drain.
    pub(crate) async fn drain(&self, pace: Pace, progress: crate::admin::Progress<'_>) -> DrainView {
        let begun = Instant::now();
        self.departure.end();
        if !self.draining.swap(true, Ordering::AcqRel) {
            emit(DrainBegun {});
        }
        progress(0, 0, "telling balancers");
        sleep(pace.notice).await;
        self.switch.advance(Call::Drain(0));
        self.switch.shut().await;
        self.doors.close();
        self.hide_listeners();
        let open = self.switch.sessions();
        let limit = Instant::now() + pace.spread + self.settings.node.drain_limit.get();
        let (deliveries_finished, ()) = tokio::join!(self.finish_deliveries(limit), async {
            tokio::select! {
                () = self.leave(pace.spread, limit) => {}
                () = self.tell(open, progress) => {}
            }
        });
        let (farewelled, cut) = self.switch.ended_by_us();
        let cut = cut + self.switch.sessions();
        let view = DrainView {
            sessions: open,
            finished: open.saturating_sub(farewelled + cut),
            farewelled,
            cut,
            deliveries_finished,
            milliseconds: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        let DrainView { finished, milliseconds, .. } = view;
        emit(DrainEnded { finished, farewelled, cut, milliseconds });
        view
    }

    /// As the settings have it for a node that is to stay up without clients.
    pub(crate) fn pace(&self) -> Pace {
        let node = &self.settings.node;
        Pace { notice: node.drain_notice.get(), spread: node.drain_spread.get() }
    }

    /// Returns once no session is left, or none that hears.
    async fn leave(&self, spread: Duration, limit: Instant) {
        for turn in 1..=TURNS {
            self.switch.advance(Call::Drain(turn));
            if timeout(spread / u32::from(TURNS), self.switch.vacated()).await.is_ok() {
                return;
            }
        }
        self.switch.advance(Call::Leave);
        if timeout_at(limit, self.switch.vacated()).await.is_err() {
            self.switch.advance(Call::End);
            let _ = timeout(FAREWELL * 2, self.switch.vacated()).await;
        }
    }

    async fn tell(&self, open: usize, progress: crate::admin::Progress<'_>) {
        let mut ticks = interval(TOLD_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let number = |count| u64::try_from(count).unwrap_or(u64::MAX);
        loop {
            ticks.tick().await;
            let gone = open.saturating_sub(self.switch.sessions());
            progress(number(gone), number(open), "sessions are over");
        }
    }

    /// Whether none is cut off in the middle.
    async fn finish_deliveries(&self, limit: Instant) -> bool {
        match self.queues() {
            Ok(queues) => queues.settle(limit).await,
            Err(_) => true,
        }
    }
}

/// Runs one drain for all who ask, whether or not they still wait for it; refuses it while an upgrade is under way.
pub(crate) async fn drain_once(
    services: Arc<Services>,
    pace: Pace,
    progress: crate::admin::Progress<'_>,
) -> Result<DrainView, String> {
    services.departure.drain()?;
    let (sender, mut steps) = tokio::sync::mpsc::channel(16);
    let mut work = tokio::spawn(async move {
        let report = |done, total, what: &str| {
            // A step that nobody has read yet is as good as the next one.
            let _ = sender.try_send((done, total, what.to_owned()));
        };
        let drained = services.drained.get_or_init(|| services.drain(pace, &report)).await;
        drained.clone()
    });
    loop {
        tokio::select! {
            Some((done, total, what)) = steps.recv() => progress(done, total, &what),
            view = &mut work => return view.map_err(|error| format!("the drain broke off: {error}")),
        }
    }
}
