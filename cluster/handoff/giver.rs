//! The giving end, in the process that has served until now.

use std::collections::VecDeque;
use std::time::Duration;

use posthouse_net::Error as NetError;
use posthouse_net::descriptors::{Channel, Invitation, PeerProcess, own_uid};
use tokio::time::{Instant, sleep};

use super::link::Link;
use super::message::{Message, Outgoing, RefusedParcel};
use super::{Door, HandoffError, Hello, Limits, Parcel, batch};

const GREETING: &str = "the greeting";
const DOORS: &str = "the listeners";
const STORE: &str = "the store";
const SESSIONS: &str = "the sessions";
const END: &str = "the end";
/// Before the next peer is looked for: an error may be one that comes at once again.
const PEER_PAUSE: Duration = Duration::from_millis(50);

/// Asks a taker through the steps of a hand-over. Not one of its calls may be dropped half way: what it had taken is gone then.
pub struct Giver {
    link: Link,
    limits: Limits,
    taker: Hello,
    version: u32,
    batches: u32,
}

/// A session that the taker cannot take: it is the giver's own as before, with its keys.
#[derive(Debug)]
pub struct Refused {
    pub parcel: Parcel,
    pub reason: String,
}

/// What became of sessions.
#[derive(Debug, Default)]
pub struct Moved {
    /// The taker has started them.
    pub moved: Vec<MovedOne>,
    pub refused: Vec<Refused>,
}

/// A session that goes on over there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MovedOne {
    /// Of its state.
    pub octets: usize,
    /// From when it stopped until the taker said that it had started.
    pub frozen: Duration,
}

/// What became of sessions when the hand-over broke off.
#[derive(Debug)]
pub struct Interrupted {
    pub error: HandoffError,
    pub so_far: Moved,
    /// The giver's own as before.
    pub back: Vec<Parcel>,
    /// Told to start, without word that they did: this process must not touch them again, and has closed their sockets.
    pub lost: usize,
}

impl Giver {
    /// Waits for the taker and agrees with it on a version. Until now and for a while yet nothing has changed for clients.
    pub async fn invite(invitation: Invitation, own: Hello, limits: Limits) -> Result<Self, HandoffError> {
        Self::invite_user(own_uid(), invitation, own, limits).await
    }

    pub(super) async fn invite_user(
        uid: u32,
        invitation: Invitation,
        own: Hello,
        limits: Limits,
    ) -> Result<Self, HandoffError> {
        let deadline = Instant::now() + limits.hello;
        let accepted = invitation.accept(uid, deadline).await;
        Self::greet(accepted, own, limits, deadline).await
    }

    /// As `invite`, for one whom nobody else stands in for: a peer that is none of ours, or is gone before it has said so, is no
    /// reason to wait no longer. May be dropped while it waits.
    pub async fn invite_until(invitation: Invitation, own: Hello, limits: Limits) -> Result<Self, HandoffError> {
        let deadline = Instant::now() + limits.hello;
        loop {
            let accepted = invitation.next(own_uid(), deadline).await;
            match Self::greet(accepted, own.clone(), limits, deadline).await {
                Err(_) if Instant::now() < deadline => sleep(PEER_PAUSE).await,
                ended => return ended,
            }
        }
    }

    async fn greet(
        accepted: Result<Channel, NetError>,
        own: Hello,
        limits: Limits,
        deadline: Instant,
    ) -> Result<Self, HandoffError> {
        let channel = accepted.map_err(|source| HandoffError::Link { step: GREETING, source })?;
        let mut link = Link::new(channel);
        // A taker says it at once.
        let within = deadline.saturating_duration_since(Instant::now()).min(limits.answer);
        let taker = match link.hear(GREETING, within).await? {
            Message::Hello(hello) => hello,
            other => return Err(link.out_of_turn(GREETING, other)),
        };
        let version = match agree(&own, &taker) {
            Ok(version) => version,
            Err(error) => {
                // The taker's own report names both versions too; that it may not hear this changes nothing.
                let _ = link.tell(GREETING, &Outgoing::refused(&error.to_string()), limits.answer).await;
                return Err(error);
            }
        };
        link.tell(GREETING, &Outgoing::welcome(version, &own.program), limits.answer).await?;
        Ok(Self { link, limits, taker, version, batches: 0 })
    }

    /// What the taker said of itself.
    pub fn taker(&self) -> &Hello {
        &self.taker
    }

    /// The taker's process, where the kernel can name it.
    pub fn taker_pid(&self) -> Option<u32> {
        self.link.peer_pid()
    }

    /// A hold on that process, where it lives.
    pub fn taker_process(&self) -> Option<PeerProcess> {
        self.link.peer_process()
    }

    /// The version of the protocol that is spoken.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Shows the taker the listeners, which go on accepting here; returns when it can do with them.
    pub async fn doors(&mut self, doors: &[Door]) -> Result<(), HandoffError> {
        self.link.tell(DOORS, &Outgoing::doors(doors), self.limits.answer).await?;
        match self.link.hear(DOORS, self.limits.answer).await? {
            Message::Ready => Ok(()),
            other => Err(self.link.out_of_turn(DOORS, other)),
        }
    }

    /// Says that nobody holds the store; returns when the taker has opened it and serves.
    pub async fn store_is_free(&mut self) -> Result<(), HandoffError> {
        self.link.tell(STORE, &Outgoing::store_is_free(), self.limits.answer).await?;
        match self.link.hear(STORE, self.limits.store).await? {
            Message::Serving => Ok(()),
            other => Err(self.link.out_of_turn(STORE, other)),
        }
    }

    /// Moves any number of sessions, batch by batch. After an error that is a refusal, others can be moved.
    pub async fn sessions(&mut self, parcels: Vec<Parcel>) -> Result<Moved, Box<Interrupted>> {
        let (fitting, too_large): (Vec<_>, Vec<_>) = parcels.into_iter().partition(batch::fits);
        let mut waiting = VecDeque::from(fitting);
        let mut so_far = Moved::default();
        let refuse = |parcel| Refused { parcel, reason: "its state is too large to move".to_owned() };
        so_far.refused.extend(too_large.into_iter().map(refuse));
        while !waiting.is_empty() {
            let batch = batch::next(&mut waiting);
            let Err((error, mut back, lost)) = self.batch(batch, &mut so_far).await else { continue };
            back.extend(waiting);
            return Err(Box::new(Interrupted { error, so_far, back, lost }));
        }
        Ok(so_far)
    }

    /// Moves one batch. An error tells what is back, and how many are lost.
    async fn batch(
        &mut self,
        parcels: Vec<Parcel>,
        so_far: &mut Moved,
    ) -> Result<(), (HandoffError, Vec<Parcel>, usize)> {
        self.batches += 1;
        let number = self.batches;
        let refused = match self.offer(number, &parcels).await {
            Ok(refused) => refused,
            Err(error) => return Err((error, parcels, 0)),
        };
        // The taker has dropped what it refused before it said so.
        let (going, staying) = part(parcels, refused);
        so_far.refused.extend(staying);
        let gone: Vec<_> = going.iter().map(|parcel| (parcel.since, parcel.state.len())).collect();
        let count = gone.len();

        let link_error = |source| HandoffError::Link { step: SESSIONS, source };
        match self.link.try_tell(&Outgoing::commit(number), self.limits.answer).await {
            Ok(()) => drop(going),
            // The kernel took no octet of it and never will: the connection is closed.
            Err(unsent) if !unsent.is_begun => return Err((link_error(unsent.error), going, 0)),
            Err(unsent) => return Err((link_error(unsent.error), Vec::new(), count)),
        }
        match self.link.hear(SESSIONS, self.limits.answer).await {
            Ok(Message::Started(started)) if started == number => {
                let moved = gone.into_iter().map(|(since, octets)| MovedOne { octets, frozen: since.elapsed() });
                so_far.moved.extend(moved);
                Ok(())
            }
            Ok(other) => Err((self.link.out_of_turn(SESSIONS, other), Vec::new(), count)),
            Err(error) => Err((error, Vec::new(), count)),
        }
    }

    /// Shows the taker a batch; returns which parcels it does not want, by their places in ascending order.
    async fn offer(&mut self, number: u32, parcels: &[Parcel]) -> Result<Vec<RefusedParcel>, HandoffError> {
        self.link.tell(SESSIONS, &Outgoing::sessions(number, parcels), self.limits.answer).await?;
        match self.link.hear(SESSIONS, self.limits.answer).await? {
            Message::Received(received) if received.batch == number && is_of(&received.refused, parcels.len()) => {
                Ok(received.refused)
            }
            other => Err(self.link.out_of_turn(SESSIONS, other)),
        }
    }

    /// Says that there are no more sessions; returns when the taker knows. Without its word nobody may be serving.
    pub async fn done(mut self) -> Result<(), HandoffError> {
        self.link.tell(END, &Outgoing::done(), self.limits.answer).await?;
        match self.link.hear(END, self.limits.answer).await? {
            Message::Finished => Ok(()),
            other => Err(self.link.out_of_turn(END, other)),
        }
    }
}

/// Whether these are places in a batch of `count`, each at most once.
fn is_of(refused: &[RefusedParcel], count: usize) -> bool {
    refused.is_sorted_by(|one, next| one.index < next.index)
        && refused.last().is_none_or(|last| usize::try_from(last.index).is_ok_and(|index| index < count))
}

/// Parts a batch into what goes and what was refused.
fn part(parcels: Vec<Parcel>, refused: Vec<RefusedParcel>) -> (Vec<Parcel>, Vec<Refused>) {
    let mut refused = refused.into_iter().peekable();
    let (mut going, mut staying) = (Vec::with_capacity(parcels.len()), Vec::new());
    for (index, parcel) in parcels.into_iter().enumerate() {
        match refused.next_if(|refusal| usize::try_from(refusal.index) == Ok(index)) {
            Some(refusal) => staying.push(Refused { parcel, reason: refusal.reason }),
            None => going.push(parcel),
        }
    }
    (going, staying)
}

/// The newest version that both speak.
fn agree(own: &Hello, taker: &Hello) -> Result<u32, HandoffError> {
    let newest = *own.versions.end().min(taker.versions.end());
    if own.versions.contains(&newest) && taker.versions.contains(&newest) {
        return Ok(newest);
    }
    let speaks = |of: &Hello| format!("{} speaks {} to {}", of.program, of.versions.start(), of.versions.end());
    Err(HandoffError::Versions { ours: speaks(own), theirs: speaks(taker) })
}
