//! Fragments into a stack: whatever they are, memory stays within its limit and ends with their time.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use portolan_core::table::{Device, Host};
use portolan_core::wire::{ExtensionRepr, Fragment, IpProtocol, Ipv4Repr, Ipv6Repr};
use portolan_stack::{Duration, Instant, Offload, Packet, Stack, StackConfig};

const LIMIT: usize = 64 << 10;

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    V4 { identification: u8, offset: u16, more: bool, protocol: u8, ecn: u8, data: &'a [u8] },
    V6 { identification: u8, offset: u16, more: bool, protocol: u8, ecn: u8, data: &'a [u8] },
    Any(&'a [u8]),
    Wait(u8),
}

fuzz_target!(|steps: Vec<Step<'_>>| {
    let mut host = Host::new();
    let device = Device::new(1).expect("1 is not 0");
    host.add_address(device, IpAddr::from([10, 0, 0, 1]), Some(24));
    host.add_address(device, IpAddr::V6((1u128 | 0xFD00 << 112).into()), Some(64));
    let config = StackConfig { fragment_memory: LIMIT, ..StackConfig::default() };
    let mut stack = Stack::new(config, host, [1; 16]);
    let mut now = Instant::START;
    let mut buffer = vec![0; stack.max_packet_len()];
    for step in steps {
        match step {
            Step::V4 { identification, offset, more, protocol, ecn, data } => {
                let mut packet = vec![0; 20];
                packet.extend(data);
                let header = Ipv4Repr {
                    dscp: 0,
                    ecn: ecn & 3,
                    identification: identification.into(),
                    dont_fragment: false,
                    more_fragments: more,
                    fragment_offset: offset & !7,
                    time_to_live: 64,
                    protocol: IpProtocol::new(protocol),
                    source: [10, 0, 0, 2].into(),
                    destination: [10, 0, 0, 1].into(),
                    options: &[],
                    payload_len: data.len(),
                };
                if header.emit(&mut packet).is_ok() {
                    handle(&mut stack, now, &packet);
                }
            }
            Step::V6 { identification, offset, more, protocol, ecn, data } => {
                let mut packet = vec![0; 48];
                packet.extend(data);
                let fragment = ExtensionRepr::Fragment(Fragment {
                    offset: offset & !7,
                    more,
                    identification: identification.into(),
                });
                let header = Ipv6Repr {
                    dscp: 0,
                    ecn: ecn & 3,
                    flow_label: 0,
                    next_header: IpProtocol::FRAGMENT,
                    hop_limit: 64,
                    source: (2u128 | 0xFD00 << 112).into(),
                    destination: (1u128 | 0xFD00 << 112).into(),
                    payload_len: packet.len() - 40,
                };
                let written = fragment.emit(IpProtocol::new(protocol), &mut packet[40..]);
                if written.is_ok() && header.emit(&mut packet).is_ok() {
                    handle(&mut stack, now, &packet);
                }
            }
            Step::Any(bytes) => handle(&mut stack, now, bytes),
            Step::Wait(seconds) => {
                now += Duration::from_secs(seconds.into());
                stack.handle_timeout(now);
            }
        }
        while stack.poll_transmit(now, &mut buffer).is_some() {}
        assert!(stack.buffered_bytes() <= LIMIT);
    }
    stack.handle_timeout(now + Duration::from_secs(61));
    while stack.poll_transmit(now, &mut buffer).is_some() {}
    assert_eq!(stack.buffered_bytes(), 0);
});

fn handle(stack: &mut Stack, now: Instant, bytes: &[u8]) {
    let offload = Offload::default();
    stack.handle_packet(now, Packet { bytes, offload });
}
