//! What a TCP port remembers of `SO_REUSEPORT`: one socket, whose likes may bind without any check.
//!
//! Linux keeps a copy of one socket in the bucket of a port (`fast_rcv_saddr` and its neighbours) and
//! compares only with that. It is a shortcut meant to change nothing, and it does change something: it
//! looks at no device, and it outlives the socket and the option it was made from. A table that is to
//! agree with Linux has to take it too.

use std::net::IpAddr;

use super::claim::{Claim, Family};

/// The memory of one port.
///
/// The kernel has a wider mode, in which any address passes, for the first socket of a port; since its
/// buckets are split by address that mode is never entered (a first socket on 10.9.0.1 that clears
/// `SO_REUSEPORT` does not admit 0.0.0.0).
#[derive(Debug, Default)]
pub(super) struct PortMemory {
    remembered: Option<Remembered>,
}

#[derive(Debug, Clone, Copy)]
struct Remembered {
    uid: u32,
    family: Family,
    v6_only: bool,
    address: IpAddr,
}

impl PortMemory {
    /// Whether a socket that binds or listens as `candidate` needs no check.
    pub(super) fn admits(&self, candidate: &Claim) -> bool {
        candidate.reuses_port()
            && self
                .remembered
                .is_some_and(|known| known.uid == candidate.owner.uid && known.covers(candidate))
    }

    /// Takes note of a bind or listen that succeeded.
    pub(super) fn note(&mut self, claim: &Claim) {
        if !claim.reuses_port() {
            self.remembered = None;
        } else if !self.admits(claim) {
            self.remembered = Some(Remembered {
                uid: claim.owner.uid,
                family: claim.family,
                v6_only: claim.v6_only,
                address: claim.address,
            });
        }
    }
}

impl Remembered {
    /// Whether the remembered address is the candidate's or a wildcard for it.
    fn covers(&self, candidate: &Claim) -> bool {
        match (self.address, candidate.address) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => ours.is_unspecified() || ours == theirs,
            // Seen from an IPv4 socket, a native IPv6 one holds the IPv4 wildcard or a stand-in; only
            // the former can be met, and only without V6ONLY.
            (IpAddr::V4(ours), IpAddr::V6(theirs)) => match self.family {
                Family::Ipv4 => !candidate.v6_only && ours.is_unspecified() && theirs.is_unspecified(),
                Family::Ipv6 => false,
            },
            (IpAddr::V6(ours), IpAddr::V4(_)) => ours.is_unspecified() && !self.v6_only,
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => ours.is_unspecified() || ours == theirs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::claim::{Owner, Reuse, Transport};

    fn sharing(family: Family, address: &str, uid: u32) -> Claim {
        Claim {
            address: address.parse().unwrap(),
            reuse: Reuse::Known {
                address: false,
                port: true,
            },
            ..Claim::new(Transport::Tcp, family, Owner::user(uid))
        }
    }

    #[test]
    fn the_likes_of_the_remembered_socket_pass() {
        let mut memory = PortMemory::default();
        let wild = sharing(Family::Ipv4, "0.0.0.0", 5);
        assert!(!memory.admits(&wild));
        memory.note(&wild);
        assert!(memory.admits(&sharing(Family::Ipv4, "10.9.0.1", 5)));
        assert!(!memory.admits(&sharing(Family::Ipv4, "10.9.0.1", 6)));
        assert!(!memory.admits(&sharing(Family::Ipv6, "fd09::1", 5)));
    }

    #[test]
    fn a_specific_address_covers_only_itself() {
        let mut memory = PortMemory::default();
        memory.note(&sharing(Family::Ipv4, "10.9.0.1", 5));
        assert!(memory.admits(&sharing(Family::Ipv4, "10.9.0.1", 5)));
        assert!(!memory.admits(&sharing(Family::Ipv4, "0.0.0.0", 5)));
    }

    #[test]
    fn a_socket_without_the_option_makes_the_port_forget() {
        let mut memory = PortMemory::default();
        let wild = sharing(Family::Ipv4, "0.0.0.0", 5);
        memory.note(&wild);
        memory.note(&Claim::new(Transport::Tcp, Family::Ipv4, Owner::user(5)));
        assert!(!memory.admits(&wild));
    }
}
