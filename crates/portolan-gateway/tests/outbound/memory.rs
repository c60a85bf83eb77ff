//! What flows weigh, and that their number is bounded.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portolan_gateway::gate::Policy;
use portolan_gateway::outbound::{OutboundOptions, UdpLimits};
use portolan_net::TcpStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::support::counting;
use crate::support::namespace::{HOST_V4, in_namespace};
use crate::support::wire;
use crate::support::world::{Gateway, PATIENCE, addr, eventually, gateway, program};

/// A gateway with a thread of its own, and what that thread holds.
async fn gateway_apart() -> (Gateway, Arc<AtomicUsize>) {
    let held = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&held);
    let (give, given) = oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let gateway = gateway(Policy::default(), OutboundOptions::default(), 10_000);
            assert!(give.send(gateway).is_ok());
            loop {
                told.store(counting::held(), Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    });
    (given.await.unwrap(), held)
}

/// What the thread holds when it has come to rest.
async fn at_rest(held: &AtomicUsize) -> usize {
    let mut last = 0;
    let mut times = 0;
    eventually("the gateway comes to rest", || {
        let now = held.load(Ordering::Relaxed);
        times = if now == last { times + 1 } else { 0 };
        last = now;
        times > 100
    })
    .await;
    last
}

/// All that the gateway's thread holds: the engine, sockets, tasks, relays, the list of flows.
#[test]
fn an_idle_connection_weighs_less_than_4_kib() {
    in_namespace("memory::an_idle_connection_weighs_less_than_4_kib", || async {
        const COUNT: usize = 1000;
        const LEN: usize = 30_000;
        let (gateway, held) = gateway_apart().await;
        let client = program(gateway.link);
        let server = TcpListener::bind(addr(HOST_V4, 0)).await.unwrap();
        let destination = server.local_addr().unwrap();
        let before = at_rest(&held).await;
        let mut ends = Vec::new();
        for _ in 0..COUNT {
            let (there, here) = tokio::join!(TcpStream::connect(&client, destination), server.accept());
            ends.push((there.unwrap(), here.unwrap().0));
        }
        let idle = (at_rest(&held).await - before) / COUNT;
        let bytes = vec![1; LEN];
        for (there, here) in &mut ends {
            let mut received = vec![0; LEN];
            there.write_all(&bytes).await.unwrap();
            here.read_exact(&mut received).await.unwrap();
            here.write_all(&bytes).await.unwrap();
            there.read_exact(&mut received).await.unwrap();
        }
        let used = (at_rest(&held).await - before) / COUNT;
        println!("note: an idle connection weighs {idle} bytes, one that was used {used}");
        drop(ends);
        eventually("the flows end", || gateway.flows.count() == 0).await;
        let after = at_rest(&held).await;
        println!("note: {before} bytes before, {after} after");
        assert!(idle <= 4096 && used <= 4096, "{idle} {used}");
    });
}

/// Datagrams from 100,000 sockets of the program: there are as many sessions as there may be, and others are heard.
#[test]
fn a_hundred_thousand_flows_are_bounded_and_others_go_on() {
    in_namespace(
        "memory::a_hundred_thousand_flows_are_bounded_and_others_go_on",
        || async {
            let udp = UdpLimits {
                sessions: 1000,
                sockets: 200,
                ..UdpLimits::default()
            };
            let options = OutboundOptions {
                udp,
                ..OutboundOptions::default()
            };
            let Gateway {
                mut link,
                flows,
                counters,
                ..
            } = gateway(Policy::default(), options, 10_000);
            let server = tokio::net::UdpSocket::bind(addr(HOST_V4, 0)).await.unwrap();
            let destination = server.local_addr().unwrap();
            for number in 0..100_000_u32 {
                let [_, high, middle, low] = number.to_be_bytes();
                let source = SocketAddr::from(([10, high, middle, 3], 1024 + u16::from(low)));
                wire::send(&mut link, &wire::datagram(source, destination)).await;
                if number % 1000 == 0 {
                    assert!(flows.count() <= 1000);
                }
            }
            eventually("all are judged", || counters.read().evicted >= 99_000).await;
            assert!(flows.count() <= 1000);
            assert_eq!(counters.read().no_room, 0);
            while server.try_recv_from(&mut [0; 8]).is_ok() {}
            // Somebody else, with a datagram that can be told from theirs.
            let other = SocketAddr::from(([10, 0, 0, 2], 9));
            let good = tokio::net::UdpSocket::bind(addr(HOST_V4, 0)).await.unwrap();
            wire::send(&mut link, &wire::datagram(other, good.local_addr().unwrap())).await;
            timeout(PATIENCE, good.recv_from(&mut [0; 8]))
                .await
                .unwrap()
                .unwrap();
        },
    );
}
