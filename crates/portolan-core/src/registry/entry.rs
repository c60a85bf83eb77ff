use std::fmt;

use crate::{Port, PortRange, Protocol};

/// What one source says of a port of one protocol.
///
/// A view: copying it copies no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    pub(super) port: Port,
    pub(super) ports: PortRange,
    pub(super) protocol: Protocol,
    pub(super) name: &'a str,
    pub(super) aliases: &'a str,
    pub(super) former_names: &'a str,
    pub(super) description: &'a str,
    pub(super) reference: &'a str,
    pub(super) source: Source,
    pub(super) status: Status,
}

impl<'a> Entry<'a> {
    /// The port.
    #[must_use]
    pub const fn port(self) -> Port {
        self.port
    }

    /// The ports that the same registration holds: more than one for x11, which is 6000-6063.
    #[must_use]
    pub const fn ports(self) -> PortRange {
        self.ports
    }

    /// The protocol that was asked about; UDP-Lite has the entries of UDP.
    #[must_use]
    pub const fn protocol(self) -> Protocol {
        self.protocol
    }

    /// The primary name; none if the port is reserved or unassigned.
    #[must_use]
    pub const fn name(self) -> Option<&'a str> {
        if self.name.is_empty() {
            None
        } else {
            Some(self.name)
        }
    }

    /// The other names in use.
    #[must_use]
    pub fn aliases(self) -> Names<'a> {
        Names::new(self.aliases)
    }

    /// The names that IANA gave the port before it changed hands.
    #[must_use]
    pub fn former_names(self) -> Names<'a> {
        Names::new(self.former_names)
    }

    /// What the service is, in the registry's words; empty if it says nothing.
    #[must_use]
    pub const fn description(self) -> &'a str {
        self.description
    }

    /// The documents that define it, such as `RFC4251`.
    #[must_use]
    pub fn references(self) -> Names<'a> {
        Names::new(self.reference)
    }

    /// Who says so.
    #[must_use]
    pub const fn source(self) -> Source {
        self.source
    }

    /// Whether the port is given to a service at all.
    #[must_use]
    pub const fn status(self) -> Status {
        self.status
    }

    /// Whether `name` is the primary name or an alias, in any case. Former names do not count.
    #[must_use]
    pub fn is_named(self, name: &str) -> bool {
        self.current_names().any(|own| own.eq_ignore_ascii_case(name))
    }

    /// The primary name and the aliases.
    pub(super) fn current_names(self) -> impl Iterator<Item = &'a str> {
        self.name().into_iter().chain(self.aliases())
    }

    /// The same for another protocol with the same registrations (UDP-Lite for UDP).
    pub(super) const fn with_protocol(self, protocol: Protocol) -> Self {
        Self { protocol, ..self }
    }
}

/// Names or documents, in the order of the registry.
#[derive(Clone, Debug)]
pub struct Names<'a>(std::str::Split<'a, char>);

impl<'a> Names<'a> {
    /// The items of a list with commas between them.
    fn new(list: &'a str) -> Self {
        let mut items = list.split(',');
        if list.is_empty() {
            // Splitting nothing gives one empty item.
            items.next();
        }
        Self(items)
    }
}

impl<'a> Iterator for Names<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

/// Where a name comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Source {
    /// The machine's own list, /etc/services.
    LocalFile,
    /// The IANA Service Name and Transport Protocol Port Number Registry.
    Iana,
    /// Use alone: no registry has the name for this port.
    Custom,
}

impl Source {
    /// The name in lower case with hyphens, as it stands in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LocalFile => "etc-services",
            Self::Iana => "iana",
            Self::Custom => "custom",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::LocalFile => "/etc/services",
            Self::Iana => "IANA",
            Self::Custom => "by custom",
        })
    }
}

/// Whether a port is given to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Status {
    /// A service has it.
    Assigned,
    /// IANA keeps it from being assigned.
    Reserved,
    /// IANA lists it as free.
    Unassigned,
}

impl Status {
    /// The name in lower case, as it stands in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Assigned => "assigned",
            Self::Reserved => "reserved",
            Self::Unassigned => "unassigned",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
