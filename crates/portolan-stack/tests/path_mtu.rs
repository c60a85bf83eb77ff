//! Two stacks with a router between them, one of whose links is narrower than theirs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portolan_core::table::{Device, Host};
use portolan_core::wire::{
    ChecksumFill, Icmpv4Message, Icmpv6Message, IpPacket, IpProtocol, Ipv4Repr, Ipv6Repr, PseudoHeader,
};
use portolan_stack::{Event, Instant, Offload, Packet, Pieces, Stack, StackConfig};

fn stack(last: u8, config: StackConfig) -> Stack {
    let mut host = Host::new();
    let device = Device::new(1).unwrap();
    host.add_address(device, IpAddr::from([10, 0, 0, last]), Some(24));
    let v6 = IpAddr::from([0xFD00, 0, 0, 0, 0, 0, 0, u16::from(last)]);
    host.add_address(device, v6, Some(64));
    Stack::new(config, host, [last; 16])
}

/// The router: what it says of a packet that the narrow link does not take, or `None` if it does.
fn too_big(bytes: &[u8], mtu: usize) -> Option<Vec<u8>> {
    if bytes.len() <= mtu {
        return None;
    }
    let quoted = &bytes[..bytes.len().min(500)];
    Some(match IpPacket::parse(bytes).unwrap() {
        IpPacket::V4(ip) => {
            assert!(ip.dont_fragment());
            let mut packet = vec![0; 28];
            packet.extend(&quoted[..28]);
            let header = Ipv4Repr {
                dscp: 0,
                ecn: 0,
                identification: 0,
                dont_fragment: false,
                more_fragments: false,
                fragment_offset: 0,
                time_to_live: 64,
                protocol: IpProtocol::ICMP,
                source: Ipv4Addr::new(192, 0, 2, 1),
                destination: ip.source(),
                options: &[],
                payload_len: packet.len() - 20,
            };
            header.emit(&mut packet).unwrap();
            let message = Icmpv4Message::DestinationUnreachable {
                code: 4,
                next_hop_mtu: mtu as u16,
            };
            message.emit(&mut packet[20..]).unwrap();
            packet
        }
        IpPacket::V6(ip) => {
            let mut packet = vec![0; 48];
            packet.extend(quoted);
            let source: Ipv6Addr = "fd99::1".parse().unwrap();
            let header = Ipv6Repr {
                dscp: 0,
                ecn: 0,
                flow_label: 0,
                next_header: IpProtocol::ICMPV6,
                hop_limit: 64,
                source,
                destination: ip.source(),
                payload_len: packet.len() - 40,
            };
            header.emit(&mut packet).unwrap();
            let pseudo = PseudoHeader::V6 {
                source,
                destination: ip.source(),
            };
            let message = Icmpv6Message::PacketTooBig { mtu: mtu as u32 };
            message
                .emit(&mut packet[40..], ChecksumFill::Complete(pseudo))
                .unwrap();
            packet
        }
    })
}

/// Carries all that either stack sends, cut into pieces, through the router; the clock stands still, so that
/// nothing is sent by a timer. Gives how many packets the router refused.
fn carry(
    now: Instant,
    stacks: [&mut Stack; 2],
    mtu: usize,
    mut each: impl FnMut(&mut [&mut Stack; 2]),
) -> u32 {
    let mut stacks = stacks;
    let (mut buffer, mut piece) = (vec![0; 65_535], vec![0; 65_535]);
    let mut refused = 0;
    loop {
        each(&mut stacks);
        let mut idle = true;
        for from in 0..2 {
            while let Some(transmit) = stacks[from].poll_transmit(now, &mut buffer) {
                idle = false;
                let (bytes, offload) = (&buffer[..transmit.len], transmit.offload);
                let mut pieces = Pieces::new(Packet { bytes, offload }).unwrap();
                while let Some(len) = pieces.write_next(&mut piece) {
                    let offload = Offload::default();
                    if let Some(error) = too_big(&piece[..len], mtu) {
                        refused += 1;
                        let bytes = &error[..];
                        stacks[from].handle_packet(now, Packet { bytes, offload });
                    } else {
                        let bytes = &piece[..len];
                        stacks[1 - from].handle_packet(now, Packet { bytes, offload });
                    }
                }
            }
        }
        if idle {
            return refused;
        }
    }
}

#[test]
fn a_megabyte_passes_a_narrow_link_without_waiting_for_a_timer() {
    for (addresses, mtu) in [
        (["10.0.0.1:0", "10.0.0.2:80"], 1300),
        (["10.0.0.1:0", "10.0.0.2:80"], 600),
        (["[fd00::1]:0", "[fd00::2]:80"], 1280),
    ] {
        for (segmentation_offload, checksum_offload) in [(false, false), (true, true)] {
            let config = StackConfig {
                segmentation_offload,
                checksum_offload,
                ..StackConfig::default()
            };
            let (mut a, mut b) = (stack(1, config), stack(2, config));
            let now = Instant::from_millis(1);
            let [from, to] = addresses.map(|address| address.parse().unwrap());
            let listener = b.listen(to, 1).unwrap();
            let client = a.connect(now, from, to).unwrap();
            carry(now, [&mut a, &mut b], mtu, |_| {});
            let server = b.accept(listener).unwrap();
            let data: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
            let (mut written, mut got) = (0, Vec::<u8>::new());
            let refused = carry(now, [&mut a, &mut b], mtu, |[a, b]| {
                while let Ok(len) = a.write(now, client, &data[written..])
                    && len > 0
                {
                    written += len;
                }
                let mut out = [0; 9000];
                while let Ok(len) = b.read(now, server, &mut out) {
                    got.extend(&out[..len]);
                }
            });
            let case = format!("{to} through {mtu}, offload {segmentation_offload}");
            assert!(got == data, "{case}: {} of {} bytes", got.len(), data.len());
            // Not more than the first window.
            assert!((1..=10).contains(&refused), "{case}: {refused} refused");
            assert_eq!(a.counters().icmp_errors, u64::from(refused), "{case}");

            // The next connection to there knows.
            let second = a.connect(now, from, to).unwrap();
            carry(now, [&mut a, &mut b], mtu, |_| {});
            a.write(now, second, &data[..5000]).unwrap();
            assert_eq!(carry(now, [&mut a, &mut b], mtu, |_| {}), 0, "{case}");
        }
    }
}

#[test]
fn errors_of_strangers_change_nothing() {
    let config = StackConfig::default();
    let (mut a, mut b) = (stack(1, config), stack(2, config));
    let now = Instant::from_millis(1);
    let to = "10.0.0.2:80".parse().unwrap();
    b.listen(to, 1).unwrap();
    let client = a.connect(now, "10.0.0.1:4000".parse().unwrap(), to).unwrap();
    carry(now, [&mut a, &mut b], 1500, |_| {});
    assert_eq!(a.poll_event(), Some(Event::Connected(client)));
    a.write(now, client, &[1; 1000]).unwrap();
    let mut segment = [0; 1500];
    let len = a.poll_transmit(now, &mut segment).unwrap().len;
    let tell = |a: &mut Stack, change: &dyn Fn(&mut [u8])| {
        let mut error = too_big(&segment[..len], 700).unwrap();
        change(&mut error[28..]);
        error[22..24].copy_from_slice(&[0, 0]);
        let sum = portolan_core::wire::checksum(&error[20..]);
        error[22..24].copy_from_slice(&sum.to_be_bytes());
        let before = a.counters().icmp_errors_ignored;
        let (bytes, offload) = (&error[..], Offload::default());
        a.handle_packet(now, Packet { bytes, offload });
        a.counters().icmp_errors_ignored - before
    };
    assert_eq!(tell(&mut a, &|segment| segment[12] = 11), 1, "another source");
    assert_eq!(tell(&mut a, &|segment| segment[19] = 9), 1, "another destination");
    assert_eq!(tell(&mut a, &|segment| segment[20] = 9), 1, "another source port");
    assert_eq!(
        tell(&mut a, &|segment| segment[23] = 9),
        1,
        "another destination port"
    );
    assert_eq!(
        tell(&mut a, &|segment| segment[24] ^= 1),
        1,
        "a number that was never sent"
    );
    assert_eq!(tell(&mut a, &|segment| segment[9] = 47), 1, "another protocol");
    assert_eq!(a.info(client).unwrap().send_mss, 1448);
    assert_eq!(tell(&mut a, &|_| {}), 0);
    assert_eq!(a.info(client).unwrap().send_mss, 648);
}
