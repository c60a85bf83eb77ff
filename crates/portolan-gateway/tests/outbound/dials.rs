//! Destinations that do not answer.

use std::time::Duration;

use portolan_gateway::gate::Policy;
use portolan_gateway::outbound::{DialLimits, OutboundOptions};
use portolan_net::TcpStream;
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::support::namespace::{BLACK_HOLE, HOST_V4, in_namespace};
use crate::support::world::{PATIENCE, World, addr, eventually, world, world_with};

/// Begins connections that will never be made.
fn dial_in_vain(world: &World, destinations: impl IntoIterator<Item = std::net::SocketAddr>) {
    for destination in destinations {
        let client = world.client.clone();
        tokio::spawn(async move { TcpStream::connect(&client, destination).await });
    }
}

/// A connection that is made at once, if it is not delayed.
async fn connects(world: &World) {
    let server = TcpListener::bind(addr(HOST_V4, 0)).await.unwrap();
    let destination = server.local_addr().unwrap();
    // A SYN that was lost would come again after a second.
    let began = std::time::Instant::now();
    let connecting = TcpStream::connect(&world.client, destination);
    timeout(PATIENCE, connecting).await.unwrap().unwrap();
    println!("note: connected in {:?} beside the dead", began.elapsed());
}

#[test]
fn a_thousand_black_holed_dials_do_not_delay_the_others() {
    in_namespace(
        "dials::a_thousand_black_holed_dials_do_not_delay_the_others",
        || async {
            let world = world();
            dial_in_vain(&world, (0..1000).map(|number| addr(BLACK_HOLE, 1000 + number)));
            eventually("all are dialled", || world.counters.read().dialled >= 1000).await;
            connects(&world).await;
            assert_eq!(
                world.counters.read().given_up,
                0,
                "they wait for each other, and nobody gives way"
            );
        },
    );
}

#[test]
fn a_sweep_of_a_dead_network_gives_way_to_the_living() {
    in_namespace(
        "dials::a_sweep_of_a_dead_network_gives_way_to_the_living",
        || async {
            let dials = DialLimits {
                all: 64,
                per_destination: 16,
            };
            let world = world_with(
                Policy::default(),
                OutboundOptions {
                    dials,
                    ..OutboundOptions::default()
                },
                10_000,
            );
            dial_in_vain(
                &world,
                (1..=250).map(|host| addr(&format!("198.51.100.{host}"), 80)),
            );
            eventually("the oldest give way", || {
                world.counters.read().given_up >= 250 - 64
            })
            .await;
            connects(&world).await;
        },
    );
}

#[test]
fn a_syn_that_comes_again_does_not_dial_again() {
    in_namespace("dials::a_syn_that_comes_again_does_not_dial_again", || async {
        let world = world();
        let connecting = TcpStream::connect(&world.client, addr(BLACK_HOLE, 80));
        // SYNs at 0, 1 and 3 seconds.
        let result = timeout(Duration::from_millis(3500), connecting).await;
        assert!(result.is_err(), "nobody answers: {result:?}");
        assert_eq!(world.counters.read().dialled, 1);
        assert_eq!(world.flows.count(), 1, "it is listed while it is dialled");
    });
}
