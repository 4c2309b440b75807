//! Keeps the sessions of one listener that sleep: of each a piece of octets and a socket, no actor and no task.
//!
//! Four things wake a session: something to read, a change of the account that it looks at, its own deadline, and the node's
//! farewell. Each is waited for once for all of them: one epoll, one list of accounts, one ordered set of deadlines. A node that
//! moves gets them as they are. Nothing falls between a session's last look and this one's first: the epoll tells of octets that
//! came before, the watch that comes along tells of changes before, and what has been counted stays counted.
//!
//! A session that cannot be woken without a panic is closed alone, as one awake would be by its own actor.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures_util::FutureExt as _;
use posthouse_mail::AccountId;
use posthouse_net::Readiness;
use posthouse_obs::emit;
use posthouse_obs::event::session::{SessionFailed, SessionMovedOut, SessionWoken};
use ractor::ActorRef;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::{ListenerArguments, ListenerMsg};
use crate::notice::Sleepers;
use crate::session::call::TURNS;
use crate::session::home::{Asleep, Sleeper};
use crate::session::parked::Packed;
use crate::session::{Call, Calls, Home, Parked, ResumeError};

/// What wakes a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Input,
    Notice,
    Deadline,
    Leave,
}

impl Cause {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Notice => "notice",
            Self::Deadline => "deadline",
            Self::Leave => "leave",
        }
    }
}

/// Sessions taken in hand at once while others wait for the processor.
const BATCH: usize = 64;

/// Runs until its listener ends it.
pub(super) async fn keep(arguments: ListenerArguments, listener: ActorRef<ListenerMsg>) -> Infallible {
    let lodging = arguments.lodging.clone();
    let mut laid_down = lodging.laid_down().lock().await;
    let mut keeper = Keeper::new(arguments, listener);
    keeper.on_call().await;
    loop {
        let deadline = keeper.deadlines.first().map(|(until, _)| *until);
        tokio::select! {
            biased;
            () = keeper.calls.changed(), if !keeper.ended => keeper.on_call().await,
            Some(sleeper) = laid_down.recv() => keeper.lay_down(sleeper).await,
            () = keeper.looking.changed() => {
                let numbers = keeper.looking.take_changed();
                keeper.wake_all(numbers, Cause::Notice).await;
            }
            numbers = keeper.sockets.ready() => {
                let numbers = numbers.into_iter().filter_map(|number| u32::try_from(number).ok()).collect();
                keeper.wake_all(numbers, Cause::Input).await;
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                let due = keeper.due();
                keeper.wake_all(due, Cause::Deadline).await;
            }
        }
    }
}

struct Keeper {
    arguments: ListenerArguments,
    listener: ActorRef<ListenerMsg>,
    home: Home,
    calls: Calls,
    /// The node wants no session here any more.
    ended: bool,
    /// By number; boxed, so that an empty bed takes no room.
    beds: Vec<Option<Box<Bed>>>,
    empty: Vec<u32>,
    sockets: Arc<Readiness>,
    deadlines: BTreeSet<(Instant, u32)>,
    looking: Arc<Sleepers>,
}

struct Bed {
    sleeper: Sleeper,
    /// At which the session looks.
    account: Option<AccountId>,
    _asleep: Asleep,
}

impl Keeper {
    fn new(arguments: ListenerArguments, listener: ActorRef<ListenerMsg>) -> Self {
        Self {
            home: arguments.lodging.home(listener.get_cell()),
            calls: arguments.calls.clone(),
            ended: false,
            beds: Vec::new(),
            empty: Vec::new(),
            sockets: arguments.lodging.sockets(),
            deadlines: BTreeSet::new(),
            looking: arguments.notices.sleepers(),
            arguments,
            listener,
        }
    }

    /// Takes a session in, or sends it on at once when there is something for it to do.
    async fn lay_down(&mut self, mut sleeper: Sleeper) {
        let watch = sleeper.rest.watch.take();
        let number = self.empty.pop().unwrap_or_else(|| {
            self.beds.push(None);
            u32::try_from(self.beds.len() - 1).unwrap_or(u32::MAX)
        });
        let account = watch.as_ref().map(|(account, _)| *account);
        if let Some(account) = account {
            self.looking.add(account, number);
        }
        self.deadlines.insert((sleeper.rest.until, number));
        let watched = self.sockets.watch(&sleeper.packed.socket, u64::from(number));
        let _asleep = self.arguments.lodging.fall_asleep(sleeper.packed.protocol);
        self.beds[place(number)] = Some(Box::new(Bed { sleeper, account, _asleep }));
        if self.ended {
            self.part(number).await;
        } else if watched.is_err() {
            // The kernel watches no more of them: this one stays awake for a while.
            self.wake(number, Cause::Input, Instant::now()).await;
        } else if watch.is_some_and(|(_, watch)| is_news(&watch)) {
            self.wake(number, Cause::Notice, Instant::now()).await;
        }
    }

    async fn on_call(&mut self) {
        match self.calls.turn() {
            Some(turn) => self.let_go(turn).await,
            None if self.calls.is_ended() => self.end().await,
            None => {}
        }
    }

    /// The node drains: sleepers are woken in turns, since all at once would want the memory of all.
    async fn let_go(&mut self, turn: u8) {
        let beds = 0..u32::try_from(self.beds.len()).unwrap_or(u32::MAX);
        let due = beds.filter(|number| number % u32::from(TURNS) < u32::from(turn)).collect();
        self.wake_all(due, Cause::Leave).await;
    }

    /// The node wants no session here: each is parked as it is, or woken for its farewell.
    async fn end(&mut self) {
        self.ended = true;
        for number in 0..self.beds.len() {
            self.part(u32::try_from(number).unwrap_or(u32::MAX)).await;
            if number % BATCH == BATCH - 1 {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn part(&mut self, number: u32) {
        if self.calls.now() != Call::Move {
            return self.wake(number, Cause::Leave, Instant::now()).await;
        }
        let Some(sleeper) = self.rouse(number) else { return };
        let peer = sleeper.rest.peer;
        match alone(|| unpack(sleeper.packed, sleeper.since, true)) {
            Ok(parked) => {
                emit(SessionMovedOut { protocol: parked.protocol.as_str(), client: peer.ip().to_canonical() });
                self.calls.park(parked);
            }
            Err(error) => self.failed(&error),
        }
        drop((sleeper.present, sleeper.guest, sleeper.rest));
        self.left();
    }

    fn due(&self) -> Vec<u32> {
        let now = Instant::now();
        self.deadlines.iter().take_while(|(until, _)| *until <= now).map(|(_, number)| *number).collect()
    }

    async fn wake_all(&mut self, numbers: Vec<u32>, cause: Cause) {
        let began = Instant::now();
        for (count, number) in numbers.into_iter().enumerate() {
            self.wake(number, cause, began).await;
            if count % BATCH == BATCH - 1 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Starts a session's actor again; what wakes it was seen when this `began`.
    async fn wake(&mut self, number: u32, cause: Cause, began: Instant) {
        let Some(Sleeper { packed, since, rest, present, guest }) = self.rouse(number) else { return };
        let protocol = packed.protocol.as_str();
        let resumed = alone(|| {
            let parked = Parked { rest: Some(rest), ..unpack(packed, since, cause != Cause::Input)? };
            self.arguments.factory.resume(parked, &self.arguments.admission)
        });
        match resumed {
            Ok(session) => match AssertUnwindSafe(session.start(self.home.clone())).catch_unwind().await {
                Ok(Ok(())) => {
                    emit(SessionWoken { protocol, cause: cause.as_str(), seconds: began.elapsed().as_secs_f64() })
                }
                Ok(Err(error)) => emit(SessionFailed { protocol, reason: error.to_string() }),
                Err(_) => self.failed(&ResumeError::Bug),
            },
            Err(error) => self.failed(&error),
        }
        // Counted until now, so that it never was not.
        drop((present, guest));
        self.left();
    }

    /// Takes a session out of its bed, wherever it is known.
    fn rouse(&mut self, number: u32) -> Option<Sleeper> {
        let Bed { sleeper, account, .. } = *self.beds.get_mut(place(number))?.take()?;
        self.sockets.forget(&sleeper.packed.socket);
        self.deadlines.remove(&(sleeper.rest.until, number));
        if let Some(account) = account {
            self.looking.remove(account, number);
        }
        self.empty.push(number);
        Some(sleeper)
    }

    fn failed(&self, error: &ResumeError) {
        let protocol = self.arguments.factory.protocol().as_str();
        emit(SessionFailed { protocol, reason: error.to_string() });
    }

    /// The listener may have waited for the last one.
    fn left(&self) {
        if self.calls.is_ended() && self.arguments.lodging.guests() == 0 {
            let _ = self.listener.cast(ListenerMsg::SleepersLeft);
        }
    }
}

/// Where a number's bed stands.
fn place(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// What a session is alone concerned by. What it shares with others it shares when it is awake too, where its actor catches its panics.
fn alone<T>(work: impl FnOnce() -> Result<T, ResumeError>) -> Result<T, ResumeError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(ResumeError::Bug))
}

fn unpack(packed: Packed, since: Instant, drowsy: bool) -> Result<Parked, ResumeError> {
    let mut parked = packed.unpack()?;
    parked.note_sleep(since.elapsed(), drowsy);
    Ok(parked)
}

/// Whether something changed since the session last looked; when the giver of notices is gone the session is to hear of it.
fn is_news<T>(watch: &watch::Receiver<T>) -> bool {
    watch.has_changed().unwrap_or(true)
}
