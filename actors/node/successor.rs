//! The program that takes over from this one: started with the same command line, ended unless it is let go.
//!
//! Apart from the hand-over because it is about a process, not about what moves: nothing in this node changes until the
//! successor has said who it is.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use posthouse_cluster::handoff::{Door, Giver, Hello, Limits};
use posthouse_conf::Upgrade;
use posthouse_net::descriptors::{Invitation, PeerProcess};
use tokio::process::{Child, Command};

use super::Node;
use super::custody::{CARRIED, FORMS, KEEP, Luggage};

/// The variable that tells a program whom to take over from: the path of a socket.
pub const TAKE_OVER: &str = "POSTHOUSE_TAKE_OVER";
/// How long a program that was killed may take to be gone.
const END_MAX: Duration = Duration::from_secs(10);
/// How long an answer may take that wants no more than reading and checking.
const ANSWER: Duration = Duration::from_secs(10);

/// How long each side waits for the other.
pub(super) fn limits(settings: &Upgrade) -> Limits {
    let pause = settings.finish_limit.get() + settings.move_limit.get() * 2 + ANSWER * 2;
    Limits { hello: settings.start_limit.get(), answer: ANSWER, store: settings.start_limit.get(), pause }
}

/// What this program says of itself.
pub(super) fn hello() -> Hello {
    Hello::of(concat!("posthouse ", env!("CARGO_PKG_VERSION")))
}

pub struct Successor {
    process: Process,
    giver: Giver,
    /// What goes with the listeners.
    luggage: Vec<Door>,
}

/// How the new program comes to serve.
pub enum Form {
    /// As a process of its own, beside this one.
    Beside,
    /// In this process, by exec; whoever waits for the answer there goes with it.
    InPlace { console: Option<OwnedFd> },
}

/// Killed when it is dropped, unless it was let go.
struct Process {
    child: Child,
    /// The process that has connected: what was started may be a script, and this a child of it.
    peer: Option<PeerProcess>,
    released: bool,
}

impl Successor {
    /// Starts `program` with this process's own arguments and waits until it has said that it can take over.
    pub async fn start(program: &Path, node: &Node, form: Form) -> Result<Self, String> {
        let (data_dir, settings) = (&node.services.settings.node.data_dir, &node.services.settings.upgrade);
        let forms = node.forms().await?.encode();
        let mut command = Command::new(program);
        command.args(arguments()).stdin(Stdio::null()).env_remove(CARRIED);
        let luggage = match form {
            Form::Beside => {
                command.env(FORMS, forms).env_remove(KEEP);
                Vec::new()
            }
            Form::InPlace { console } => {
                command.env(KEEP, forms).env_remove(FORMS);
                Luggage::pack(console)?
            }
        };
        let invitation = Invitation::bind(data_dir).map_err(|error| format!("the socket of the hand-over: {error}"))?;
        let child = command
            .env(TAKE_OVER, invitation.path())
            .spawn()
            .map_err(|error| format!("{} cannot be started: {error}", program.display()))?;
        let mut process = Process { child, peer: None, released: false };
        let failure = tokio::select! {
            biased;
            joined = Giver::invite(invitation, hello(), limits(settings)) => match joined {
                Ok(giver) => {
                    process.peer = giver.taker_process();
                    return Ok(Self { process, giver, luggage });
                }
                Err(error) => format!("{} does not take over: {error}", program.display()),
            },
            status = process.child.wait() => {
                let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                format!("{} ended before it took over: {how}", program.display())
            }
        };
        process.end().await;
        Err(failure)
    }

    pub(super) fn giver(&mut self) -> &mut Giver {
        &mut self.giver
    }

    pub(super) fn take_luggage(&mut self) -> Vec<Door> {
        std::mem::take(&mut self.luggage)
    }

    /// What it says of itself.
    pub(super) fn program(&self) -> &str {
        &self.giver.taker().program
    }

    /// Its process.
    pub(super) fn pid(&self) -> Option<u32> {
        self.giver.taker_pid().or(self.process.child.id())
    }

    /// Kills it and waits until it is gone: only then the store is free again, and nobody else holds a session's keys.
    pub(super) async fn end(mut self) {
        self.process.end().await;
    }

    /// Tells it that it has everything, and lets it live on without this process; its process id.
    pub(super) async fn release(self) -> Result<u32, String> {
        let pid = self.pid().unwrap_or_default();
        let Self { mut process, giver, .. } = self;
        match giver.done().await {
            Ok(()) => {
                process.released = true;
                Ok(pid)
            }
            Err(error) => {
                process.end().await;
                Err(error.to_string())
            }
        }
    }
}

impl Process {
    async fn end(&mut self) {
        self.kill();
        let gone = async {
            let _ = self.child.wait().await;
            if let Some(peer) = &self.peer {
                peer.ended().await;
            }
        };
        let _ = tokio::time::timeout(END_MAX, gone).await;
    }

    fn kill(&mut self) {
        // One that has ended already is what we want.
        let _ = self.child.start_kill();
        if let Some(peer) = &self.peer {
            peer.kill();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.released {
            self.kill();
        }
    }
}

pub(super) fn arguments() -> impl Iterator<Item = OsString> {
    std::env::args_os().skip(1)
}

/// The program of this process as it lies on the disk now: after a package was upgraded, the new one.
pub fn own_program() -> std::io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    // Linux shows the path of a file that was replaced with this at its end.
    let name = program.as_os_str().to_string_lossy().into_owned();
    Ok(name.strip_suffix(" (deleted)").map_or(program, PathBuf::from))
}
