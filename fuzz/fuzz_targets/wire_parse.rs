//! Any bytes on any link: every layer, every accessor.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portolan_core::wire::{Dissection, IpPacket, LinkType, Transport};

fuzz_target!(|input: (u8, &[u8])| {
    let (link, bytes) = input;
    let link = LinkType::ALL[usize::from(link) % LinkType::ALL.len()];
    let found = Dissection::of(link, bytes);
    assert!(found.fault.is_some() || found.transport.is_some() || found.not_ip.is_some());
    let Some(ip) = found.ip else { return };
    assert!(ip.header_len() + ip.payload().len() <= bytes.len());
    // What parses strictly reads the same when cuts are allowed, but for the length 0 of jumbograms.
    if let Some(header) = found.link
        && let Ok(strict) = IpPacket::parse(header.payload())
        && !matches!(strict, IpPacket::V6(packet) if packet.payload_length() == 0)
    {
        assert_eq!(strict.payload(), ip.payload());
        assert_eq!(strict.ports(), ip.ports());
    }
    match ip {
        IpPacket::V4(packet) => {
            let (valid, options) = (packet.has_valid_checksum(), packet.options().count());
            assert!(options <= 40);
            if valid {
                // A header with the right checksum is emitted bit for bit, unless the reserved flag is set or
                // the two zeros of one's complement differ.
                let mut again = vec![0; packet.header_len()];
                if packet.total_length() != 0 {
                    packet.repr().emit(&mut again).expect("what was parsed can be emitted");
                    assert!(again[..6] == packet.header_bytes()[..6]);
                    assert!(again[12..] == packet.header_bytes()[12..]);
                }
            }
        }
        IpPacket::V6(packet) => {
            assert!(packet.extensions().count() <= 17);
        }
    }
    if let Some(transport) = found.transport {
        assert!(transport.header_len() <= ip.payload().len());
        std::hint::black_box(transport.checksum_state(&ip));
        if let Transport::Tcp(segment) = transport {
            assert!(segment.options().count() <= 40);
            assert_eq!(Some((segment.source_port(), segment.destination_port())), ip.ports());
        }
    }
});
