//! What a program asks of one connection: records, corks, limits, and what is counted.

use portolan_stack::{Duration, Instant, SendFlags, StackConfig, State, TcpConfig, WriteError};

use crate::support::pair::Pair;
use crate::support::trace::play;

fn with(tcp: TcpConfig) -> StackConfig {
    StackConfig {
        tcp,
        ..StackConfig::default()
    }
}

#[test]
fn records_are_not_joined() {
    let mut pair = Pair::new(TcpConfig::default());
    let (now, id) = (pair.now, pair.client);
    for _ in 0..3 {
        let sent = pair.a.send(now, id, &[1; 400], SendFlags::END_OF_RECORD);
        assert_eq!(sent, Ok(400));
    }
    assert_eq!(pair.a.send(now, id, &[2; 100], SendFlags::empty()), Ok(100));
    assert_eq!(pair.a.send(now, id, &[2; 100], SendFlags::empty()), Ok(100));
    // Each record is a segment; what is behind them waits for the last small one (Nagle).
    assert_eq!(pair.payloads_of_a(), [400, 400, 400]);
    pair.settle();
    assert_eq!(pair.payloads_of_a(), [200]);
}

#[test]
fn traffic_class_and_hop_limit_are_those_that_were_asked_for() {
    // The lower two bits of a traffic class are ECN's: here nobody agreed on that.
    play(
        with(TcpConfig {
            traffic_class: 46 << 2 | 3,
            hop_limit: 7,
            ..TcpConfig::default()
        }),
        "0.000 < S 0 win 65535 mss 1000 sackok
         0.000 > S. 0 ack 1 dscp 46 hops 7
         0.010 < . 1 ack 1
         0.010 accept
         0.010 write 1000
         0.010 > P. 1:1001 ack 1 dscp 46 hops 7
         0.020 < P. 1:101 ack 1001
         0.020 > . 1001 ack 101 dscp 46 hops 7
         0.030 close
         0.030 > R. 1001 ack 101 dscp 46 hops 7",
    );
    play(
        StackConfig::default(),
        "0.000 connect
         0.000 > S 0 dscp 0 hops 64",
    );
}

#[test]
fn more_holds_what_fills_no_segment_until_the_next_write_or_200_ms() {
    let mut pair = Pair::new(TcpConfig::default());
    let (now, id) = (pair.now, pair.client);
    let mss = usize::from(pair.a.info(id).unwrap().send_mss);
    assert_eq!(
        pair.a.send(now, id, &vec![1; mss + 10], SendFlags::MORE),
        Ok(mss + 10)
    );
    assert_eq!(pair.payloads_of_a(), [mss]);
    assert_eq!(pair.a.send(now, id, &[1; 5], SendFlags::empty()), Ok(5));
    assert_eq!(pair.payloads_of_a(), [15]);
    pair.settle();
    assert_eq!(pair.a.send(pair.now, id, &[1; 5], SendFlags::MORE), Ok(5));
    assert!(pair.payloads_of_a().is_empty());
    let begin = pair.now;
    pair.run_until_a_sends();
    let waited = pair.now.since(begin);
    assert!(
        waited >= Duration::from_millis(200) && waited < Duration::from_millis(260),
        "{waited:?}"
    );
}

#[test]
fn a_cork_holds_and_its_end_releases() {
    let corked = TcpConfig {
        cork: true,
        ..TcpConfig::default()
    };
    let mut pair = Pair::new(TcpConfig::default());
    let (now, id) = (pair.now, pair.client);
    pair.a.configure(now, id, &corked).unwrap();
    assert_eq!(pair.a.write(now, id, &[1; 40]), Ok(40));
    assert_eq!(pair.a.write(now, id, &[1; 40]), Ok(40));
    assert!(pair.payloads_of_a().is_empty());
    pair.a.configure(now, id, &TcpConfig::default()).unwrap();
    assert_eq!(pair.payloads_of_a(), [80]);
}

#[test]
fn what_waits_to_be_sent_is_limited() {
    let mut pair = Pair::new(TcpConfig {
        not_sent_low_water: 4000,
        ..TcpConfig::default()
    });
    let (now, id) = (pair.now, pair.client);
    let mut taken = 0;
    let error = loop {
        match pair
            .a
            .send(now, id, &[0; 100_000][..100_000 - taken], SendFlags::empty())
        {
            Ok(count) => {
                taken += count;
                pair.payloads_of_a();
            }
            Err(error) => break error,
        }
    };
    assert_eq!(error, WriteError::WouldBlock);
    let info = pair.a.info(id).unwrap();
    assert!(
        info.not_sent >= 4000 && taken < 100_000,
        "{taken} {}",
        info.not_sent
    );
    assert!(!pair.a.is_writable(id));
    for _ in 0..20 {
        pair.settle();
    }
    assert!(pair.a.is_writable(id));
}

#[test]
fn the_largest_segment_is_offered_and_kept() {
    play(
        with(TcpConfig {
            max_segment: Some(1100),
            ..TcpConfig::default()
        }),
        "0.000 < S 0 win 32792 mss 1300
         0.000 > S. 0 ack 1 mss 1100
         0.010 < . 1 ack 1 win 60000
         0.010 accept
         0.010 write 2200
         0.010 > . 1:1101 ack 1
         0.010 > P. 1101:2201 ack 1",
    );
}

#[test]
fn a_connection_behaves_by_its_own_configuration() {
    let mut pair = Pair::new(TcpConfig::default());
    let own = TcpConfig {
        user_timeout: Some(Duration::from_secs(3)),
        ..TcpConfig::default()
    };
    pair.a.configure(pair.now, pair.client, &own).unwrap();
    assert_eq!(pair.a.write(pair.now, pair.client, b"x"), Ok(1));
    let begin = pair.now;
    pair.lose_everything_of_a();
    while pair
        .a
        .info(pair.client)
        .is_some_and(|info| info.state != State::Closed)
    {
        pair.now = pair.a.poll_timeout().expect("it gives up some time");
        pair.a.handle_timeout(pair.now);
        pair.lose_everything_of_a();
    }
    assert!(
        pair.now.since(begin) < Duration::from_secs(8),
        "{:?}",
        pair.now.since(begin)
    );
}

#[test]
fn what_happened_is_counted_if_it_is_to_be() {
    let mut pair = Pair::new(TcpConfig {
        statistics: true,
        ..TcpConfig::default()
    });
    let id = pair.client;
    let begin: Instant = pair.now;
    assert_eq!(pair.a.write(begin, id, &[7; 5000]), Ok(5000));
    pair.payloads_of_a();
    pair.now += Duration::from_millis(100);
    pair.settle();
    let stats = pair.a.statistics(pair.now, id).unwrap();
    assert_eq!((stats.bytes_sent, stats.bytes_acknowledged), (5000, 5000));
    assert_eq!(stats.data_segments_out, 4);
    assert_eq!(stats.delivered, 5, "the SYN is one of them");
    assert!(stats.busy >= Duration::from_millis(100), "{:?}", stats.busy);
    assert_eq!(stats.window_limited, Duration::ZERO);

    let mut pair = Pair::new(TcpConfig::default());
    pair.settle();
    assert_eq!(pair.a.statistics(pair.now, pair.client), None);
}

#[test]
fn a_reset_of_ours_carries_a_timestamp() {
    play(
        StackConfig::default(),
        "0.000 < S 0 win 20000 mss 1000 sackok ts 100 0
         0.000 > S. 0 ack 1
         0.010 < . 1 ack 1 win 20000 ts 110 last
         0.010 accept
         0.020 < . 1:11 ack 1 win 20000 ts 120 last
         0.020 > . 1 ack 11 ts 0 120
         1.000 close
         1.000 > R. 1 ack 11 ts 0 120",
    );
}

#[test]
fn ecn_is_refused_where_it_is_not_to_be_granted() {
    play(
        with(TcpConfig {
            accept_ecn: false,
            ..TcpConfig::default()
        }),
        "0.000 < SEW 0 win 60000 mss 1460
         0.000 > S. 0 ack 1",
    );
}

#[test]
fn without_restart_the_window_survives_a_pause() {
    play(
        with(TcpConfig {
            restart_after_idle: false,
            ..TcpConfig::default()
        }),
        "0.000 < S 0 win 65535 mss 1000
         0.000 > S. 0 ack 1
         0.010 < . 1 ack 1 win 65535
         0.010 accept
         0.010 write 2000
         0.010 > . 1:1001 ack 1
         0.010 > P. 1001:2001 ack 1
         0.020 < . 1 ack 2001 win 65535
         9.000 write 1000
         9.000 > P. 2001:3001 ack 1
         9.000 cwnd 10",
    );
}
