//! ICMP of both versions, with the packets they quote.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portolan_core::wire::{ChecksumFill, Icmpv4Packet, Icmpv6Packet, PseudoHeader};

fuzz_target!(|bytes: &[u8]| {
    let pseudo = PseudoHeader::V6 { source: 1u128.into(), destination: 2u128.into() };
    if let Ok(packet) = Icmpv4Packet::parse(bytes) {
        let mut again = bytes.to_vec();
        packet.message().emit(&mut again).expect("what was parsed can be emitted");
        assert_eq!((&again[..2], &again[4..]), (&bytes[..2], &bytes[4..]));
        std::hint::black_box((packet.has_valid_checksum(), packet.message().code_name()));
        if let Some(Ok(quoted)) = packet.quoted() {
            std::hint::black_box((quoted.ports(), quoted.tcp_seq(), quoted.missing()));
        }
    }
    if let Ok(packet) = Icmpv6Packet::parse(bytes) {
        let mut again = bytes.to_vec();
        packet.message().emit(&mut again, ChecksumFill::Complete(pseudo)).expect("what was parsed can be emitted");
        assert_eq!((&again[..2], &again[4..]), (&bytes[..2], &bytes[4..]));
        assert!(Icmpv6Packet::parse(&again).is_ok_and(|again| again.has_valid_checksum(pseudo)));
        std::hint::black_box((packet.redirect(), packet.message().code_name()));
        if let Some(Ok(quoted)) = packet.quoted() {
            std::hint::black_box((quoted.ports(), quoted.tcp_seq(), quoted.missing()));
        }
    }
});
