//! Opens the library and runs its network thread: once for a process, stopped when the process ends.
//!
//! The library can be set up only once and never again after its network has stopped. So the thread lives as long as the
//! process, and FoundationDB demands that it ends before anything of the library is torn down. A program says when that is
//! (`stop`). For one that does not, a hook of the C library's exit does: registered again with every start, since exit
//! tears down what was made since the last one before it calls the hook.

use std::ffi::{CStr, c_int};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use libloading::Library;
use thiserror::Error;

use super::api::{self, Api};
use super::{FDB_API_VERSION, fdb_error_t};

/// Why FoundationDB's client could not be started.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StartError {
    #[error("FoundationDB's client library {} can't be opened: {reason}; {INSTALL}", path.display())]
    Unopened { path: PathBuf, reason: String },
    #[error("{} is too old: it speaks FoundationDB's API up to version {found}, {FDB_API_VERSION} is needed; {INSTALL}", path.display())]
    TooOld { path: PathBuf, found: c_int },
    #[error("{} is no FoundationDB client library: it has no function {symbol}; {INSTALL}", path.display())]
    NoSymbol { path: PathBuf, symbol: &'static str },
    #[error("this process runs FoundationDB's client from {} already; another library needs a restart", running.display())]
    OtherLibrary { running: PathBuf },
    #[error("FoundationDB's client did not start, {step}: {reason}")]
    Refused { step: &'static str, reason: String },
}

/// What mends it.
const INSTALL: &str =
    "install FoundationDB's client package of release 7.3 or later, or name its library in the configuration";

const ENDED: &str = "its network was ended, and the library can be set up only once";

/// The library in use and the thread that runs its network.
struct Running {
    path: PathBuf,
    /// Taken by whoever stops it.
    thread: Option<JoinHandle<()>>,
}

static RUNNING: Mutex<Option<Running>> = Mutex::new(None);

fn running() -> MutexGuard<'static, Option<Running>> {
    // The state is written last, in one step: a poisoned one is whole.
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the library is open and its network runs.
pub fn is_started() -> bool {
    running().is_some()
}

/// Opens the library and starts its network. Does nothing when that was done before with the same library.
pub fn start(path: &Path) -> Result<(), StartError> {
    let mut state = running();
    if let Some(running) = &*state {
        if running.path != path {
            return Err(StartError::OtherLibrary { running: running.path.clone() });
        }
        return if running.thread.is_some() { stop_at_exit() } else { Err(refused("after its end", ENDED.to_owned())) };
    }
    open(path)?;
    let version = c_int::try_from(FDB_API_VERSION).expect("a version of three digits");
    // SAFETY: the library is open; nobody selected a version before, since the state says that nothing runs.
    evaluate("selecting the API's version", unsafe { api::fdb_select_api_version_impl(version, version) })?;
    // SAFETY: the version is selected.
    evaluate("setting up its network", unsafe { api::fdb_setup_network() })?;
    let thread = std::thread::Builder::new().name("fdb-network".to_owned()).spawn(run);
    let thread = thread.map_err(|error| refused("starting its thread", error.to_string()))?;
    *state = Some(Running { path: path.to_owned(), thread: Some(thread) });
    stop_at_exit()
}

fn stop_at_exit() -> Result<(), StartError> {
    // SAFETY: the hook is a function without arguments that does not unwind.
    if unsafe { libc::atexit(stop_hook) } != 0 {
        return Err(refused("registering its end", "no room for another exit hook".to_owned()));
    }
    Ok(())
}

/// Finds every function that is used, so that a wrong library is refused here and not in the middle of a transaction.
fn open(path: &Path) -> Result<(), StartError> {
    // SAFETY: the library is the one that the operator named; its initialisers are FoundationDB's.
    let library = unsafe { Library::new(path) };
    let library = library.map_err(|error| StartError::Unopened { path: path.to_owned(), reason: cause(&error) })?;
    let no_symbol = |symbol| StartError::NoSymbol { path: path.to_owned(), symbol };
    // Asked first: an old library lacks functions too, but its age says more.
    // SAFETY: the type is that of FoundationDB's API reference.
    let max_version: unsafe extern "C" fn() -> c_int =
        unsafe { api::symbol(&library, "fdb_get_max_api_version") }.map_err(no_symbol)?;
    // SAFETY: this function may be called at any time.
    let found = unsafe { max_version() };
    if c_int::try_from(FDB_API_VERSION).is_ok_and(|needed| found < needed) {
        return Err(StartError::TooOld { path: path.to_owned(), found });
    }
    api::install(Api::of(&library).map_err(no_symbol)?);
    // The addresses stay valid as long as the process lives.
    std::mem::forget(library);
    Ok(())
}

fn run() {
    // SAFETY: the network was set up and this is the one thread that runs it. It returns after `fdb_stop_network`; an
    // error then has nobody left to hear it.
    let _ = unsafe { api::fdb_run_network() };
}

extern "C" fn stop_hook() {
    stop();
}

/// Ends the network and waits for its thread; does nothing where none runs. What is asked of the library after it is never
/// answered.
pub fn stop() {
    let thread = running().as_mut().and_then(|running| running.thread.take());
    if let Some(thread) = thread {
        // SAFETY: the network was started; it is stopped once, since the thread was taken.
        let stopped = unsafe { api::fdb_stop_network() };
        if stopped == 0 {
            // A panic of that thread was told when it happened.
            let _ = thread.join();
        }
    }
}

/// The innermost cause, which names what is missing.
fn cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), cause)
}

fn evaluate(step: &'static str, code: fdb_error_t) -> Result<(), StartError> {
    if code == 0 {
        return Ok(());
    }
    // SAFETY: the text of an error is a constant of the library.
    let text = unsafe { CStr::from_ptr(api::fdb_get_error(code)) };
    Err(refused(step, format!("{} ({code})", text.to_string_lossy())))
}

fn refused(step: &'static str, reason: String) -> StartError {
    StartError::Refused { step, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_named() {
        let error = start(Path::new("/nowhere/libfdb_c.so")).expect_err("there is none");
        assert!(error.to_string().contains("/nowhere/libfdb_c.so"), "{error}");
        assert!(!is_started());
    }

    #[test]
    fn another_library_is_refused_by_the_function_that_it_lacks() {
        let path = Path::new("libc.so.6");
        let expect = StartError::NoSymbol { path: path.to_owned(), symbol: "fdb_get_max_api_version" };
        assert_eq!(start(path), Err(expect));
        assert!(!is_started());
    }
}
