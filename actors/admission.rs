//! Keeps the limits of a node in memory and sweeps them; apart because every listener shares one set of limits.
//!
//! Owns: nothing but the timer; the limits are shared behind an `Arc`.
//! Receives: Sweep, from its own timer.   Sends: nothing.
//! Bounds: limits.keys_max for each limiter, limits.sweep_interval.
//! On failure: its supervisor starts it again; until then limits hold, only their memory is not given back.
//! Standards: none; admission is local policy.

use std::sync::Arc;
use std::time::Duration;

use posthouse_conf::Settings;
use posthouse_filter::rate::Admission;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};

/// Starts the sweeper of `admission` under `supervisor`.
pub async fn start(
    admission: Arc<Admission>,
    settings: &Settings,
    supervisor: ActorCell,
) -> Result<ActorRef<AdmissionMsg>, SpawnErr> {
    let state = AdmissionState { admission, interval: settings.limits.sweep_interval.get() };
    Ok(Actor::spawn_linked(None, AdmissionActor, state, supervisor).await?.0)
}

pub enum AdmissionMsg {
    Sweep,
}

impl ractor::Message for AdmissionMsg {}

struct AdmissionActor;

struct AdmissionState {
    admission: Arc<Admission>,
    interval: Duration,
}

impl Actor for AdmissionActor {
    type Msg = AdmissionMsg;
    type State = AdmissionState;
    type Arguments = AdmissionState;

    async fn pre_start(
        &self,
        myself: ActorRef<AdmissionMsg>,
        state: AdmissionState,
    ) -> Result<AdmissionState, ActorProcessingErr> {
        // The timer ends with the actor.
        myself.send_interval(state.interval.max(Duration::from_secs(1)), || AdmissionMsg::Sweep);
        Ok(state)
    }

    async fn handle(
        &self,
        _myself: ActorRef<AdmissionMsg>,
        _message: AdmissionMsg,
        state: &mut AdmissionState,
    ) -> Result<(), ActorProcessingErr> {
        state.admission.sweep();
        Ok(())
    }
}
