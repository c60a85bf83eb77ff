use std::fmt;
use std::net::Ipv6Addr;

use thiserror::Error;

use crate::{Address, Escaped, Port};

/// Why a text is no notation: what is wrong with it and where.
///
/// Its text is one line of fewer than 400 characters with the input shortened and escaped, so it can go
/// to a terminal or a log as it is, whatever the input was. Of the input it keeps at most
/// [`MAX_SHOWN`](Self::MAX_SHOWN) characters.
///
/// ```
/// let error = "22,80-".parse::<portolan_core::PortSet>().unwrap_err();
/// assert_eq!(error.at(), 6);
/// assert_eq!(
///     error.to_string(),
///     "cannot read \"22,80-\" at 6: the end of the range is missing; write both ends, as in 80-443"
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("cannot read \"{input}\" at {at}: {kind}; {}", Remedy(.kind))]
pub struct NotationError {
    kind: NotationErrorKind,
    at: usize,
    input: Box<str>,
}

impl NotationError {
    /// The number of characters of the input that an error shows.
    pub const MAX_SHOWN: usize = 80;

    pub(super) fn new(kind: NotationErrorKind, at: usize, input: &str) -> Self {
        let input = Escaped::new(input).bounded(Self::MAX_SHOWN).to_string();
        Self {
            kind,
            at,
            input: input.into_boxed_str(),
        }
    }

    /// What is wrong.
    #[must_use]
    pub const fn kind(&self) -> &NotationErrorKind {
        &self.kind
    }

    /// Where the fault begins: the offset in bytes from the beginning of the text, which is 0. It is
    /// the length of the text where something is missing at its end.
    #[must_use]
    pub const fn at(&self) -> usize {
        self.at
    }
}

/// What can be wrong with a text that should be a notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NotationErrorKind {
    /// Something that the notation needs is not there.
    #[error("{0} is missing")]
    Missing(Element),
    /// A number above 65535.
    #[error("the port is above 65535")]
    OutOfRange,
    /// A port with a minus sign.
    #[error("a port is never negative")]
    Negative,
    /// A port with a plus sign.
    #[error("a port has no sign")]
    Sign,
    /// White space; no notation holds any.
    #[error("a blank cannot stand there")]
    Blank,
    /// A digit of another script, such as a full-width one.
    #[error("the digit '{}' (U+{:04X}) is not an ASCII digit", .0, *.0 as u32)]
    ForeignDigit(char),
    /// A character that cannot stand in this place.
    #[error("{} cannot stand there", Shown(*.0))]
    Unexpected(char),
    /// A range whose first port is the higher one.
    #[error("the range {first}-{last} runs backwards")]
    Reversed {
        /// The port before the hyphen.
        first: Port,
        /// The port after it.
        last: Port,
    },
    /// Several ports where there can be one only.
    #[error("a range stands where one port is meant")]
    NotOnePort,
    /// A name that is no service's, or not with this protocol.
    #[error("no service of this name is known")]
    UnknownService,
    /// A service name with several ports where one is meant.
    #[error("the service has {ports} ports where one is meant")]
    AmbiguousService {
        /// How many ports the name stands for.
        ports: u32,
    },
    /// A protocol suffix that names no protocol with ports.
    #[error("no protocol with ports has this name")]
    UnknownProtocol,
    /// A mapping's suffix that is none of those it can have.
    #[error("a mapping has no such protocol")]
    MappingProtocol,
    /// `[` without `]`.
    #[error("the bracket is never closed")]
    UnclosedBracket,
    /// An IPv4 address with too many or too few numbers.
    #[error("an IPv4 address has four numbers")]
    Ipv4Numbers,
    /// A number of an IPv4 address above 255 or with a leading zero.
    #[error("a number of an IPv4 address is 0 to 255, without leading zeros")]
    Ipv4Range,
    /// A group of an IPv6 address with more than four digits.
    #[error("a group of an IPv6 address has at most four digits")]
    Ipv6Group,
    /// Too many or too few groups in an IPv6 address.
    #[error("an IPv6 address has eight groups, or fewer and one \"::\"")]
    Ipv6Groups,
    /// An IPv6 address and a port with nothing to tell them apart.
    #[error("an IPv6 address with a port needs brackets")]
    NeedsBrackets {
        /// What stands before the last colon, or the whole.
        address: Address,
        /// What stands behind it, if it is a port.
        port: Option<Port>,
    },
    /// A whole IPv6 address where a port is needed too.
    #[error("the IPv6 address has no port")]
    Ipv6WithoutPort {
        /// The address.
        address: Address,
    },
    /// A zone on an address that is the same in every zone (RFC 4007, section 6).
    #[error("the address {0} is global and has no zone")]
    ZoneOnGlobal(Ipv6Addr),
    /// A zone on an IPv4 address.
    #[error("an IPv4 address has no zone")]
    ZoneOnIpv4,
    /// A zone that is neither an interface's name (1 to 15 bytes) nor its index.
    #[error("a zone is an interface's name of at most 15 bytes")]
    ZoneLength,
    /// A label of a host name that is empty, longer than 63 bytes, or has a hyphen at an end.
    #[error("a label of the host name is empty, longer than 63 bytes or has a hyphen at an end")]
    HostLabel,
    /// A host name of more than 253 bytes.
    #[error("a host name has at most 253 bytes")]
    HostLength,
    /// A URL's scheme without a port of its own.
    #[error("no port is known for this scheme")]
    UnknownScheme,
    /// A mapping's sides with different numbers of ports.
    #[error("{outer} ports outside cannot lead to {inner} inside")]
    RangeLengths {
        /// The number of ports on the left.
        outer: u32,
        /// The number of ports on the right.
        inner: u32,
    },
    /// More parts between colons than the notation has.
    #[error("there are more parts than a mapping has")]
    TooManyParts,
    /// Port 0 where a port must be one that a packet can be sent to.
    #[error("no program can listen on port 0")]
    PortZero,
}

impl NotationErrorKind {
    /// What to do about it, for errors of notations that hold this one: `write 0 to 65535`.
    pub fn remedy(&self) -> impl fmt::Display {
        Remedy(self)
    }
}

/// A part of a notation, for errors that miss it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Element {
    /// Anything at all: the text is empty.
    Notation,
    /// A port.
    Port,
    /// The port before the hyphen of a range.
    RangeStart,
    /// The port after the hyphen of a range.
    RangeEnd,
    /// A port or range between two commas.
    Item,
    /// The protocol after a slash.
    Protocol,
    /// An address.
    Address,
    /// The zone after a percent sign.
    Zone,
    /// The host of a URL.
    Host,
    /// The scheme of a URL.
    Scheme,
    /// The `://` of a URL.
    SchemeEnd,
    /// The right side of a mapping.
    MappingTarget,
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Notation => "everything",
            Self::Port => "the port",
            Self::RangeStart => "the start of the range",
            Self::RangeEnd => "the end of the range",
            Self::Item => "a port between the commas",
            Self::Protocol => "the protocol",
            Self::Address => "the address",
            Self::Zone => "the zone",
            Self::Host => "the host",
            Self::Scheme => "the scheme",
            Self::SchemeEnd => "\"://\"",
            Self::MappingTarget => "the side that the port leads to",
        })
    }
}

/// A character between quotes, or its name if it would not be seen.
struct Shown(char);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            '\0' => f.write_str("a NUL"),
            char => write!(f, "'{}'", Escaped::new(char.encode_utf8(&mut [0; 4]))),
        }
    }
}

/// What to do about a fault.
struct Remedy<'a>(&'a NotationErrorKind);

impl fmt::Display for Remedy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use NotationErrorKind as Kind;
        f.write_str(match *self.0 {
            Kind::Missing(element) => match element {
                Element::Notation => "write a port, a service, an address with a port, a URL or a mapping",
                Element::Port => "write a number from 0 to 65535 or a service name",
                Element::RangeStart | Element::RangeEnd => "write both ends, as in 80-443",
                Element::Item => "write one comma between two items",
                Element::Protocol => "write /tcp or /udp, or leave the slash out",
                Element::Address => "write an address, or leave its colon out",
                Element::Zone => "write an interface, as in fe80::1%eth0, or leave the % out",
                Element::Host => "write it, as in http://localhost/",
                Element::Scheme | Element::SchemeEnd => "write it, as in http://localhost/",
                Element::MappingTarget => "write both sides, as in 8080:80",
            },
            Kind::OutOfRange => "write 0 to 65535",
            Kind::Negative => "a port is 0 to 65535; a range is written 80-443",
            Kind::Sign => "write the digits alone",
            Kind::Blank => "write it without blanks, lists with commas alone",
            Kind::ForeignDigit(_) => "write 0 to 9",
            Kind::Unexpected(_) => "leave it out, or see portolan parse --help for what can be written",
            Kind::Reversed { first, last } => return write!(f, "write {last}-{first}"),
            Kind::NotOnePort => "write one port",
            Kind::UnknownService => "portolan name '*PART*' searches the names",
            Kind::AmbiguousService { .. } => "write the number of the one that is meant",
            Kind::UnknownProtocol => "protocols are tcp, udp, udplite, sctp and dccp",
            Kind::MappingProtocol => "write /tcp, /udp or /both",
            Kind::UnclosedBracket => "write the address as [::1]",
            Kind::Ipv4Numbers | Kind::Ipv4Range => "write it as 192.0.2.1",
            Kind::Ipv6Group | Kind::Ipv6Groups => {
                "write it as 2001:db8::1, and [2001:db8::1]:443 with a port"
            }
            Kind::NeedsBrackets {
                address,
                port: Some(port),
            } => return write!(f, "write [{address}]:{port}"),
            Kind::NeedsBrackets { address, port: None } => {
                return write!(f, "write [{address}]:PORT, a port being 0 to 65535");
            }
            Kind::Ipv6WithoutPort { address } => {
                return match address.unbracketed_port() {
                    Some((address, port)) => write!(f, "for port {port} write [{address}]:{port}"),
                    None => write!(f, "write [{address}]:PORT"),
                };
            }
            Kind::ZoneOnGlobal(address) => {
                return write!(
                    f,
                    "write {address}; zones are for link-local addresses, as in fe80::1%eth0"
                );
            }
            Kind::ZoneOnIpv4 => "leave the % and what follows out",
            Kind::ZoneLength => "see the names with: ip link",
            Kind::HostLabel | Kind::HostLength => "write it as www.example.org",
            Kind::UnknownScheme => "add the port, as in scheme://host:8080/",
            Kind::RangeLengths { .. } => "write ranges of the same length, as in 8000-8010:9000-9010",
            Kind::TooManyParts => "write [ADDRESS:]PORT:[ADDRESS:]PORT, IPv6 addresses in brackets",
            Kind::PortZero => "write 1 to 65535",
        })
    }
}
