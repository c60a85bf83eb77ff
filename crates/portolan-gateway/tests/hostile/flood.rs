//! 100,000 connections, and 30,000 sockets of datagrams, from a program that wants the gateway to run out of something.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portolan_core::wire::{IpPacket, IpProtocol, TcpFlags, TcpSegment};
use portolan_gateway::gate::Policy;
use portolan_net::Stack;
use portolan_net::link::{Direction, Observer, Tap};
use portolan_stack::Packet;
use socket2::{Domain, Socket, Type};
use tokio::time::{Instant, sleep};

use crate::namespace::{HOST_V4, in_namespace, skipped};
use crate::neighbour::{ECHO, NEIGHBOUR, Neighbour, serve_echoes};
use crate::packets::{ACK, COMPLETE, RST, SYN, Tcp, udp};
use crate::resolver::serve_names;
use crate::world::{Device, PATIENCE, World, addr};

const FLOWS: usize = 100_000;
/// `outbound` has a test with as many of these as well, and smaller limits.
const DATAGRAM_FLOWS: usize = 30_000;
/// Flows between two looks at the neighbour.
const TURN: usize = 5_000;
/// One in so many connections sends data.
const SENDS: usize = 3;
/// What the stack may hold for connections (`Gateway`'s budget), and what the rest of a flow weighs, in bytes.
const BUDGET: usize = 256 << 20;
const PER_FLOW: usize = 6 << 10;

/// The gateway's answers to connections that are not of a stack.
#[derive(Clone, Default)]
struct Answers(Arc<Mutex<Heard>>);

#[derive(Default)]
struct Heard {
    /// Connections that the gateway has accepted, with its number, to be acknowledged.
    accepted: Vec<(SocketAddr, u32)>,
    /// Resets.
    refused: usize,
}

impl Answers {
    fn take(&self) -> Heard {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Observer for Answers {
    fn observe(&mut self, direction: Direction, packet: Packet<'_>) {
        let Ok(ip) = IpPacket::parse(packet.bytes) else {
            return;
        };
        let is_neighbours = NEIGHBOUR
            .iter()
            .any(|text| text.parse::<IpAddr>() == Ok(ip.destination()));
        if direction == Direction::Out || is_neighbours || ip.protocol() != IpProtocol::TCP {
            return;
        }
        let Ok(segment) = TcpSegment::parse(ip.payload()) else {
            return;
        };
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if segment.flags().contains(TcpFlags::RST) {
            heard.refused += 1;
        } else if segment.flags().contains(TcpFlags::SYN) {
            let inside = SocketAddr::new(ip.destination(), segment.destination_port().get());
            heard.accepted.push((inside, segment.seq().get()));
        }
    }
}

/// A gateway, a neighbour, and who floods.
async fn flooded() -> (World, Neighbour, Answers) {
    let _ = std::fs::write("/proc/sys/net/core/somaxconn", FLOWS.to_string());
    serve_echoes().await;
    serve_names(1).await;
    let world = World::new(Device::Tun, Policy::default()).await;
    let answers = Answers::default();
    let (stack, driver) = Stack::builder()
        .address(NEIGHBOUR[0].parse::<IpAddr>().unwrap(), 24)
        .address(NEIGHBOUR[1].parse::<IpAddr>().unwrap(), 64)
        .build(Tap::new(world.wire.link(), answers.clone()))
        .unwrap();
    tokio::spawn(driver);
    let neighbour = Neighbour::new(&stack).await;
    (world, neighbour, answers)
}

/// One end for each number; none is the neighbour's.
fn source(number: usize) -> SocketAddr {
    let [.., high, low] = (number / 50_000 * 256 + number % 250).to_be_bytes();
    SocketAddr::from(([10, 7, high, low], (number % 50_000) as u16 + 1_024))
}

/// Waits until something is the case.
async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + 2 * PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: never");
        sleep(Duration::from_millis(2)).await;
    }
}

/// Every third connection that comes about sends 60,000 bytes out of order, which have to be kept, and the host has nobody who would
/// read.
#[test]
fn a_hundred_thousand_connections() {
    in_namespace("flood::a_hundred_thousand_connections", || async {
        let (world, neighbour, answers) = flooded().await;
        // The kernel completes connections to it, and nobody takes them: they cost this process no descriptor.
        let deaf = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        deaf.bind(&addr(HOST_V4, 0).into()).unwrap();
        deaf.listen(FLOWS as i32).unwrap();
        let destination = deaf.local_addr().unwrap().as_socket().unwrap();
        let before = world.held();
        let flows_before = world.gateway.flows().count();
        let data = vec![0xee; 60_000];
        let mut header = COMPLETE;
        // A super-segment, its checksum left to whoever cuts it.
        header[..2].copy_from_slice(&[1, 1]);
        header[4..10].copy_from_slice(&[0xb4, 5, 20, 0, 16, 0]);
        let mut open = Vec::new();
        // How many of them have sent their data.
        let mut begun = 0;
        let mut refused = 0;
        let mut most = 0;
        for number in 0..FLOWS {
            let syn = Tcp::new(SYN, 1, 0);
            world
                .wire
                .send(COMPLETE, &syn.between(source(number), destination, b""))
                .await;
            if number % 250 < 249 {
                continue;
            }
            // Each is answered, one way or the other.
            eventually("every SYN is answered", || {
                let heard = answers.take();
                refused += heard.refused;
                open.extend(heard.accepted);
                open.len() + refused > number
            })
            .await;
            for (place, &(inside, theirs)) in open.iter().enumerate().skip(begun) {
                let ack = Tcp::new(ACK, 2, theirs.wrapping_add(1));
                world
                    .wire
                    .send(COMPLETE, &ack.between(inside, destination, b""))
                    .await;
                if place % SENDS == 0 {
                    let early = Tcp::new(ACK, 1_002, theirs.wrapping_add(1));
                    world
                        .wire
                        .send(header, &early.between(inside, destination, &data))
                        .await;
                }
            }
            begun = open.len();
            most = most.max(world.held());
            if number % TURN == TURN - 1 {
                neighbour.moves_on().await;
            }
        }
        let totals = world.gateway.flows().totals();
        let counts = world.gateway.stack().counters()[0];
        println!(
            "note: {} connections, {refused} refused; {} KiB held before, {} KiB at most; {} times no memory for data",
            open.len(),
            before >> 10,
            most >> 10,
            counts.data_refused,
        );
        assert!(totals.most <= flows_before + open.len() + 250, "{totals:?}");
        assert!(
            most <= before + BUDGET + open.len() * PER_FLOW + (32 << 20),
            "{most} bytes"
        );
        if open.len() / SENDS * data.len() > BUDGET {
            assert!(
                counts.data_refused > 0,
                "the budget was never reached: {counts:?}"
            );
        } else {
            skipped(&format!(
                "the budget of memory: descriptors for {} connections alone",
                open.len()
            ));
        }
        // What was refused is counted, whatever there was too little of.
        let outbound = world.gateway.outbound();
        assert!(
            totals.refused + outbound.no_room >= refused as u64,
            "{totals:?} {outbound:?}"
        );
        // Somebody else's look-ups and datagrams have room all the while.
        neighbour.looks_up(0).await;
        let deadline = Instant::now() + 2 * PATIENCE;
        while world.gateway.flows().count() > flows_before + 1 {
            // On a busy machine some come about only now.
            for (inside, _) in std::mem::take(&mut open)
                .into_iter()
                .chain(answers.take().accepted)
            {
                let reset = Tcp::new(RST, 2, 0);
                world
                    .wire
                    .send(COMPLETE, &reset.between(inside, destination, b""))
                    .await;
            }
            assert!(Instant::now() < deadline, "all is as before: never");
            sleep(Duration::from_millis(2)).await;
        }
        neighbour.begins().await;
        neighbour.moves_on().await;
        eventually("memory is given back", || world.held() <= before + (64 << 20)).await;
        println!("note: {} KiB held after", world.held() >> 10);
        world.end();
    });
}

/// Datagrams from 30,000 ends, answered all of them: the neighbour's session is none of those that give way.
#[test]
fn thirty_thousand_sockets_of_datagrams() {
    in_namespace("flood::thirty_thousand_sockets_of_datagrams", || async {
        let (world, neighbour, _) = flooded().await;
        let before = world.held();
        let began = std::time::Instant::now();
        let destination = addr(HOST_V4, ECHO);
        for number in 0..DATAGRAM_FLOWS {
            let packet = udp(source(number), destination, None, b"flood");
            world.wire.send(COMPLETE, &packet).await;
            if number % TURN == TURN - 1 {
                neighbour.moves_on().await;
                assert!(
                    world.gateway.flows().count() <= 4_096 + 8,
                    "as many sockets as there may be"
                );
            }
        }
        eventually("all are judged", || {
            world.gateway.outbound().evicted >= (DATAGRAM_FLOWS - 4_096 - 8) as u64
        })
        .await;
        let took = began.elapsed();
        println!(
            "note: {took:?}; {} KiB held before, {} after",
            before >> 10,
            world.held() >> 10
        );
        assert!(world.held() <= before + 4_096 * 2 * PER_FLOW + (16 << 20));
        let neighbours = NEIGHBOUR.map(|text| text.parse::<IpAddr>().unwrap());
        let flows = world.gateway.flows().list();
        let kept: Vec<_> = flows
            .iter()
            .filter(|flow| neighbours.contains(&flow.info.inside.ip()) && flow.age >= took)
            .collect();
        assert_eq!(
            kept.len(),
            4,
            "its connections and its sessions are those from before: {kept:?}"
        );
        neighbour.begins().await;
        world.end();
    });
}
