//! SYN cookies (RFC 4987, section 3.6): a connection that was kept in numbers is as good as another.

use std::net::SocketAddr;

use portolan_core::table::{Device, Host};
use portolan_stack::{Duration, Instant, Packet, Stack, StackConfig, SynCookies};

use crate::support::trace::play;

fn always() -> StackConfig {
    StackConfig {
        syn_cookies: SynCookies::Always,
        ..StackConfig::default()
    }
}

#[test]
fn with_timestamps_every_option_survives() {
    play(
        always(),
        "0.000 < S 0 win 1000 mss 1460 sackok ts 100 0 wscale 7
         0.000 > S. 0 ack 1 win 65535 mss 1460 sackok wscale 7
         0.010 < . 1 ack 1 win 512 ts 110 last
         0.010 accept
         0.010 state ESTABLISHED
         0.020 < . 101:201 ack 1 win 512 ts 120 last
         0.020 > . 1 ack 1 sack 101-201
         0.030 < P. 1:101 ack 1 win 512 ts 130 last
         0.030 > . 1 ack 201
         0.030 read 200
         0.040 write 4344
         0.040 > . 1:1449 ack 201
         0.040 > . 1449:2897 ack 201
         0.040 > P. 2897:4345 ack 201",
    );
}

#[test]
fn without_timestamps_a_segment_size_survives() {
    play(
        always(),
        "0.000 < S 0 win 60000 mss 1400 sackok wscale 7
         0.000 > S. 0 ack 1 win 65535 mss 1460
         0.010 < P. 1:101 ack 1 win 60000
         0.010 > . 1 ack 101
         0.010 accept
         0.010 read 100
         0.020 write 1500
         0.020 > . 1:1401 ack 101
         0.020 > P. 1401:1501 ack 101",
    );
}

#[test]
fn ecn_survives_with_timestamps() {
    play(
        always(),
        "0.000 < SEW 0 win 60000 mss 1460 ts 100 0
         0.000 > S.E 0 ack 1
         0.010 < . 1 ack 1 win 60000 ts 110 last
         0.010 accept
         0.020 < P. 1:101 ack 1 win 60000 ts 120 last ce
         0.020 > .E 1 ack 101",
    );
}

#[test]
fn what_is_no_cookie_is_reset() {
    play(
        always(),
        "0.000 < S 0 win 60000 mss 1460
         0.000 > S. 0 ack 1
         0.010 < . 1 ack 2 win 60000
         0.010 > R 2
         0.020 < . 2 ack 1 win 60000
         0.020 > R 1
         0.030 < . 1 ack 1 win 60000
         0.030 accept
         0.030 state ESTABLISHED",
    );
}

#[test]
fn a_cookie_goes_stale() {
    play(
        always(),
        "0.000 < S 0 win 60000 mss 1460
         0.000 > S. 0 ack 1
         130.000 < . 1 ack 1 win 60000
         130.000 > R 1",
    );
}

/// Two stacks: a server whose queue is full of strangers still takes a client.
#[test]
fn a_client_gets_in_while_the_queue_is_full() {
    let ends: [SocketAddr; 2] = ["10.0.0.1:80", "10.0.0.2:0"].map(|end| end.parse().unwrap());
    let mut stacks = ends.map(|end| {
        let mut host = Host::new();
        host.add_address(Device::new(1).unwrap(), end.ip(), Some(24));
        Stack::new(StackConfig::default(), host, [3; 16])
    });
    let listener = stacks[0].listen(ends[0], 1).unwrap();
    let mut now = Instant::START;
    let mut packet = vec![0; 1500];
    // Two attempts whose SYN-ACKs are lost.
    for _ in 0..2 {
        stacks[1].connect(now, ends[1], ends[0]).unwrap();
        let syn = stacks[1].poll_transmit(now, &mut packet).unwrap();
        let (bytes, offload) = (&packet[..syn.len], syn.offload);
        stacks[0].handle_packet(now, Packet { bytes, offload });
        while stacks[0].poll_transmit(now, &mut packet).is_some() {}
    }
    assert_eq!(stacks[0].half_open_count(), 2);
    now += Duration::from_millis(5);
    let client = stacks[1].connect(now, ends[1], ends[0]).unwrap();
    stacks[1].write(now, client, b"let me in").unwrap();
    for _ in 0..4 {
        for from in [1, 0] {
            while let Some(transmit) = stacks[from].poll_transmit(now, &mut packet) {
                let (bytes, offload) = (&packet[..transmit.len], transmit.offload);
                stacks[1 - from].handle_packet(now, Packet { bytes, offload });
            }
        }
    }
    assert_eq!(stacks[0].half_open_count(), 2);
    let counters = *stacks[0].counters();
    assert_eq!((counters.cookies_sent, counters.cookies_received), (1, 1));
    let server = stacks[0].accept(listener).unwrap();
    let mut out = [0; 16];
    assert_eq!(stacks[0].read(now, server, &mut out), Ok(9));
    assert_eq!(&out[..9], b"let me in");
}
