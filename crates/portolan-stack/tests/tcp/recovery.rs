//! Losses: RFC 6298, 6582, 6675, 6937, 8985.

use portolan_stack::{CongestionControl, StackConfig, TcpConfig};

use crate::support::trace::play;

fn with(tcp: TcpConfig) -> StackConfig {
    StackConfig {
        tcp,
        ..StackConfig::default()
    }
}

/// Ten segments of 1000 bytes in flight over a path of 10 ms.
fn ten_in_flight(sack: &str, rest: &str) -> String {
    let mut script = format!(
        "0.000 < S 0 win 65535 mss 1000 {sack}
         0.000 > S. 0 ack 1
         0.010 < . 1 ack 1
         0.010 accept
         0.010 write 10000\n"
    );
    for number in 0..10 {
        let flags = if number == 9 { "P." } else { "." };
        script += &format!(
            "0.010 > {flags} {}:{} ack 1\n",
            1 + number * 1000,
            1001 + number * 1000
        );
    }
    script + rest
}

#[test]
fn three_segments_beyond_a_hole_send_it_again() {
    play(
        StackConfig::default(),
        &ten_in_flight(
            "sackok",
            "0.020 < . 1 ack 1 sack 1001-2001
             0.021 < . 1 ack 1 sack 1001-3001
             0.022 < . 1 ack 1 sack 1001-4001
             0.022 > . 1:1001 ack 1
             0.030 < . 1 ack 10001
             0.030 cwnd 7",
        ),
    );
}

#[test]
fn fewer_segments_send_it_again_when_a_quarter_of_the_round_trip_has_passed() {
    // RFC 8985, section 6.2: without reordering the window is min_rtt / 4 until three segments prove it; Linux's timer
    // adds 2 ms.
    play(
        StackConfig::default(),
        &ten_in_flight(
            "sackok",
            "0.020 < . 1 ack 1 sack 1001-2001
             0.0245 > . 1:1001 ack 1
             0.030 < . 1 ack 10001
             0.030 cwnd 7",
        ),
    );
}

#[test]
fn every_hole_is_sent_again_in_one_round_trip() {
    play(
        StackConfig::default(),
        &ten_in_flight(
            "sackok",
            "0.020 < . 1 ack 1 sack 1001-2001
             0.020 < . 1 ack 1 sack 3001-4001,1001-2001
             0.020 < . 1 ack 1 sack 5001-8001,3001-4001,1001-2001
             0.020 > . 1:1001 ack 1
             0.020 > . 2001:3001 ack 1
             0.020 > . 4001:5001 ack 1
             0.030 < . 1 ack 3001 sack 3001-4001,5001-10001
             0.031 < . 1 ack 10001
             0.031 cwnd 7",
        ),
    );
}

#[test]
fn a_lost_retransmission_is_found_by_what_was_sent_after_it() {
    play(
        StackConfig::default(),
        &ten_in_flight(
            "sackok",
            "0.020 write 5000
             0.020 < . 1 ack 1 sack 1001-7001
             0.020 > . 1:1001 ack 1
             0.020 > . 10001:11001 ack 1
             0.020 > . 11001:12001 ack 1
             0.020 > . 12001:13001 ack 1
             0.031 < . 1 ack 1 sack 1001-11001
             0.031 > . 1:1001 ack 1
             0.031 > . 13001:14001 ack 1
             0.031 > P. 14001:15001 ack 1
             0.041 < . 1 ack 15001",
        ),
    );
}

#[test]
fn a_lost_tail_is_probed_before_the_timeout() {
    // RFC 8985, section 7.2: twice the round-trip time after the last segment; Linux adds 2 ms.
    play(
        StackConfig::default(),
        &ten_in_flight(
            "sackok",
            "0.020 < . 1 ack 8001
             0.042 > P. 9001:10001 ack 1
             0.053 < . 1 ack 8001 sack 9001-10001
             0.053 > . 8001:9001 ack 1
             0.060 < . 1 ack 10001",
        ),
    );
}

#[test]
fn a_probe_that_mended_the_loss_alone_counts_as_one() {
    play(
        StackConfig::default(),
        &ten_in_flight(
            "sackok",
            "0.020 < . 1 ack 9001
             0.020 cwnd 19
             0.230 > P. 9001:10001 ack 1
             0.250 < . 1 ack 10001
             0.251 write 1000
             0.251 > P. 10001:11001 ack 1
             0.261 < . 1 ack 11001
             0.261 cwnd 14",
        ),
    );
}

#[test]
fn a_probe_that_was_not_needed_changes_nothing() {
    play(
        StackConfig::default(),
        &ten_in_flight(
            "sackok",
            "0.020 < . 1 ack 9001
             0.230 > P. 9001:10001 ack 1
             0.250 < . 1 ack 10001 sack 9001-10001
             0.251 write 1000
             0.251 > P. 10001:11001 ack 1
             0.261 < . 1 ack 11001
             0.261 cwnd 20",
        ),
    );
}

#[test]
fn a_timeout_starts_over_with_one_segment() {
    play(
        with(TcpConfig {
            sack: false,
            ..TcpConfig::default()
        }),
        &ten_in_flight(
            "",
            "0.220 > . 1:1001 ack 1
             0.220 cwnd 1
             0.230 < . 1 ack 1001
             0.230 > . 1001:2001 ack 1
             0.230 > . 2001:3001 ack 1
             0.230 cwnd 2
             0.240 < . 1 ack 10001
             0.240 state ESTABLISHED",
        ),
    );
}

#[test]
fn a_timeout_keeps_what_the_peer_has() {
    play(
        StackConfig::default(),
        &ten_in_flight(
            "sackok",
            "0.020 < . 1 ack 1 sack 5001-10001
             0.020 > . 1:1001 ack 1
             0.020 > . 1001:2001 ack 1
             0.020 > . 2001:3001 ack 1
             0.020 > . 3001:4001 ack 1
             0.020 > . 4001:5001 ack 1
             0.220 > . 1:1001 ack 1
             0.220 cwnd 1
             0.240 < . 1 ack 2001 sack 5001-10001
             0.240 > . 2001:3001 ack 1
             0.240 > . 3001:4001 ack 1
             0.240 > . 4001:5001 ack 1
             0.250 < . 1 ack 10001",
        ),
    );
}

#[test]
fn without_sack_three_duplicates_and_partial_acknowledgments_tell() {
    play(
        with(TcpConfig {
            congestion_control: CongestionControl::NewReno,
            ..TcpConfig::default()
        }),
        &ten_in_flight(
            "",
            "0.020 < . 1 ack 1
             0.021 < . 1 ack 1
             0.022 < . 1 ack 1
             0.022 > . 1:1001 ack 1
             0.023 < . 1 ack 1
             0.024 < . 1 ack 1
             0.025 < . 1 ack 1
             0.032 < . 1 ack 4001
             0.032 > . 4001:5001 ack 1
             0.042 < . 1 ack 10001
             0.042 cwnd 5",
        ),
    );
}

#[test]
fn reordering_is_not_taken_for_loss_once_it_was_seen() {
    play(
        StackConfig::default(),
        &ten_in_flight(
            "sackok",
            "0.020 < . 1 ack 1 sack 1001-2001
             0.021 < . 1 ack 2001
             0.021 < . 1 ack 2001 sack 3001-4001
             0.0215 < . 1 ack 2001 sack 3001-8001
             0.022 < . 1 ack 8001
             0.022 < . 1 ack 10001
             0.022 cwnd 14",
        ),
    );
}

#[test]
fn an_echoed_mark_shrinks_the_window_once_and_is_answered() {
    play(
        with(TcpConfig {
            ecn: true,
            ..TcpConfig::default()
        }),
        "0.000 connect
         0.000 > SEW 0
         0.010 < S.E 0 ack 1 win 65535 mss 1000 sackok
         0.010 > . 1 ack 1
         0.010 write 3000
         0.010 > . 1:1001 ack 1 ect
         0.010 > . 1001:2001 ack 1 ect
         0.010 > P. 2001:3001 ack 1 ect
         0.020 < .E 1 ack 1001
         0.021 < .E 1 ack 3001
         0.021 cwnd 7
         0.030 write 1000
         0.030 > P.W 3001:4001 ack 1 ect
         0.040 < . 1 ack 4001",
    );
}
