//! An SMTP session as octets: from before its greeting to the middle of a transaction whose data has not begun.
//!
//! Whether the client is exempt from limits is no part of it: the configuration that goes on may say otherwise.

use futures_util::FutureExt as _;
use posthouse_filter::rate::Admission;
use posthouse_mail::envelope::{BodyType, DsnNotify, DsnReturn, OriginalRecipient};
use posthouse_mail::{AccountId, Address, Envelope, ForwardPath, IngestId, Recipient, ReversePath};
use posthouse_wire::smtp::line::LineCutter;
use posthouse_wire::smtp::reply;
use posthouse_wire::smtp::server::snapshot::{Hello, Progress, Snapshot};
use posthouse_wire::smtp::server::{Login, SmtpSession as Dialogue};
use prost::Message as _;

use super::desk::Desk;
use super::{End, Opening, SmtpServices, SmtpSession, ended_by, flavour, input_max};
use crate::session::parked::{Rest, UNSENT_MAX, damaged, decode, encode, ensure, left, place, until};
use crate::session::{Doze, Origin, Parked, Presence, ResumeError};

/// Recipients of an envelope that can move.
const RECIPIENTS_MAX: usize = 100_000;
/// Octets in a text that is no address.
const TEXT_MAX: usize = 4096;

#[derive(Clone, PartialEq, prost::Message)]
struct SmtpState {
    /// 0 before the handshake that comes first, 1 before the greeting, 2 behind it.
    #[prost(uint32, tag = "1")]
    opening: u32,
    /// Of the silence before the greeting.
    #[prost(uint64, optional, tag = "2")]
    silence_left_ms: Option<u64>,
    #[prost(message, optional, tag = "3")]
    login: Option<LoginState>,
    #[prost(uint64, tag = "4")]
    errors: u64,
    #[prost(uint64, tag = "5")]
    messages: u64,
    #[prost(string, optional, tag = "6")]
    hello: Option<String>,
    /// EHLO, not HELO.
    #[prost(bool, tag = "7")]
    extended: bool,
    #[prost(message, optional, tag = "8")]
    envelope: Option<EnvelopeState>,
    /// A forward-path was refused.
    #[prost(bool, tag = "9")]
    path_refused: bool,
    /// The rest of an overlong line is being skipped.
    #[prost(bool, tag = "10")]
    overlong: bool,
    /// Replies that are not yet sent.
    #[prost(bytes = "vec", tag = "11")]
    output: Vec<u8>,
    #[prost(uint64, optional, tag = "12")]
    transaction_left_ms: Option<u64>,
    #[prost(uint64, optional, tag = "13")]
    command_left_ms: Option<u64>,
    /// For the Received field.
    #[prost(string, optional, tag = "14")]
    tls: Option<String>,
    #[prost(uint64, tag = "15")]
    slept_ms: u64,
    #[prost(bool, tag = "16")]
    drowsy: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LoginState {
    #[prost(uint64, tag = "1")]
    account: u64,
    #[prost(string, tag = "2")]
    address: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EnvelopeState {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    /// Empty: the null reverse-path.
    #[prost(string, tag = "2")]
    reverse_path: String,
    /// 0 7BIT, 1 8BITMIME, 2 BINARYMIME.
    #[prost(uint32, tag = "3")]
    body_type: u32,
    #[prost(bool, tag = "4")]
    smtputf8: bool,
    #[prost(uint64, optional, tag = "5")]
    declared_size: Option<u64>,
    #[prost(string, optional, tag = "6")]
    envelope_id: Option<String>,
    /// 0 not said, 1 FULL, 2 HDRS.
    #[prost(uint32, tag = "7")]
    dsn_return: u32,
    /// `RecipientState`s, each behind its length: read one by one, so that their number is known before their memory is taken.
    #[prost(bytes = "vec", tag = "8")]
    recipients: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RecipientState {
    /// `Postmaster` without a domain stands for itself.
    #[prost(string, tag = "1")]
    path: String,
    /// 1 success, 2 failure, 4 delay.
    #[prost(uint32, tag = "2")]
    notify: u32,
    #[prost(string, optional, tag = "3")]
    original_type: Option<String>,
    #[prost(string, tag = "4")]
    original_address: String,
}

/// What a client is to hear whose session goes on nowhere: what waited, and a 421, in place of the greeting too
/// (RFC 5321 §3.8).
pub(in crate::session) fn last_words(state: &[u8], hostname: &str) -> Result<Option<Vec<u8>>, ResumeError> {
    let mut words = decode::<SmtpState>(state)?.output;
    words.extend_from_slice(reply::going_away(hostname).to_wire().as_bytes());
    Ok(Some(words))
}

impl<D: Desk> SmtpSession<D> {
    /// Whether the session could leave just now.
    pub(super) fn is_movable(&self) -> bool {
        self.dialogue.is_between_commands() && self.output.len() <= UNSENT_MAX
    }

    /// Takes the session out of this process, or to sleep.
    pub(super) fn park(&mut self, why: End) -> Result<Parked, End> {
        let mut stream = self.stream.take().ok_or(End::Gone)?;
        // What the client takes at once, it need not wait for.
        let limit = self.services.settings.smtp.command_timeout.get();
        if let Some(Err(error)) = stream.send(&mut self.output, limit).now_or_never() {
            return Err(ended_by(&error));
        }
        let state = encode(&SmtpState::new(self));
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
        services: SmtpServices<D>,
        parked: Parked,
        admission: &Admission,
    ) -> Result<Self, ResumeError> {
        let (stream, mut state, rest) = parked.open::<SmtpState>(services.protocol, input_max(&services.settings))?;
        let tls = stream.transport().is_tls();
        let opening = state.opening()?;
        ensure(services.protocol.is_implicit_tls() || opening != Opening::Handshake, "a handshake")?;
        ensure(tls || !services.protocol.is_implicit_tls() || opening == Opening::Handshake, "TLS")?;
        ensure(state.output.len() <= UNSENT_MAX, "unsent replies")?;
        ensure(state.tls.as_ref().is_none_or(|tls| tls.len() <= TEXT_MAX), "TLS")?;
        let output = std::mem::take(&mut state.output);
        let (cutter, tls_text) = (LineCutter { overlong: state.overlong }, state.tls.take());
        let (transaction_left, command_left) = (state.transaction_left_ms, state.command_left_ms);
        let (slept, drowsy) = (state.slept_ms, state.drowsy);
        // Facts are kept as if TLS had come already where it is yet to come first.
        let tls = tls || services.protocol.is_implicit_tls();
        let snapshot = state.snapshot()?;
        let greeted = snapshot.progress != Progress::ExpectHello;
        ensure(opening == Opening::Greeted || !greeted, "a dialogue before the greeting")?;
        let dialogue =
            Dialogue::restore(flavour(services.protocol), tls, snapshot).ok_or(damaged("the dialogue's place"))?;
        let client = stream.transport().peer_ip();
        Ok(Self {
            opening,
            cutter,
            output,
            client,
            exempt: admission.is_exempt(client),
            resolved: None,
            transaction_deadline: transaction_left.map(|left| until(left, slept)),
            command_deadline: command_left.map(|left| until(left, slept)),
            tls: tls_text,
            doze: Doze::resumed(&services.settings.node, drowsy),
            presence: Presence::new(services.protocol, dialogue.phase_name()),
            dialogue,
            stream: Some(stream),
            origin: Origin::of(&rest),
            place: Some(place(rest, admission, client)),
            services,
        })
    }
}

impl SmtpState {
    /// Takes what the session knows.
    fn new<D: Desk>(session: &mut SmtpSession<D>) -> Self {
        let fresh = Dialogue::new(session.dialogue.flavour(), false);
        let (opening, silence) = match session.opening {
            Opening::Handshake => (0, None),
            Opening::Silence(until) => (1, until),
            Opening::Greeted => (2, None),
        };
        let mut state = Self {
            opening,
            silence_left_ms: silence.map(left),
            overlong: session.cutter.overlong,
            output: std::mem::take(&mut session.output),
            transaction_left_ms: session.transaction_deadline.map(left),
            command_left_ms: session.command_deadline.map(left),
            tls: session.tls.take(),
            ..Self::default()
        };
        let snapshot = std::mem::replace(&mut session.dialogue, fresh).into_snapshot();
        let Some(Snapshot { login, errors, messages, progress }) = snapshot else { return state };
        state.login =
            login.map(|login| LoginState { account: login.account.get(), address: login.address.to_string() });
        state.errors = u64::try_from(errors).unwrap_or(u64::MAX);
        state.messages = u64::try_from(messages).unwrap_or(u64::MAX);
        let hello = match progress {
            Progress::ExpectHello => None,
            Progress::ExpectReversePath(hello) => Some(hello),
            Progress::ExpectForwardPath { hello, envelope, refused } => {
                state.path_refused = refused;
                state.envelope = Some(EnvelopeState::new(envelope));
                Some(hello)
            }
        };
        state.extended = hello.as_ref().is_some_and(|hello| hello.extended);
        state.hello = hello.map(|hello| hello.name);
        state
    }

    fn opening(&self) -> Result<Opening, ResumeError> {
        match self.opening {
            0 => Ok(Opening::Handshake),
            1 => Ok(Opening::Silence(self.silence_left_ms.map(|left| until(left, self.slept_ms)))),
            2 => Ok(Opening::Greeted),
            _ => Err(damaged("the opening")),
        }
    }

    fn snapshot(self) -> Result<Snapshot, ResumeError> {
        let extended = self.extended;
        let hello = self.hello.map(|name| Hello { name, extended });
        ensure(hello.as_ref().is_none_or(|hello| hello.name.len() <= TEXT_MAX), "the client's name")?;
        let progress = match (hello, self.envelope) {
            (None, None) => Progress::ExpectHello,
            (Some(hello), None) => Progress::ExpectReversePath(hello),
            (Some(hello), Some(envelope)) => {
                Progress::ExpectForwardPath { hello, envelope: envelope.read()?, refused: self.path_refused }
            }
            (None, Some(_)) => return Err(damaged("an envelope before the client's name")),
        };
        Ok(Snapshot {
            login: self.login.map(LoginState::read).transpose()?,
            errors: usize::try_from(self.errors).map_err(|_| damaged("refused commands"))?,
            messages: usize::try_from(self.messages).map_err(|_| damaged("messages"))?,
            progress,
        })
    }
}

impl LoginState {
    fn read(self) -> Result<Login, ResumeError> {
        let address = Address::parse(&self.address).map_err(|_| damaged("the address of a login"))?;
        Ok(Login { account: AccountId::new(self.account), address })
    }
}

impl EnvelopeState {
    fn new(envelope: Envelope) -> Self {
        let mut recipients = Vec::new();
        for recipient in &envelope.recipients {
            recipients.extend_from_slice(&RecipientState::new(recipient).encode_length_delimited_to_vec());
        }
        Self {
            id: envelope.id.get().to_be_bytes().to_vec(),
            reverse_path: envelope.reverse_path.to_string(),
            body_type: match envelope.body {
                BodyType::SevenBit => 0,
                BodyType::EightBitMime => 1,
                BodyType::BinaryMime => 2,
            },
            smtputf8: envelope.smtputf8,
            declared_size: envelope.declared_size,
            envelope_id: envelope.envelope_id,
            dsn_return: match envelope.dsn_return {
                None => 0,
                Some(DsnReturn::Full) => 1,
                Some(DsnReturn::Headers) => 2,
            },
            recipients,
        }
    }

    fn read(self) -> Result<Envelope, ResumeError> {
        let id: [u8; 16] = self.id.try_into().map_err(|_| damaged("an ingest id"))?;
        let reverse_path = ReversePath::parse(&self.reverse_path).map_err(|_| damaged("a reverse-path"))?;
        ensure(self.envelope_id.as_ref().is_none_or(|id| id.len() <= TEXT_MAX), "an envelope's id")?;
        let mut recipients = Vec::new();
        let mut rest = self.recipients.as_slice();
        while !rest.is_empty() {
            ensure(recipients.len() < RECIPIENTS_MAX, "the number of recipients")?;
            let recipient = RecipientState::decode_length_delimited(&mut rest).map_err(|_| damaged("a recipient"))?;
            recipients.push(recipient.read()?);
        }
        Ok(Envelope {
            recipients,
            body: match self.body_type {
                0 => BodyType::SevenBit,
                1 => BodyType::EightBitMime,
                2 => BodyType::BinaryMime,
                _ => return Err(damaged("a body type")),
            },
            smtputf8: self.smtputf8,
            declared_size: self.declared_size,
            envelope_id: self.envelope_id,
            dsn_return: match self.dsn_return {
                0 => None,
                1 => Some(DsnReturn::Full),
                2 => Some(DsnReturn::Headers),
                _ => return Err(damaged("what a report returns")),
            },
            ..Envelope::new(IngestId::new(u128::from_be_bytes(id)), reverse_path)
        })
    }
}

impl RecipientState {
    fn new(recipient: &Recipient) -> Self {
        let DsnNotify { success, failure, delay } = recipient.notify;
        let original = recipient.original.clone();
        Self {
            path: recipient.path.to_string(),
            notify: u32::from(success) | u32::from(failure) << 1 | u32::from(delay) << 2,
            original_type: original.as_ref().map(|original| original.address_type.clone()),
            original_address: original.map(|original| original.address).unwrap_or_default(),
        }
    }

    fn read(self) -> Result<Recipient, ResumeError> {
        let path = ForwardPath::parse(&self.path).map_err(|_| damaged("a forward-path"))?;
        ensure(self.notify < 8, "what to notify of")?;
        let asks = |bit: u32| self.notify & bit != 0;
        let notify = DsnNotify { success: asks(1), failure: asks(2), delay: asks(4) };
        let address = self.original_address;
        let original = self.original_type.map(|address_type| OriginalRecipient { address_type, address });
        let fits = |text: &str| text.len() <= TEXT_MAX;
        ensure(original.as_ref().is_none_or(|o| fits(&o.address_type) && fits(&o.address)), "an original recipient")?;
        Ok(Recipient { path, notify, original })
    }
}

/// A state without a node around it; the fuzz targets and tests have none.
#[cfg(any(test, feature = "fuzzing"))]
fn read(octets: &[u8], flavour: posthouse_wire::smtp::server::Flavour) -> Result<(Opening, Dialogue), ResumeError> {
    let state: SmtpState = decode(octets)?;
    let opening = state.opening()?;
    Ok((opening, Dialogue::restore(flavour, true, state.snapshot()?).ok_or(damaged("the dialogue's place"))?))
}

#[cfg(feature = "fuzzing")]
pub(in crate::session) fn is_sound(octets: &[u8], flavour: posthouse_wire::smtp::server::Flavour) -> bool {
    read(octets, flavour).is_ok()
}

#[cfg(test)]
mod tests {
    use posthouse_wire::smtp::server::Flavour;

    use super::*;
    use crate::session::parked::fixture::{check_damage, check_golden, golden};

    fn samples() -> Vec<SmtpState> {
        let recipient = |path: &str, original: Option<&str>| RecipientState {
            path: path.to_owned(),
            notify: 5,
            original_type: original.map(|_| "rfc822".to_owned()),
            original_address: original.unwrap_or_default().to_owned(),
        };
        let recipients = [recipient("bob@far.test", Some("b@x.test")), recipient("Postmaster", None)];
        let envelope = EnvelopeState {
            id: vec![3; 16],
            reverse_path: "alice@x.test".to_owned(),
            body_type: 1,
            smtputf8: true,
            declared_size: Some(1000),
            envelope_id: Some("e".to_owned()),
            dsn_return: 2,
            recipients: recipients.iter().flat_map(|recipient| recipient.encode_length_delimited_to_vec()).collect(),
        };
        let greeted = SmtpState {
            opening: 2,
            login: Some(LoginState { account: 7, address: "alice@x.test".to_owned() }),
            errors: 2,
            messages: 3,
            hello: Some("c.test".to_owned()),
            extended: true,
            overlong: true,
            output: b"250 2.0.0 ok\r\n".to_vec(),
            command_left_ms: Some(1000),
            tls: Some("TLSv1.3 TLS_AES_128_GCM_SHA256".to_owned()),
            ..SmtpState::default()
        };
        let transaction = SmtpState {
            envelope: Some(envelope),
            path_refused: true,
            transaction_left_ms: Some(2000),
            ..greeted.clone()
        };
        let silent = SmtpState { opening: 1, silence_left_ms: Some(500), ..SmtpState::default() };
        vec![SmtpState::default(), silent, greeted, transaction]
    }

    #[tokio::test(start_paused = true)]
    async fn version_1_is_read_for_ever() {
        check_golden("smtp", &samples().iter().map(encode).collect::<Vec<_>>());
        for (sample, golden) in samples().iter().zip(golden("smtp", 1)) {
            let (_, dialogue) = read(&golden, Flavour::Submit).expect("a sound state");
            let snapshot = dialogue.into_snapshot().expect("between commands");
            assert_eq!(snapshot, sample.clone().snapshot().expect("a sound state"));
            if let Progress::ExpectForwardPath { envelope, .. } = snapshot.progress {
                assert_eq!(Some(EnvelopeState::new(envelope)), sample.envelope);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_session_knows_is_refused() {
        let transaction = samples().pop().expect("a sample");
        let wrong = |flavour: Flavour, change: &dyn Fn(&mut SmtpState)| {
            let mut state = transaction.clone();
            change(&mut state);
            assert!(read(&encode(&state), flavour).is_err(), "{state:?}");
        };
        let submit = Flavour::Submit;
        wrong(Flavour::Receive, &|_| {});
        wrong(submit, &|state| state.opening = 3);
        wrong(submit, &|state| state.login = None);
        wrong(submit, &|state| state.hello = None);
        wrong(submit, &|state| state.hello = Some("a b".to_owned()));
        wrong(submit, &|state| state.hello = Some("a\r\nb".to_owned()));
        wrong(submit, &|state| state.hello = Some("x".repeat(5000)));
        wrong(submit, &|state| state.login.as_mut().expect("a login").address = "alice".to_owned());
        let envelope = |change: &dyn Fn(&mut EnvelopeState)| {
            wrong(submit, &|state| change(state.envelope.as_mut().expect("an envelope")));
        };
        envelope(&|envelope| envelope.id = vec![3; 15]);
        envelope(&|envelope| envelope.reverse_path = "a\nb@x.test".to_owned());
        envelope(&|envelope| envelope.body_type = 3);
        envelope(&|envelope| envelope.dsn_return = 3);
        envelope(&|envelope| envelope.recipients.extend_from_within(..));
        envelope(&|envelope| envelope.recipients.truncate(9));
        envelope(&|envelope| envelope.recipients = vec![0; RECIPIENTS_MAX + 1]);
        assert!(matches!(read(&[9, 8, 1], submit), Err(ResumeError::Version(9))));
    }

    #[tokio::test(start_paused = true)]
    async fn damage_is_an_error_or_another_sound_state() {
        let states: Vec<_> = samples().iter().map(encode).collect();
        check_damage(&states, |octets| read(octets, Flavour::Submit).is_ok());
        check_damage(&states[..2], |octets| read(octets, Flavour::Receive).is_ok());
    }
}
