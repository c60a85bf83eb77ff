use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{
    ChecksumFill, EmitError, IpProtocol, Layer, ParseError, PseudoHeader, SeqNum, TcpFlags, TcpOptions,
};
use crate::Port;

#[derive(Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    source_port: U16,
    destination_port: U16,
    seq: U32,
    ack: U32,
    offset_and_flags: U16,
    window: U16,
    checksum: U16,
    urgent_pointer: U16,
}

/// A view of a TCP segment (RFC 9293, section 3.1) whose lengths were checked.
///
/// The checksum is not checked by parsing: ask [`TcpSegment::has_valid_checksum`].
#[derive(Clone, Copy, Debug)]
pub struct TcpSegment<'a> {
    header: &'a Header,
    bytes: &'a [u8],
    header_len: usize,
}

impl<'a> TcpSegment<'a> {
    /// The length of a header without options.
    pub const MIN_HEADER_LEN: usize = 20;
    /// The length of a header full of options.
    pub const MAX_HEADER_LEN: usize = 60;

    /// Reads a segment, all of `bytes`.
    ///
    /// # Errors
    /// [`ParseError::Truncated`], [`ParseError::HeaderLength`]. Options are checked when they are walked.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let truncated = |needed| ParseError::Truncated {
            layer: Layer::Tcp,
            needed,
            available: bytes.len(),
        };
        let (header, _) = Header::ref_from_prefix(bytes).map_err(|_| truncated(Self::MIN_HEADER_LEN))?;
        let header_len = usize::from(header.offset_and_flags.get() >> 12) * 4;
        if header_len < Self::MIN_HEADER_LEN {
            return Err(ParseError::HeaderLength {
                layer: Layer::Tcp,
                minimum: Self::MIN_HEADER_LEN,
                got: header_len,
            });
        }
        if bytes.len() < header_len {
            return Err(truncated(header_len));
        }
        Ok(Self {
            header,
            bytes,
            header_len,
        })
    }

    /// The sender's port.
    #[must_use]
    pub fn source_port(&self) -> Port {
        Port::new(self.header.source_port.get())
    }

    /// The receiver's port.
    #[must_use]
    pub fn destination_port(&self) -> Port {
        Port::new(self.header.destination_port.get())
    }

    /// SEG.SEQ: the number of the first byte of data, or of the SYN.
    #[must_use]
    pub fn seq(&self) -> SeqNum {
        SeqNum::new(self.header.seq.get())
    }

    /// SEG.ACK: the number the sender expects next; it means something only with [`TcpFlags::ACK`].
    #[must_use]
    pub fn ack(&self) -> SeqNum {
        SeqNum::new(self.header.ack.get())
    }

    /// The length of the header with its options: 20 to 60.
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// The control bits.
    #[must_use]
    pub fn flags(&self) -> TcpFlags {
        TcpFlags::from_bits_truncate(self.header.offset_and_flags.get())
    }

    /// The three bits between data offset and flags, which are to be 0.
    #[must_use]
    pub fn reserved(&self) -> u8 {
        (self.header.offset_and_flags.get() >> 9 & 7) as u8
    }

    /// SEG.WND as it stands in the header, not shifted.
    #[must_use]
    pub fn window(&self) -> u16 {
        self.header.window.get()
    }

    /// The checksum as it stands in the header.
    #[must_use]
    pub fn checksum(&self) -> u16 {
        self.header.checksum.get()
    }

    /// SEG.UP: it means something only with [`TcpFlags::URG`].
    #[must_use]
    pub fn urgent_pointer(&self) -> u16 {
        self.header.urgent_pointer.get()
    }

    /// The options.
    #[must_use]
    pub fn options(&self) -> TcpOptions<'a> {
        TcpOptions::new(&self.bytes[Self::MIN_HEADER_LEN..self.header_len])
    }

    /// The data.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[self.header_len..]
    }

    /// SEG.LEN: the data, and one number each for SYN and FIN.
    #[must_use]
    pub fn seq_len(&self) -> u32 {
        let flags = self.flags();
        // No IP packet carries 2³² bytes.
        self.payload().len() as u32
            + u32::from(flags.contains(TcpFlags::SYN))
            + u32::from(flags.contains(TcpFlags::FIN))
    }

    /// Whether the checksum is right between these addresses.
    #[must_use]
    pub fn has_valid_checksum(&self, pseudo: PseudoHeader) -> bool {
        pseudo
            .sum(IpProtocol::TCP, self.bytes.len())
            .add_bytes(self.bytes)
            .is_valid()
    }

    /// Whether the field holds the sum of the pseudo header alone: the sender left the checksum to a
    /// device, and the capture was made before it.
    #[must_use]
    pub fn has_partial_checksum(&self, pseudo: PseudoHeader) -> bool {
        pseudo.sum(IpProtocol::TCP, self.bytes.len()).folded() == self.checksum()
    }

    /// The header's values; the reserved bits are left out.
    #[must_use]
    pub fn repr(&self) -> TcpRepr<'a> {
        TcpRepr {
            source_port: self.source_port(),
            destination_port: self.destination_port(),
            seq: self.seq(),
            ack: self.ack(),
            flags: self.flags(),
            window: self.window(),
            urgent_pointer: self.urgent_pointer(),
            options: self.options().as_bytes(),
        }
    }
}

/// The values of a TCP header; its checksum is computed when it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TcpRepr<'a> {
    /// The sender's port.
    pub source_port: Port,
    /// The receiver's port.
    pub destination_port: Port,
    /// SEG.SEQ.
    pub seq: SeqNum,
    /// SEG.ACK.
    pub ack: SeqNum,
    /// The control bits.
    pub flags: TcpFlags,
    /// SEG.WND as it stands in the header, shifted already.
    pub window: u16,
    /// SEG.UP.
    pub urgent_pointer: u16,
    /// The options with their padding, a multiple of 4 bytes, at most 40: see
    /// [`TcpOptionBlock`](super::TcpOptionBlock).
    pub options: &'a [u8],
}

impl TcpRepr<'_> {
    /// The length of the header.
    #[must_use]
    pub fn header_len(&self) -> usize {
        TcpSegment::MIN_HEADER_LEN + self.options.len()
    }

    /// Writes the header to the front of `segment`, behind which the data stands already, and gives the
    /// header's length.
    ///
    /// # Errors
    /// [`EmitError::BufferTooSmall`], [`EmitError::OptionsLength`].
    pub fn emit(&self, segment: &mut [u8], fill: ChecksumFill) -> Result<usize, EmitError> {
        let header_len = self.header_len();
        if header_len > TcpSegment::MAX_HEADER_LEN || !header_len.is_multiple_of(4) {
            return Err(EmitError::OptionsLength {
                layer: Layer::Tcp,
                multiple: 4,
                maximum: TcpSegment::MAX_HEADER_LEN - TcpSegment::MIN_HEADER_LEN,
                got: self.options.len(),
            });
        }
        let header = Header {
            source_port: self.source_port.get().into(),
            destination_port: self.destination_port.get().into(),
            seq: self.seq.get().into(),
            ack: self.ack.get().into(),
            offset_and_flags: ((header_len as u16 / 4) << 12 | self.flags.bits() & TcpFlags::all().bits())
                .into(),
            window: self.window.into(),
            checksum: 0.into(),
            urgent_pointer: self.urgent_pointer.into(),
        };
        let bytes = EmitError::reserve(Layer::Tcp, segment, header_len)?;
        let (fixed, options) = bytes.split_at_mut(TcpSegment::MIN_HEADER_LEN);
        fixed.copy_from_slice(header.as_bytes());
        options.copy_from_slice(self.options);
        let sum = fill.value(IpProtocol::TCP, segment);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        Ok(header_len)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::Sum;
    use super::*;

    proptest! {
        #[test]
        fn what_is_emitted_parses_back(
            ports: (u16, u16), numbers: (u32, u32), flags in 0u16..512, window: u16, urgent_pointer: u16,
            mut options in vec(any::<u8>(), 0..=40), payload in vec(any::<u8>(), 0..50),
            source: IpAddr, destination: IpAddr,
        ) {
            options.truncate(options.len() / 4 * 4);
            let repr = TcpRepr {
                source_port: Port::new(ports.0), destination_port: Port::new(ports.1),
                seq: SeqNum::new(numbers.0), ack: SeqNum::new(numbers.1),
                flags: TcpFlags::from_bits(flags).unwrap(), window, urgent_pointer, options: &options,
            };
            let len = repr.header_len();
            let mut segment = vec![0xFF; len];
            segment.extend(&payload);
            prop_assert_eq!(repr.emit(&mut segment, ChecksumFill::Zero), Ok(len));
            let parsed = TcpSegment::parse(&segment).unwrap();
            prop_assert_eq!(parsed.repr(), repr);
            prop_assert_eq!((parsed.payload(), parsed.reserved(), parsed.checksum()), (&payload[..], 0, 0));
            if let Some(pseudo) = PseudoHeader::new(source, destination) {
                repr.emit(&mut segment, ChecksumFill::Complete(pseudo)).unwrap();
                prop_assert!(TcpSegment::parse(&segment).unwrap().has_valid_checksum(pseudo));
                let whole = segment.clone();
                let fill = ChecksumFill::Known {
                    pseudo,
                    payload: Sum::new().add_bytes(&payload),
                    payload_len: payload.len(),
                };
                repr.emit(&mut segment[..len], fill).unwrap();
                prop_assert_eq!(&segment, &whole);
                repr.emit(&mut segment, ChecksumFill::Partial(pseudo)).unwrap();
                prop_assert!(TcpSegment::parse(&segment).unwrap().has_partial_checksum(pseudo));
            }
            for cut in 0..len {
                let fault = TcpSegment::parse(&segment[..cut]).unwrap_err();
                let is_truncated = matches!(fault, ParseError::Truncated { available, .. } if available == cut);
                prop_assert!(is_truncated, "{:?}", fault);
                let refused = repr.emit(&mut segment.clone()[..cut], ChecksumFill::Zero);
                prop_assert!(refused.is_err());
            }
        }
    }

    #[test]
    fn a_header_shorter_than_its_fixed_part_is_refused() {
        let mut segment = [0u8; 20];
        segment[12] = 0x40;
        let fault = ParseError::HeaderLength {
            layer: Layer::Tcp,
            minimum: 20,
            got: 16,
        };
        assert_eq!(TcpSegment::parse(&segment).unwrap_err(), fault);
    }

    #[test]
    fn syn_and_fin_take_a_number_each() {
        let mut segment = [0u8; 23];
        segment[12] = 0x50;
        segment[13] = 0x03;
        assert_eq!(TcpSegment::parse(&segment).unwrap().seq_len(), 5);
    }
}
