use super::{Layer, ParseError};

/// The options of an IPv4 header (RFC 791, section 3.1), one after another, up to the end-of-list.
///
/// A fault ends the walk: behind it the place of the next option is not known.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4Options<'a> {
    bytes: &'a [u8],
    offset: usize,
}

/// One option of an IPv4 header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ipv4Option<'a> {
    /// The option's type: copied flag, class and number.
    pub kind: u8,
    /// Where it begins, counted from the first option.
    pub offset: usize,
    /// What follows type and length; empty for a no-operation.
    pub data: &'a [u8],
}

impl<'a> Ipv4Options<'a> {
    /// The options in `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// The bytes of all options, padding included.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl<'a> Iterator for Ipv4Options<'a> {
    type Item = Result<Ipv4Option<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.offset;
        let rest = self.bytes.get(offset..)?;
        let kind = match *rest.first()? {
            Ipv4Option::END_OF_LIST => {
                self.offset = self.bytes.len();
                return None;
            }
            Ipv4Option::NO_OPERATION => {
                self.offset += 1;
                return Some(Ok(Ipv4Option {
                    kind: Ipv4Option::NO_OPERATION,
                    offset,
                    data: &[],
                }));
            }
            kind => kind,
        };
        let layer = Layer::Ipv4Option;
        let available = rest.len();
        let got = rest.get(1).copied().unwrap_or(2);
        let fault = if got < 2 {
            ParseError::OptionLength {
                layer,
                kind,
                offset,
                got,
            }
        } else if let Some(data) = rest.get(2..usize::from(got)) {
            self.offset += usize::from(got);
            return Some(Ok(Ipv4Option { kind, offset, data }));
        } else {
            let needed = usize::from(got);
            ParseError::OptionTruncated {
                layer,
                kind,
                offset,
                needed,
                available,
            }
        };
        self.offset = self.bytes.len();
        Some(Err(fault))
    }
}

impl Ipv4Option<'_> {
    /// Nothing follows but padding.
    pub const END_OF_LIST: u8 = 0;
    /// A byte that aligns the next option.
    pub const NO_OPERATION: u8 = 1;
    /// Routers write down their addresses.
    pub const RECORD_ROUTE: u8 = 7;
    /// Routers write down the time.
    pub const TIMESTAMP: u8 = 68;
    /// Security labels.
    pub const SECURITY: u8 = 130;
    /// The sender names routers on the way.
    pub const LOOSE_SOURCE_ROUTE: u8 = 131;
    /// The sender names all routers on the way.
    pub const STRICT_SOURCE_ROUTE: u8 = 137;
    /// Routers are to look into the packet (RFC 2113).
    pub const ROUTER_ALERT: u8 = 148;

    /// The usual name, if this crate knows the option.
    #[must_use]
    pub const fn name(&self) -> Option<&'static str> {
        match self.kind {
            Self::NO_OPERATION => Some("no-operation"),
            Self::RECORD_ROUTE => Some("record-route"),
            Self::TIMESTAMP => Some("timestamp"),
            Self::SECURITY => Some("security"),
            Self::LOOSE_SOURCE_ROUTE => Some("loose-source-route"),
            Self::STRICT_SOURCE_ROUTE => Some("strict-source-route"),
            Self::ROUTER_ALERT => Some("router-alert"),
            _ => None,
        }
    }

    /// Whether it takes the packet another way than routers would; hosts drop such packets (RFC 7126,
    /// sections 4.3 and 4.4).
    #[must_use]
    pub const fn is_source_route(&self) -> bool {
        matches!(self.kind, Self::LOOSE_SOURCE_ROUTE | Self::STRICT_SOURCE_ROUTE)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn options_are_walked_up_to_the_end_of_the_list() {
        let bytes = [1, 148, 4, 0, 0, 131, 3, 4, 0, 7, 7];
        let options = Ipv4Options::new(&bytes).collect::<Result<Vec<_>, _>>().unwrap();
        let names = options
            .iter()
            .map(|option| option.name().unwrap())
            .collect::<Vec<_>>();
        assert_eq!(names, ["no-operation", "router-alert", "loose-source-route"]);
        assert!(options[2].is_source_route());
        assert_eq!((options[1].offset, options[1].data), (1, &[0u8, 0][..]));
    }

    #[test]
    fn a_fault_names_itself_and_ends_the_walk() {
        let layer = Layer::Ipv4Option;
        let faults = |bytes| {
            Ipv4Options::new(bytes)
                .map(Result::unwrap_err)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            faults(&[7, 1, 1, 1]),
            [ParseError::OptionLength {
                layer,
                kind: 7,
                offset: 0,
                got: 1
            }]
        );
        let truncated = |needed, available| ParseError::OptionTruncated {
            layer,
            kind: 7,
            offset: 0,
            needed,
            available,
        };
        assert_eq!(faults(&[7, 5, 1, 1]), [truncated(5, 4)]);
        assert_eq!(faults(&[7]), [truncated(2, 1)]);
    }

    proptest! {
        #[test]
        fn the_walk_ends_and_stays_inside(bytes in vec(any::<u8>(), 0..=40)) {
            let mut place = 0;
            for option in Ipv4Options::new(&bytes).flatten() {
                prop_assert_eq!(option.offset, place);
                place += if option.kind == Ipv4Option::NO_OPERATION { 1 } else { option.data.len() + 2 };
                prop_assert!(place <= bytes.len());
            }
        }
    }
}
