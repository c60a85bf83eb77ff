//! The device itself: names, queues, persistence, offloads, and what it refuses.

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use portolan_core::wire::{IpPacket, UdpDatagram};
use portolan_net::Link;
use portolan_net::link::Batch;
use portolan_net::tun::{Offloads, RECV_BUFFER_LEN, Tun, TunConfig, TunError, TunLink, TunQueue};
use portolan_stack::{Offload, Packet, PacketChecksum};
use rustix::event::{PollFd, PollFlags, poll};

use crate::support::driver::{KERNEL, STACK, address};
use crate::support::namespace::in_namespace;

fn open(config: &TunConfig) -> Tun {
    let tun = Tun::open(config).expect("a device");
    tun.add_address(address(0, KERNEL, 0).ip(), 24)
        .expect("an address");
    tun.up(config).expect("it comes up");
    tun
}

/// The next datagram of the test's; the kernel also sends of its own accord.
fn next_datagram(queues: &[TunQueue]) -> Option<(usize, Vec<u8>)> {
    let mut buffer = vec![0; RECV_BUFFER_LEN];
    let timeout = rustix::event::Timespec {
        tv_sec: 5,
        tv_nsec: 0,
    };
    loop {
        for (place, queue) in queues.iter().enumerate() {
            while let Ok(packet) = queue.recv(&mut buffer) {
                if let Some(data) = datagram(&packet) {
                    return Some((place, data));
                }
            }
        }
        let mut polled: Vec<_> = queues
            .iter()
            .map(|queue| PollFd::from_borrowed_fd(queue.as_fd(), PollFlags::IN))
            .collect();
        if poll(&mut polled, Some(&timeout)).ok()? == 0 {
            return None;
        }
    }
}

fn datagram(packet: &Packet<'_>) -> Option<Vec<u8>> {
    let ip = IpPacket::parse(packet.bytes).ok()?;
    let datagram = UdpDatagram::parse(ip.payload()).ok()?;
    (datagram.destination_port().get() == 4000).then(|| datagram.payload().to_vec())
}

#[test]
fn a_persistent_interface_is_opened_again_under_its_name() {
    in_namespace(
        "device::a_persistent_interface_is_opened_again_under_its_name",
        || {
            let exists = || {
                let status = Command::new("ip").args(["link", "show", "portolan0"]).output();
                status.is_ok_and(|output| output.status.success())
            };
            let config = TunConfig {
                name: "portolan0".into(),
                mtu: Some(1280),
                persistent: true,
                ..TunConfig::default()
            };
            let first = open(&config);
            let (name, index) = (first.name().to_owned(), first.index());
            drop(first);
            assert!(exists(), "it stays");
            let second = open(&TunConfig {
                persistent: false,
                ..config
            });
            assert_eq!((second.name(), second.index()), (name.as_str(), index));
            let mtu = std::fs::read_to_string("/proc/net/dev").expect("a list");
            assert!(mtu.contains("portolan0"));
            drop(second);
            assert!(!exists(), "it was no longer to stay");
        },
    );
}

#[test]
fn names_are_given_numbered_and_refused() {
    in_namespace("device::names_are_given_numbered_and_refused", || {
        let named = |name: &str| {
            Tun::open(&TunConfig {
                name: name.into(),
                ..TunConfig::default()
            })
        };
        let first = named("there%d").expect("a device");
        let second = named("there%d").expect("a device");
        assert_eq!((first.name(), second.name()), ("there0", "there1"));
        for name in ["a-name-of-sixteen", "with/slash", "lo"] {
            let error = named(name).expect_err("no such name can be had");
            assert!(matches!(&error, TunError::Attach { .. }), "{error}");
            assert!(error.to_string().contains(name), "{error}");
        }
        // One queue is all that it was made for.
        assert!(matches!(named("there0"), Err(TunError::Attach { .. })));
    });
}

#[test]
fn several_queues_carry_flows_each() {
    in_namespace("device::several_queues_carry_flows_each", || {
        let queues = open(&TunConfig {
            queues: 4,
            ..TunConfig::default()
        })
        .into_queues();
        assert_eq!(queues.len(), 4);
        let mut used = [false; 4];
        for _ in 0..64 {
            let socket = UdpSocket::bind(address(0, KERNEL, 0)).expect("a socket");
            let mut places = [0, 0];
            for place in &mut places {
                socket
                    .send_to(b"datagram", address(0, STACK, 4000))
                    .expect("a route");
                let (queue, data) = next_datagram(&queues).expect("it comes");
                assert_eq!(data, b"datagram");
                *place = queue;
            }
            assert_eq!(places[0], places[1], "a flow stays on its queue");
            used[places[0]] = true;
        }
        assert!(used.iter().filter(|used| **used).count() > 1, "{used:?}");
    });
}

#[test]
fn what_the_kernel_does_not_take_is_counted() {
    in_namespace("device::what_the_kernel_does_not_take_is_counted", || {
        // It is down.
        let tun = Tun::open(&TunConfig::default()).expect("a device");
        let queue = tun.into_queues().remove(0);
        queue
            .send(&[0x45; 20], Offload::default())
            .expect("counted, and no error");
        let partial = Offload {
            checksum: PacketChecksum::Partial,
            piece_len: None,
        };
        queue.send(&[0x45; 24], partial).expect("counted, and no error");
        assert_eq!(queue.counters().refused_out, 2);
        assert_eq!(queue.counters().refused_in, 0);
    });
}

#[test]
fn what_the_kernel_grants_is_no_more_than_was_asked() {
    in_namespace("device::what_the_kernel_grants_is_no_more_than_was_asked", || {
        for asked in [
            Offloads::None,
            Offloads::Checksums,
            Offloads::Segments,
            Offloads::Datagrams,
        ] {
            let tun = open(&TunConfig {
                offloads: asked,
                ..TunConfig::default()
            });
            let granted = tun.offloads();
            assert_eq!(Offloads::from_number(granted as u8), Some(granted));
            assert!(
                granted <= asked && (granted > Offloads::None || asked == Offloads::None),
                "{granted:?}"
            );
            // As one that came from another process.
            let queue = tun.into_queues().remove(0);
            let queue = TunQueue::from(queue.as_fd().try_clone_to_owned().expect("a descriptor"));
            let socket = UdpSocket::bind(address(0, KERNEL, 0)).expect("a socket");
            socket
                .send_to(&[5; 900], address(0, STACK, 4000))
                .expect("a route");
            let mut buffer = vec![0; RECV_BUFFER_LEN];
            let packet = loop {
                match queue.recv(&mut buffer) {
                    Ok(packet) if datagram(&packet).is_some() => break packet.offload,
                    _ => std::thread::sleep(Duration::from_millis(1)),
                }
            };
            let is_partial = packet.checksum == PacketChecksum::Partial;
            assert_eq!(is_partial, granted >= Offloads::Checksums, "{packet:?}");
        }
    });
}

#[test]
fn a_link_wakes_for_packets_and_sends_them_back() {
    in_namespace("device::a_link_wakes_for_packets_and_sends_them_back", || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let tun = open(&TunConfig::default());
            let offloads = tun.offloads();
            let queue = tun.into_queues().remove(0);
            let mut link = TunLink::new(queue, 1500, offloads).expect("a link");
            assert_eq!(
                (link.capabilities().mtu, link.capabilities().checksum_offload),
                (1500, true)
            );
            let socket = UdpSocket::bind(address(0, KERNEL, 0)).expect("a socket");
            let mut batch = Batch::new(64, 1 << 18);
            // Twice, so that it sleeps between.
            for round in 0..2_u8 {
                let sender = socket.try_clone().expect("a descriptor");
                let sending = std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(20));
                    for datagram in 0..10 {
                        sender
                            .send_to(&[round, datagram], address(0, STACK, 4000))
                            .expect("a route");
                    }
                });
                let mut got = Vec::new();
                while got.len() < 10 {
                    std::future::poll_fn(|cx| link.poll_receive(cx, &mut batch))
                        .await
                        .expect("packets");
                    got.extend(batch.iter().filter_map(|packet| datagram(&packet)));
                    batch.clear();
                }
                assert_eq!(
                    got,
                    (0..10).map(|datagram| vec![round, datagram]).collect::<Vec<_>>()
                );
                sending.join().expect("the sender");
            }
            // The answer, its checksum left to the device.
            let mut answer = vec![
                0x45, 0, 0, 32, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 99, 0, 2, 10, 99, 0, 1, 0x0F, 0xA0, 0, 0, 0,
                12, 0, 0, 1, 2, 3, 4,
            ];
            answer[22..24].copy_from_slice(&socket.local_addr().expect("an address").port().to_be_bytes());
            let header = portolan_core::wire::checksum(&answer[..20]);
            answer[10..12].copy_from_slice(&header.to_be_bytes());
            // The sum of the pseudo header: addresses, protocol and length.
            let pseudo = [10, 99, 0, 2, 10, 99, 0, 1, 0, 17, 0, 12];
            let sum = !portolan_core::wire::checksum(&pseudo);
            answer[26..28].copy_from_slice(&sum.to_be_bytes());
            let offload = Offload {
                checksum: PacketChecksum::Partial,
                piece_len: None,
            };
            assert!(batch.push(Packet {
                bytes: &answer,
                offload
            }));
            std::future::poll_fn(|cx| link.poll_send(cx, &mut batch))
                .await
                .expect("room");
            assert!(batch.is_empty());
            socket
                .set_read_timeout(Some(Duration::from_secs(5)))
                .expect("a timeout");
            let mut buffer = [0; 64];
            let (len, from) = socket
                .recv_from(&mut buffer)
                .expect("the kernel took it, with a right checksum");
            assert_eq!(
                (&buffer[..len], from),
                (&[1, 2, 3, 4][..], address(0, STACK, 4000))
            );
            assert_eq!(link.counters(), Default::default());
        });
    });
}
