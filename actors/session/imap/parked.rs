//! An IMAP session as octets: between commands, in IDLE, or in the middle of a FETCH.
//!
//! What others did to the mailbox while the session was between two processes stands in the change log, which it reads on
//! from where it was. A FETCH travels as the command that the client sent and the messages still to be answered; of the
//! message under way its text travels, and where its octets are read.

use std::collections::{BTreeSet, VecDeque};

use futures_util::FutureExt as _;
use posthouse_filter::rate::Admission;
use posthouse_mail::flag::Keyword;
use posthouse_mail::{AccountId, Flag, FlagSet, MailboxId, ModSeq, Uid};
use posthouse_net::Error as NetError;
use posthouse_storage::message::Octets;
use posthouse_wire::imap::command::{ParseLimits, Tagged};
use posthouse_wire::imap::response::fetch::Segment;
use posthouse_wire::imap::seq_view::Snapshot;
use posthouse_wire::imap::{Command, SeqView, State, Tag, parse};
use tokio::time::Instant;

use super::answer::Stop;
use super::desk::Desk;
use super::dialogue::{Dialogue, frame_limits, input_max};
use super::fetch::{Answering, UnderWay};
use super::state::{Activity, Changed, Phase, Selected, SessionState};
use super::{ImapServices, ImapSession};
use crate::session::parked::{
    OctetsState, Rest, UNSENT_MAX, damaged, decode, encode, ensure, gaps, left, of_gaps, place, until,
};
use crate::session::{Doze, Origin, Parked, ResumeError};

/// Messages still to be answered of a FETCH that can move.
const TODO_MAX: usize = 1_000_000;
/// Octets of a command.
const TEXT_MAX: usize = 2 << 20;

#[derive(Clone, PartialEq, prost::Message)]
struct ImapState {
    #[prost(bool, tag = "1")]
    greeted: bool,
    /// The client has logged in.
    #[prost(uint64, optional, tag = "2")]
    account: Option<u64>,
    #[prost(message, optional, tag = "3")]
    selected: Option<SelectedState>,
    /// Wrong commands in a row.
    #[prost(uint64, tag = "4")]
    errors: u64,
    /// Answers that are not yet sent.
    #[prost(bytes = "vec", tag = "5")]
    output: Vec<u8>,
    /// The client is in IDLE.
    #[prost(string, optional, tag = "6")]
    idle_tag: Option<String>,
    #[prost(uint64, tag = "7")]
    idle_left_ms: u64,
    #[prost(message, optional, tag = "8")]
    answering: Option<AnsweringState>,
    #[prost(uint64, tag = "9")]
    login_left_ms: u64,
    #[prost(uint64, optional, tag = "10")]
    input_left_ms: Option<u64>,
    #[prost(uint64, tag = "15")]
    slept_ms: u64,
    #[prost(bool, tag = "16")]
    drowsy: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SelectedState {
    #[prost(uint64, tag = "1")]
    mailbox: u64,
    #[prost(bool, tag = "2")]
    read_only: bool,
    /// Of each run of Uids the gap from the last one, and its length.
    #[prost(uint32, repeated, tag = "3")]
    runs: Vec<u32>,
    /// Gaps between the Uids that the client has not been told of.
    #[prost(uint32, repeated, tag = "4")]
    arrived: Vec<u32>,
    /// Gaps between the Uids that are gone without its knowing.
    #[prost(uint32, repeated, tag = "5")]
    gone: Vec<u32>,
    #[prost(uint64, tag = "6")]
    known: u64,
    /// The keywords that the client has been told of, with spaces between them.
    #[prost(string, tag = "7")]
    keywords: String,
    #[prost(uint64, repeated, tag = "8")]
    own: Vec<u64>,
    /// Gaps between the Uids whose flags others changed.
    #[prost(uint32, repeated, tag = "9")]
    changed: Vec<u32>,
    /// More were changed than are worth counting.
    #[prost(bool, tag = "10")]
    all_changed: bool,
}

/// A FETCH under way.
#[derive(Clone, PartialEq, prost::Message)]
struct AnsweringState {
    /// The command, without its last CRLF.
    #[prost(bytes = "vec", tag = "1")]
    command: Vec<u8>,
    /// Runs of Uids, as in the view.
    #[prost(uint32, repeated, tag = "2")]
    todo: Vec<u32>,
    #[prost(uint64, tag = "3")]
    missing: u64,
    /// Gaps between the Uids to do that the command has marked seen.
    #[prost(uint32, repeated, tag = "4")]
    seen: Vec<u32>,
    /// The texts of the message under way, one behind the other.
    #[prost(bytes = "vec", tag = "5")]
    text: Vec<u8>,
    /// Threes: octets of text, then the begin and the end of the range of the message that follows; begin = end: none does.
    #[prost(uint64, repeated, tag = "6")]
    layout: Vec<u64>,
    #[prost(message, optional, tag = "7")]
    octets: Option<OctetsState>,
}

/// What a client is to hear whose session goes on nowhere; none in the middle of a FETCH, of whose literal it would be a part.
pub(in crate::session) fn last_words(state: &[u8]) -> Result<Option<Vec<u8>>, ResumeError> {
    let ImapState { output: mut words, answering, .. } = decode(state)?;
    if let Some(status) = Stop::Draining.farewell() {
        status.put(&mut words, None);
    }
    Ok(Some(words).filter(|_| answering.is_none()))
}

impl<D: Desk> Dialogue<D> {
    /// Whether the session could leave just now.
    pub(super) fn is_movable(&self) -> bool {
        let fits = match &self.state.activity {
            Activity::Listening | Activity::Idling { .. } => true,
            Activity::Answering(answering) => answering.is_movable(),
        };
        let is_between = self.reader.is_between_commands() && self.state.state() != State::Logout;
        fits && is_between && self.out.len() <= UNSENT_MAX
    }

    /// Takes the session out of this process, or to sleep, until it has something to do by itself.
    pub(super) fn park(mut self, sleep_until: Option<Instant>) -> Result<Parked, NetError> {
        // What the client takes at once, it need not wait for.
        let limit = self.settings.imap.write_timeout.get();
        if let Some(Err(error)) = self.stream.send(&mut self.out, limit).now_or_never() {
            return Err(error);
        }
        // Only in IDLE, and only with a mailbox open, does a client hear of changes.
        let account = self.state.selected().and(self.state.account());
        let watch = account.zip(self.notices.take());
        let Self { protocol, state, stream, out, greeted, login_by, input_by, presence, .. } = self;
        let mut octets = ImapState::new(state);
        octets.greeted = greeted;
        octets.output = out;
        octets.login_left_ms = left(login_by);
        octets.input_left_ms = input_by.map(left);
        let rest = |peer| sleep_until.map(|until| Rest { until, watch, peer, place: None, presence });
        Parked::new(protocol, (stream, encode(&octets)), rest)
    }
}

impl<D: Desk> ImapSession<D> {
    /// The session that another process parked, if its state is sound.
    pub(super) fn resume(
        services: ImapServices<D>,
        parked: Parked,
        admission: &Admission,
    ) -> Result<Self, ResumeError> {
        let input_max = input_max(&frame_limits(&services.settings));
        let (stream, mut state, rest) = parked.open::<ImapState>(services.protocol, input_max)?;
        let tls_is_due = services.protocol.is_implicit_tls() && state.greeted;
        ensure(stream.transport().is_tls() || !tls_is_due, "TLS")?;
        ensure(state.output.len() <= UNSENT_MAX, "unsent answers")?;
        let client = stream.transport().peer_ip();
        let (out, greeted) = (std::mem::take(&mut state.output), state.greeted);
        let slept = state.slept_ms;
        let login_by = until(state.login_left_ms, slept);
        let input_by = state.input_left_ms.map(|left| until(left, slept));
        let doze = Doze::resumed(&services.settings.node, state.drowsy);
        let limits = ParseLimits { search_depth_max: services.settings.imap.search_depth_max };
        let state = state.read(limits)?;
        let mut dialogue = Dialogue::with(services, stream, state, login_by);
        dialogue.out = out;
        dialogue.greeted = greeted;
        dialogue.input_by = input_by;
        dialogue.doze = doze;
        if matches!(dialogue.state.activity, Activity::Idling { .. }) {
            dialogue.reader.expect_line();
        }
        let origin = Origin::of(&rest);
        Ok(Self { dialogue, client, origin, place: Some(place(rest, admission, client)) })
    }
}

impl ImapState {
    /// What the state of a session says; the rest is left at its default.
    fn new(state: SessionState) -> Self {
        let (account, selected) = match state.phase {
            Phase::NotAuthenticated | Phase::Logout => (None, None),
            Phase::Authenticated { account } => (Some(account), None),
            Phase::Selected { account, selected } => (Some(account), Some(SelectedState::new(*selected))),
        };
        let (idle, answering) = match state.activity {
            Activity::Listening => (None, None),
            Activity::Idling { tag, until } => (Some((tag, until)), None),
            Activity::Answering(answering) => (None, Some(AnsweringState::new(answering.rest()))),
        };
        Self {
            account: account.map(AccountId::get),
            selected,
            errors: u64::try_from(state.errors).unwrap_or(u64::MAX),
            idle_left_ms: idle.as_ref().map_or(0, |(_, until)| left(*until)),
            idle_tag: idle.map(|(tag, _)| tag.as_str().to_owned()),
            answering,
            ..Self::default()
        }
    }

    fn read(self, limits: ParseLimits) -> Result<SessionState, ResumeError> {
        ensure(self.greeted || self.account.is_none(), "a login before the greeting")?;
        let phase = match (self.account.map(AccountId::new), self.selected) {
            (None, None) => Phase::NotAuthenticated,
            (Some(account), None) => Phase::Authenticated { account },
            (Some(account), Some(selected)) => Phase::Selected { account, selected: Box::new(selected.read()?) },
            (None, Some(_)) => return Err(damaged("a mailbox without a login")),
        };
        let activity = match (self.idle_tag, self.answering, &phase) {
            (None, None, _) => Activity::Listening,
            (Some(tag), None, Phase::Authenticated { .. } | Phase::Selected { .. }) => {
                let tag = Tag::of(tag.as_bytes()).filter(|read| read.as_str() == tag).ok_or(damaged("a tag"))?;
                Activity::Idling { tag, until: until(self.idle_left_ms, self.slept_ms) }
            }
            (None, Some(answering), Phase::Selected { selected, .. }) => {
                Activity::Answering(Box::new(answering.read(&selected.view, limits)?))
            }
            _ => return Err(damaged("what the session is at")),
        };
        let errors = usize::try_from(self.errors).map_err(|_| damaged("wrong commands"))?;
        Ok(SessionState { phase, activity, errors })
    }
}

impl SelectedState {
    fn new(selected: Selected) -> Self {
        let Selected { mailbox, read_only, view, known, keywords, own, changed } = selected;
        let Snapshot { runs, arrived, gone } = view.snapshot();
        let (changed, all_changed) = match changed {
            Changed::These(uids) => (gaps(uids.into_iter().map(Uid::get)), false),
            Changed::All => (Vec::new(), true),
        };
        Self {
            mailbox: mailbox.get(),
            read_only,
            runs: pack(runs),
            arrived: gaps(arrived),
            gone: gaps(gone),
            known: known.get(),
            keywords: keywords.iter().map(Flag::as_str).collect::<Vec<_>>().join(" "),
            own: own.into_iter().map(ModSeq::get).collect(),
            changed,
            all_changed,
        }
    }

    fn read(self) -> Result<Selected, ResumeError> {
        let snapshot = Snapshot {
            runs: unpack(&self.runs, "the view of a mailbox")?,
            arrived: of_gaps(&self.arrived, "messages that came")?,
            gone: of_gaps(&self.gone, "messages that went")?,
        };
        let keyword = |text: &str| Keyword::new(text).map(Flag::Keyword);
        let keywords: Option<FlagSet> = self.keywords.split_ascii_whitespace().map(keyword).collect();
        let own: Option<Vec<ModSeq>> = self.own.into_iter().map(ModSeq::new).collect();
        let changed = of_gaps(&self.changed, "messages that changed")?;
        Ok(Selected {
            mailbox: MailboxId::new(self.mailbox),
            read_only: self.read_only,
            view: SeqView::restore(snapshot).ok_or(damaged("the view of a mailbox"))?,
            known: ModSeq::new(self.known).ok_or(damaged("the place in the change log"))?,
            keywords: keywords.ok_or(damaged("a keyword"))?,
            own: own.ok_or(damaged("changes of its own"))?,
            changed: match self.all_changed {
                true => Changed::All,
                false => Changed::These(changed.into_iter().filter_map(Uid::new).collect()),
            },
        })
    }
}

impl Answering {
    fn is_movable(&self) -> bool {
        let segments = self.under_way.iter().flat_map(|under_way| &under_way.segments);
        let text: usize = segments.map(|segment| if let Segment::Text(text) = segment { text.len() } else { 0 }).sum();
        self.todo.len() < TODO_MAX && text <= TEXT_MAX && self.text.len() <= TEXT_MAX
    }
}

impl AnsweringState {
    fn new(answering: Answering) -> Self {
        let mut state = Self {
            command: answering.text,
            todo: pack(runs(&answering.todo)),
            missing: u64::try_from(answering.missing).unwrap_or(u64::MAX),
            seen: gaps(answering.seen.into_iter().map(Uid::get)),
            ..Self::default()
        };
        let Some(UnderWay { segments, octets }) = answering.under_way else { return state };
        for segment in segments {
            match segment {
                Segment::Text(text) => {
                    state.layout.extend([text.len() as u64, 0, 0]);
                    state.text.extend_from_slice(&text);
                }
                Segment::Octets(range) => state.layout.extend([0, range.start, range.end]),
            }
        }
        state.octets = octets.as_ref().map(OctetsState::new);
        state
    }

    fn read(self, view: &SeqView, limits: ParseLimits) -> Result<Answering, ResumeError> {
        ensure(self.command.len() <= TEXT_MAX && self.text.len() <= TEXT_MAX, "the length of a command")?;
        let Ok(Tagged { tag, command: Command::Fetch(fetch) }) = parse(&self.command, limits) else {
            return Err(damaged("the command under way"));
        };
        let runs = unpack(&self.todo, "messages to be fetched")?;
        let count: u64 = runs.iter().map(|(_, length)| u64::from(*length)).sum();
        ensure(count <= TODO_MAX as u64, "messages to be fetched")?;
        let todo: Option<Vec<Uid>> = runs
            .into_iter()
            .flat_map(|(first, len)| (0..len).map(move |at| first.checked_add(at)))
            .map(|uid| uid.and_then(Uid::new).filter(|uid| view.seq_of(*uid).is_some()))
            .collect();
        let seen = of_gaps(&self.seen, "messages marked seen")?;
        let octets = self.octets.map(OctetsState::read).transpose()?;
        let segments = segments(&self.text, &self.layout, octets.as_ref())?;
        let mut answering = Answering::new(self.command, tag, fetch, todo.ok_or(damaged("messages to be fetched"))?);
        answering.missing = usize::try_from(self.missing).map_err(|_| damaged("missing messages"))?;
        answering.seen = seen.into_iter().filter_map(Uid::new).collect::<BTreeSet<_>>();
        answering.under_way = (!segments.is_empty()).then_some(UnderWay { segments, octets });
        Ok(answering)
    }
}

/// The pieces of a message under way.
fn segments(mut text: &[u8], layout: &[u64], octets: Option<&Octets>) -> Result<VecDeque<Segment>, ResumeError> {
    let what = "the message under way";
    let size = octets.map_or(0, Octets::size);
    let (threes, []) = layout.as_chunks::<3>() else { return Err(damaged(what)) };
    let mut segments = VecDeque::new();
    for [length, start, end] in threes {
        let length = usize::try_from(*length).map_err(|_| damaged(what))?;
        let (head, rest) = text.split_at_checked(length).ok_or(damaged(what))?;
        text = rest;
        ensure(start <= end && *end <= size && (length > 0 || start < end), what)?;
        if length > 0 {
            segments.push_back(Segment::Text(head.to_vec()));
        }
        if start < end {
            segments.push_back(Segment::Octets(*start..*end));
        }
    }
    ensure(text.is_empty(), what)?;
    Ok(segments)
}

/// Ascending Uids as runs: the first and how many.
fn runs<'a>(uids: impl IntoIterator<Item = &'a Uid>) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for uid in uids {
        match runs.last_mut() {
            Some((first, length)) if first.checked_add(*length) == Some(uid.get()) => *length += 1,
            _ => runs.push((uid.get(), 1)),
        }
    }
    runs
}

/// Runs as gaps and lengths, which are small.
fn pack(runs: Vec<(u32, u32)>) -> Vec<u32> {
    let mut last = 0_u32;
    let pair = |(first, length): (u32, u32)| {
        let gap = first.saturating_sub(last);
        last = first.saturating_add(length.saturating_sub(1));
        [gap, length]
    };
    runs.into_iter().flat_map(pair).collect()
}

fn unpack(packed: &[u32], what: &'static str) -> Result<Vec<(u32, u32)>, ResumeError> {
    let (pairs, []) = packed.as_chunks::<2>() else { return Err(damaged(what)) };
    let mut last = 0_u32;
    let run = |[gap, length]: &[u32; 2]| {
        let first = last.checked_add(*gap).filter(|_| *gap > 0)?;
        last = first.checked_add(length.checked_sub(1)?)?;
        Some((first, *length))
    };
    pairs.iter().map(run).collect::<Option<_>>().ok_or(damaged(what))
}

/// A state without a node around it; the fuzz targets and tests have none.
#[cfg(any(test, feature = "fuzzing"))]
fn read(octets: &[u8]) -> Result<SessionState, ResumeError> {
    decode::<ImapState>(octets)?.read(ParseLimits { search_depth_max: 10 })
}

#[cfg(feature = "fuzzing")]
pub(in crate::session) fn is_sound(octets: &[u8]) -> bool {
    read(octets).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::parked::fixture::{check_damage, check_golden, golden};

    fn samples() -> Vec<ImapState> {
        let selected = SelectedState {
            mailbox: 4,
            read_only: true,
            runs: pack(vec![(1, 3), (10, 1000)]),
            arrived: gaps([2000, 2001]),
            gone: gaps([2, 500]),
            known: 77,
            keywords: "$Forwarded $Work".to_owned(),
            own: vec![70, 72],
            changed: gaps([3, 11]),
            all_changed: false,
        };
        let octets = Octets {
            prefix: bytes::Bytes::from_static(b"Received: x\r\n"),
            body: posthouse_mail::stage::BodyRef { blob: posthouse_mail::BlobId::new([7; 32]), size: 50_000_000 },
        };
        let answering = AnsweringState {
            command: b"a1 UID FETCH 1:* (FLAGS BODY.PEEK[] BODY[TEXT])".to_vec(),
            todo: pack(vec![(3, 1), (20, 900)]),
            missing: 2,
            seen: gaps([3, 20]),
            text: b"* 1 FETCH (x {5}\r\n)\r\n".to_vec(),
            layout: vec![18, 0, 0, 0, 1_000_000, 50_000_013, 3, 0, 0],
            octets: Some(OctetsState::new(&octets)),
        };
        let open = ImapState {
            greeted: true,
            account: Some(7),
            selected: Some(selected),
            errors: 1,
            output: b"* OK\r\n".to_vec(),
            login_left_ms: 1000,
            input_left_ms: Some(2000),
            ..ImapState::default()
        };
        let idling = ImapState { idle_tag: Some("a2".to_owned()), idle_left_ms: 1_700_000, ..open.clone() };
        let all = ImapState {
            selected: open.selected.clone().map(|selected| SelectedState {
                changed: Vec::new(),
                all_changed: true,
                ..selected
            }),
            ..open.clone()
        };
        let logged_in = ImapState { greeted: true, account: Some(7), ..ImapState::default() };
        let fetching = ImapState { answering: Some(answering), ..open };
        vec![ImapState::default(), logged_in, all, idling, fetching]
    }

    #[tokio::test(start_paused = true)]
    async fn version_1_is_read_for_ever() {
        check_golden("imap", &samples().iter().map(encode).collect::<Vec<_>>());
        for (sample, golden) in samples().into_iter().zip(golden("imap", 1)) {
            let again = ImapState::new(read(&golden).expect("a sound state"));
            let ImapState { greeted, output, login_left_ms, input_left_ms, .. } = sample.clone();
            assert_eq!(ImapState { greeted, output, login_left_ms, input_left_ms, ..again }, sample);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_session_knows_is_refused() {
        let [_, logged_in, _, idling, fetching] = &samples()[..] else { panic!("five samples") };
        let wrong = |sample: &ImapState, change: &dyn Fn(&mut ImapState)| {
            let mut state = sample.clone();
            change(&mut state);
            assert!(read(&encode(&state)).is_err(), "{state:?}");
        };
        wrong(logged_in, &|state| state.greeted = false);
        wrong(logged_in, &|state| state.answering = fetching.answering.clone());
        wrong(idling, &|state| state.account = None);
        wrong(idling, &|state| state.idle_tag = Some("a b".to_owned()));
        wrong(idling, &|state| state.idle_tag = Some(String::new()));
        wrong(idling, &|state| state.answering = fetching.answering.clone());
        let selected = |change: &dyn Fn(&mut SelectedState)| {
            wrong(idling, &|state| change(state.selected.as_mut().expect("a mailbox")));
        };
        selected(&|selected| selected.known = 0);
        selected(&|selected| selected.own = vec![0]);
        selected(&|selected| selected.keywords = "\\Seen".to_owned());
        selected(&|selected| selected.runs = vec![1, 3, 0, 2]);
        selected(&|selected| selected.runs = vec![1, 3, 2]);
        selected(&|selected| selected.runs = vec![1, 0]);
        selected(&|selected| selected.arrived = gaps([5]));
        selected(&|selected| selected.gone = gaps([5]));
        selected(&|selected| selected.changed = vec![1, 0]);
        let answering = |change: &dyn Fn(&mut AnsweringState)| {
            wrong(fetching, &|state| change(state.answering.as_mut().expect("a FETCH")));
        };
        answering(&|answering| answering.command = b"a1 NOOP".to_vec());
        answering(&|answering| answering.todo = pack(vec![(5, 1)]));
        answering(&|answering| answering.todo = pack(vec![(1, u32::MAX)]));
        answering(&|answering| answering.layout.truncate(8));
        answering(&|answering| answering.layout[0] = 19);
        answering(&|answering| answering.layout[0] = 17);
        answering(&|answering| answering.layout[5] = 50_000_014);
        answering(&|answering| answering.layout[4] = 50_000_014);
        answering(&|answering| answering.octets = None);
    }

    #[tokio::test(start_paused = true)]
    async fn damage_is_an_error_or_another_sound_state() {
        check_damage(&samples().iter().map(encode).collect::<Vec<_>>(), |octets| read(octets).is_ok());
    }
}
