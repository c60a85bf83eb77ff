//! Why nobody holds a socket, in words.

use std::fmt;

use portolan_core::Escaped;
use portolan_host::{ListenerRef, Ownerless, OwnerlessReason};

/// The reason as a phrase for a column or a JSON text: `waits for :8080 (nginx) to accept it`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnerlessText<'a> {
    pub(crate) ownerless: &'a Ownerless,
    /// Whose the socket is, where the kernel says so.
    pub(crate) uid: Option<u32>,
    /// That user's name, if the system knows one.
    pub(crate) user: Option<&'a str>,
}

impl fmt::Display for OwnerlessText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.ownerless.reason, self.uid) {
            (OwnerlessReason::TimeWait, _) => f.write_str("closed, resting in TIME-WAIT"),
            (OwnerlessReason::Orphan, _) => f.write_str("closed by its program"),
            (OwnerlessReason::SynReceived, _) => f.write_str("handshake not finished"),
            (OwnerlessReason::AcceptQueue, _) => match &self.ownerless.listener {
                Some(ListenerRef { port, candidates, .. }) if *candidates > 1 => {
                    write!(
                        f,
                        "waits to be accepted by one of {candidates} listeners on :{port}"
                    )
                }
                Some(listener) => {
                    write!(f, "waits to be accepted by :{}", listener.port)?;
                    match listener.pid {
                        Some(pid) => write!(f, " (pid {pid})"),
                        None => Ok(()),
                    }
                }
                None => f.write_str("waits to be accepted"),
            },
            (OwnerlessReason::OtherUser, Some(uid)) => match self.user {
                Some(name) => write!(f, "hidden, of {}", Escaped::new(name)),
                None => write!(f, "hidden, of uid {uid}"),
            },
            (OwnerlessReason::OtherUser, None) => f.write_str("hidden, of another user"),
            (OwnerlessReason::OtherPidNamespace, _) => f.write_str("hidden, in another PID namespace"),
            (OwnerlessReason::Kernel, _) => f.write_str("the kernel, or hidden by it"),
            (OwnerlessReason::Vanished, _) => f.write_str("closed meanwhile"),
            // A reason that this program does not know yet.
            (other, _) => f.write_str(other.name()),
        }
    }
}
