//! One distributor: hands on one spooled message at a time.
//!
//! Apart from the spool actor, so that a bug that a message brings out kills a distributor and not the list.
//!
//! Owns: nothing between messages.   Receives: Distribute.   Sends: Done to the spool; appends to mailboxes, nudges to queues.
//! Bounds: one message; `mailbox.request_timeout` for each append.
//! On failure: the spool actor, its supervisor, replaces it and tries the message again.   Standards: RFC 5321 §6.1.

use std::sync::Arc;

use posthouse_mail::IngestId;
use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::distribute::{End, distribute};
use super::{SpoolMsg, SpoolServices};

pub(super) enum DistributorMsg {
    Distribute(IngestId),
}

impl ractor::Message for DistributorMsg {}

pub(super) struct DistributorArguments {
    pub(super) spool: ActorRef<SpoolMsg>,
    pub(super) services: Arc<SpoolServices>,
}

pub(super) struct DistributorActor;

impl Actor for DistributorActor {
    type Msg = DistributorMsg;
    type State = DistributorArguments;
    type Arguments = DistributorArguments;

    async fn pre_start(
        &self,
        _myself: ActorRef<DistributorMsg>,
        arguments: DistributorArguments,
    ) -> Result<DistributorArguments, ActorProcessingErr> {
        Ok(arguments)
    }

    async fn handle(
        &self,
        myself: ActorRef<DistributorMsg>,
        message: DistributorMsg,
        state: &mut DistributorArguments,
    ) -> Result<(), ActorProcessingErr> {
        let DistributorMsg::Distribute(id) = message;
        let end = match distribute(&state.services, id).await {
            Ok(end) => end,
            Err(error) => End::Again { open: 0, reason: error.to_string() },
        };
        state.spool.cast(SpoolMsg::Done { distributor: myself.get_id(), id, end })?;
        Ok(())
    }
}
