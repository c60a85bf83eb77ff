//! What is to be said of a notation, for people and programs alike.

use std::net::IpAddr;

use portolan_core::registry::Services;
use portolan_core::{Address, Host, Mapping, Notation, Port, PortRange, PortSet, Protocol, Url};
use serde::Serialize;

/// One notation, taken apart. The fields are those of the JSON document; what does not apply is null.
#[derive(Debug, Serialize)]
pub(super) struct Description {
    pub(super) text: String,
    pub(super) kind: &'static str,
    pub(super) canonical: String,
    pub(super) protocol: Option<&'static str>,
    /// The ports that it means; of a mapping those outside.
    pub(super) ranges: Vec<Range>,
    pub(super) count: Option<u32>,
    pub(super) service: Option<String>,
    pub(super) url: Option<UrlParts>,
    pub(super) hosts: Vec<HostParts>,
    pub(super) interface: Option<String>,
    /// The ports in full: the only one, or both ends of a range.
    pub(super) ports: Vec<PortParts>,
    pub(super) note: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Range {
    pub(super) first: u16,
    pub(super) last: u16,
}

#[derive(Debug, Serialize)]
pub(super) struct UrlParts {
    pub(super) scheme: String,
    pub(super) userinfo: Option<String>,
    pub(super) port_written: bool,
    pub(super) default_port: Option<u16>,
    pub(super) path: String,
    pub(super) query: Option<String>,
    pub(super) fragment: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct HostParts {
    pub(super) role: &'static str,
    pub(super) kind: &'static str,
    pub(super) text: String,
    pub(super) zone: Option<String>,
    /// The bytes of an address in network order.
    pub(super) wire: Option<Vec<u8>>,
}

#[derive(Debug, Serialize)]
pub(super) struct PortParts {
    pub(super) role: &'static str,
    pub(super) port: u16,
    pub(super) services: Vec<Service>,
    pub(super) range: &'static str,
    pub(super) range_other_name: &'static str,
    pub(super) range_first: u16,
    pub(super) range_last: u16,
    pub(super) hex: String,
    pub(super) binary: String,
    /// The two bytes in network order.
    pub(super) wire: [u8; 2],
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Service {
    pub(super) protocol: &'static str,
    pub(super) name: String,
}

impl Description {
    pub(super) fn of(text: &str, notation: &Notation, services: &Services) -> Self {
        let mut description = Self {
            text: text.to_owned(),
            kind: "",
            canonical: notation.to_string(),
            protocol: None,
            ranges: Vec::new(),
            count: None,
            service: None,
            url: None,
            hosts: Vec::new(),
            interface: None,
            ports: Vec::new(),
            note: None,
        };
        description.fill(notation, services);
        description
    }

    fn fill(&mut self, notation: &Notation, services: &Services) {
        match notation {
            Notation::Port { port, protocol } => {
                self.kind = "port";
                self.set(&(*port).into(), *protocol, services);
            }
            Notation::Range { range, protocol } => {
                self.kind = "range";
                self.set(&(*range).into(), *protocol, services);
            }
            Notation::Set { ports, protocol } => {
                self.kind = "set";
                self.set(ports, *protocol, services);
            }
            Notation::Service {
                name,
                ports,
                protocol,
            } => {
                self.kind = "service";
                self.service = Some(name.to_string());
                self.set(ports, *protocol, services);
            }
            Notation::Address(address) => {
                self.kind = "address";
                self.hosts.push(address_parts("address", *address));
                if !self.text.starts_with('[')
                    && let Some((address, port)) = address.unbracketed_port()
                {
                    self.note = Some(format!(
                        "there is no port in it; for port {port} write [{address}]:{port}"
                    ));
                }
            }
            Notation::Endpoint { endpoint, protocol } => {
                self.kind = "endpoint";
                self.hosts.push(host_parts("host", &endpoint.host));
                self.set(&endpoint.port.into(), *protocol, services);
            }
            Notation::Url(url) => self.url(url, services),
            Notation::Mapping(mapping) => self.mapping(mapping, services),
            // Of the library's future notations the canonical form is all that is known here.
            _ => self.kind = "other",
        }
    }

    fn set(&mut self, ports: &PortSet, protocol: Option<Protocol>, services: &Services) {
        self.protocol = protocol.map(Protocol::name);
        self.ranges = ports.ranges().iter().copied().map(Range::from).collect();
        self.count = Some(ports.len());
        let protocols = protocol.as_ref().map_or(&Protocol::ALL[..], std::slice::from_ref);
        for range in ports.ranges().iter().take(RANGES_SHOWN) {
            self.range("port", ["first", "last"], *range, protocols, services);
        }
        if ports.ranges().len() > RANGES_SHOWN {
            self.note = Some(format!(
                "only the first {RANGES_SHOWN} of {} ranges are taken apart",
                ports.ranges().len()
            ));
        }
    }

    fn url(&mut self, url: &Url, services: &Services) {
        self.kind = "url";
        self.hosts.push(host_parts("host", url.host()));
        self.set(&url.port().into(), Some(url.protocol()), services);
        self.url = Some(UrlParts {
            scheme: url.scheme().to_owned(),
            userinfo: url.userinfo().map(str::to_owned),
            port_written: url.written_port().is_some(),
            default_port: url.default_port().map(Port::get),
            path: url.path().to_owned(),
            query: url.query().map(str::to_owned),
            fragment: url.fragment().map(str::to_owned),
        });
    }

    fn mapping(&mut self, mapping: &Mapping, services: &Services) {
        self.kind = "mapping";
        self.protocol = Some(mapping.protocol().name());
        self.ranges.push(mapping.outer().into());
        self.count = Some(mapping.outer().len());
        let outer = mapping.address().map_or(Host::Any, |ip| Host::Address(ip.into()));
        self.hosts.push(host_parts("outer", &outer));
        if let Some(target) = mapping.target() {
            self.hosts.push(host_parts("inner", target));
        }
        self.interface = mapping.interface().map(|interface| interface.to_string());
        let protocols = mapping.protocol().protocols();
        self.range(
            "outer",
            ["outer_first", "outer_last"],
            mapping.outer(),
            protocols,
            services,
        );
        self.range(
            "inner",
            ["inner_first", "inner_last"],
            mapping.inner(),
            protocols,
            services,
        );
        if mapping.outer() == PortRange::single(Port::ZERO) {
            self.note = Some("port 0 outside means any free port".to_owned());
        }
    }

    /// The only port, or both ends.
    fn range(
        &mut self,
        role: &'static str,
        ends: [&'static str; 2],
        range: PortRange,
        protocols: &[Protocol],
        services: &Services,
    ) {
        if range.len() == 1 {
            self.ports
                .push(port_parts(role, range.first(), protocols, services));
        } else {
            let [first, last] = ends;
            self.ports
                .push(port_parts(first, range.first(), protocols, services));
            self.ports
                .push(port_parts(last, range.last(), protocols, services));
        }
    }
}

/// Of a set with more ranges, the ports of the rest are only counted.
const RANGES_SHOWN: usize = 8;

impl From<PortRange> for Range {
    fn from(range: PortRange) -> Self {
        Self {
            first: range.first().get(),
            last: range.last().get(),
        }
    }
}

fn host_parts(role: &'static str, host: &Host) -> HostParts {
    match host {
        Host::Address(address) => address_parts(role, *address),
        Host::Any | Host::Name(_) => HostParts {
            role,
            kind: if *host == Host::Any { "any" } else { "name" },
            text: host.to_string(),
            zone: None,
            wire: None,
        },
    }
}

fn address_parts(role: &'static str, address: Address) -> HostParts {
    let (kind, wire) = match address.ip() {
        IpAddr::V4(ip) => ("ipv4", ip.octets().to_vec()),
        IpAddr::V6(ip) => ("ipv6", ip.octets().to_vec()),
    };
    HostParts {
        role,
        kind,
        text: address.ip().to_string(),
        zone: address.zone().map(|zone| zone.to_string()),
        wire: Some(wire),
    }
}

fn port_parts(role: &'static str, port: Port, protocols: &[Protocol], services: &Services) -> PortParts {
    let class = port.class();
    let number = port.get();
    PortParts {
        role,
        port: number,
        services: protocols
            .iter()
            // UDP-Lite has the names of UDP; said once is enough, unless it is the one asked about.
            .filter(|&&protocol| protocol != Protocol::UdpLite || protocols.len() == 1)
            .filter_map(|&protocol| {
                let name = services.name(port, protocol)?.to_owned();
                Some(Service {
                    protocol: protocol.name(),
                    name,
                })
            })
            .collect(),
        range: class.name(),
        range_other_name: class.other_name(),
        range_first: class.range().first().get(),
        range_last: class.range().last().get(),
        hex: format!("0x{number:04X}"),
        binary: format!("{number:016b}"),
        wire: number.to_be_bytes(),
    }
}
