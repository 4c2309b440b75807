//! Frames that carry octets and open files between two processes of one host: how a connection moves to a new program.
//!
//! A frame is its tag, the number of descriptors that belong to it, its length, and its body. The descriptors ride on its
//! first octet, as SCM_RIGHTS; the kernel gives the receiver a duplicate of each, so that the sender's own stay as they are.
//! Each end reads to the end of a frame and no further, which keeps the descriptors of the next one where they belong.
//!
//! What is carried may be keys: bodies are wiped when they are dropped, and there is no `Debug` on a frame. A frame that
//! broke off in the middle closes the channel: nobody could tell where the next one begins.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use crate::error::{Error, of_stream};
use crate::local_socket;
use crate::readiness::Readiness;

/// Descriptors in one frame. Linux takes 253.
pub const DESCRIPTORS_MAX: usize = 200;

/// Tag, number of descriptors, length.
const HEAD: usize = 6;

/// The user whom this process acts for.
pub fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Waits for the end of a child that this process had before it was this program.
pub fn wait_for_child(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    // Nobody's child is waited for by nobody.
    let _ = pid.map(|pid| rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()));
}

/// Asks a process to end, as a service manager would.
pub fn ask_to_end(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    // One that has ended already is what is wanted.
    let _ = pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::TERM));
}

/// A socket in the data folder that waits for one peer; its file goes as soon as there is one, or nobody waits any more.
pub struct Invitation {
    listener: UnixListener,
    path: PathBuf,
    /// Device and number of the socket's file: another process may have put its own in place of it.
    file: (u64, u64),
}

impl Invitation {
    /// The caller holds the folder's lock, so a socket file that is there is stale.
    pub fn bind(data_dir: &Path) -> io::Result<Self> {
        Self::at(local_socket::handoff_path(data_dir)?)
    }

    /// As `bind`, for one who keeps everything while nobody serves: it is looked for by whoever starts.
    pub fn bind_custody(data_dir: &Path) -> io::Result<Self> {
        Self::at(local_socket::custody_path(data_dir)?)
    }

    fn at(path: PathBuf) -> io::Result<Self> {
        let listener = local_socket::listen(&path)?;
        Ok(Self { listener, file: identity(&path)?, path })
    }

    /// Where the custodian of a data folder waits, if there is one.
    pub fn custody(data_dir: &Path) -> io::Result<PathBuf> {
        local_socket::custody_path(data_dir)
    }

    /// What the peer connects to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The first peer that connects, if it belongs to the user `owner`.
    pub async fn accept(self, owner: u32, deadline: Instant) -> Result<Channel, Error> {
        self.next(owner, deadline).await
    }

    /// As `accept`, and others may come. Cancel-safe.
    pub async fn next(&self, owner: u32, deadline: Instant) -> Result<Channel, Error> {
        let accepted = timeout_at(deadline, self.listener.accept()).await.map_err(|_| Error::ReadTimeout)?;
        let channel = Channel::new(accepted?.0);
        channel.check_owner(owner)?;
        Ok(channel)
    }
}

impl Drop for Invitation {
    fn drop(&mut self) {
        // What is open keeps its number to itself, so the same one is the same file.
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

/// The process at the other end, which need not be a child of this one, by a handle that never comes to mean another process.
pub struct PeerProcess {
    handle: OwnedFd,
    readiness: Readiness,
}

impl PeerProcess {
    fn open(pid: Pid) -> Result<Self, Error> {
        let handle = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from)?;
        let readiness = Readiness::new()?;
        // Readable is one that has ended.
        readiness.watch(&handle, 0)?;
        Ok(Self { handle, readiness })
    }

    /// Kills it.
    pub fn kill(&self) {
        // One that has ended already is what we want.
        let _ = rustix::process::pidfd_send_signal(&self.handle, Signal::KILL);
    }

    /// Returns when it has ended. Cancel-safe.
    pub async fn ended(&self) {
        self.readiness.ready().await;
    }
}

/// What came in one piece.
pub struct Frame {
    pub tag: u8,
    pub body: Zeroizing<Vec<u8>>,
    pub descriptors: Vec<OwnedFd>,
}

/// Why a frame did not go out whole.
#[derive(Debug)]
pub struct Unsent {
    pub error: Error,
    /// The kernel took a part of it, so that the peer may have seen something. If not, the peer never will.
    pub is_begun: bool,
}

impl From<Unsent> for Error {
    fn from(unsent: Unsent) -> Self {
        unsent.error
    }
}

/// One end of a connection. Sending or receiving that fails or is dropped in the middle of a frame closes it.
pub struct Channel {
    /// Taken out while a frame is under way, put back when it is whole.
    stream: Option<UnixStream>,
}

impl Channel {
    fn new(stream: UnixStream) -> Self {
        Self { stream: Some(stream) }
    }

    /// Two ends that are connected with each other.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = UnixStream::pair()?;
        Ok((Self::new(one), Self::new(other)))
    }

    /// Connects to an [`Invitation`] of the user `owner`.
    pub async fn connect(path: &Path, owner: u32, deadline: Instant) -> Result<Self, Error> {
        let connected = timeout_at(deadline, UnixStream::connect(path)).await.map_err(|_| Error::WriteTimeout)?;
        let channel = Self::new(connected.map_err(of_stream)?);
        channel.check_owner(owner)?;
        Ok(channel)
    }

    /// Permissions keep others out; the kernel's word for who is there costs nothing.
    fn check_owner(&self, owner: u32) -> Result<(), Error> {
        let uid = self.stream()?.peer_cred()?.uid();
        if uid == owner { Ok(()) } else { Err(Error::Stranger { uid }) }
    }

    /// The peer's process, where the kernel can name it.
    pub fn peer_pid(&self) -> Option<u32> {
        let credentials = self.stream.as_ref()?.peer_cred().ok()?;
        credentials.pid().and_then(|pid| u32::try_from(pid).ok())
    }

    /// A hold on the peer's process; none where it has ended.
    pub fn peer_process(&self) -> Option<PeerProcess> {
        let pid = self.peer_pid().filter(|pid| *pid != std::process::id())?;
        PeerProcess::open(Pid::from_raw(i32::try_from(pid).ok()?)?).ok()
    }

    /// The peer sees the end, and nothing is sent or received any more.
    pub fn close(&mut self) {
        self.stream = None;
    }

    fn stream(&self) -> Result<&UnixStream, Error> {
        self.stream.as_ref().ok_or(Error::Closed)
    }

    /// Sends a frame whole, or says whether the peer can have seen any of it.
    pub async fn send(
        &mut self,
        tag: u8,
        body: &[u8],
        descriptors: &[BorrowedFd<'_>],
        deadline: Instant,
    ) -> Result<(), Unsent> {
        let unbegun = |error| Unsent { error, is_begun: false };
        let head = head_of(tag, body, descriptors).map_err(unbegun)?;
        let mut stream = self.stream.take().ok_or_else(|| unbegun(Error::Closed))?;
        let mut taken = 0;
        let sending = async {
            let parts = [IoSlice::new(&head), IoSlice::new(body)];
            taken = stream.async_io(Interest::WRITABLE, || send_first(&stream, &parts, descriptors)).await?;
            if taken < HEAD {
                stream.write_all(&head[taken..]).await?;
            }
            stream.write_all(&body[taken.saturating_sub(HEAD)..]).await
        };
        let error = match timeout_at(deadline, sending).await {
            Ok(Ok(())) => {
                self.stream = Some(stream);
                return Ok(());
            }
            Ok(Err(error)) => of_stream(error),
            Err(_) => Error::WriteTimeout,
        };
        Err(Unsent { error, is_begun: taken > 0 })
    }

    /// The next frame, of at most `body_max` octets. Dropping the wait for its first octet loses nothing.
    ///
    /// `DescriptorsLost` leaves the channel open: the frame was read to its end, this process has no room for the files.
    pub async fn receive(&mut self, body_max: usize, deadline: Instant) -> Result<Frame, Error> {
        let readable = timeout_at(deadline, self.stream()?.readable()).await.map_err(|_| Error::ReadTimeout)?;
        readable.map_err(of_stream)?;
        let mut stream = self.stream.take().ok_or(Error::Closed)?;
        let (frame, is_cut) =
            timeout_at(deadline, read_frame(&mut stream, body_max)).await.map_err(|_| Error::ReadTimeout)??;
        self.stream = Some(stream);
        if is_cut { Err(Error::DescriptorsLost) } else { Ok(frame) }
    }
}

fn head_of(tag: u8, body: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<[u8; HEAD], Error> {
    let count = u8::try_from(descriptors.len()).ok().filter(|count| usize::from(*count) <= DESCRIPTORS_MAX);
    let count = count.ok_or(Error::Frame("too many descriptors for one frame"))?;
    let too_large = Error::FrameTooLarge { size: body.len(), max: u32::MAX as usize };
    let length = u32::try_from(body.len()).map_err(|_| too_large)?.to_be_bytes();
    Ok([tag, count, length[0], length[1], length[2], length[3]])
}

/// Sends what the kernel takes at once, with the descriptors on the first octet.
fn send_first(stream: &UnixStream, parts: &[IoSlice<'_>], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(sendmsg(stream.as_fd(), parts, &mut control, SendFlags::NOSIGNAL)?)
}

/// Reads a frame, and tells whether descriptors of it were lost because this process may open no more files.
async fn read_frame(stream: &mut UnixStream, body_max: usize) -> Result<(Frame, bool), Error> {
    let mut head = [0; HEAD];
    let mut descriptors = Vec::new();
    let (mut filled, mut is_cut) = (0, false);
    while filled < HEAD {
        let reading = || receive_part(stream, &mut head[filled..], &mut descriptors);
        let (octets, part_is_cut) = stream.async_io(Interest::READABLE, reading).await.map_err(of_stream)?;
        if octets == 0 {
            return Err(Error::Closed);
        }
        filled += octets;
        is_cut |= part_is_cut;
    }
    let [tag, count, length @ ..] = head;
    let length = u32::from_be_bytes(length) as usize;
    if length > body_max {
        return Err(Error::FrameTooLarge { size: length, max: body_max });
    }
    if usize::from(count) > DESCRIPTORS_MAX {
        return Err(Error::Frame("too many descriptors for one frame"));
    }
    if !is_cut && descriptors.len() != usize::from(count) {
        return Err(Error::Frame("a frame with other descriptors than it says"));
    }
    // Grown at once to its full size: what grows by and by leaves copies that nobody wipes.
    let mut body = Zeroizing::new(vec![0; length]);
    stream.read_exact(&mut body).await.map_err(of_stream)?;
    Ok((Frame { tag, body, descriptors }, is_cut))
}

/// Reads what there is, with the descriptors that ride on it; tells the octets, and whether descriptors were lost.
fn receive_part(stream: &UnixStream, into: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<(usize, bool)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    // Close-on-exec from the first moment: a child that is started meanwhile must not hold a client's connection.
    let received = recvmsg(stream.as_fd(), &mut [IoSliceMut::new(into)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(files) = message {
            descriptors.extend(files);
        }
    }
    Ok((received.bytes, received.flags.contains(ReturnFlags::CTRUNC)))
}

#[cfg(test)]
mod tests;
