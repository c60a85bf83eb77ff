//! A process beside the maker that keeps a Unix socket for it: it lets in who may come, connects to others of its kind,
//! and takes the socket away when the maker has ended, however that was.
//!
//! ```text
//!   client ─▶ socket ─▶ keeper: who is it? ─▶ connection ─▶ maker, which sees neither /proc nor paths any more
//!             socket of another ◀─ keeper ─▶ connection ─▶ maker
//! ```
//! They are two processes, so that the kill of one alone leaves neither a space that cannot be asked nor a socket of none:
//! one that waits, and its child, which does the work and is replaced if it is killed.
//!
//! The program in the space has the maker's user and sees its files, so the user says nothing here: a client must be in
//! the user namespace of the keeper, which no process of a space is in.

use std::fs;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::{Errno, IoSliceMut, Result};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use rustix::process::{WaitOptions, geteuid, getpid, getppid, waitpid};

use crate::sys::{self, Peer};
use crate::{Helper, sandbox};

/// The process that keeps a socket, held by the maker. Dropped, the socket is taken away.
#[derive(Debug)]
pub struct Keeper {
    /// Dropped, it has removed the socket.
    helper: Helper,
}

/// A connection that the keeper has for the maker.
#[derive(Debug)]
#[non_exhaustive]
pub enum Arrival {
    /// Of a client that was let in.
    Client(OwnedFd),
    /// To the peer of this place. While it is open there is no other; after its end there is another as soon as the peer
    /// takes one. Who ends it shuts it down: the keeper has it as well.
    Peer(usize, OwnedFd),
    /// The file of this place, as it is now: it has changed.
    File(usize, OwnedFd),
}

/// What a keeper does for the maker beside letting clients in.
#[derive(Clone, Debug, Default)]
pub struct Errands {
    /// Sockets of others, to connect to: at most [`Keeper::PEERS_MAX`].
    pub peers: Vec<PathBuf>,
    /// Files to be told of when they change: at most [`Keeper::FILES_MAX`].
    pub files: Vec<PathBuf>,
}

/// How often a peer is tried that is not there, or has closed its connection.
const AGAIN: Duration = Duration::from_millis(250);

impl Keeper {
    /// Starts a process that keeps `listener`, which is bound to `path`, and goes on these errands. It has no other
    /// descriptors: call it before ports are taken.
    ///
    /// It forks this process: only while there are no other threads.
    ///
    /// # Errors
    /// If no process can be made; the socket is gone then.
    pub fn start(listener: UnixListener, path: PathBuf, errands: Errands) -> Result<Self> {
        let kept = [listener.as_fd()];
        let helper = Helper::start(&kept, |maker| {
            // With all of them it serves as well. It stays one that can be looked at: the keepers of other spaces do.
            let _ = sandbox::keep_peer_capabilities();
            watch(&listener, &maker, &path, &errands);
        });
        match helper {
            Ok(helper) => Ok(Self { helper }),
            Err(error) => {
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// More peers are not connected to.
    pub const PEERS_MAX: usize = 64;
    /// More files are not looked at.
    pub const FILES_MAX: usize = 64;

    /// The next connection; `None` if there is none now. The descriptor ([`AsFd`]) is readable when there is.
    ///
    /// # Errors
    /// If the keeper has ended.
    pub fn poll(&self) -> Result<Option<Arrival>> {
        let mut byte = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut iov = [IoSliceMut::new(&mut byte)];
            match recvmsg(&self.helper, &mut iov, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                other => break other?,
            }
        };
        if received.bytes == 0 {
            return Err(Errno::PIPE);
        }
        let connection = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
            _ => None,
        });
        Ok(connection.map(|connection| match byte {
            [CLIENT] => Arrival::Client(connection),
            [place] if place >= FILES => Arrival::File((place - FILES).into(), connection),
            [place] => Arrival::Peer(place.into(), connection),
        }))
    }
}

impl AsFd for Keeper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.helper.as_fd()
    }
}

/// Has the socket kept by a child, by another one when that was killed, and takes it away when the maker has ended. Until
/// then somebody listens, so that nobody else takes the path.
fn watch(listener: &UnixListener, maker: &OwnedFd, path: &Path, errands: &Errands) {
    let own = getpid();
    loop {
        let child = match sys::fork() {
            Ok(Some(child)) => child,
            Ok(None) => {
                let _ = keep(listener, maker, errands);
                if getppid() != Some(own) {
                    let _ = fs::remove_file(path);
                }
                sys::exit_now(0);
            }
            // At a limit of processes one does.
            Err(_) => {
                let _ = keep(listener, maker, errands);
                break;
            }
        };
        let ended = loop {
            match waitpid(Some(child), WaitOptions::empty()) {
                Err(Errno::INTR) => {}
                ended => break ended,
            }
        };
        if !matches!(ended, Ok(Some((_, status))) if status.signaled()) {
            break;
        }
    }
    let _ = fs::remove_file(path);
}

/// What tells the maker that a descriptor is a client's; from the other on it is the place of a file, and before of a peer.
const CLIENT: u8 = u8::MAX;
const FILES: u8 = 128;

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A file as it was when it was looked at: which, when it changed, and how many bytes it had.
type Looks = (u64, u64, i64, i64, u64);

/// A file that may change.
struct Watched<'a> {
    path: &'a Path,
    looks: Option<Looks>,
}

impl Watched<'_> {
    fn look(path: &Path) -> Option<Looks> {
        let data = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        Some((
            data.dev(),
            data.ino(),
            data.ctime(),
            data.ctime_nsec(),
            data.len(),
        ))
    }

    /// The file, if it is another one than before. While there is none, it is what it was.
    fn changed(&mut self) -> Option<fs::File> {
        let looks = Self::look(self.path)?;
        if self.looks.replace(looks) == Some(looks) {
            return None;
        }
        // What has taken its place in the meantime must not hold us up.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        fs::OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(self.path)
            .ok()
    }
}

/// Lets clients in, connects to peers, and looks at files, until the maker has ended.
fn keep(listener: &UnixListener, maker: &OwnedFd, errands: &Errands) -> Result<()> {
    let Errands { peers, files } = errands;
    let mut files: Vec<_> = files
        .iter()
        .take(Keeper::FILES_MAX)
        .map(|path| Watched {
            path,
            looks: Watched::look(path),
        })
        .collect();
    let mut next_look = Instant::now() + LOOK;
    let mut reached: Vec<Option<UnixStream>> = peers.iter().take(Keeper::PEERS_MAX).map(|_| None).collect();
    let mut next_try = Instant::now();
    loop {
        if reached.iter().any(Option::is_none) && Instant::now() >= next_try {
            for (place, (peer, path)) in (0..).zip(reached.iter_mut().zip(peers)) {
                if peer.is_none()
                    && let Ok(connection) = UnixStream::connect(path)
                {
                    hand_over(connection.as_fd(), place, maker);
                    *peer = Some(connection);
                }
            }
            next_try = Instant::now() + AGAIN;
        }
        let mut fds = vec![
            PollFd::new(listener, PollFlags::IN),
            PollFd::new(maker, PollFlags::empty()),
        ];
        // Their ends are seen without being asked for.
        let connected = reached.iter().flatten();
        fds.extend(connected.map(|peer| PollFd::new(peer, PollFlags::empty())));
        let now = Instant::now();
        if now >= next_look {
            for (place, file) in (FILES..).zip(&mut files) {
                if let Some(file) = file.changed() {
                    hand_over(file.as_fd(), place, maker);
                }
            }
            next_look = now + LOOK;
        }
        let tries = (fds.len() < reached.len() + 2).then_some(next_try);
        let looks = (!files.is_empty()).then_some(next_look);
        let next = tries.into_iter().chain(looks).min();
        // Rounded up, or the last of it is spent going round.
        let wait = next.map(|next| next.saturating_duration_since(now) + Duration::from_millis(1));
        let wait = wait.map(|wait| Timespec {
            tv_sec: wait.as_secs() as i64,
            tv_nsec: wait.subsec_nanos().into(),
        });
        match poll(&mut fds, wait.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error),
        }
        let happened: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if happened[1] {
            return Ok(());
        }
        if happened[0]
            && let Ok((client, _)) = listener.accept()
            && may_enter(client.as_fd())
        {
            hand_over(client.as_fd(), CLIENT, maker);
        }
        let has_ended = reached
            .iter_mut()
            .filter(|peer| peer.is_some())
            .zip(&happened[2..]);
        for (peer, _) in has_ended.filter(|(_, has_ended)| **has_ended) {
            *peer = None;
        }
    }
}

/// A maker that does not take its connections loses them: nobody waits here.
fn hand_over(connection: BorrowedFd<'_>, whose: u8, maker: &OwnedFd) {
    let fds = [connection];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if control.push(SendAncillaryMessage::ScmRights(&fds)) {
        let _ = sendmsg(
            maker,
            &[IoSlice::new(&[whose])],
            &mut control,
            SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
        );
    }
}

/// Whether the process that has connected is this user's, or root's, and in no space.
fn may_enter(client: BorrowedFd<'_>) -> bool {
    let Ok(Peer { pid, uid, handle }) = sys::peer(client) else {
        return false;
    };
    let own = geteuid().as_raw();
    if uid != own && uid != 0 {
        return false;
    }
    let inode = |path: String| fs::metadata(path).map(|data| (data.dev(), data.ino()));
    let is_ours = match (
        inode(format!("/proc/{pid}/ns/user")),
        inode("/proc/self/ns/user".to_owned()),
    ) {
        (Ok(theirs), Ok(ours)) => theirs == ours,
        // Root does not tell others where it is. In a space nobody appears out here as root but root itself.
        (Err(_), Ok(_)) => uid == 0 && own != 0,
        (_, Err(_)) => false,
    };
    // The number is the client's only as long as that has not ended.
    is_ours && handle.is_none_or(|handle| is_alive(&handle))
}

fn is_alive(handle: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(handle, PollFlags::IN)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&at_once)).is_ok_and(|ready| ready == 0)
}
