use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::{SocketProtocol, State, StateSet};

/// What the kernel has of each protocol, before it is asked to list any: the files `protocols` and `sockstat`.
///
/// Listing a protocol walks the tables of the whole machine, once for each namespace, and passes over what
/// belongs to the others. So a namespace without any such socket is better not asked.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    /// `protocols`: a line each with name, size and the number of sockets; empty if it cannot be read.
    protocols: Vec<u8>,
    /// `sockstat`: TCP's TIME-WAIT entries, and all sockets of processes; empty if it cannot be read.
    sockstat: Vec<u8>,
    /// Whether the kernel is one that counts MPTCP's sockets.
    counts_mptcp: bool,
}

impl Inventory {
    /// Reads the files in `net`, a `/proc/PID/net`.
    pub(crate) fn read(net: &Path) -> Self {
        Self {
            protocols: read(&net.join("protocols")),
            sockstat: read(&net.join("sockstat")),
            counts_mptcp: counts_mptcp(rustix::system::uname().release().to_bytes()),
        }
    }

    /// Whether the kernel surely has no such protocol. To ask for its sockets would make it load a module.
    pub(crate) fn lacks(&self, protocol: SocketProtocol) -> bool {
        match protocol {
            SocketProtocol::Sctp
            | SocketProtocol::Vsock
            | SocketProtocol::Mptcp
            | SocketProtocol::UdpLite => {
                !self.protocols.is_empty() && self.sockets(names(protocol).0).is_none()
            }
            SocketProtocol::Tcp | SocketProtocol::Udp | SocketProtocol::Raw | SocketProtocol::Unix => false,
        }
    }

    /// Whether this namespace surely has no socket of the protocol in any of `states`.
    ///
    /// The kernel adds the counts up over its processors while sockets come and go, as it walks its tables
    /// while they do: what stood throughout is counted.
    pub(crate) fn has_none(&self, protocol: SocketProtocol, states: StateSet) -> bool {
        match protocol {
            SocketProtocol::Udp | SocketProtocol::UdpLite | SocketProtocol::Raw => self.counts_none(protocol),
            SocketProtocol::Tcp => {
                // Neither TIME-WAIT nor a socket that is only bound is counted among the protocol's.
                self.counts_none(protocol)
                    && self.stat("TCP:", "tw") == Some(0)
                    && (!states.contains(State::Closed) || self.has_no_other_than_ours())
            }
            SocketProtocol::Mptcp => self.counts_mptcp && self.counts_none(protocol),
            SocketProtocol::Sctp | SocketProtocol::Vsock | SocketProtocol::Unix => false,
        }
    }

    fn counts_none(&self, protocol: SocketProtocol) -> bool {
        let (ipv4, ipv6) = names(protocol);
        // A kernel without IPv6 has no line for it.
        self.sockets(ipv4) == Some(0) && self.sockets(ipv6).is_none_or(|count| count == 0)
    }

    /// Whether the only socket of a process is the one through which we ask.
    fn has_no_other_than_ours(&self) -> bool {
        self.stat("sockets:", "used").is_some_and(|count| count <= 1)
    }

    /// The third word of the protocol's line.
    fn sockets(&self, name: &str) -> Option<u64> {
        let mut words = line(&self.protocols, name)?;
        number(words.nth(1)?)
    }

    /// The word behind `key` in the line that begins with `name`.
    fn stat(&self, name: &str, key: &str) -> Option<u64> {
        let mut words = line(&self.sockstat, name)?;
        words.find(|word| *word == key.as_bytes())?;
        number(words.next()?)
    }
}

/// The kernel's names for a protocol over IPv4 and over IPv6, or its only one twice.
const fn names(protocol: SocketProtocol) -> (&'static str, &'static str) {
    match protocol {
        SocketProtocol::Tcp => ("TCP", "TCPv6"),
        SocketProtocol::Udp => ("UDP", "UDPv6"),
        SocketProtocol::UdpLite => ("UDP-Lite", "UDPLITEv6"),
        SocketProtocol::Raw => ("RAW", "RAWv6"),
        SocketProtocol::Mptcp => ("MPTCP", "MPTCPv6"),
        SocketProtocol::Sctp => ("SCTP", "SCTPv6"),
        SocketProtocol::Vsock => ("AF_VSOCK", "AF_VSOCK"),
        SocketProtocol::Unix => ("UNIX", "UNIX"),
    }
}

/// The words of the first line that begins with `name`, without it.
fn line<'a>(text: &'a [u8], name: &str) -> Option<impl Iterator<Item = &'a [u8]>> {
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let mut words = line
            .split(|byte| byte.is_ascii_whitespace())
            .filter(|word| !word.is_empty());
        (words.next()? == name.as_bytes()).then_some(words)
    })
}

/// Whether Linux of this release, `6.18.44-generic`, counts the sockets of MPTCP: from 6.3 on.
fn counts_mptcp(release: &[u8]) -> bool {
    let mut numbers = release
        .split(|byte| !byte.is_ascii_digit())
        .map(|digits| number(digits).unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(3))
}

fn number(word: &[u8]) -> Option<u64> {
    str::from_utf8(word).ok()?.parse().ok()
}

fn read(path: &Path) -> Vec<u8> {
    let mut text = Vec::with_capacity(LONGEST);
    let read = File::open(path).and_then(|file| file.take(LONGEST as u64).read_to_end(&mut text));
    if read.is_ok() { text } else { Vec::new() }
}

/// Some twenty lines of 120 bytes, and as many again for what may come.
const LONGEST: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const PROTOCOLS: &str = "protocol  size sockets  memory press maxhdr  slab module     cl co\n\
                             MPTCP     1936      0      89   no       0   yes  kernel      y  y\n\
                             UDPv6     1472      2       0   NI       0   yes  kernel      y  y\n\
                             UDP       1344      0       0   NI       0   yes  kernel      y  y\n\
                             RAW       1152      0      -1   NI       0   yes  kernel      y  y\n\
                             TCPv6     2432      0      89   no     192   yes  kernel      y  y\n\
                             TCP       2304      0      89   no     192   yes  kernel      y  y\n";

    fn inventory(tcp: &str, tw: u32, used: u32) -> Inventory {
        Inventory {
            protocols: PROTOCOLS.replace("TCP       2304      0", tcp).into_bytes(),
            sockstat: format!("sockets: used {used}\nTCP: inuse 0 orphan 0 tw {tw} alloc 7 mem 1\n")
                .into_bytes(),
            counts_mptcp: true,
        }
    }

    #[test]
    fn only_a_protocol_that_is_counted_and_counts_none_has_none() {
        let empty = inventory("TCP       2304      0", 0, 1);
        for (protocol, none) in [
            (SocketProtocol::Tcp, true),
            (SocketProtocol::Mptcp, true),
            (SocketProtocol::Raw, true),
            // One family has some; no line at all; not counted in every kernel.
            (SocketProtocol::Udp, false),
            (SocketProtocol::UdpLite, false),
            (SocketProtocol::Unix, false),
        ] {
            assert_eq!(empty.has_none(protocol, StateSet::ALL), none, "{protocol}");
        }
        assert!(empty.lacks(SocketProtocol::Sctp) && empty.lacks(SocketProtocol::UdpLite));
        assert!(!empty.lacks(SocketProtocol::Mptcp));
    }

    #[test]
    fn tcp_sockets_that_are_not_counted_are_thought_of() {
        let has_none = |inventory: &Inventory, states| inventory.has_none(SocketProtocol::Tcp, states);
        let one = inventory("TCP       2304      1", 0, 2);
        assert!(!has_none(&one, StateSet::ALL));
        let time_wait = inventory("TCP       2304      0", 1, 1);
        assert!(!has_none(&time_wait, StateSet::ALL));
        // Another socket of this namespace may be a TCP socket that is only bound.
        let perhaps_bound = inventory("TCP       2304      0", 0, 2);
        assert!(!has_none(&perhaps_bound, StateSet::ALL));
        assert!(has_none(&perhaps_bound, StateSet::OPEN));
    }

    #[test]
    fn mptcp_is_counted_by_newer_kernels_only() {
        for (release, counts) in [
            ("6.18.44-generic", true),
            ("6.3", true),
            ("7.0.0-rc1", true),
            ("6.2.16", false),
            ("5.19.0", false),
            ("", false),
        ] {
            assert_eq!(counts_mptcp(release.as_bytes()), counts, "{release}");
        }
        let older = Inventory {
            counts_mptcp: false,
            ..inventory("TCP       2304      0", 0, 1)
        };
        assert!(!older.has_none(SocketProtocol::Mptcp, StateSet::ALL));
    }

    #[test]
    fn without_the_files_nothing_is_sure() {
        let nothing = Inventory::default();
        assert!(
            SocketProtocol::ALL
                .into_iter()
                .all(|protocol| !nothing.lacks(protocol) && !nothing.has_none(protocol, StateSet::ALL))
        );
    }
}
