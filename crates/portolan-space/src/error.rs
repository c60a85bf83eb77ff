//! What a system forbids, why, and what to do about it.

use std::fmt;

use rustix::io::Errno;
use thiserror::Error;

use crate::facts::Facts;
use crate::subnets::NoFreeSubnet;

/// A step on the way to a port space. Its [`code`](Step::code) stays the same for all time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Step {
    /// Making a process.
    Process,
    /// Making the user namespace.
    UserNamespace,
    /// Saying which user outside is which inside.
    IdMap,
    /// The same for the ranges of /etc/subuid and /etc/subgid, by newuidmap and newgidmap.
    SubIds,
    /// Making the network namespace.
    NetworkNamespace,
    /// Joining a network namespace that there is.
    JoinNamespace,
    /// Making the mount namespace.
    MountNamespace,
    /// Making the namespace of host names.
    UtsNamespace,
    /// Making the namespace of System V IPC.
    IpcNamespace,
    /// Making the PID namespace.
    PidNamespace,
    /// Mounting a /proc that shows it.
    Proc,
    /// Bringing the loopback interface up.
    Loopback,
    /// Letting everybody bind the ports below 1024.
    LowPorts,
    /// Letting everybody send echo requests.
    PingRange,
    /// Making the TUN device.
    Tun,
    /// Making the pair of Ethernet devices that stands in for it.
    Veth,
    /// Giving the device IPv4 addresses and routes.
    Addresses,
    /// The same for IPv6.
    Ipv6,
    /// Showing files of our own in the space (/etc/resolv.conf).
    Files,
    /// Going to the directory in which the program starts.
    Directory,
    /// Giving up capabilities.
    Capabilities,
    /// Letting clients on the loopback of the host in without passing the device.
    Shortcut,
}

impl Step {
    /// All there are.
    pub const ALL: [Self; 22] = [
        Self::Process,
        Self::UserNamespace,
        Self::IdMap,
        Self::SubIds,
        Self::NetworkNamespace,
        Self::JoinNamespace,
        Self::MountNamespace,
        Self::UtsNamespace,
        Self::IpcNamespace,
        Self::PidNamespace,
        Self::Proc,
        Self::Loopback,
        Self::LowPorts,
        Self::PingRange,
        Self::Tun,
        Self::Veth,
        Self::Addresses,
        Self::Ipv6,
        Self::Files,
        Self::Directory,
        Self::Capabilities,
        Self::Shortcut,
    ];

    /// A word for programs: `user-namespace`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::UserNamespace => "user-namespace",
            Self::IdMap => "id-map",
            Self::SubIds => "sub-ids",
            Self::NetworkNamespace => "network-namespace",
            Self::JoinNamespace => "join-namespace",
            Self::MountNamespace => "mount-namespace",
            Self::UtsNamespace => "uts-namespace",
            Self::IpcNamespace => "ipc-namespace",
            Self::PidNamespace => "pid-namespace",
            Self::Proc => "proc",
            Self::Loopback => "loopback",
            Self::LowPorts => "low-ports",
            Self::PingRange => "ping-range",
            Self::Tun => "tun",
            Self::Veth => "veth",
            Self::Addresses => "addresses",
            Self::Ipv6 => "ipv6",
            Self::Files => "files",
            Self::Directory => "directory",
            Self::Capabilities => "capabilities",
            Self::Shortcut => "shortcut",
        }
    }

    /// What could not be done, to follow "cannot".
    const fn deed(self) -> &'static str {
        match self {
            Self::Process => "start a process",
            Self::UserNamespace => "make a user namespace",
            Self::IdMap => "map this user into the user namespace",
            Self::SubIds => "map the subordinate ids of this user",
            Self::NetworkNamespace => "make a network namespace",
            Self::JoinNamespace => "join the namespace",
            Self::MountNamespace => "make a mount namespace",
            Self::UtsNamespace => "make a namespace of host names",
            Self::IpcNamespace => "make an IPC namespace",
            Self::PidNamespace => "make a PID namespace",
            Self::Proc => "mount a /proc of the space",
            Self::Loopback => "bring up the loopback interface of the space",
            Self::LowPorts => "let the program bind ports below 1024",
            Self::PingRange => "let the program send echo requests",
            Self::Tun => "make a TUN device",
            Self::Veth => "make a pair of Ethernet devices",
            Self::Addresses => "give the device its addresses",
            Self::Ipv6 => "give the device its IPv6 addresses",
            Self::Files => "show the space files of its own",
            Self::Directory => "go to the directory of the program",
            Self::Capabilities => "give up capabilities",
            Self::Shortcut => "lead clients on this host's loopback past the device",
        }
    }

    pub(crate) const fn number(self) -> u8 {
        self as u8
    }

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// A step that failed: what, why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct Obstacle {
    step: Step,
    errno: Errno,
    reason: &'static str,
    remedy: &'static str,
}

impl Obstacle {
    /// Finds the reason in what the host says of itself.
    #[must_use]
    pub fn new(step: Step, errno: Errno, facts: &Facts) -> Self {
        let (reason, remedy) = facts.explain(step, errno);
        Self {
            step,
            errno,
            reason,
            remedy,
        }
    }

    /// Which step.
    #[must_use]
    pub const fn step(&self) -> Step {
        self.step
    }

    /// What the kernel said.
    #[must_use]
    pub const fn errno(&self) -> Errno {
        self.errno
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = std::io::Error::from(self.errno).to_string();
        // "Operation not permitted (os error 1)": the number says nothing more.
        let said = said.split(" (os error").next().unwrap_or(&said).to_lowercase();
        write!(f, "cannot {}: {said}", self.step.deed())?;
        if !self.reason.is_empty() {
            write!(f, " ({})", self.reason)?;
        }
        write!(f, "; {}", self.remedy)
    }
}

/// Why there is no port space. Nothing of it is left behind.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SpaceError {
    /// The system forbids a step that cannot be done without.
    #[error("{0}")]
    Refused(Obstacle),
    /// No private subnet is free.
    #[error("{0}")]
    NoFreeSubnet(#[from] NoFreeSubnet),
    /// A word of the program, of its environment, or a path holds a NUL byte.
    #[error("{what} holds a NUL byte, which no program can be given")]
    Nul {
        /// Where.
        what: &'static str,
    },
    /// The process that was to make the space ended before it was made.
    #[error("the process that makes the port space ended early; was it killed?")]
    Vanished,
}

impl SpaceError {
    /// The words that [`code`](Self::code) gives besides those of the steps.
    pub const CODES: [&str; 3] = ["no-free-subnet", "nul-byte", "vanished"];

    /// A word for programs that stays the same for all time.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Refused(obstacle) => obstacle.step.code(),
            Self::NoFreeSubnet(_) => "no-free-subnet",
            Self::Nul { .. } => "nul-byte",
            Self::Vanished => "vanished",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_step_has_its_own_number_code_and_text() {
        let facts = Facts::default();
        let mut codes = HashSet::new();
        for (index, step) in Step::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(step.number()), index);
            assert_eq!(Step::from_number(step.number()), Some(step));
            assert!(codes.insert(step.code()), "{step:?}");
            for errno in [
                Errno::PERM,
                Errno::ACCESS,
                Errno::NOSPC,
                Errno::NOENT,
                Errno::INVAL,
                Errno::NOSYS,
            ] {
                let text = Obstacle::new(step, errno, &facts).to_string();
                assert!(text.starts_with("cannot ") && text.contains("; "), "{text}");
                assert!(text.len() < 400 && !text.ends_with('.'), "{text}");
            }
        }
        assert_eq!(Step::from_number(Step::ALL.len() as u8), None);
    }
}
