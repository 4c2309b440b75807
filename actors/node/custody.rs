//! A new program in this very process: what happens between the old image and the new one, where nobody serves.
//!
//! Where a supervisor follows one process id (PID 1 of a container), the new program takes the place of the old one by exec. Such
//! a process cannot hand anything to itself, so a child of it, the *custodian*, which is the new program too, takes all that moves
//! as any successor would, and gives it to whoever then has the parent's process id: by the same protocol both times. That the
//! custodian came up is the rehearsal: it has read the configuration and everything's form, and never opened the store.
//!
//! exec fails -> the old image takes everything back. The new image cannot open the store -> it becomes the program before,
//! by exec again, which takes everything from the custodian. It dies -> the custodian waits twice `upgrade.start_limit` for
//! whoever is started next, then it bids the sessions goodbye.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use posthouse_cluster::handoff::{Door, Giver, HandoffError, Parcel, Refused, Taker};
use posthouse_conf::Settings;
use posthouse_net::FrozenStream;
use posthouse_net::descriptors::{Invitation, wait_for_child};
use posthouse_obs::emit;
use posthouse_obs::event::handover::{
    CustodyGoesOn, HandoverCutShort, SessionNotResumed, SessionsLost, UpgradeTakenBack,
};
use posthouse_storage::gate::Formats;
use serde::{Deserialize, Serialize};

use super::Node;
use super::handover::{Remains, UpgradeView, microseconds, middle, milliseconds};
use super::parcel::{part_with, unpack};
use super::rehearsal::rehearse;
use super::successor::{TAKE_OVER, arguments, hello, limits, own_program};
use super::takeover::TakeoverError;
use crate::admin::AdminLine;
use crate::session::parked;

/// The variable that makes a program the custodian; its value tells the forms of what it will have to read.
pub const KEEP: &str = "POSTHOUSE_KEEP";
/// The variable that tells these forms to a program that is to serve beside this process.
pub(super) const FORMS: &str = "POSTHOUSE_FORMS";
/// The variable that tells an image what the one before left half done.
pub const CARRIED: &str = "POSTHOUSE_CARRIED";
/// What the door of the administrator who waits for an answer is called, and that of the program before.
const CONSOLE: &str = "console";
const PROGRAM: &str = "program";

/// Octets of settings that travel in the environment; Linux takes 128 KiB in one variable.
const SETTINGS_MAX: usize = 64 * 1024;
/// How long the custodian may take to end when it has given everything away.
const CUSTODIAN_ENDS: Duration = Duration::from_secs(5);

/// Settings in the environment of this process.
fn overrides() -> BTreeMap<String, String> {
    let ours = |name: &str| name.starts_with("POSTHOUSE_") && ![TAKE_OVER, KEEP, FORMS, CARRIED].contains(&name);
    // What is no text is no setting.
    let texts =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    texts.filter(|(name, _)| ours(name)).collect()
}

/// The forms of what a process leaves behind.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Forms {
    state: u8,
    stream: u8,
    directory: u64,
    records: u32,
}

impl Forms {
    /// Of this program, on a store whose records have come to this format.
    pub(super) fn own(records: u32) -> Self {
        let directory = posthouse_storage::DIRECTORY_FORMAT;
        Self { state: parked::VERSION, stream: FrozenStream::VERSION, directory, records }
    }

    pub(super) fn encode(&self) -> String {
        serde_json::to_string(self).expect("numbers are JSON")
    }

    /// Whether this program reads what another one told.
    pub(super) fn check_told(told: &str, settings: &Settings) -> Result<(), String> {
        let forms: Self =
            serde_json::from_str(told).map_err(|error| format!("what there is has no form that is known: {error}"))?;
        forms.check(settings)
    }

    /// Whether this program reads all of it.
    fn check(&self, settings: &Settings) -> Result<(), String> {
        let Self { state, stream, directory, records } = self;
        let can = |what, found: u64, newest: u64| match found <= newest {
            true => Ok(()),
            false => Err(format!("{what} have form {found}, this program reads up to {newest}")),
        };
        can("states of sessions", (*state).into(), parked::VERSION.into())?;
        can("states of connections", (*stream).into(), FrozenStream::VERSION.into())?;
        can("files of the store", *directory, posthouse_storage::DIRECTORY_FORMAT)?;
        let formats = Formats::up_to(settings.cluster.format_max).map_err(|error| error.to_string())?;
        formats.can_read(*records).map_err(|error| error.to_string())
    }
}

/// What an image tells the next one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Carried {
    view: UpgradeView,
    custodian: u32,
    /// When the custodian had everything.
    handed_on: SystemTime,
    /// The settings that the first image had from its environment: what starts the new one may add others.
    overrides: BTreeMap<String, String>,
    /// Set when the next image is the program before: why the new one does not serve.
    failure: Option<String>,
    /// What the program before served with: it may not read what the new one has been given.
    settings: Option<Settings>,
    /// The node was told to end: whoever serves in the end obeys. A program before this field did not tell.
    #[serde(default)]
    stop: bool,
    /// Why nothing came from the custodian to this image.
    #[serde(skip)]
    loss: Option<String>,
}

/// What travels beside listeners and sessions.
#[derive(Default)]
pub(super) struct Luggage {
    console: Option<OwnedFd>,
    program: Option<OwnedFd>,
}

impl Luggage {
    /// Parts it from the listeners.
    pub(super) fn of(doors: Vec<Door>) -> (Self, Vec<Door>) {
        let (mut luggage, mut listeners) = (Self { console: None, program: None }, Vec::new());
        for door in doors {
            match door.kind.as_str() {
                CONSOLE => luggage.console = Some(door.socket),
                PROGRAM => luggage.program = Some(door.socket),
                _ => listeners.push(door),
            }
        }
        (luggage, listeners)
    }

    fn is_of(door: &Door) -> bool {
        [CONSOLE, PROGRAM].contains(&door.kind.as_str())
    }

    /// As doors among the others; the program is the one that runs here.
    pub(super) fn pack(console: Option<OwnedFd>) -> Result<Vec<Door>, String> {
        let program = File::open("/proc/self/exe").map_err(|error| format!("this program cannot be read: {error}"))?;
        let console = console.map(|socket| Door { kind: CONSOLE.to_owned(), socket });
        Ok(console.into_iter().chain([Door { kind: PROGRAM.to_owned(), socket: program.into() }]).collect())
    }

    /// Where the program before can be started from, although its file may be gone.
    fn program(&self) -> Option<PathBuf> {
        let file = self.program.as_ref()?.try_clone().ok().map(File::from)?;
        let place = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(self.program.as_ref()?)));
        let path = place.read_link().ok()?;
        let same =
            |one: &std::fs::Metadata, other: &std::fs::Metadata| (one.dev(), one.ino()) == (other.dev(), other.ino());
        let is_there =
            std::fs::metadata(&path).is_ok_and(|there| file.metadata().is_ok_and(|here| same(&here, &there)));
        Some(if is_there { path } else { place })
    }
}

/// Everything that was handed over.
struct Cargo {
    doors: Vec<Door>,
    parcels: Vec<Parcel>,
}

/// Takes everything without serving any of it. `before` runs when the giver is about to let go.
async fn collect(
    taker: &mut Taker,
    doors: Vec<Door>,
    before: impl FnOnce() -> std::io::Result<()>,
) -> Result<Cargo, HandoffError> {
    taker.ready().await?;
    taker.store_is_free().await?;
    if let Err(error) = before() {
        taker.refuse(&error.to_string()).await?;
        return Err(HandoffError::Refused(error.to_string()));
    }
    taker.serving().await?;
    let mut parcels = Vec::new();
    if let Err(error) = collect_sessions(taker, &mut parcels).await {
        // What was committed is this process's, whatever became of the giver.
        emit(HandoverCutShort { reason: error.to_string() });
    }
    Ok(Cargo { doors, parcels })
}

async fn collect_sessions(taker: &mut Taker, parcels: &mut Vec<Parcel>) -> Result<(), HandoffError> {
    while let Some(batch) = taker.next_batch().await? {
        let committed = taker.accept(&[]).await?;
        parcels.extend(batch);
        taker.started(committed).await?;
    }
    Ok(())
}

/// Where everything of a process that died in the middle of such an upgrade may be kept.
pub fn custody(settings: &Settings) -> Option<PathBuf> {
    Invitation::custody(&settings.node.data_dir).ok().filter(|socket| socket.exists())
}

/// The custodian's whole life: rehearses, takes everything from the process behind the socket, and gives it to the next one, unless
/// it is `told_to_end` while it waits for that one.
pub async fn keep(
    settings: Arc<Settings>,
    socket: &Path,
    forms: &str,
    told_to_end: impl Future<Output = ()>,
) -> Result<(), TakeoverError> {
    let mut taker = Taker::connect(socket, hello(), limits(&settings.upgrade)).await?;
    let doors = taker.doors().await?;
    let rehearsed = Forms::check_told(forms, &settings).and_then(|()| rehearse_for_image(&settings, doors));
    let doors = match rehearsed {
        Ok(doors) => doors,
        Err(reason) => {
            taker.refuse(&reason).await?;
            return Err(TakeoverError::Rehearsal(reason));
        }
    };
    let mut invitation = None;
    let invite = || Invitation::bind_custody(&settings.node.data_dir);
    let cargo = collect(&mut taker, doors, || invite().map(|new| invitation = Some(new))).await?;
    let Cargo { doors, mut parcels } = cargo;
    let mut limits = limits(&settings.upgrade);
    // The image that comes may need its whole time, and then another one comes.
    limits.hello *= 2;
    let mut told_to_end = std::pin::pin!(told_to_end);
    loop {
        let waiting = match invitation.take() {
            Some(waiting) => waiting,
            None => invite().map_err(|error| TakeoverError::Rehearsal(error.to_string()))?,
        };
        let joined = tokio::select! {
            joined = Giver::invite_until(waiting, hello(), limits) => joined.map_err(Some),
            () = &mut told_to_end => Err(None),
        };
        let mut giver = match joined {
            Ok(giver) => giver,
            Err(error) => {
                let nobody = |parcel| Refused { parcel, reason: "nobody came for it".to_owned() };
                part_with(parcels.into_iter().map(nobody).collect(), &settings.node.hostname).await;
                return error.map_or(Ok(()), |error| Err(error.into()));
            }
        };
        match pass_on(&mut giver, &doors, parcels, &settings.node.hostname).await {
            Ok(()) => return Ok(giver.done().await?),
            // The next image has them then, or the same one: its store may have opened after the limit.
            Err(Kept { reason, back }) => {
                emit(CustodyGoesOn { sessions: back.len(), reason: reason.to_string() });
                parcels = back;
            }
        }
    }
}

/// What the custodian has still, and why.
struct Kept {
    reason: HandoffError,
    back: Vec<Parcel>,
}

/// Gives everything away, or has it back.
async fn pass_on(giver: &mut Giver, doors: &[Door], parcels: Vec<Parcel>, hostname: &str) -> Result<(), Kept> {
    let prepared = async {
        giver.doors(doors).await?;
        giver.store_is_free().await
    };
    if let Err(reason) = prepared.await {
        return Err(Kept { reason, back: parcels });
    }
    match giver.sessions(parcels).await {
        Ok(moved) => {
            part_with(moved.refused, hostname).await;
            Ok(())
        }
        Err(interrupted) => {
            let sessions = interrupted.lost + interrupted.so_far.moved.len();
            if sessions > 0 {
                emit(SessionsLost { sessions });
            }
            Err(Kept { reason: interrupted.error, back: interrupted.back })
        }
    }
}

/// Rehearses for the image that is to serve; what goes with the listeners stays as it is.
fn rehearse_for_image(settings: &Settings, doors: Vec<Door>) -> Result<Vec<Door>, String> {
    let (luggage, listeners) = doors.into_iter().partition(Luggage::is_of);
    let mut doors: Vec<Door> = luggage;
    doors.extend(rehearse(settings, listeners)?.doors);
    Ok(doors)
}

/// The settings of a program that serves again because the one that was to have its place does not: it had them before, and what
/// lies in its file now may be for the other one.
pub fn settings_before() -> Option<Settings> {
    Carried::read().filter(|carried| carried.failure.is_some())?.settings
}

impl Carried {
    /// What is to be told when everything lies with the custodian.
    fn new(view: UpgradeView, stop: bool, settings: &Settings) -> Self {
        // The environment has no room for lists of any length. Without it the way back goes by the file.
        let fits = serde_json::to_string(settings).is_ok_and(|text| text.len() <= SETTINGS_MAX);
        Self {
            custodian: view.pid,
            view,
            handed_on: SystemTime::now(),
            overrides: overrides(),
            failure: None,
            stop,
            loss: None,
            settings: fits.then(|| settings.clone()),
        }
    }

    /// Of the environment; none in a process that began as such.
    pub fn read() -> Option<Self> {
        serde_json::from_str(&std::env::var(CARRIED).ok()?).ok()
    }

    /// Whether the node is to end as soon as it serves.
    pub(super) fn stop(&self) -> bool {
        self.stop
    }

    pub(super) fn handed_on(&self) -> SystemTime {
        self.handed_on
    }

    /// Becomes `program`; returns only when that does not come about.
    fn become_program(&self, program: &Path, data_dir: &Path) -> String {
        let socket = match Invitation::custody(data_dir) {
            Ok(socket) => socket,
            Err(error) => return error.to_string(),
        };
        let carried = serde_json::to_string(self).expect("figures are JSON");
        let ours = overrides();
        let mut environment: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        environment.retain(|name, _| {
            name != KEEP && name != FORMS && !name.to_str().is_some_and(|name| ours.contains_key(name))
        });
        environment.extend(self.overrides.iter().map(|(name, value)| (name.into(), value.into())));
        environment.extend([(TAKE_OVER.into(), socket.into()), (CARRIED.into(), carried.into())]);
        format!("{} cannot be started: {}", program.display(), exec(program, environment))
    }

    /// This image serves without what the custodian had.
    pub(super) async fn finish_without(mut self, luggage: Luggage, reason: String) {
        emit(SessionsLost { sessions: self.view.moved });
        self.loss = Some(format!("the custodian is gone with {} sessions: {reason}", self.view.moved));
        self.finish(luggage, Vec::new(), 0).await;
    }

    /// This image serves: tells whoever waits, with the figures of the second half.
    pub(super) async fn finish(mut self, luggage: Luggage, arrived: Vec<Duration>, refused: usize) {
        let custodian = self.custodian;
        // A child of this process since before it was this program: nobody else waits for its end.
        let waiting = tokio::task::spawn_blocking(move || wait_for_child(custodian));
        let _ = tokio::time::timeout(CUSTODIAN_ENDS, waiting).await;
        let arrived_at: Vec<u64> = arrived.iter().map(|time| microseconds(*time)).collect();
        let (median, worst) = middle(arrived_at);
        let since = self.handed_on.elapsed().unwrap_or_default();
        let view = &mut self.view;
        view.pid = std::process::id();
        view.program = hello().program;
        view.moved = arrived.len();
        view.farewelled += refused;
        view.session_frozen_median_microseconds += median;
        view.session_frozen_worst_microseconds += worst;
        view.frozen_milliseconds += worst / 1000;
        view.milliseconds += milliseconds(since);
        view.resident_octets = super::handover::resident_octets(view.pid).unwrap_or_default();
        let line = match (&self.failure, &self.loss) {
            (None, None) => {
                view.note();
                serde_json::to_value(view).map(AdminLine::Done).expect("figures are JSON")
            }
            (None, Some(loss)) => {
                view.note();
                AdminLine::Failed(format!("{loss}; the new program serves"))
            }
            (Some(reason), loss) => {
                emit(UpgradeTakenBack { reason: reason.clone() });
                let loss = loss.iter().map(|loss| format!("; {loss}")).collect::<String>();
                AdminLine::Failed(format!("{reason}{loss}; the program before goes on"))
            }
        };
        if let Some(console) = luggage.console {
            let mut octets = serde_json::to_vec(&line).expect("an answer is JSON");
            octets.push(b'\n');
            // Whoever asked may be gone.
            let _ = File::from(console).write_all(&octets);
        }
    }

    /// This image cannot serve: becomes the program before, where this is not that one. Returns why it did not.
    pub(super) fn give_up(mut self, reason: String, luggage: &Luggage, settings: &Settings) -> String {
        match luggage.program() {
            Some(before) if self.failure.is_none() => {
                self.failure = Some(reason.clone());
                format!("{reason}; {}", self.become_program(&before, &settings.node.data_dir))
            }
            _ => reason,
        }
    }
}

/// Becomes a program with this process's arguments; returns only why not. The exec of the standard library would leave a process
/// that goes on with other signals than it had: the next write to a connection that was reset would be its end.
fn exec(program: &Path, environment: BTreeMap<OsString, OsString>) -> std::io::Error {
    let text = |text: &OsStr| CString::new(text.as_bytes());
    let pair = |(mut name, value): (OsString, OsString)| {
        name.push("=");
        name.push(value);
        text(&name)
    };
    let all = || {
        let program = text(program.as_os_str())?;
        let arguments = arguments().map(|argument| text(&argument)).collect::<Result<Vec<_>, _>>()?;
        let arguments: Vec<_> = std::iter::once(program.clone()).chain(arguments).collect();
        let environment = environment.into_iter().map(pair).collect::<Result<Vec<_>, _>>()?;
        Ok::<_, std::ffi::NulError>((program, arguments, environment))
    };
    match all() {
        Ok((program, arguments, environment)) => {
            let Err(error) = nix::unistd::execve(&program, &arguments, &environment);
            error.into()
        }
        Err(error) => error.into(),
    }
}

impl Node {
    /// Everything lies with the custodian, and this node is closed: becomes `program`. Returns only when that does not come
    /// about, with all that the custodian gave back. `stop`: the node was told to end, which the next image does.
    pub async fn become_program(
        settings: &Settings,
        program: Option<&Path>,
        view: UpgradeView,
        stop: bool,
    ) -> Result<(String, Remains), String> {
        let carried = Carried::new(view, stop, settings);
        let reason = match program.map_or_else(own_program, |path| Ok(path.to_owned())) {
            Ok(program) => carried.become_program(&program, &settings.node.data_dir),
            Err(error) => format!("this program is not known by its path: {error}"),
        };
        let lost = |error: HandoffError| format!("{reason}; the custodian gives nothing back: {error}");
        let socket = Invitation::custody(&settings.node.data_dir).map_err(|error| error.to_string())?;
        let mut taker = Taker::connect(&socket, hello(), limits(&settings.upgrade)).await.map_err(lost)?;
        let doors = taker.doors().await.map_err(lost)?;
        let Cargo { doors, parcels } = collect(&mut taker, doors, || Ok(())).await.map_err(lost)?;
        let mut sessions = Vec::with_capacity(parcels.len());
        for parcel in parcels {
            let protocol = parcel.kind.clone();
            match unpack(parcel) {
                Ok(parked) => sessions.push(parked),
                Err(error) => emit(SessionNotResumed { protocol, reason: error.to_string() }),
            }
        }
        let (_, doors) = Luggage::of(doors);
        Ok((reason, Remains { doors, sessions }))
    }

    /// The format that records of this node's store have come to.
    pub(super) async fn forms(&self) -> Result<Forms, String> {
        let records = self.membership.renew().await.map_err(|error| error.to_string())?;
        Ok(Forms::own(records))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_back_as_they_went() {
        let mut settings = Settings::default();
        settings.listen.imap = vec!["[::1]:143".parse().expect("an address")];
        settings.storage.key_file = PathBuf::from("/etc/posthouse/storage.keys");
        let carried = Carried::new(UpgradeView::default(), false, &settings);
        let text = serde_json::to_string(&carried).expect("figures are JSON");
        let read: Carried = serde_json::from_str(&text).expect("JSON");
        assert_eq!(read.settings, Some(settings));
    }

    #[test]
    fn settings_that_are_too_long_for_the_environment_stay_behind() {
        let mut settings = Settings::default();
        settings.filter.deny = vec!["someone@example.org".to_owned(); 10_000];
        assert_eq!(Carried::new(UpgradeView::default(), false, &settings).settings, None);
    }

    #[test]
    fn what_the_program_before_told_is_read() {
        let now = serde_json::to_value(Carried::new(UpgradeView::default(), true, &Settings::default()))
            .expect("figures are JSON");
        let mut before = now.clone();
        before.as_object_mut().expect("an object").remove("stop");
        let read = |value| serde_json::from_value::<Carried>(value).expect("a form that is read").stop();
        assert!(read(now) && !read(before));
    }
}
