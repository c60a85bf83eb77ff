//! The sender: windows, Nagle, probes, keepalive (RFC 9293, sections 3.7 and 3.8).

use portolan_stack::{Duration, Keepalive, StackConfig, TcpConfig};

use crate::support::trace::play;

fn with(tcp: TcpConfig) -> StackConfig {
    StackConfig {
        tcp,
        ..StackConfig::default()
    }
}

/// An accepted connection with segments of 1000 bytes, SACK and no timestamps.
fn established(window: u32, rest: &str) -> String {
    format!(
        "0.000 < S 0 win {window} mss 1000 sackok
         0.000 > S. 0 ack 1
         0.010 < . 1 ack 1 win {window}
         0.010 accept\n{rest}"
    )
}

#[test]
fn ten_segments_go_at_first_and_two_for_each_that_is_acknowledged() {
    play(
        StackConfig::default(),
        &established(
            65_535,
            "0.010 write 20000
             0.010 > . 1:1001 ack 1
             0.010 > . 1001:2001 ack 1
             0.010 > . 2001:3001 ack 1
             0.010 > . 3001:4001 ack 1
             0.010 > . 4001:5001 ack 1
             0.010 > . 5001:6001 ack 1
             0.010 > . 6001:7001 ack 1
             0.010 > . 7001:8001 ack 1
             0.010 > . 8001:9001 ack 1
             0.010 > . 9001:10001 ack 1
             0.030 < . 1 ack 2001
             0.030 > . 10001:11001 ack 1
             0.030 > . 11001:12001 ack 1
             0.030 > . 12001:13001 ack 1
             0.030 > . 13001:14001 ack 1
             0.030 cwnd 12",
        ),
    );
}

#[test]
fn nagle_holds_a_small_segment_while_another_is_unacknowledged() {
    play(
        StackConfig::default(),
        &established(
            65_535,
            "0.010 write 100
             0.010 > P. 1:101 ack 1
             0.011 write 100
             0.012 write 100
             0.020 < . 1 ack 101
             0.020 > P. 101:301 ack 1",
        ),
    );
}

#[test]
fn without_nagle_every_write_goes_at_once() {
    play(
        with(TcpConfig {
            no_delay: true,
            ..TcpConfig::default()
        }),
        &established(
            65_535,
            "0.010 write 100
             0.010 > P. 1:101 ack 1
             0.011 write 100
             0.011 > P. 101:201 ack 1",
        ),
    );
}

#[test]
fn a_shut_window_is_probed_with_doubled_pauses_as_long_as_the_peer_answers() {
    play(
        with(TcpConfig {
            retries: 3,
            ..TcpConfig::default()
        }),
        &established(
            1000,
            "0.010 write 1500
             0.010 > . 1:1001 ack 1
             0.020 < . 1 ack 1001 win 0
             0.230 > . 1000 ack 1
             0.240 < . 1 ack 1001 win 0
             0.650 > . 1000 ack 1
             0.660 < . 1 ack 1001 win 0
             1.490 > . 1000 ack 1
             1.500 < . 1 ack 1001 win 0
             3.170 > . 1000 ack 1
             3.180 < . 1 ack 1001 win 0
             4.000 < . 1 ack 1001 win 1000
             4.000 > P. 1001:1501 ack 1",
        ),
    );
}

#[test]
fn a_peer_that_does_not_answer_probes_is_given_up() {
    play(
        with(TcpConfig {
            retries: 2,
            ..TcpConfig::default()
        }),
        &established(
            1000,
            "0.010 write 1500
             0.010 > . 1:1001 ack 1
             0.020 < . 1 ack 1001 win 0
             0.230 > . 1000 ack 1
             0.650 > . 1000 ack 1
             1.492 closed TimedOut",
        ),
    );
}

/// What a peer takes back it would not take an acknowledgment from beyond of either (Linux: tcp_acceptable_seq).
#[test]
fn acknowledgments_stay_within_a_window_that_was_taken_back() {
    play(
        StackConfig::default(),
        &established(
            65_535,
            "0.010 write 3000
             0.010 > . 1:1001 ack 1
             0.010 > . 1001:2001 ack 1
             0.010 > P. 2001:3001 ack 1
             0.020 < . 1 ack 1001 win 500
             0.021 < P. 1:101 ack 1001 win 500
             0.021 > . 1501 ack 101
             0.030 < . 101 ack 1001 win 2000
             0.031 < P. 101:201 ack 1001 win 2000
             0.031 > . 3001 ack 201",
        ),
    );
}

#[test]
fn a_fin_behind_data_that_fills_the_window_does_not_hold_acknowledgments_back() {
    play(
        StackConfig::default(),
        &established(
            1000,
            "0.010 write 1500
             0.010 > . 1:1001 ack 1
             0.010 finish
             0.020 < . 1 ack 1001 win 500
             0.020 > FP. 1001:1501 ack 1
             0.030 < P. 1:101 ack 1001 win 500
             0.030 > . 1502 ack 101",
        ),
    );
}

#[test]
fn a_shut_window_does_not_hold_a_connection_that_nobody_holds() {
    play(
        with(TcpConfig {
            retries: 2,
            ..TcpConfig::default()
        }),
        &established(
            1000,
            "0.010 write 1500
             0.010 > . 1:1001 ack 1
             0.020 < . 1 ack 1001 win 0
             0.020 close
             0.230 > . 1000 ack 1
             0.240 < . 1 ack 1001 win 0
             0.650 > . 1000 ack 1
             0.660 < . 1 ack 1001 win 0
             1.600 < . 1 ack 1001 win 0
             1.600 > R 1001",
        ),
    );
}

#[test]
fn a_sliver_of_window_is_not_used_before_its_time() {
    // Section 3.8.6.2.1: less than a segment and less than half the largest window.
    play(
        StackConfig::default(),
        &established(
            4000,
            "0.010 write 6000
             0.010 > . 1:1001 ack 1
             0.010 > . 1001:2001 ack 1
             0.010 > . 2001:3001 ack 1
             0.010 > . 3001:4001 ack 1
             0.020 < . 1 ack 4001 win 300
             0.230 > . 4001:4301 ack 1
             0.240 < . 1 ack 4301 win 4000
             0.240 > . 4301:5301 ack 1
             0.240 > P. 5301:6001 ack 1",
        ),
    );
}

#[test]
fn an_idle_peer_is_asked_and_given_up_if_it_is_gone() {
    play(
        with(TcpConfig {
            keepalive: Some(Keepalive {
                idle: Duration::from_secs(10),
                interval: Duration::from_secs(1),
                probes: 2,
            }),
            ..TcpConfig::default()
        }),
        &established(
            65_535,
            "10.010 > . 0 ack 1
             10.020 < . 1 ack 1
             20.020 > . 0 ack 1
             21.020 > . 0 ack 1
             22.022 closed TimedOut",
        ),
    );
}

#[test]
fn data_that_nobody_acknowledges_ends_the_connection_after_the_user_timeout() {
    play(
        with(TcpConfig {
            user_timeout: Some(Duration::from_secs(1)),
            sack: false,
            ..TcpConfig::default()
        }),
        &established(
            65_535,
            "0.010 write 100
             0.010 > P. 1:101 ack 1
             0.220 > P. 1:101 ack 1
             0.640 > P. 1:101 ack 1
             1.482 closed TimedOut",
        ),
    );
}

#[test]
fn the_window_starts_anew_after_a_pause() {
    play(
        StackConfig::default(),
        &established(
            65_535,
            "0.010 write 10000
             0.010 > . 1:1001 ack 1
             0.010 > . 1001:2001 ack 1
             0.010 > . 2001:3001 ack 1
             0.010 > . 3001:4001 ack 1
             0.010 > . 4001:5001 ack 1
             0.010 > . 5001:6001 ack 1
             0.010 > . 6001:7001 ack 1
             0.010 > . 7001:8001 ack 1
             0.010 > . 8001:9001 ack 1
             0.010 > P. 9001:10001 ack 1
             0.020 < . 1 ack 10001
             0.020 cwnd 20
             2.000 write 1000
             2.000 > P. 10001:11001 ack 1
             2.000 cwnd 10",
        ),
    );
}

#[test]
fn the_window_of_an_older_segment_does_not_count() {
    play(
        StackConfig::default(),
        &established(
            10_000,
            "0.020 < P. 1:11 ack 1 win 500
             0.020 > . 1 ack 11
             0.021 < . 1 ack 1 win 10000
             0.021 > . 1 ack 11
             0.030 write 800
             0.240 > . 1:501 ack 11",
        ),
    );
}
