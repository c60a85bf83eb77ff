mod handle;
mod read;
mod start;

pub use handle::{HandleError, ProcessHandle};
pub use read::ReadProcessError;

use std::ffi::OsString;
use std::path::PathBuf;

/// A process, as far as /proc shows it.
///
/// Names and arguments are the process's own choice: escape them before a terminal sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// The process id in our PID namespace.
    pub pid: i32,
    /// The parent's process id; 0 for none.
    pub parent: i32,
    /// When it started; with the pid it names a process for good.
    pub start_time: StartTime,
    /// The name the kernel keeps (`comm`): 15 bytes at most, any bytes.
    pub name: OsString,
    /// The program file; `None` if it could not be read (another user's process, or a kernel thread).
    pub exe: Option<PathBuf>,
    /// The working directory; `None` if it could not be read.
    pub cwd: Option<PathBuf>,
    /// The arguments, the program's name first.
    pub command_line: Vec<OsString>,
    /// The effective user id.
    pub uid: u32,
    /// The user's name, if the system knows one.
    pub user: Option<String>,
    /// The path below the cgroup root, of the v2 hierarchy or of systemd's.
    pub cgroup: Option<OsString>,
    /// The systemd unit, from the cgroup: `nginx.service`.
    pub unit: Option<String>,
    /// The container, from the cgroup.
    pub container: Option<Container>,
}

/// When a process started: clock ticks since boot (`/proc/PID/stat`, field 22).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StartTime(pub u64);

/// A container, recognised by the shape of a cgroup path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Container {
    /// What runs it: `docker`, `podman`, `containerd`, `cri-o`, `kubernetes`, …
    pub engine: &'static str,
    /// Its identifier, in full.
    pub id: String,
}
