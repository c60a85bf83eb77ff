//! What the program is told when the host could not reach a destination, or the gate did not want to.

use std::io;

use portolan_core::wire::UnreachableCode;
use portolan_net::HeldSyn;
use rustix::io::Errno;

use crate::gate::DenyWith;

/// What is answered to the first packet of a flow that does not come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A RST of TCP; *port unreachable* of UDP.
    Refused,
    /// *Destination unreachable*.
    Unreachable(UnreachableCode),
    /// Nothing: to the program it was lost.
    Silence,
}

impl Answer {
    /// As the host was told when it dialled.
    ///
    /// The error numbers of ICMP messages are those of `icmp_err_convert` and `tcp_v6_err`: the message from which each
    /// came is what the program gets.
    pub(super) fn to_error(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            // It was there, and reset us in the middle of the handshake, or it has no room.
            Some(Errno::CONNREFUSED | Errno::CONNRESET) => Self::Refused,
            Some(Errno::TIMEDOUT) => Self::Silence,
            // Without IPv6 the program turns to IPv4 at once if it hears that there is no route.
            Some(Errno::NETUNREACH | Errno::AFNOSUPPORT | Errno::NODEV | Errno::ADDRNOTAVAIL) => {
                Self::Unreachable(UnreachableCode::NoRoute)
            }
            Some(Errno::ACCESS | Errno::PERM) => Self::Unreachable(UnreachableCode::Prohibited),
            Some(_) if is_no_room(error) => Self::Refused,
            _ => Self::Unreachable(UnreachableCode::Host),
        }
    }

    /// As the policy says.
    pub(super) const fn to_denied(deny_with: DenyWith) -> Self {
        match deny_with {
            DenyWith::Icmp => Self::Unreachable(UnreachableCode::Prohibited),
            DenyWith::Reset => Self::Refused,
            DenyWith::Drop => Self::Silence,
        }
    }

    /// Gives it to a SYN.
    pub(super) fn give(self, syn: HeldSyn) {
        match self {
            Self::Refused => syn.refuse(),
            Self::Unreachable(why) => syn.reject(why),
            Self::Silence => syn.ignore(),
        }
    }
}

/// Whether it is we who are short of something: descriptors, memory.
pub(super) fn is_no_room(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_as_the_messages_that_make_them() {
        for (errno, answer) in [
            (Errno::CONNREFUSED, Answer::Refused),
            (Errno::TIMEDOUT, Answer::Silence),
            (Errno::HOSTUNREACH, Answer::Unreachable(UnreachableCode::Host)),
            (Errno::NETUNREACH, Answer::Unreachable(UnreachableCode::NoRoute)),
            (Errno::AFNOSUPPORT, Answer::Unreachable(UnreachableCode::NoRoute)),
            (Errno::ACCESS, Answer::Unreachable(UnreachableCode::Prohibited)),
            (Errno::PERM, Answer::Unreachable(UnreachableCode::Prohibited)),
            (Errno::MFILE, Answer::Refused),
        ] {
            assert_eq!(Answer::to_error(&errno.into()), answer, "{errno}");
        }
    }
}
