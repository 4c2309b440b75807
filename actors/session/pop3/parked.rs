//! A POP3 session as octets: from the greeting to the middle of a long answer.
//!
//! The lock of the maildrop is not given back on the way. Its holder and what is left of its lease travel, and the session
//! that goes on renews it before it does anything else.

use futures_util::FutureExt as _;
use posthouse_filter::rate::Admission;
use posthouse_mail::{AccountId, MailboxId, Uid, UidValidity};
use posthouse_storage::lock::Holder;
use posthouse_wire::pop3::command::LINE_MAX;
use posthouse_wire::pop3::{Entry, LineLimit, Listing, Maildrop, Offer, Server, Snapshot, Stuffer};
use posthouse_wire::smtp::line::LineCutter;

use super::maildrops::{Maildrops, Opened};
use super::sending::{MessageSending, Sending};
use super::{End, Pop3Services, Pop3Session, State, going_down, of_write, offer};
use crate::session::parked::{
    OctetsState, Rest, UNSENT_MAX, damaged, decode, encode, ensure, gaps, left, of_gaps, place, until,
};
use crate::session::{Doze, Origin, Parked, Presence, ResumeError};

/// Messages of a maildrop that can move; a session with more stays until its end.
const ENTRIES_MAX: usize = 500_000;

#[derive(Clone, PartialEq, prost::Message)]
struct Pop3State {
    #[prost(bool, tag = "1")]
    greeted: bool,
    /// USER gave a name.
    #[prost(string, optional, tag = "2")]
    user: Option<String>,
    /// The client has logged in.
    #[prost(message, optional, tag = "3")]
    maildrop: Option<MaildropState>,
    /// The rest of an overlong line is being skipped.
    #[prost(bool, tag = "4")]
    overlong: bool,
    /// Answers that are not yet sent.
    #[prost(bytes = "vec", tag = "5")]
    output: Vec<u8>,
    #[prost(message, optional, tag = "6")]
    sending: Option<SendingState>,
    #[prost(uint64, tag = "7")]
    refused_count: u64,
    #[prost(uint64, tag = "8")]
    deadline_left_ms: u64,
    #[prost(uint64, tag = "15")]
    slept_ms: u64,
    #[prost(bool, tag = "16")]
    drowsy: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MaildropState {
    #[prost(uint64, tag = "1")]
    account: u64,
    #[prost(uint64, tag = "2")]
    inbox: u64,
    #[prost(bytes = "vec", tag = "3")]
    holder: Vec<u8>,
    #[prost(uint64, tag = "4")]
    lease_left_ms: u64,
    #[prost(uint32, tag = "5")]
    uid_validity: u32,
    /// Gaps between the Uids.
    #[prost(uint32, repeated, tag = "6")]
    uids: Vec<u32>,
    /// As many as Uids.
    #[prost(uint64, repeated, tag = "7")]
    sizes: Vec<u64>,
    /// Gaps between the numbers of the messages marked as deleted.
    #[prost(uint32, repeated, tag = "8")]
    marks: Vec<u32>,
}

/// A long answer under way: a listing, or a message.
#[derive(Clone, PartialEq, prost::Message)]
struct SendingState {
    /// 1 sizes, 2 unique ids; absent for a message.
    #[prost(uint32, tag = "1")]
    listing: u32,
    /// The number that the listing goes on with.
    #[prost(uint64, tag = "2")]
    next: u64,
    #[prost(message, optional, tag = "3")]
    message: Option<OctetsState>,
    #[prost(uint64, tag = "4")]
    offset: u64,
    #[prost(bool, tag = "5")]
    at_line_start: bool,
    #[prost(bool, tag = "6")]
    after_cr: bool,
    /// TOP.
    #[prost(message, optional, tag = "7")]
    limit: Option<LimitState>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LimitState {
    #[prost(uint64, tag = "1")]
    lines_left: u64,
    #[prost(bool, tag = "2")]
    in_body: bool,
    #[prost(bool, tag = "3")]
    line_is_empty: bool,
}

/// What a client is to hear whose session goes on nowhere; none in the middle of an answer, of which it would be taken for a part.
pub(in crate::session) fn last_words(state: &[u8]) -> Result<Option<Vec<u8>>, ResumeError> {
    let Pop3State { output: mut words, sending, .. } = decode(state)?;
    words.extend_from_slice(&going_down().to_wire());
    Ok(Some(words).filter(|_| sending.is_none()))
}

impl<M: Maildrops> Pop3Session<M> {
    /// Whether the session could leave just now.
    pub(super) fn is_movable(&self) -> bool {
        let entries = self.state.server.maildrop().map_or(0, |maildrop| maildrop.entries().len());
        self.state.server.is_between_commands() && entries <= ENTRIES_MAX && self.state.output.len() <= UNSENT_MAX
    }

    /// Takes the session out of this process, or to sleep.
    pub(super) fn park(&mut self, why: End) -> Result<Parked, End> {
        let mut stream = self.stream.take().ok_or(End::Gone)?;
        // What the client takes at once, it need not wait for.
        let limit = self.services.settings.pop3.write_timeout.get();
        if let Some(Err(error)) = stream.send(&mut self.state.output, limit).now_or_never() {
            return Err(of_write(&error));
        }
        let state = encode(&Pop3State::new(&mut self.state));
        let rest = |peer| match why {
            End::Asleep(until) => {
                Some(Rest { until, watch: None, peer, place: self.place.take(), presence: self.presence.again() })
            }
            _ => None,
        };
        Parked::new(self.services.protocol, (stream, state), rest).map_err(|_| End::Gone)
    }

    /// The session that another process parked, if its state is sound.
    pub(super) fn resume(
        services: Pop3Services<M>,
        parked: Parked,
        admission: &Admission,
    ) -> Result<Self, ResumeError> {
        let (stream, state, rest) = parked.open::<Pop3State>(services.protocol, LINE_MAX)?;
        let transport = stream.transport();
        let tls_is_due = services.protocol.is_implicit_tls() && state.greeted;
        ensure(transport.is_tls() || !tls_is_due, "TLS")?;
        let lease = services.settings.pop3.lock_lease.get();
        let doze = Doze::resumed(&services.settings.node, state.drowsy);
        let held_until = state.maildrop.as_ref().map(|maildrop| until(maildrop.lease_left_ms, state.slept_ms));
        let mut state = state.read(offer(&services, transport), lease)?;
        if let (Some(_), Some(opened), Some(held_until)) = (&rest, &mut state.opened, held_until) {
            opened.slept(held_until);
        }
        let client = transport.peer_ip();
        let word = if state.opened.is_some() { "transaction" } else { "authorization" };
        Ok(Self {
            state,
            client,
            presence: Presence::new(services.protocol, word),
            stream: Some(stream),
            doze,
            services,
            origin: Origin::of(&rest),
            place: Some(place(rest, admission, client)),
        })
    }
}

impl Pop3State {
    /// Takes what the session knows.
    fn new(state: &mut State) -> Self {
        let fresh = Server::new(Offer { stls: false, login: false });
        let snapshot = std::mem::replace(&mut state.server, fresh).into_snapshot();
        let (user, maildrop) = match (snapshot, &state.opened) {
            (Some(Snapshot::Transaction(maildrop)), Some(opened)) => {
                (None, Some(MaildropState::new(&maildrop, opened)))
            }
            (Some(Snapshot::Authorization { user }), _) => (user, None),
            _ => (None, None),
        };
        Self {
            greeted: state.greeted,
            user,
            maildrop,
            overlong: state.cutter.overlong,
            output: std::mem::take(&mut state.output),
            sending: state.sending.take().map(SendingState::new),
            refused_count: u64::try_from(state.refused_count).unwrap_or(u64::MAX),
            deadline_left_ms: left(state.deadline),
            ..Self::default()
        }
    }

    fn read(self, offer: Offer, lease: std::time::Duration) -> Result<State, ResumeError> {
        ensure(self.output.len() <= UNSENT_MAX, "unsent answers")?;
        ensure(self.user.as_ref().is_none_or(|user| user.len() <= LINE_MAX), "a user's name")?;
        ensure(self.greeted || self.user.is_none() && self.maildrop.is_none(), "a dialogue before the greeting")?;
        let (snapshot, opened) = match self.maildrop {
            Some(maildrop) => {
                let (maildrop, opened) = maildrop.read(lease, self.slept_ms)?;
                (Snapshot::Transaction(maildrop), Some(opened))
            }
            None => (Snapshot::Authorization { user: self.user }, None),
        };
        let server = Server::restore(offer, snapshot);
        let sending = self.sending.map(|sending| sending.read(server.maildrop())).transpose()?;
        Ok(State {
            greeted: self.greeted,
            server,
            cutter: LineCutter { overlong: self.overlong },
            output: self.output,
            opened,
            sending,
            refused_count: usize::try_from(self.refused_count).map_err(|_| damaged("refused commands"))?,
            deadline: until(self.deadline_left_ms, self.slept_ms),
        })
    }
}

impl MaildropState {
    fn new(maildrop: &Maildrop, opened: &Opened) -> Self {
        let entries = maildrop.entries();
        Self {
            account: opened.account.get(),
            inbox: opened.inbox.get(),
            holder: opened.holder.to_vec(),
            lease_left_ms: left(opened.held_until()),
            uid_validity: maildrop.uid_validity().get(),
            uids: gaps(entries.iter().map(|entry| entry.uid.get())),
            sizes: entries.iter().map(|entry| entry.size).collect(),
            marks: gaps(maildrop.marks().filter_map(|number| u32::try_from(number).ok())),
        }
    }

    fn read(self, lease: std::time::Duration, slept: u64) -> Result<(Maildrop, Opened), ResumeError> {
        ensure(self.uids.len() <= ENTRIES_MAX && self.uids.len() == self.sizes.len(), "messages of a maildrop")?;
        let uids = of_gaps(&self.uids, "Uids of a maildrop")?;
        let entries = uids.into_iter().filter_map(Uid::new).zip(self.sizes).map(|(uid, size)| Entry { uid, size });
        let marks = of_gaps(&self.marks, "marks of a maildrop")?;
        let marks: Vec<usize> = marks.into_iter().filter_map(|number| usize::try_from(number).ok()).collect();
        let uid_validity = UidValidity::new(self.uid_validity).ok_or(damaged("UidValidity"))?;
        let maildrop =
            Maildrop::restore(uid_validity, entries.collect(), &marks).ok_or(damaged("marks of a maildrop"))?;
        let holder: Holder = self.holder.try_into().map_err(|_| damaged("the holder of a lock"))?;
        let opened = Opened::new(AccountId::new(self.account), MailboxId::new(self.inbox), holder, lease);
        Ok((maildrop, opened.resumed(until(self.lease_left_ms, slept))))
    }
}

impl SendingState {
    fn new(sending: Sending) -> Self {
        match sending {
            Sending::Listing(listing) => {
                let (listing, next) = match listing {
                    Listing::Sizes { next } => (1, next),
                    Listing::UniqueIds { next } => (2, next),
                };
                Self { listing, next: u64::try_from(next).unwrap_or(u64::MAX), ..Self::default() }
            }
            Sending::Message(message) => {
                let MessageSending { message, offset, stuffer } = *message;
                let Stuffer { at_line_start, after_cr, limit } = stuffer;
                let limit = limit.map(|LineLimit { lines_left, in_body, line_is_empty }| LimitState {
                    lines_left,
                    in_body,
                    line_is_empty,
                });
                let message = Some(OctetsState::new(&message));
                Self { message, offset, at_line_start, after_cr, limit, ..Self::default() }
            }
        }
    }

    fn read(self, maildrop: Option<&Maildrop>) -> Result<Sending, ResumeError> {
        let count = maildrop.ok_or(damaged("an answer without a maildrop"))?.entries().len();
        let next = usize::try_from(self.next).unwrap_or(usize::MAX);
        let listing = match (self.listing, self.message) {
            (1, None) => Listing::Sizes { next },
            (2, None) => Listing::UniqueIds { next },
            (0, Some(message)) => {
                let message = message.read()?;
                ensure(self.offset <= message.size(), "the place in a message")?;
                let limit = self.limit.map(|LimitState { lines_left, in_body, line_is_empty }| LineLimit {
                    lines_left,
                    in_body,
                    line_is_empty,
                });
                let stuffer = Stuffer { at_line_start: self.at_line_start, after_cr: self.after_cr, limit };
                return Ok(Sending::Message(Box::new(MessageSending { message, offset: self.offset, stuffer })));
            }
            _ => return Err(damaged("an answer under way")),
        };
        ensure((1..=count + 1).contains(&next), "the place in a listing")?;
        Ok(Sending::Listing(listing))
    }
}

/// A state without a node around it; the fuzz targets and tests have none.
#[cfg(any(test, feature = "fuzzing"))]
fn read(octets: &[u8]) -> Result<State, ResumeError> {
    decode::<Pop3State>(octets)?.read(Offer { stls: true, login: false }, std::time::Duration::from_secs(120))
}

#[cfg(feature = "fuzzing")]
pub(in crate::session) fn is_sound(octets: &[u8]) -> bool {
    read(octets).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::parked::fixture::{check_damage, check_golden, golden};

    fn samples() -> Vec<Pop3State> {
        let octets = OctetsState::new(&posthouse_storage::message::Octets {
            prefix: bytes::Bytes::from_static(b"Received: x\r\n"),
            body: posthouse_mail::stage::BodyRef { blob: posthouse_mail::BlobId::new([7; 32]), size: 5_000_000 },
        });
        let maildrop = MaildropState {
            account: 7,
            inbox: 1,
            holder: vec![9; 16],
            lease_left_ms: 30_000,
            uid_validity: 3,
            uids: gaps([1, 2, 9]),
            sizes: vec![100, 200, 300],
            marks: gaps([1, 3]),
        };
        let open = Pop3State {
            greeted: true,
            maildrop: Some(maildrop),
            output: b"+OK\r\n".to_vec(),
            refused_count: 3,
            deadline_left_ms: 60_000,
            ..Pop3State::default()
        };
        let limit = Some(LimitState { lines_left: 4, in_body: true, line_is_empty: true });
        let message =
            SendingState { message: Some(octets), offset: 4_000_000, after_cr: true, limit, ..SendingState::default() };
        let listing = SendingState { listing: 2, next: 4, ..SendingState::default() };
        vec![
            Pop3State::default(),
            Pop3State {
                greeted: true,
                user: Some("alice".to_owned()),
                overlong: true,
                deadline_left_ms: 1,
                ..Pop3State::default()
            },
            Pop3State { sending: Some(listing), ..open.clone() },
            Pop3State { sending: Some(message), ..open },
        ]
    }

    #[tokio::test(start_paused = true)]
    async fn version_1_is_read_for_ever() {
        check_golden("pop3", &samples().iter().map(encode).collect::<Vec<_>>());
        for (sample, golden) in samples().iter().zip(golden("pop3", 1)) {
            let mut state = read(&golden).expect("a sound state");
            let mut again = Pop3State::new(&mut state);
            // The lock is to be renewed at once, whatever was left of its lease.
            if let (Some(again), Some(sample)) = (&mut again.maildrop, &sample.maildrop) {
                again.lease_left_ms = sample.lease_left_ms;
            }
            assert_eq!(&again, sample);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_session_knows_is_refused() {
        let [_, user, listing, message] = &samples()[..] else { panic!("four samples") };
        let wrong = |change: &dyn Fn(&mut Pop3State), sample: &Pop3State| {
            let mut state = sample.clone();
            change(&mut state);
            assert!(read(&encode(&state)).is_err(), "{state:?}");
        };
        wrong(&|state| state.greeted = false, user);
        wrong(&|state| state.user = Some("x".repeat(5000)), user);
        wrong(&|state| state.sending = Some(SendingState { listing: 1, next: 1, ..Default::default() }), user);
        let maildrop = |change: &dyn Fn(&mut MaildropState)| {
            wrong(&|state| change(state.maildrop.as_mut().expect("a maildrop")), listing);
        };
        maildrop(&|maildrop| maildrop.holder = vec![1; 15]);
        maildrop(&|maildrop| maildrop.uid_validity = 0);
        maildrop(&|maildrop| maildrop.uids[1] = 0);
        maildrop(&|maildrop| maildrop.uids[1] = u32::MAX);
        maildrop(&|maildrop| maildrop.sizes.truncate(2));
        maildrop(&|maildrop| maildrop.marks = vec![4]);
        let sending = |change: &dyn Fn(&mut SendingState), sample: &Pop3State| {
            wrong(&|state| change(state.sending.as_mut().expect("an answer")), sample);
        };
        sending(&|sending| sending.next = 0, listing);
        sending(&|sending| sending.next = 5, listing);
        sending(&|sending| sending.listing = 3, listing);
        sending(&|sending| sending.listing = 1, message);
        sending(&|sending| sending.offset = 5_000_014, message);
        assert!(matches!(read(&[2, 8, 1]), Err(ResumeError::Version(2))));
        assert!(read(&[]).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn damage_is_an_error_or_another_sound_state() {
        check_damage(&samples().iter().map(encode).collect::<Vec<_>>(), |octets| read(octets).is_ok());
    }
}
