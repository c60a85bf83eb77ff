//! A gateway whose program is a stack of ours, with a wire in memory between them.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use portolan_core::Mapping;
use portolan_core::table::Scope;
use portolan_gateway::flows::Flows;
use portolan_gateway::inbound::{Published, Publisher, PublisherConfig, SessionLimits};
use portolan_net::link::{self, Capabilities};
use portolan_net::{Stack, UdpSocket};

pub(crate) const GATEWAY: [&str; 2] = ["10.0.0.1", "fd00::1"];
pub(crate) const INSIDE: [&str; 2] = ["10.0.0.2", "fd00::2"];

pub(crate) struct Gateway {
    pub(crate) publisher: Publisher,
    pub(crate) flows: Flows,
    /// The stack of the program.
    pub(crate) program: Stack,
}

/// Runs a test in a runtime of one thread, and bounds it.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let limit = Duration::from_secs(60);
    runtime.block_on(async { tokio::time::timeout(limit, test).await.expect("the test hangs") });
}

pub(crate) fn gateway() -> Gateway {
    let (outside, inside) = link::pair(Capabilities::plain(1500));
    let stack = |addresses: [&str; 2], link| {
        let mut builder = Stack::builder();
        for (address, bits) in addresses.into_iter().zip([24, 64]) {
            builder = builder.address(address.parse::<IpAddr>().unwrap(), bits);
        }
        let (stack, driver) = builder.build(link).unwrap();
        tokio::spawn(driver);
        stack
    };
    let flows = Flows::new(1000);
    let list = |texts: [&str; 2]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let outer = stack(GATEWAY, outside);
    let datagrams = Arc::new(UdpSocket::bind_scope(&outer, Scope::TRANSPARENT).unwrap());
    let publisher = Publisher::new(PublisherConfig {
        stack: outer,
        flows: flows.clone(),
        gateway: list(GATEWAY),
        inside: list(INSIDE),
        datagrams: Arc::clone(&datagrams),
        sessions: SessionLimits::default(),
        admit: None,
    });
    let publisher = publisher.unwrap();
    tokio::spawn(answers(publisher.clone(), datagrams));
    Gateway {
        publisher,
        flows,
        program: stack(INSIDE, inside),
    }
}

/// Gives the publisher what the program sends, as the gateway does; nothing else is to be sent.
pub(crate) async fn answers(publisher: Publisher, socket: Arc<UdpSocket>) {
    let mut bytes = vec![0; 65_536];
    while let Ok(datagram) = socket.recv_msg(&mut bytes).await {
        assert!(publisher.answer(datagram.remote, datagram.local, &bytes[..datagram.len]));
    }
}

impl Gateway {
    /// Publishes what the text says, and gives its first port.
    pub(crate) fn publish(&self, text: &str) -> Published {
        let published = self.publisher.publish(&mapping(text), &|_, _| None);
        published.unwrap()[0]
    }

    /// The flows that there are, as (inside, outside).
    pub(crate) fn ends(&self) -> Vec<(SocketAddr, SocketAddr)> {
        let flows = self.flows.list();
        flows
            .iter()
            .map(|flow| (flow.info.inside, flow.info.outside))
            .collect()
    }

    /// Waits until there is no flow.
    pub(crate) async fn all_over(&self) {
        while self.flows.count() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

pub(crate) fn mapping(text: &str) -> Mapping {
    text.parse().unwrap()
}
