use super::{IpProtocol, Layer, ParseError, PseudoHeader};
use crate::Port;

const HEADER_LEN: usize = 8;

/// A view of a UDP-Lite datagram (RFC 3828), whose checksum may cover only its front.
#[derive(Clone, Copy, Debug)]
pub struct UdpLiteDatagram<'a> {
    header: &'a [u8; HEADER_LEN],
    bytes: &'a [u8],
    payload: &'a [u8],
}

impl<'a> UdpLiteDatagram<'a> {
    /// The length of the header.
    pub const HEADER_LEN: usize = HEADER_LEN;

    /// Reads a datagram, all of `bytes`.
    ///
    /// # Errors
    /// [`ParseError::Truncated`], [`ParseError::Coverage`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let (header, payload) = bytes.split_first_chunk().ok_or(ParseError::Truncated {
            layer: Layer::UdpLite,
            needed: Self::HEADER_LEN,
            available: bytes.len(),
        })?;
        let datagram = Self {
            header,
            bytes,
            payload,
        };
        let got = usize::from(datagram.coverage());
        if (1..Self::HEADER_LEN).contains(&got) || got > bytes.len() {
            return Err(ParseError::Coverage {
                maximum: bytes.len(),
                got,
            });
        }
        Ok(datagram)
    }

    /// The sender's port.
    #[must_use]
    pub fn source_port(&self) -> Port {
        Port::new(self.word(0))
    }

    /// The receiver's port.
    #[must_use]
    pub fn destination_port(&self) -> Port {
        Port::new(self.word(2))
    }

    /// How many bytes the checksum covers, the header included; 0 means all of them.
    #[must_use]
    pub fn coverage(&self) -> u16 {
        self.word(4)
    }

    /// The checksum as it stands in the header; it is never absent.
    #[must_use]
    pub fn checksum(&self) -> u16 {
        self.word(6)
    }

    /// The data.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Whether the checksum over the covered part is right between these addresses. The pseudo header has
    /// the length of the whole datagram (RFC 3828, section 3.1).
    #[must_use]
    pub fn has_valid_checksum(&self, pseudo: PseudoHeader) -> bool {
        let covered = match usize::from(self.coverage()) {
            0 => self.bytes,
            coverage => &self.bytes[..coverage],
        };
        self.checksum() != 0
            && pseudo
                .sum(IpProtocol::UDP_LITE, self.bytes.len())
                .add_bytes(covered)
                .is_valid()
    }

    fn word(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.header[at], self.header[at + 1]])
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn only_the_covered_part_is_summed(payload in vec(any::<u8>(), 1..40), coverage: u16) {
            let mut bytes = vec![0, 80, 1, 187, 0, 0, 0, 0];
            bytes.extend(&payload);
            let coverage = 8 + coverage % (payload.len() as u16 + 1);
            bytes[4..6].copy_from_slice(&coverage.to_be_bytes());
            let pseudo = PseudoHeader::new(IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])).unwrap();
            let sum = pseudo.sum(IpProtocol::UDP_LITE, bytes.len()).add_bytes(&bytes[..usize::from(coverage)]);
            prop_assume!(sum.checksum() != 0);
            bytes[6..8].copy_from_slice(&sum.checksum().to_be_bytes());
            let datagram = UdpLiteDatagram::parse(&bytes).unwrap();
            prop_assert!(datagram.has_valid_checksum(pseudo));
            prop_assert_eq!((datagram.source_port().get(), datagram.destination_port().get()), (80, 443));
            prop_assert_eq!(datagram.payload(), &payload);
            for place in usize::from(coverage)..bytes.len() {
                let mut changed = bytes.clone();
                changed[place] ^= 1;
                prop_assert!(UdpLiteDatagram::parse(&changed).unwrap().has_valid_checksum(pseudo));
            }
        }
    }

    #[test]
    fn a_coverage_outside_the_datagram_is_refused() {
        let with = |coverage| UdpLiteDatagram::parse(&[0, 1, 0, 2, 0, coverage, 0, 0, 9]).map(|_| ());
        for got in [1, 7, 10] {
            assert_eq!(
                with(got),
                Err(ParseError::Coverage {
                    maximum: 9,
                    got: usize::from(got)
                })
            );
        }
        assert_eq!((with(0), with(8), with(9)), (Ok(()), Ok(()), Ok(())));
        assert!(UdpLiteDatagram::parse(&[0; 7]).is_err());
    }
}
