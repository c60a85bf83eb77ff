//! What Linux puts before a packet captured on the `any` device: LINKTYPE_LINUX_SLL and LINKTYPE_LINUX_SLL2.

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{EmitError, EtherType, Layer, ParseError};

/// From where to where a captured packet went, as seen by the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PacketDirection {
    /// To this host.
    ToUs,
    /// To every station.
    Broadcast,
    /// To a group.
    Multicast,
    /// Between others.
    ToOther,
    /// From this host.
    FromUs,
    /// A number that is not assigned.
    Unknown(u16),
}

impl PacketDirection {
    const fn new(number: u16) -> Self {
        match number {
            0 => Self::ToUs,
            1 => Self::Broadcast,
            2 => Self::Multicast,
            3 => Self::ToOther,
            4 => Self::FromUs,
            other => Self::Unknown(other),
        }
    }

    /// The number in the header.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::ToUs => 0,
            Self::Broadcast => 1,
            Self::Multicast => 2,
            Self::ToOther => 3,
            Self::FromUs => 4,
            Self::Unknown(number) => number,
        }
    }

    /// In a word or two.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ToUs => "to us",
            Self::Broadcast => "broadcast",
            Self::Multicast => "multicast",
            Self::ToOther => "to another host",
            Self::FromUs => "from us",
            Self::Unknown(_) => "unknown",
        }
    }
}

#[derive(Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct HeaderV1 {
    direction: U16,
    device_type: U16,
    address_len: U16,
    address: [u8; 8],
    protocol: U16,
}

#[derive(Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct HeaderV2 {
    protocol: U16,
    reserved: U16,
    interface: U32,
    device_type: U16,
    direction: u8,
    address_len: u8,
    address: [u8; 8],
}

/// A packet behind a Linux cooked header of either version.
#[derive(Clone, Copy, Debug)]
pub struct CookedFrame<'a> {
    repr: CookedRepr,
    payload: &'a [u8],
}

/// The values of a Linux cooked header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CookedRepr {
    /// The index of the interface: only version 2 has it, and having it makes the header one of version 2.
    pub interface: Option<u32>,
    /// The kind of device (`ARPHRD_*`): 1 is Ethernet, 772 loopback.
    pub device_type: u16,
    /// From where to where.
    pub direction: PacketDirection,
    /// How long the address of the sender is; more than 8 means that it was cut.
    pub address_len: u16,
    /// The address of the sender in the link layer, as far as it fits.
    pub address: [u8; 8],
    /// The type of the payload.
    pub protocol: EtherType,
}

impl<'a> CookedFrame<'a> {
    /// The length of a header of version 1.
    pub const V1_HEADER_LEN: usize = 16;
    /// The length of a header of version 2.
    pub const V2_HEADER_LEN: usize = 20;

    /// Reads a header of version 1.
    ///
    /// # Errors
    /// [`ParseError::Truncated`].
    pub fn parse_v1(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let (header, payload) = HeaderV1::ref_from_prefix(bytes).map_err(|_| ParseError::Truncated {
            layer: Layer::CookedV1,
            needed: Self::V1_HEADER_LEN,
            available: bytes.len(),
        })?;
        let repr = CookedRepr {
            interface: None,
            device_type: header.device_type.get(),
            direction: PacketDirection::new(header.direction.get()),
            address_len: header.address_len.get(),
            address: header.address,
            protocol: EtherType::new(header.protocol.get()),
        };
        Ok(Self { repr, payload })
    }

    /// Reads a header of version 2.
    ///
    /// # Errors
    /// [`ParseError::Truncated`].
    pub fn parse_v2(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let (header, payload) = HeaderV2::ref_from_prefix(bytes).map_err(|_| ParseError::Truncated {
            layer: Layer::CookedV2,
            needed: Self::V2_HEADER_LEN,
            available: bytes.len(),
        })?;
        let repr = CookedRepr {
            interface: Some(header.interface.get()),
            device_type: header.device_type.get(),
            direction: PacketDirection::new(u16::from(header.direction)),
            address_len: u16::from(header.address_len),
            address: header.address,
            protocol: EtherType::new(header.protocol.get()),
        };
        Ok(Self { repr, payload })
    }

    /// The header's values.
    #[must_use]
    pub fn repr(&self) -> CookedRepr {
        self.repr
    }

    /// The type of the payload.
    #[must_use]
    pub fn protocol(&self) -> EtherType {
        self.repr.protocol
    }

    /// What follows the header.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

impl CookedRepr {
    /// The length of the header: 16, or 20 in version 2.
    #[must_use]
    pub fn header_len(&self) -> usize {
        match self.interface {
            None => CookedFrame::V1_HEADER_LEN,
            Some(_) => CookedFrame::V2_HEADER_LEN,
        }
    }

    /// Writes the header to the front of `buffer` and gives its length.
    ///
    /// # Errors
    /// [`EmitError::BufferTooSmall`]; [`EmitError::FieldRange`] when version 2 has only 8 bits for a value.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let Self {
            interface,
            device_type,
            direction,
            address_len,
            address,
            protocol,
        } = *self;
        let needed = self.header_len();
        match interface {
            None => {
                let header = HeaderV1 {
                    direction: direction.number().into(),
                    device_type: device_type.into(),
                    address_len: address_len.into(),
                    address,
                    protocol: protocol.get().into(),
                };
                EmitError::reserve(Layer::CookedV1, buffer, needed)?.copy_from_slice(header.as_bytes());
            }
            Some(interface) => {
                let byte = |field, value: u16| {
                    u8::try_from(value).map_err(|_| EmitError::FieldRange {
                        layer: Layer::CookedV2,
                        field,
                        maximum: 255,
                        got: u32::from(value),
                    })
                };
                let header = HeaderV2 {
                    protocol: protocol.get().into(),
                    reserved: 0.into(),
                    interface: interface.into(),
                    device_type: device_type.into(),
                    direction: byte("packet type", direction.number())?,
                    address_len: byte("address length", address_len)?,
                    address,
                };
                EmitError::reserve(Layer::CookedV2, buffer, needed)?.copy_from_slice(header.as_bytes());
            }
        }
        Ok(needed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_emitted_parses_back(
            interface: Option<u32>, device_type: u16, direction: u8, address_len: u8, address: [u8; 8],
            protocol: u16, payload: [u8; 3]
        ) {
            let repr = CookedRepr {
                interface, device_type, direction: PacketDirection::new(u16::from(direction)),
                address_len: u16::from(address_len), address, protocol: EtherType::new(protocol),
            };
            let mut frame = vec![0; repr.header_len()];
            prop_assert_eq!(repr.emit(&mut frame), Ok(frame.len()));
            frame.extend(payload);
            let parse = |bytes| match interface {
                None => CookedFrame::parse_v1(bytes),
                Some(_) => CookedFrame::parse_v2(bytes),
            };
            let parsed = parse(&frame).unwrap();
            prop_assert_eq!(parsed.repr(), repr);
            prop_assert_eq!(parsed.payload(), &payload);
            let cut = parse(&frame[..repr.header_len() - 1]);
            prop_assert!(cut.is_err());
        }
    }
}
