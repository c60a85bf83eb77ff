use portolan_core::wire::{EtherType, EthernetFrame, IpPacket, LinkType, ParseError};

/// What bytes without a capture file around them most likely begin with.
///
/// An IP packet gives itself away by its length or its checksum, an Ethernet frame by a type that is known;
/// failing both, by its version alone. `None` if nothing fits.
#[must_use]
pub fn guess_link(bytes: &[u8]) -> Option<LinkType> {
    let ip = IpPacket::parse_truncated(bytes);
    let is_plainly_ip = match &ip {
        Ok(IpPacket::V4(packet)) => {
            packet.has_valid_checksum() || usize::from(packet.total_length()) == bytes.len()
        }
        Ok(IpPacket::V6(packet)) => usize::from(packet.payload_length()) + 40 == bytes.len(),
        Err(_) => false,
    };
    if is_plainly_ip {
        return Some(LinkType::Ip);
    }
    if let Ok(frame) = EthernetFrame::parse(bytes)
        && matches!(
            frame.ethertype(),
            EtherType::IPV4 | EtherType::IPV6 | EtherType::ARP
        )
    {
        return Some(LinkType::Ethernet);
    }
    match ip {
        Ok(_) => Some(LinkType::Ip),
        // Too short even for its header, but its version is right: the error will say what is missing.
        Err(ParseError::Truncated { .. }) => Some(LinkType::Ip),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_and_frames_are_told_apart() {
        let packet = [
            0x45, 0, 0, 24, 0, 0, 0, 0, 64, 17, 0, 0, 8, 0, 0, 1, 10, 0, 0, 2, 0, 0, 0, 0,
        ];
        assert_eq!(
            guess_link(&packet),
            Some(LinkType::Ip),
            "its source address looks like an EtherType"
        );
        let mut frame = vec![0x45; 12];
        frame.extend([0x08, 0x00]);
        frame.extend(packet);
        assert_eq!(
            guess_link(&frame),
            Some(LinkType::Ethernet),
            "its first byte looks like IPv4"
        );
        let cut = [&packet[..12], &[10, 0, 0, 1], &packet[16..22]].concat();
        assert_eq!(guess_link(&cut), Some(LinkType::Ip));
        assert_eq!(guess_link(&packet[..9]), Some(LinkType::Ip));
        let mut six = vec![0x60, 0, 0, 0, 0, 0, 59, 64];
        six.extend([0; 32]);
        assert_eq!(guess_link(&six), Some(LinkType::Ip));
        for bytes in [&[][..], &[0], &[0xFF; 60]] {
            assert_eq!(guess_link(bytes), None);
        }
    }
}
