//! A program's side and a gateway with a wire between them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portolan_gateway::flows::Flows;
use portolan_gateway::gate::{Gate, HostFacts, Policy};
use portolan_gateway::outbound::{Outbound, OutboundCounters, OutboundOptions};
use portolan_net::Stack;
use portolan_net::link::{self, Capabilities, MemoryLink};
use portolan_stack::StackConfig;

/// Longer than anything here takes on a busy machine; only a hang takes so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct World {
    /// The program's host.
    pub(crate) client: Stack,
    /// The gateway's.
    pub(crate) gateway: Stack,
    pub(crate) gate: Gate,
    pub(crate) flows: Flows,
    pub(crate) counters: Arc<OutboundCounters>,
}

/// A gateway, and the program's end of the wire to it.
pub(crate) struct Gateway {
    pub(crate) link: MemoryLink,
    pub(crate) stack: Stack,
    pub(crate) gate: Gate,
    pub(crate) flows: Flows,
    pub(crate) counters: Arc<OutboundCounters>,
}

/// A gateway that allows what it allows without options.
pub(crate) fn world() -> World {
    world_with(Policy::default(), OutboundOptions::default(), 10_000)
}

pub(crate) fn world_with(policy: Policy, options: OutboundOptions, flows: usize) -> World {
    let Gateway {
        link,
        stack,
        gate,
        flows,
        counters,
    } = gateway(policy, options, flows);
    let client = program(link);
    World {
        client,
        gateway: stack,
        gate,
        flows,
        counters,
    }
}

/// The program's side of a wire.
pub(crate) fn program(link: MemoryLink) -> Stack {
    let (client, driver) = Stack::builder()
        .address([10, 0, 0, 2], 24)
        .address([0xfd00, 0, 0, 0, 0, 0, 0, 2], 64)
        .build(link)
        .unwrap();
    tokio::spawn(driver);
    client
}

/// A gateway alone.
pub(crate) fn gateway(policy: Policy, options: OutboundOptions, flows: usize) -> Gateway {
    let (inside, outside) = link::pair(Capabilities::plain(1500));
    let (stack, driver) = Stack::builder()
        .address([10, 0, 0, 1], 24)
        .address([0xfd00, 0, 0, 0, 0, 0, 0, 1], 64)
        .config(StackConfig {
            awake_connections: 64,
            ..StackConfig::default()
        })
        .build(outside)
        .unwrap();
    tokio::spawn(driver);
    let facts = HostFacts {
        gateway: vec![[10, 0, 0, 1].into(), [0xfd00, 0, 0, 0, 0, 0, 0, 1].into()],
        inside: vec![[10, 0, 0, 2].into(), [0xfd00, 0, 0, 0, 0, 0, 0, 2].into()],
        ..HostFacts::default()
    };
    let gate = Gate::new(policy, facts);
    let flows = Flows::new(flows);
    let outbound = Outbound::new(&stack, gate.clone(), flows.clone(), options).unwrap();
    let counters = outbound.counters();
    tokio::spawn(outbound.run());
    Gateway {
        link: inside,
        stack,
        gate,
        flows,
        counters,
    }
}

pub(crate) fn addr(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

/// Waits until something is the case.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
        panic!("{what}: not after {PATIENCE:?}");
    }
}

/// Bytes that are different at every place.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|place| (place.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8)
        .collect()
}
