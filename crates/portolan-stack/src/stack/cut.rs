//! A datagram of ours that is longer than its path goes in fragments (RFC 791, section 3.2; RFC 8200, section 4.5).

use std::net::IpAddr;

use portolan_core::demux::FourTuple;
use portolan_core::wire::{
    ExtensionRepr, Fragment, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, PseudoHeader, Sum,
};

use super::output::{IpFields, mapped};

/// UDP's and ICMP's header.
pub(super) const HEADER_LEN: usize = 8;
/// IPv6's fragment header.
const FRAGMENT_HEADER: usize = 8;
/// Checksums of long datagrams are made in parts of this, an even number.
const PART: usize = 2048;

/// How far a datagram has gone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// The header of the datagram, checksum included.
    header: [u8; HEADER_LEN],
    /// How many bytes went, the header counted.
    sent: usize,
    identification: u32,
    /// The longest packet.
    mtu: usize,
}

impl Cut {
    pub(super) const fn new(header: [u8; HEADER_LEN], identification: u32, mtu: usize) -> Self {
        Self {
            header,
            sent: 0,
            identification,
            mtu,
        }
    }

    /// Writes the next fragment of a datagram with `data_len` bytes behind its header, which `copy` copies from an
    /// offset. Gives the length of the packet and whether it was the last.
    pub(super) fn write_next(
        &mut self,
        tuple: &FourTuple,
        fields: IpFields,
        data_len: usize,
        copy: impl FnOnce(usize, &mut [u8]),
        buffer: &mut [u8],
    ) -> (usize, bool) {
        let total = HEADER_LEN + data_len;
        let ends = (tuple.local().ip(), tuple.remote().ip());
        let headers = match ends.0 {
            IpAddr::V4(_) => Ipv4Packet::MIN_HEADER_LEN,
            IpAddr::V6(_) => Ipv6Packet::HEADER_LEN + FRAGMENT_HEADER,
        };
        let room = (self.mtu - headers) / 8 * 8;
        let len = room.min(total - self.sent);
        let (offset, more) = (self.sent, self.sent + len < total);
        let payload = &mut buffer[headers..headers + len];
        if offset == 0 {
            payload[..HEADER_LEN].copy_from_slice(&self.header);
            copy(0, &mut payload[HEADER_LEN..]);
        } else {
            copy(offset - HEADER_LEN, payload);
        }
        self.sent += len;
        // No datagram is longer than 65,535 bytes.
        let offset = offset as u16;
        let written = match ends {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Ipv4Repr {
                dscp: fields.dscp,
                ecn: fields.ecn,
                identification: self.identification as u16,
                dont_fragment: false,
                more_fragments: more,
                fragment_offset: offset,
                time_to_live: fields.hop_limit,
                protocol: fields.protocol,
                source,
                destination,
                options: &[],
                payload_len: len,
            }
            .emit(buffer),
            (source, destination) => {
                let fragment = Fragment {
                    offset,
                    more,
                    identification: self.identification,
                };
                let header = &mut buffer[Ipv6Packet::HEADER_LEN..headers];
                ExtensionRepr::Fragment(fragment)
                    .emit(fields.protocol, header)
                    .and_then(|_| {
                        Ipv6Repr {
                            dscp: fields.dscp,
                            ecn: fields.ecn,
                            flow_label: 0,
                            next_header: IpProtocol::FRAGMENT,
                            hop_limit: fields.hop_limit,
                            source: mapped(source),
                            destination: mapped(destination),
                            payload_len: FRAGMENT_HEADER + len,
                        }
                        .emit(buffer)
                    })
            }
        };
        debug_assert!(
            written.is_ok(),
            "the buffer takes a packet of the link: {written:?}"
        );
        (headers + len, !more)
    }
}

/// The checksum over a pseudo header, if there is one, a header whose checksum field is 0, and `data_len` bytes that
/// `copy` copies from an offset.
pub(super) fn checksum_of(
    pseudo: Option<(PseudoHeader, IpProtocol)>,
    header: &[u8; HEADER_LEN],
    data_len: usize,
    mut copy: impl FnMut(usize, &mut [u8]),
) -> u16 {
    let sum = pseudo.map_or_else(Sum::new, |(pseudo, protocol)| {
        pseudo.sum(protocol, HEADER_LEN + data_len)
    });
    let mut sum = sum.add_bytes(header);
    let mut part = [0; PART];
    for offset in (0..data_len).step_by(PART) {
        let part = &mut part[..PART.min(data_len - offset)];
        copy(offset, part);
        sum = sum.add_bytes(part);
    }
    sum.checksum()
}
