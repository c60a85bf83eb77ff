//! What two gateways say to each other over a link, byte by byte. Numbers are big-endian.
//!
//! ```text
//!   open      1, id (4), family (1), port of the program that asks (2), port asked for (2)
//!   opened    2, id (4), error number (2); 0 comes with the descriptor of a connected TCP socket
//!   datagram  3, family (1), source port (2), destination port (2), length (2), bytes
//!   refused   4, family (1), source port (2), destination port (2): those of the datagram that found a closed port
//!   ping      5, id (4), family (1)
//!   pong      6, id (4)
//! ```
//! The family is 4 or 6. Addresses are not said: each side has its own for the other.

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// Connect to your program.
    Open { id: u32, ports: Ports },
    /// That was done, or could not be, with the error number of a connect(2) that fails.
    Opened { id: u32, errno: u16 },
    /// A datagram for your program.
    Datagram { ports: Ports, bytes: &'a [u8] },
    /// Nobody holds the port that a datagram of your program was for.
    Refused { ports: Ports },
    /// Does your program's host answer?
    Ping { id: u32, is_ipv4: bool },
    /// It did.
    Pong { id: u32 },
}

/// Between which ports, over which version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) is_ipv4: bool,
    pub(super) source: u16,
    pub(super) destination: u16,
}

/// The other side says what no gateway says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// No frame is longer, in bytes.
pub(super) const FRAME_MAX: usize = 8 + u16::MAX as usize;

impl Ports {
    fn write(self, to: &mut Vec<u8>) {
        to.push(family(self.is_ipv4));
        to.extend(self.source.to_be_bytes());
        to.extend(self.destination.to_be_bytes());
    }

    fn read(bytes: [u8; 5]) -> Result<Self, Malformed> {
        let [family, source @ .., d0, d1] = bytes;
        Ok(Self {
            is_ipv4: is_ipv4(family)?,
            source: u16::from_be_bytes(source),
            destination: u16::from_be_bytes([d0, d1]),
        })
    }
}

impl<'a> Frame<'a> {
    /// Its bytes; of a datagram at most 65,535.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut to = Vec::with_capacity(12);
        match *self {
            Self::Open { id, ports } => {
                to.push(1);
                to.extend(id.to_be_bytes());
                ports.write(&mut to);
            }
            Self::Opened { id, errno } => {
                to.push(2);
                to.extend(id.to_be_bytes());
                to.extend(errno.to_be_bytes());
            }
            Self::Datagram { ports, bytes } => {
                let bytes = &bytes[..bytes.len().min(u16::MAX.into())];
                to.push(3);
                ports.write(&mut to);
                to.extend((bytes.len() as u16).to_be_bytes());
                to.extend_from_slice(bytes);
            }
            Self::Refused { ports } => {
                to.push(4);
                ports.write(&mut to);
            }
            Self::Ping { id, is_ipv4 } => {
                to.push(5);
                to.extend(id.to_be_bytes());
                to.push(family(is_ipv4));
            }
            Self::Pong { id } => {
                to.push(6);
                to.extend(id.to_be_bytes());
            }
        }
        to
    }

    /// The first frame of `bytes`, and what follows it; `None` if it is not whole yet.
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Option<(Self, &'a [u8])>, Malformed> {
        let Some((&kind, bytes)) = bytes.split_first() else {
            return Ok(None);
        };
        match kind {
            1 => {
                let Some((id, rest)) = bytes.split_first_chunk() else {
                    return Ok(None);
                };
                let Some((&ports, rest)) = rest.split_first_chunk() else {
                    return Ok(None);
                };
                let (id, ports) = (u32::from_be_bytes(*id), Ports::read(ports)?);
                Ok(Some((Self::Open { id, ports }, rest)))
            }
            2 => {
                let Some((id, rest)) = bytes.split_first_chunk() else {
                    return Ok(None);
                };
                let Some((errno, rest)) = rest.split_first_chunk() else {
                    return Ok(None);
                };
                let (id, errno) = (u32::from_be_bytes(*id), u16::from_be_bytes(*errno));
                Ok(Some((Self::Opened { id, errno }, rest)))
            }
            3 => {
                let Some((&ports, rest)) = bytes.split_first_chunk() else {
                    return Ok(None);
                };
                let ports = Ports::read(ports)?;
                let Some((len, rest)) = rest.split_first_chunk() else {
                    return Ok(None);
                };
                let whole = rest.split_at_checked(u16::from_be_bytes(*len).into());
                Ok(whole.map(|(bytes, rest)| (Self::Datagram { ports, bytes }, rest)))
            }
            4 => {
                let Some((&ports, rest)) = bytes.split_first_chunk() else {
                    return Ok(None);
                };
                let ports = Ports::read(ports)?;
                Ok(Some((Self::Refused { ports }, rest)))
            }
            5 => {
                let Some((&[id @ .., family], rest)) = bytes.split_first_chunk::<5>() else {
                    return Ok(None);
                };
                let (id, is_ipv4) = (u32::from_be_bytes(id), is_ipv4(family)?);
                Ok(Some((Self::Ping { id, is_ipv4 }, rest)))
            }
            6 => {
                let Some((&id, rest)) = bytes.split_first_chunk() else {
                    return Ok(None);
                };
                let id = u32::from_be_bytes(id);
                Ok(Some((Self::Pong { id }, rest)))
            }
            _ => Err(Malformed),
        }
    }
}

const fn family(is_ipv4: bool) -> u8 {
    if is_ipv4 { 4 } else { 6 }
}

fn is_ipv4(family: u8) -> Result<bool, Malformed> {
    match family {
        4 => Ok(true),
        6 => Ok(false),
        _ => Err(Malformed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_said_is_understood_also_in_pieces() {
        let ports = |is_ipv4| Ports {
            is_ipv4,
            source: 0xfedc,
            destination: 80,
        };
        let long = vec![7; 65_535];
        for frame in [
            Frame::Open {
                id: 0x0102_0304,
                ports: ports(true),
            },
            Frame::Opened {
                id: u32::MAX,
                errno: 111,
            },
            Frame::Datagram {
                ports: ports(false),
                bytes: &[],
            },
            Frame::Datagram {
                ports: ports(true),
                bytes: &long,
            },
            Frame::Refused { ports: ports(false) },
            Frame::Ping {
                id: 7,
                is_ipv4: false,
            },
            Frame::Pong { id: 0x0A0B_0C0D },
        ] {
            let bytes = frame.encode();
            assert!(bytes.len() <= FRAME_MAX);
            assert_eq!(Frame::decode(&bytes), Ok(Some((frame, &[][..]))));
            for len in (0..bytes.len()).take(32).chain([bytes.len() - 1]) {
                assert_eq!(Frame::decode(&bytes[..len]), Ok(None), "{len}");
            }
        }
    }

    #[test]
    fn what_no_gateway_says_is_malformed() {
        for bytes in [
            &[0][..],
            &[7],
            &[4, 9, 0, 0, 0, 0],
            &[5, 0, 0, 0, 0, 1],
            &[1, 0, 0, 0, 0, 5, 0, 0, 0, 0],
            &[3, 7, 0, 0, 0, 0],
        ] {
            assert_eq!(Frame::decode(bytes), Err(Malformed), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_understood_is_what_was_said(bytes in proptest::collection::vec(0_u8..8, 0..64)) {
            if let Ok(Some((frame, rest))) = Frame::decode(&bytes) {
                prop_assert_eq!(&frame.encode()[..], &bytes[..bytes.len() - rest.len()]);
            }
        }
    }
}
