use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

use crate::{ProcRoot, Process, ReadProcessError, Signal, StartTime};

/// A hold on one process, which its number is not: a number may be given to another process.
///
/// The process is held by a descriptor (pidfd_open(2)). What is asked and what is sent through it meets
/// this process, or fails because it has ended.
#[derive(Debug)]
pub struct ProcessHandle {
    pid: i32,
    process: OwnedFd,
    /// Its directory in /proc.
    dir: OwnedFd,
}

impl ProcessHandle {
    /// Takes hold of the process with this number that started at this time.
    ///
    /// # Errors
    /// If it has ended, even if another process has its number now.
    pub fn open(root: &ProcRoot, pid: i32, start_time: StartTime) -> Result<Self, HandleError> {
        let number = Pid::from_raw(pid.max(0)).ok_or(HandleError::Gone { pid })?;
        let process = pidfd_open(number, PidfdFlags::empty())
            .map_err(|error| HandleError::new(pid, error.into(), OPEN))?;
        // The start time is read after the process was taken hold of: if it is the right one, no other
        // process can have come in between.
        let found = Process::start_time_of(root, pid).map_err(|error| match error {
            ReadProcessError::Gone { pid } => HandleError::Gone { pid },
            ReadProcessError::NotPermitted { pid } => HandleError::NotPermitted { pid, action: LOOK },
            ReadProcessError::Malformed { pid, .. } => HandleError::System {
                pid,
                source: io::ErrorKind::InvalidData.into(),
            },
            ReadProcessError::Io { pid, source } => HandleError::System { pid, source },
        })?;
        if found != start_time {
            return Err(HandleError::Reused { pid });
        }
        let dir = root
            .process_dir(pid)
            .map_err(|error| HandleError::new(pid, error, LOOK))?;
        Ok(Self { pid, process, dir })
    }

    /// Whether the process holds the socket with this inode at this moment.
    ///
    /// # Errors
    /// If it has ended, or its descriptors may not be looked at.
    pub fn still_holds(&self, root: &ProcRoot, inode: u64) -> Result<bool, HandleError> {
        crate::holders::holds(root, &self.dir, self.pid, inode)
            .map_err(|error| HandleError::new(self.pid, error, LOOK))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If the process has ended, or belongs to another user.
    pub fn send_signal(&self, signal: Signal) -> Result<(), HandleError> {
        pidfd_send_signal(&self.process, signal.raw())
            .map_err(|error| HandleError::new(self.pid, error.into(), "be sent a signal"))
    }

    /// The number of the process.
    #[must_use]
    pub const fn pid(&self) -> i32 {
        self.pid
    }
}

/// Why a process could not be taken hold of, asked or sent a signal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError {
    /// It has ended.
    #[error("process {pid} has ended meanwhile")]
    Gone {
        /// Its number.
        pid: i32,
    },
    /// It has ended, and another process has its number.
    #[error("process {pid} has ended meanwhile, and its number was given to another process")]
    Reused {
        /// The number.
        pid: i32,
    },
    /// It belongs to another user.
    #[error("process {pid} may not {action}: it belongs to another user; use that user's rights, or root's")]
    NotPermitted {
        /// Its number.
        pid: i32,
        /// What was to be done with it: `be looked at`.
        action: &'static str,
    },
    /// The system failed.
    #[error("cannot reach process {pid}: {source}")]
    System {
        /// Its number.
        pid: i32,
        /// What the system said.
        source: io::Error,
    },
}

impl HandleError {
    fn new(pid: i32, source: io::Error, action: &'static str) -> Self {
        match Errno::from_io_error(&source) {
            Some(Errno::SRCH | Errno::NOENT) => Self::Gone { pid },
            Some(Errno::PERM | Errno::ACCESS) => Self::NotPermitted { pid, action },
            _ => Self::System { pid, source },
        }
    }
}

const OPEN: &str = "be taken hold of";
const LOOK: &str = "be looked at";
