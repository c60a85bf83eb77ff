use std::ffi::{CStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::cgroup::{self, Placement};
use crate::proc_root::{read_bounded, read_link};
use crate::{ProcRoot, Process, StartTime, Users};

impl Process {
    /// Reads one process.
    ///
    /// All parts are read through one descriptor of its directory, so they belong to one process even if
    /// its number is given to another meanwhile. What only its own user may see is left out without a
    /// fault: [`exe`](Self::exe) and [`cwd`](Self::cwd).
    ///
    /// # Errors
    /// If there is no such process, or we may not see it, or what stands there is no process.
    pub fn read(root: &ProcRoot, pid: i32, users: &mut Users) -> Result<Self, ReadProcessError> {
        let fault = |error: io::Error| ReadProcessError::from_io(pid, error);
        let dir = root.process_dir(pid).map_err(fault)?;
        let stat = read_bounded(&dir, c"stat", STAT_LIMIT).map_err(fault)?;
        let stat = Stat::parse(&stat).ok_or(ReadProcessError::Malformed { pid, file: "stat" })?;
        let status = read_bounded(&dir, c"status", STAT_LIMIT).map_err(fault)?;
        let uid = effective_uid(&status).ok_or(ReadProcessError::Malformed { pid, file: "status" })?;
        // The kernel lets go of these before it lets go of the process itself, so their absence is no fault.
        let command_line = read_bounded(&dir, c"cmdline", COMMAND_LINE_LIMIT).unwrap_or_default();
        let cgroups = read_bounded(&dir, c"cgroup", CGROUP_LIMIT).unwrap_or_default();
        let Placement {
            path: cgroup,
            unit,
            container,
        } = cgroup::place(&cgroups);
        Ok(Self {
            pid,
            parent: stat.parent,
            start_time: stat.start_time,
            name: stat.name,
            exe: link(&dir, c"exe"),
            cwd: link(&dir, c"cwd"),
            command_line: arguments(&command_line),
            uid,
            user: users.name(uid).map(str::to_owned),
            cgroup,
            unit,
            container,
        })
    }

    /// The parent of a process, its parent's parent and so on, up to the first process.
    ///
    /// The chain ends early at a process that cannot be read, and after 64 at the latest.
    #[must_use]
    pub fn ancestors(&self, root: &ProcRoot, users: &mut Users) -> Vec<Self> {
        let mut chain: Vec<Self> = Vec::new();
        let mut parent = self.parent;
        while parent > 0 && chain.len() < ANCESTORS_LIMIT {
            let Ok(process) = Self::read(root, parent, users) else {
                break;
            };
            let child = chain.last().unwrap_or(self);
            // A parent is older than its child; a younger process has only its number.
            if process.start_time > child.start_time {
                break;
            }
            parent = process.parent;
            chain.push(process);
        }
        chain
    }

    /// When the process with this number started, which tells it from any other that had the number.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn start_time_of(root: &ProcRoot, pid: i32) -> Result<StartTime, ReadProcessError> {
        let fault = |error: io::Error| ReadProcessError::from_io(pid, error);
        let dir = root.process_dir(pid).map_err(fault)?;
        let stat = read_bounded(&dir, c"stat", STAT_LIMIT).map_err(fault)?;
        Stat::parse(&stat)
            .map(|stat| stat.start_time)
            .ok_or(ReadProcessError::Malformed { pid, file: "stat" })
    }
}

/// Why a process could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadProcessError {
    /// There is none with this number (or none that may be seen).
    #[error("there is no process {pid}")]
    Gone {
        /// The number.
        pid: i32,
    },
    /// It may not be looked at (the mount option `hidepid`).
    #[error("process {pid} may not be looked at; root sees every process")]
    NotPermitted {
        /// The number.
        pid: i32,
    },
    /// A file of it does not look as the kernel writes it.
    #[error("/proc/{pid}/{file} does not look as Linux writes it")]
    Malformed {
        /// The number.
        pid: i32,
        /// The name of the file.
        file: &'static str,
    },
    /// The system failed.
    #[error("cannot read process {pid}: {source}")]
    Io {
        /// The number.
        pid: i32,
        /// What the system said.
        source: io::Error,
    },
}

impl ReadProcessError {
    fn from_io(pid: i32, source: io::Error) -> Self {
        match Errno::from_io_error(&source) {
            Some(Errno::NOENT | Errno::SRCH) => Self::Gone { pid },
            Some(Errno::ACCESS | Errno::PERM) => Self::NotPermitted { pid },
            _ => Self::Io { pid, source },
        }
    }
}

/// What is of use in /proc/PID/stat.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: OsString,
    parent: i32,
    start_time: StartTime,
}

impl Stat {
    /// Parses `PID (NAME) STATE PARENT …` (proc_pid_stat(5)).
    ///
    /// The name is written as it is: it may hold parentheses, blanks and line feeds. No later field holds
    /// a parenthesis, so the last one ends the name.
    fn parse(text: &[u8]) -> Option<Self> {
        let open = text.iter().position(|byte| *byte == b'(')?;
        let close = text.iter().rposition(|byte| *byte == b')')?;
        let name = text.get(open + 1..close)?;
        let mut fields = text
            .get(close + 1..)?
            .split(u8::is_ascii_whitespace)
            .filter(|field| !field.is_empty());
        // Fields are counted from 1; the first after the name is number 3, the parent number 4.
        let parent = fields.nth(1)?;
        let start_time = fields.nth(22 - 4 - 1)?;
        Some(Self {
            name: OsString::from_vec(name.to_vec()),
            parent: number(parent)?,
            start_time: StartTime(number(start_time)?),
        })
    }
}

/// The second of the four numbers in the line `Uid:` of /proc/PID/status.
///
/// The name stands in the first line, with its line feeds escaped, so no name can forge the line.
fn effective_uid(status: &[u8]) -> Option<u32> {
    let line = status
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"Uid:"))?;
    let mut uids = line
        .split(u8::is_ascii_whitespace)
        .filter(|field| !field.is_empty());
    number(uids.nth(1)?)
}

/// The arguments in /proc/PID/cmdline, each of which a zero byte ends.
///
/// A process may write over its arguments; what it leaves as padding are zero bytes at the end.
fn arguments(command_line: &[u8]) -> Vec<OsString> {
    let end = command_line
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    if end == 0 {
        return Vec::new();
    }
    command_line[..end]
        .split(|byte| *byte == 0)
        .map(|argument| OsString::from_vec(argument.to_vec()))
        .collect()
}

fn link(dir: &OwnedFd, name: &CStr) -> Option<PathBuf> {
    let text = read_link(dir, name).ok()?;
    Some(PathBuf::from(OsString::from_vec(text)))
}

fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Beyond any length that the kernel writes: 52 numbers and a name, or 60 short lines and two masks of
/// processors.
const STAT_LIMIT: usize = 16 * 1024;

/// How much of a command line is kept.
const COMMAND_LINE_LIMIT: usize = 64 * 1024;

/// A path of 4096 bytes for each of the dozen hierarchies that there are.
const CGROUP_LIMIT: usize = 64 * 1024;

/// How long a chain of ancestors may be.
const ANCESTORS_LIMIT: usize = 64;

#[cfg(test)]
mod tests;
