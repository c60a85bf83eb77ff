use super::{EmitError, IpProtocol, Layer, ParseError};

/// One extension header of an IPv6 packet (RFC 8200, section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtensionHeader<'a> {
    kind: IpProtocol,
    next_header: IpProtocol,
    offset: usize,
    bytes: &'a [u8],
}

impl<'a> ExtensionHeader<'a> {
    /// What the header before calls it: hop-by-hop, routing, fragment and so on.
    #[must_use]
    pub fn kind(&self) -> IpProtocol {
        self.kind
    }

    /// What follows it.
    #[must_use]
    pub fn next_header(&self) -> IpProtocol {
        self.next_header
    }

    /// Where it begins, counted from the end of the fixed header.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// All of its bytes; never fewer than 8.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What follows its next-header and length bytes.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        &self.bytes[2..]
    }

    /// Its values, if it is a fragment header.
    #[must_use]
    pub fn fragment(&self) -> Option<Fragment> {
        let (&[high, low], rest) = self.body().split_first_chunk()?;
        let identification = u32::from_be_bytes(*rest.first_chunk()?);
        let field = u16::from_be_bytes([high, low]);
        (self.kind == IpProtocol::FRAGMENT).then_some(Fragment {
            offset: field & 0xFFF8,
            more: field & 1 != 0,
            identification,
        })
    }

    /// How many routers are still to be visited, if it is a routing header.
    #[must_use]
    pub fn segments_left(&self) -> Option<u8> {
        (self.kind == IpProtocol::ROUTING).then_some(self.bytes[3])
    }
}

/// The values of a fragment header (RFC 8200, section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fragment {
    /// Where the payload belongs in the whole one, in bytes: a multiple of 8.
    pub offset: u16,
    /// Whether further fragments follow.
    pub more: bool,
    /// What fragments of one packet have in common.
    pub identification: u32,
}

/// The extension headers at the front of an IPv6 payload, one after another.
///
/// The walk stops at the first header that is not an extension, behind a fragment header that is not of
/// the first fragment (what follows then is data from somewhere in the middle), and at
/// [`ExtensionHeaders::LIMIT`] headers.
#[derive(Clone, Copy, Debug)]
pub struct ExtensionHeaders<'a> {
    payload: &'a [u8],
    offset: usize,
    next_header: IpProtocol,
    walked: usize,
    fragment: Option<Fragment>,
    stopped: bool,
}

impl<'a> ExtensionHeaders<'a> {
    /// How many headers are followed. RFC 8504, section 5.3, lets a host limit them; each kind is to occur
    /// once, destination options twice, so a packet that means well has at most seven.
    pub const LIMIT: usize = 16;

    /// The headers in `payload`, the first of which is of kind `first`.
    #[must_use]
    pub const fn new(first: IpProtocol, payload: &'a [u8]) -> Self {
        Self {
            payload,
            offset: 0,
            next_header: first,
            walked: 0,
            fragment: None,
            stopped: false,
        }
    }

    /// The kind of what comes next: after the walk, of the upper-layer protocol.
    #[must_use]
    pub const fn next_header(&self) -> IpProtocol {
        self.next_header
    }

    /// How many bytes were walked over.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// The last fragment header that was met.
    #[must_use]
    pub const fn fragment(&self) -> Option<Fragment> {
        self.fragment
    }

    /// Reads the header that comes next, or says why it cannot be read.
    fn read(&self) -> Result<ExtensionHeader<'a>, ParseError> {
        if self.walked == Self::LIMIT {
            return Err(ParseError::TooManyExtensions { limit: Self::LIMIT });
        }
        let rest = &self.payload[self.offset..];
        let truncated = |needed| ParseError::Truncated {
            layer: Layer::Ipv6Extension,
            needed,
            available: rest.len(),
        };
        let &[next_header, length, ..] = rest else {
            return Err(truncated(8));
        };
        let len = match self.next_header {
            IpProtocol::FRAGMENT => 8,
            // RFC 4302, section 2.2: in units of 4 bytes, minus 2. A header shorter than its own fixed
            // part would be 8 bytes; that is the least.
            IpProtocol::AUTHENTICATION => (usize::from(length) + 2) * 4,
            _ => (usize::from(length) + 1) * 8,
        };
        Ok(ExtensionHeader {
            kind: self.next_header,
            next_header: IpProtocol::new(next_header),
            offset: self.offset,
            bytes: rest.get(..len).ok_or_else(|| truncated(len))?,
        })
    }
}

/// Whether a header of this kind is an extension that can be passed over.
const fn is_extension(kind: IpProtocol) -> bool {
    matches!(
        kind,
        IpProtocol::HOP_BY_HOP
            | IpProtocol::ROUTING
            | IpProtocol::FRAGMENT
            | IpProtocol::AUTHENTICATION
            | IpProtocol::DESTINATION_OPTIONS
            | IpProtocol::MOBILITY
            | IpProtocol::HOST_IDENTITY
            | IpProtocol::SHIM6
    )
}

impl<'a> Iterator for ExtensionHeaders<'a> {
    type Item = Result<ExtensionHeader<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.stopped || !is_extension(self.next_header) {
            return None;
        }
        let header = self.read();
        match header {
            Ok(header) => {
                self.offset += header.bytes.len();
                self.next_header = header.next_header;
                self.walked += 1;
                if let Some(fragment) = header.fragment() {
                    self.fragment = Some(fragment);
                    self.stopped = fragment.offset != 0;
                }
            }
            Err(_) => self.stopped = true,
        }
        Some(header)
    }
}

/// The values of an extension header to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExtensionRepr<'a> {
    /// A fragment header.
    Fragment(Fragment),
    /// Any other kind, as what follows its length byte: 8 bytes times n, minus 2; for an authentication
    /// header 4 bytes times n, minus 2, and at least 6.
    Other {
        /// The kind.
        kind: IpProtocol,
        /// What follows the next-header and length bytes.
        body: &'a [u8],
    },
}

impl ExtensionRepr<'_> {
    /// The kind, which the header before has to announce.
    #[must_use]
    pub fn kind(&self) -> IpProtocol {
        match self {
            Self::Fragment(_) => IpProtocol::FRAGMENT,
            Self::Other { kind, .. } => *kind,
        }
    }

    /// The length of the header.
    #[must_use]
    pub fn header_len(&self) -> usize {
        match self {
            Self::Fragment(_) => 8,
            Self::Other { body, .. } => body.len() + 2,
        }
    }

    /// Writes the header, after which `next_header` follows, to the front of `buffer` and gives its length.
    ///
    /// # Errors
    /// [`EmitError::BufferTooSmall`], [`EmitError::OptionsLength`], [`EmitError::FieldRange`].
    pub fn emit(&self, next_header: IpProtocol, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let needed = self.header_len();
        let layer = Layer::Ipv6Extension;
        match self {
            Self::Fragment(fragment) => {
                if !fragment.offset.is_multiple_of(8) {
                    return Err(EmitError::FieldRange {
                        layer,
                        field: "fragment offset, in whole eights,",
                        maximum: 65_528,
                        got: u32::from(fragment.offset),
                    });
                }
                let header = EmitError::reserve(layer, buffer, needed)?;
                header[..2].copy_from_slice(&[next_header.get(), 0]);
                header[2..4].copy_from_slice(&(fragment.offset | u16::from(fragment.more)).to_be_bytes());
                header[4..].copy_from_slice(&fragment.identification.to_be_bytes());
            }
            Self::Other { kind, body } => {
                let (unit, less) = match *kind {
                    IpProtocol::AUTHENTICATION => (4, 2),
                    _ => (8, 1),
                };
                let length = needed
                    .is_multiple_of(unit)
                    .then(|| (needed / unit).checked_sub(less))
                    .flatten()
                    .and_then(|length| u8::try_from(length).ok())
                    .ok_or(EmitError::OptionsLength {
                        layer,
                        multiple: unit,
                        maximum: (255 + less) * unit,
                        got: needed,
                    })?;
                let header = EmitError::reserve(layer, buffer, needed)?;
                header[..2].copy_from_slice(&[next_header.get(), length]);
                header[2..].copy_from_slice(body);
            }
        }
        Ok(needed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn extension() -> impl Strategy<Value = (u8, Vec<u8>)> {
        let kinds = [0u8, 43, 51, 60, 135, 139, 140];
        (0..kinds.len(), 1usize..5, any::<[u8; 40]>())
            .prop_map(move |(kind, units, bytes)| (kinds[kind], bytes[..units * 8 - 2].to_vec()))
    }

    proptest! {
        #[test]
        fn a_chain_that_is_emitted_is_walked_back(chain in vec(extension(), 0..8), fragment: Option<(u16, bool, u32)>) {
            let mut reprs = chain.iter()
                .map(|(kind, body)| ExtensionRepr::Other { kind: IpProtocol::new(*kind), body })
                .collect::<Vec<_>>();
            if let Some((offset, more, identification)) = fragment {
                reprs.push(ExtensionRepr::Fragment(Fragment { offset: offset & 0xFFF8, more, identification }));
            }
            let mut bytes = Vec::new();
            for (place, repr) in reprs.iter().enumerate() {
                let next = reprs.get(place + 1).map_or(IpProtocol::TCP, ExtensionRepr::kind);
                let mut header = vec![0; repr.header_len()];
                prop_assert_eq!(repr.emit(next, &mut header), Ok(header.len()));
                bytes.extend(header);
            }
            let len = bytes.len();
            bytes.extend([6; 9]);
            let first = reprs.first().map_or(IpProtocol::TCP, ExtensionRepr::kind);
            let mut walk = ExtensionHeaders::new(first, &bytes);
            let walked = walk.by_ref().collect::<Result<Vec<_>, _>>().unwrap();
            prop_assert_eq!(walked.len(), reprs.len());
            for (header, repr) in walked.iter().zip(&reprs) {
                let read = match header.fragment() {
                    Some(fragment) => ExtensionRepr::Fragment(fragment),
                    None => ExtensionRepr::Other { kind: header.kind(), body: header.body() },
                };
                prop_assert_eq!(read, *repr);
            }
            prop_assert_eq!((walk.offset(), walk.next_header()), (len, IpProtocol::TCP));
        }

        #[test]
        fn any_chain_ends(first: u8, bytes in vec(prop_oneof![Just(0u8), Just(60), any::<u8>()], 0..400)) {
            let mut walk = ExtensionHeaders::new(IpProtocol::new(first), &bytes);
            let steps = walk.by_ref().count();
            prop_assert!(steps <= ExtensionHeaders::LIMIT + 1);
            prop_assert!(walk.offset() <= bytes.len());
        }
    }

    #[test]
    fn a_chain_without_end_is_given_up_at_the_limit() {
        let bytes = [0u8; 8 * 100];
        let walked = ExtensionHeaders::new(IpProtocol::HOP_BY_HOP, &bytes).collect::<Vec<_>>();
        assert_eq!(walked.len(), 17);
        assert_eq!(walked[16], Err(ParseError::TooManyExtensions { limit: 16 }));
    }

    #[test]
    fn behind_a_later_fragment_nothing_is_read_as_a_header() {
        let mut bytes = [0u8; 24];
        bytes[..4].copy_from_slice(&[0, 0, 0, 8]);
        let mut walk = ExtensionHeaders::new(IpProtocol::FRAGMENT, &bytes);
        assert_eq!(walk.by_ref().count(), 1);
        assert_eq!((walk.offset(), walk.next_header()), (8, IpProtocol::HOP_BY_HOP));
    }

    #[test]
    fn a_cut_header_says_how_much_is_missing() {
        let fault = |kind, bytes| ExtensionHeaders::new(kind, bytes).next().unwrap().unwrap_err();
        let truncated = |needed, available| ParseError::Truncated {
            layer: Layer::Ipv6Extension,
            needed,
            available,
        };
        assert_eq!(fault(IpProtocol::ROUTING, &[6]), truncated(8, 1));
        assert_eq!(fault(IpProtocol::ROUTING, &[6, 2, 0, 0]), truncated(24, 4));
        assert_eq!(fault(IpProtocol::AUTHENTICATION, &[6, 1, 0, 0]), truncated(12, 4));
    }
}
