use crate::{Port, Protocol};

/// The port and protocol that a URL's scheme stands for where the URL names no port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheme {
    /// The scheme in lower case, without `://`.
    pub name: &'static str,
    /// Its port.
    pub port: Port,
    /// The protocol it is carried by first.
    pub protocol: Protocol,
}

/// What the scheme `name`, in lower case, stands for, if it is one of the known.
///
/// Of a compound such as `postgresql+psycopg2` or `git+ssh` the whole is tried first, then the part
/// before the plus sign.
#[must_use]
pub fn scheme(name: &str) -> Option<Scheme> {
    let find = |name: &str| SCHEMES.iter().find(|known| known.name == name).copied();
    find(name).or_else(|| find(name.split_once('+')?.0))
}

const fn tcp(name: &'static str, port: u16) -> Scheme {
    Scheme {
        name,
        port: Port::new(port),
        protocol: Protocol::Tcp,
    }
}

const fn udp(name: &'static str, port: u16) -> Scheme {
    Scheme {
        name,
        port: Port::new(port),
        protocol: Protocol::Udp,
    }
}

/// The defaults that the schemes' own documents name, or else those of their programs.
const SCHEMES: &[Scheme] = &[
    // The web: RFC 9110, section 4.2; RFC 6455, section 3.
    tcp("http", 80),
    tcp("https", 443),
    tcp("ws", 80),
    tcp("wss", 443),
    // Shells and files: RFC 959, RFC 4217, RFC 854, RFC 1350, RFC 7530; git-daemon(1), svn, rsync(1).
    tcp("ssh", 22),
    tcp("sftp", 22),
    tcp("scp", 22),
    tcp("git+ssh", 22),
    tcp("svn+ssh", 22),
    tcp("ftp", 21),
    tcp("ftps", 990),
    tcp("telnet", 23),
    tcp("telnets", 992),
    udp("tftp", 69),
    tcp("nfs", 2049),
    tcp("smb", 445),
    tcp("afp", 548),
    tcp("git", 9418),
    tcp("svn", 3690),
    tcp("rsync", 873),
    tcp("gopher", 70),
    tcp("gemini", 1965),
    // Databases and caches.
    tcp("postgres", 5432),
    tcp("postgresql", 5432),
    tcp("mysql", 3306),
    tcp("mysqlx", 33060),
    tcp("mariadb", 3306),
    tcp("mssql", 1433),
    tcp("sqlserver", 1433),
    tcp("oracle", 1521),
    tcp("mongodb", 27017),
    tcp("redis", 6379),
    tcp("rediss", 6379),
    tcp("valkey", 6379),
    tcp("valkeys", 6379),
    tcp("memcached", 11211),
    tcp("cassandra", 9042),
    tcp("clickhouse", 9000),
    tcp("couchdb", 5984),
    tcp("neo4j", 7687),
    tcp("bolt", 7687),
    // Directories: RFC 4516, section 2.
    tcp("ldap", 389),
    tcp("ldaps", 636),
    // Messages between programs.
    tcp("amqp", 5672),
    tcp("amqps", 5671),
    tcp("mqtt", 1883),
    tcp("mqtts", 8883),
    tcp("nats", 4222),
    tcp("kafka", 9092),
    tcp("stomp", 61613),
    udp("coap", 5683),
    udp("coaps", 5684),
    tcp("coap+tcp", 5683),
    tcp("coaps+tcp", 5684),
    // Mail and news: RFC 5321, RFC 8314, RFC 5092, RFC 2384, RFC 5538.
    tcp("smtp", 25),
    tcp("smtps", 465),
    tcp("submission", 587),
    tcp("imap", 143),
    tcp("imaps", 993),
    tcp("pop", 110),
    tcp("pop3", 110),
    tcp("pop3s", 995),
    tcp("nntp", 119),
    tcp("nntps", 563),
    // Talk and media: RFC 3261, RFC 7826, RFC 7064, RFC 7065, RFC 6120; ircs as its clients do.
    tcp("irc", 6667),
    tcp("ircs", 6697),
    tcp("xmpp", 5222),
    udp("sip", 5060),
    tcp("sips", 5061),
    udp("stun", 3478),
    tcp("stuns", 5349),
    udp("turn", 3478),
    tcp("turns", 5349),
    tcp("rtsp", 554),
    tcp("rtsps", 322),
    tcp("rtmp", 1935),
    tcp("rtmps", 443),
    // Screens and printers: RFC 7869, RFC 3510, RFC 7472.
    tcp("vnc", 5900),
    tcp("rdp", 3389),
    tcp("spice", 5900),
    tcp("ipp", 631),
    tcp("ipps", 631),
    // The network's own: RFC 4501, RFC 5905, RFC 4088, RFC 5424; SOCKS as curl(1) does.
    udp("dns", 53),
    udp("ntp", 123),
    udp("snmp", 161),
    udp("syslog", 514),
    tcp("whois", 43),
    tcp("finger", 79),
    tcp("socks", 1080),
    tcp("socks4", 1080),
    tcp("socks4a", 1080),
    tcp("socks5", 1080),
    tcp("socks5h", 1080),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_scheme_stands_twice() {
        for (index, known) in SCHEMES.iter().enumerate() {
            assert_eq!(scheme(known.name), Some(*known), "entry {index}");
            assert!(SCHEMES[..index].iter().all(|earlier| earlier.name != known.name));
        }
    }

    #[test]
    fn a_compound_is_what_its_beginning_is_unless_it_is_known_itself() {
        let port = |name| scheme(name).map(|scheme| scheme.port.get());
        assert_eq!(port("postgresql+psycopg2"), Some(5432));
        assert_eq!(port("git+ssh"), Some(22));
        assert_eq!(port("https"), Some(443));
        assert_eq!(port("nosuch+http"), None);
        assert_eq!(port("HTTP"), None);
    }
}
