use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// What of a resolv.conf(5) matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// The resolvers with their ports, in order; at most [`ResolvConf::SERVERS_MAX`].
    pub servers: Vec<SocketAddr>,
    /// The domains that short names are searched in.
    pub search: Vec<String>,
    /// How many dots make a name long, if it is said.
    pub ndots: Option<u8>,
}

impl ResolvConf {
    /// How many resolvers are asked; the C library asks 3 (MAXNS).
    pub const SERVERS_MAX: usize = 4;

    /// How many domains are searched.
    const SEARCH_MAX: usize = 32;

    /// The C library's port of resolvers.
    const PORT: u16 = 53;

    /// The file as programs in the space see it: the gateway as the resolver, the domains and `ndots` of the host. A
    /// policy that closes all but some names would refuse each name with a domain behind it; leave the domains out then.
    #[must_use]
    pub fn render(&self, gateway: &[IpAddr], with_search: bool) -> String {
        let mut text = String::new();
        for address in gateway {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "nameserver {address}");
        }
        if with_search && !self.search.is_empty() {
            let _ = writeln!(text, "search {}", self.search.join(" "));
        }
        if let Some(ndots) = self.ndots {
            let _ = writeln!(text, "options ndots:{ndots}");
        }
        text
    }
}

/// Reads what it can: a line that makes no sense is passed over, as by the C library. Without a resolver it is the one of
/// this host, on loopback.
impl From<&str> for ResolvConf {
    fn from(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let mut words = line
                .split(['#', ';'])
                .next()
                .unwrap_or_default()
                .split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(server);
                    if let Some(server) = server
                        && conf.servers.len() < Self::SERVERS_MAX
                        && !conf.servers.contains(&server)
                    {
                        conf.servers.push(server);
                    }
                }
                // The last of them counts (resolv.conf(5)).
                Some("search" | "domain") => {
                    let is_name =
                        |word: &&str| *word == "." || word.parse::<portolan_core::HostName>().is_ok();
                    let domains = words.filter(is_name).take(Self::SEARCH_MAX);
                    conf.search = domains.map(str::to_owned).collect();
                }
                Some("options") => {
                    let mut ndots = words
                        .rev()
                        .filter_map(|word| word.strip_prefix("ndots:")?.parse::<u8>().ok());
                    let ndots = ndots.next();
                    conf.ndots = ndots.map(|ndots| ndots.min(15)).or(conf.ndots);
                }
                _ => {}
            }
        }
        if conf.servers.is_empty() {
            conf.servers.push(SocketAddr::from(([127, 0, 0, 1], Self::PORT)));
        }
        conf
    }
}

/// An address, for a link-local one with its zone: `fe80::1%eth0`.
fn server(text: &str) -> Option<SocketAddr> {
    let address: portolan_core::Address = text.parse().ok()?;
    let Some(zone) = address.zone() else {
        return Some(SocketAddr::new(address.ip(), ResolvConf::PORT));
    };
    let IpAddr::V6(ip) = address.ip() else { return None };
    let scope = zone.index().or_else(|| index_of(zone.as_str()))?;
    Some(link_local(ip, scope))
}

fn link_local(ip: Ipv6Addr, scope: u32) -> SocketAddr {
    SocketAddr::V6(SocketAddrV6::new(ip, ResolvConf::PORT, 0, scope))
}

/// The index of a device of the host.
fn index_of(name: &str) -> Option<u32> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )
    .ok()?;
    rustix::net::netdevice::name_to_index(socket, name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_that_matter_are_read() {
        let text = "# made by hand\nnameserver 127.0.0.53\nnameserver 2001:db8::53 ; second\nnameserver nonsense\n\
            nameserver fe80::1%lo\nnameserver 127.0.0.53\ndomain old.example\nsearch a.example b.example /bad\n\
            options edns0 ndots:3 trust-ad\n";
        let conf = ResolvConf::from(text);
        let servers: Vec<_> = conf.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["127.0.0.53:53", "[2001:db8::53]:53", "[fe80::1%1]:53"]);
        assert_eq!(conf.search, ["a.example", "b.example"]);
        assert_eq!(conf.ndots, Some(3));
        let gateway = ["10.7.0.1".parse().unwrap(), "fd07::1".parse().unwrap()];
        assert_eq!(
            conf.render(&gateway, true),
            "nameserver 10.7.0.1\nnameserver fd07::1\nsearch a.example b.example\noptions ndots:3\n"
        );
        assert_eq!(
            conf.render(&gateway, false),
            "nameserver 10.7.0.1\nnameserver fd07::1\noptions ndots:3\n"
        );
    }

    #[test]
    fn without_a_resolver_it_is_the_one_on_loopback() {
        assert_eq!(ResolvConf::from("").servers, ["127.0.0.1:53".parse().unwrap()]);
        let many: String = (0..9)
            .map(|last| format!("nameserver 192.0.2.{last}\n"))
            .collect();
        assert_eq!(ResolvConf::from(&*many).servers.len(), ResolvConf::SERVERS_MAX);
    }
}
