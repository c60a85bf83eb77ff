use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use portolan_core::{Port, PortRange};

use crate::netlink::{Attributes, DumpError, NetlinkSocket, Request, Transport, dump, u32_at};

/// RTM_GETLINK.
const GET_LINK: u16 = 18;
/// Bytes of `struct ifinfomsg`.
const FIXED: usize = 16;
/// IFLA_IFNAME.
const NAME: u16 = 3;
/// IFLA_EXT_MASK, and RTEXT_FILTER_SKIP_STATS in it: counters are most of a link's bytes.
const EXTENSIONS: u16 = 29;
const SKIP_STATISTICS: u32 = 1 << 3;

/// The names of the interfaces, by index, of the network namespace in which this thread is.
pub(crate) fn device_names() -> Result<BTreeMap<u32, String>, DumpError> {
    let mut socket = NetlinkSocket::route().map_err(DumpError::Socket)?;
    names(&mut socket)
}

fn names(transport: &mut impl Transport) -> Result<BTreeMap<u32, String>, DumpError> {
    let request = Request::new(GET_LINK, Request::REQUEST | Request::DUMP, 1)
        .bytes(&[0; FIXED])
        .attribute(EXTENSIONS, &SKIP_STATISTICS.to_ne_bytes())
        .finish();
    let mut names = BTreeMap::new();
    // An interface that comes or goes meanwhile makes the list torn; the others' names are right.
    dump(transport, &mut vec![0; 64 << 10], 1, &request, |payload| {
        names.extend(name(payload));
    })?;
    Ok(names)
}

/// An index and a name from `struct ifinfomsg` and its attributes.
fn name(payload: &[u8]) -> Option<(u32, String)> {
    let index = u32_at(payload, 4)?;
    let (_, name) = Attributes::new(payload.get(FIXED..)?).find(|(kind, _)| *kind == NAME)?;
    let name = name.strip_suffix(&[0]).unwrap_or(name);
    Some((index, String::from_utf8_lossy(name).into_owned()))
}

/// The range from which the kernel chooses ports by itself, in the network namespace of this thread; `None`
/// if it cannot be read. Two numbers of /proc/sys, so it costs a system call or three.
#[must_use]
pub fn own_ephemeral_ports() -> Option<PortRange> {
    ephemeral_ports(Path::new("/proc"))
}

/// The same below another root than /proc.
pub(crate) fn ephemeral_ports(root: &Path) -> Option<PortRange> {
    let text = fs::read_to_string(root.join("sys/net/ipv4/ip_local_port_range")).ok()?;
    let mut numbers = text
        .split_ascii_whitespace()
        .map(|number| number.parse().ok().map(Port::new));
    PortRange::new(numbers.next()??, numbers.next()??)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::Message;
    use crate::netlink::script::Script;

    #[test]
    fn the_range_of_ephemeral_ports() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("sys/net/ipv4");
        fs::create_dir_all(&directory).unwrap();
        assert_eq!(ephemeral_ports(root.path()), None);
        for (text, range) in [
            (
                "32768\t60999\n",
                PortRange::new(Port::new(32768), Port::new(60999)),
            ),
            ("60999\t32768\n", None),
            ("70000 70001\n", None),
            ("", None),
        ] {
            fs::write(directory.join("ip_local_port_range"), text).unwrap();
            assert_eq!(ephemeral_ports(root.path()), range, "{text:?}");
        }
    }

    #[test]
    fn this_machine_has_a_range_of_ephemeral_ports() {
        match fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range") {
            Ok(text) => {
                let range = own_ephemeral_ports().unwrap();
                let shown = format!("{}\t{}\n", range.first(), range.last());
                assert_eq!(shown, text);
            }
            Err(error) => println!("skipped: this machine tells no range of ephemeral ports: {error}"),
        }
    }

    #[test]
    fn interfaces_are_listed_by_index() {
        let link = |index: i32, name: &[u8]| {
            let mut fixed = [0; FIXED];
            fixed[4..8].copy_from_slice(&index.to_ne_bytes());
            Request::new(16, 2, 1)
                .bytes(&fixed)
                .attribute(99, &[1])
                .attribute(NAME, name)
                .finish()
        };
        let mut datagram = link(1, b"lo\0");
        datagram.extend(link(7, b"eth0\0"));
        datagram.extend(Request::new(Message::DONE, 2, 1).bytes(&[0; 4]).finish());
        let names = names(&mut Script::new([vec![Ok(datagram)]])).unwrap();
        assert_eq!(
            names,
            BTreeMap::from([(1, "lo".to_owned()), (7, "eth0".to_owned())])
        );
    }

    proptest! {
        #[test]
        fn any_payload_ends(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = name(&payload);
        }
    }
}
