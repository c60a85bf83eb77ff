use std::fmt;
use std::num::NonZeroU16;

/// A port number: the 16 bits by which a transport header names one end of a conversation.
///
/// Zero is an ordinary number here: it can stand in a packet. That `bind` takes it for "choose one" is
/// the business of whoever binds. On the wire a port is two bytes in network order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Port(u16);

impl Port {
    /// Port 0, which no socket can hold.
    pub const ZERO: Self = Self(0);
    /// The highest port, 65535.
    pub const MAX: Self = Self(u16::MAX);

    /// The port with this number.
    #[must_use]
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// The number, 0 to 65535.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The number if a socket can hold it, that is, if it is not 0.
    #[must_use]
    pub const fn non_zero(self) -> Option<NonZeroU16> {
        NonZeroU16::new(self.0)
    }

    /// The range of RFC 6335, section 6, that the port lies in.
    #[must_use]
    pub const fn class(self) -> PortClass {
        match self.0 {
            0..=1023 => PortClass::System,
            1024..=49151 => PortClass::User,
            49152..=65535 => PortClass::Dynamic,
        }
    }
}

impl From<u16> for Port {
    fn from(number: u16) -> Self {
        Self(number)
    }
}

impl From<Port> for u16 {
    fn from(port: Port) -> Self {
        port.0
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The three ranges into which IANA divides the ports (RFC 6335, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortClass {
    /// 0 to 1023: system ports, also called well-known; binding one takes a privilege on Linux.
    System,
    /// 1024 to 49151: user ports, also called registered.
    User,
    /// 49152 to 65535: dynamic ports, also called private; IANA assigns none of them.
    Dynamic,
}

impl PortClass {
    /// The ports of the class.
    #[must_use]
    pub const fn range(self) -> PortRange {
        match self {
            Self::System => PortRange::spanning(Port(0), Port(1023)),
            Self::User => PortRange::spanning(Port(1024), Port(49151)),
            Self::Dynamic => PortRange::spanning(Port(49152), Port(65535)),
        }
    }

    /// The name RFC 6335 gives the class.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Dynamic => "dynamic",
        }
    }

    /// The other name in use.
    #[must_use]
    pub const fn other_name(self) -> &'static str {
        match self {
            Self::System => "well-known",
            Self::User => "registered",
            Self::Dynamic => "private",
        }
    }
}

/// One or more neighbouring ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: Port,
    last: Port,
}

impl PortRange {
    /// Every port, 0 to 65535.
    pub const ALL: Self = Self {
        first: Port::ZERO,
        last: Port::MAX,
    };

    /// The ports from `first` to `last`, or `None` if `first` is the higher one.
    #[must_use]
    pub const fn new(first: Port, last: Port) -> Option<Self> {
        if first.0 <= last.0 {
            Some(Self { first, last })
        } else {
            None
        }
    }

    /// The range of one port.
    #[must_use]
    pub const fn single(port: Port) -> Self {
        Self {
            first: port,
            last: port,
        }
    }

    const fn spanning(first: Port, last: Port) -> Self {
        Self { first, last }
    }

    /// The lowest port.
    #[must_use]
    pub const fn first(self) -> Port {
        self.first
    }

    /// The highest port, which belongs to the range.
    #[must_use]
    pub const fn last(self) -> Port {
        self.last
    }

    /// How many ports: 1 to 65536.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub const fn len(self) -> u32 {
        self.last.0 as u32 - self.first.0 as u32 + 1
    }

    /// Whether `port` lies in the range.
    #[must_use]
    pub const fn contains(self, port: Port) -> bool {
        self.first.0 <= port.0 && port.0 <= self.last.0
    }

    /// The ports in rising order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = Port> + DoubleEndedIterator + Clone {
        // The number of ports, 65536, does not fit a u16 range's exact size, but an index does.
        let first = self.first.0;
        (0..self.len() as usize).map(move |offset| Port(first.wrapping_add(offset as u16)))
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            self.first.fmt(f)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_classes_meet_without_gap_or_overlap() {
        for number in 0..=u16::MAX {
            let port = Port::new(number);
            let holders = [PortClass::System, PortClass::User, PortClass::Dynamic]
                .into_iter()
                .filter(|class| class.range().contains(port))
                .collect::<Vec<_>>();
            assert_eq!(holders, [port.class()], "port {number}");
        }
    }

    #[test]
    fn a_range_of_every_port_counts_and_walks_all_of_them() {
        assert_eq!(PortRange::ALL.len(), 65_536);
        let walked = PortRange::ALL.iter().map(Port::get).collect::<Vec<_>>();
        assert!(walked.into_iter().eq(0..=u16::MAX));
    }

    #[test]
    fn a_reversed_range_is_no_range() {
        assert_eq!(PortRange::new(Port::new(2), Port::new(1)), None);
        assert_eq!(
            PortRange::new(Port::new(1), Port::new(1)),
            Some(PortRange::single(Port::new(1)))
        );
    }
}
