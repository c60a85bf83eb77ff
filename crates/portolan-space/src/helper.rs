//! A process beside the maker, for what the maker gives up the right to do.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, Result};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, WaitOptions, chdir, setsid, waitpid};

use crate::init::close_all_but;
use crate::sys::{self, SignalMask};

/// A process that works for this one, and a channel to it. Dropped, it is told to end and waited for.
#[derive(Debug)]
pub struct Helper {
    process: Pid,
    channel: OwnedFd,
}

impl Helper {
    /// Starts a process that does `work` with its end of a channel (a socket of SOCK_SEQPACKET, which waits; that of
    /// this process does not), and then ends. When this process has ended, its channel is at its end: `work` returns
    /// then. Its only descriptors are that and `kept`: call it before ports are taken.
    ///
    /// It forks this process: only while there are no other threads.
    ///
    /// # Errors
    /// If no process can be made.
    pub fn start(kept: &[BorrowedFd<'_>], work: impl FnOnce(OwnedFd)) -> Result<Self> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        let Some(process) = sys::fork()? else {
            drop(ours);
            // Keys and groups of the terminal are not for it: it ends when the maker does.
            SignalMask::full().apply();
            let _ = setsid();
            let _ = chdir("/");
            let mut open_ones = kept.to_vec();
            open_ones.push(theirs.as_fd());
            let closed = close_all_but(&open_ones);
            if let Ok(null) = open("/dev/null", OFlags::RDWR, Mode::empty()) {
                let _ = rustix::stdio::dup2_stdin(&null);
                let _ = rustix::stdio::dup2_stdout(&null);
                let _ = rustix::stdio::dup2_stderr(&null);
            }
            if closed.is_ok() {
                work(theirs);
            }
            sys::exit_now(0);
        };
        Ok(Self {
            process,
            channel: ours,
        })
    }
}

/// Its channel.
impl AsFd for Helper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(&self.channel, Shutdown::Both);
        while let Err(Errno::INTR) = waitpid(Some(self.process), WaitOptions::empty()) {}
    }
}
