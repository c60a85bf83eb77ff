//! Reductions of the window that were wrong: RFC 3522, 3708, 4015, 5682.

use portolan_stack::{StackConfig, TcpConfig};

use crate::support::trace::play;

/// Ten segments of 1000 bytes in flight over a path of 10 ms, of `len` bytes written.
fn ten_in_flight(len: u32, options: &str, rest: &str) -> String {
    let timestamps = if options.contains("ts") { "ts 100 last" } else { "" };
    let mut script = format!(
        "0.000 < S 0 win 65535 {options}
         0.000 > S. 0 ack 1
         0.010 < . 1 ack 1 {timestamps}
         0.010 accept
         0.010 write {len}\n"
    );
    for number in 0..10 {
        let flags = if (number + 1) * 1000 == len { "P." } else { "." };
        script += &format!(
            "0.010 > {flags} {}:{} ack 1\n",
            1 + number * 1000,
            1001 + number * 1000
        );
    }
    script + rest
}

const PLAIN: &str = "mss 1000";
const SACK: &str = "mss 1000 sackok";
const SACK_TIMESTAMPS: &str = "mss 1012 sackok ts 100 0";
const TIMESTAMPS: &str = "mss 1012 ts 100 0";

#[test]
fn a_timeout_is_undone_by_the_timestamp_of_what_went_first() {
    play(
        StackConfig::default(),
        &ten_in_flight(
            10_000,
            SACK_TIMESTAMPS,
            "0.032 > P. 9001:10001 ack 1
             0.242 > . 1:1001 ack 1
             0.242 cwnd 1
             0.250 < . 1 ack 1001 ts 110 @10
             0.250 cwnd 11
             0.251 < . 1 ack 10001 ts 110 @10
             0.251 cwnd 20",
        ),
    );
}

#[test]
fn a_timeout_is_kept_if_the_timestamp_is_of_what_went_again() {
    play(
        StackConfig::default(),
        &ten_in_flight(
            10_000,
            SACK_TIMESTAMPS,
            "0.032 > P. 9001:10001 ack 1
             0.242 > . 1:1001 ack 1
             0.252 < . 1 ack 1001 ts 110 last
             0.252 > . 1001:2001 ack 1
             0.252 > . 2001:3001 ack 1
             0.252 cwnd 2",
        ),
    );
}

#[test]
fn without_sack_the_window_comes_back_and_duplicates_mean_nothing() {
    // RFC 6582, section 4: the peer answers each copy of what it has with a duplicate.
    play(
        StackConfig::default(),
        &ten_in_flight(
            10_000,
            TIMESTAMPS,
            "0.220 > . 1:1001 ack 1
             0.221 < . 1 ack 5001 ts 110 @10
             0.221 cwnd 15
             0.222 < . 1 ack 5001 ts 110 @10
             0.222 < . 1 ack 5001 ts 110 @10
             0.222 < . 1 ack 5001 ts 110 @10
             0.222 < . 1 ack 5001 ts 110 @10
             0.223 < . 1 ack 10001 ts 110 @10",
        ),
    );
}

/// More than ten segments are written, and after the timeout the acknowledgment of the first lets two new ones go.
fn new_data_goes_first(len: u32, options: &str, rest: &str) -> String {
    let timeout = if options.contains("sackok") {
        "0.032 > . 10001:11001 ack 1
         0.242 > . 1:1001 ack 1
         0.242 cwnd 1
         0.250 < . 1 ack 1001
         0.250 > . 11001:12001 ack 1
         0.250 > . 12001:13001 ack 1\n"
    } else {
        "0.220 > . 1:1001 ack 1
         0.220 cwnd 1
         0.250 < . 1 ack 1001
         0.250 > . 10001:11001 ack 1
         0.250 > . 11001:12001 ack 1\n"
    };
    ten_in_flight(len, options, &(timeout.to_owned() + rest))
}

#[test]
fn a_timeout_is_undone_when_what_went_once_arrives() {
    // 2000 bytes of 12,000, or 13,000 with the probe's, are acknowledged: a window of 11 has room for all.
    play(
        StackConfig::default(),
        &new_data_goes_first(
            12_000,
            PLAIN,
            "0.251 < . 1 ack 2001
             0.251 cwnd 11
             0.252 < . 1 ack 12001",
        ),
    );
    play(
        StackConfig::default(),
        &new_data_goes_first(
            13_000,
            SACK,
            "0.251 < . 1 ack 1001 sack 2001-3001
             0.251 cwnd 10
             0.252 < . 1 ack 13001",
        ),
    );
}

#[test]
fn a_timeout_is_kept_when_only_new_data_arrives() {
    play(
        StackConfig::default(),
        &new_data_goes_first(
            12_000,
            PLAIN,
            "0.260 < . 1 ack 1001
             0.260 > . 1001:2001 ack 1
             0.260 cwnd 2
             0.270 < . 1 ack 12001",
        ),
    );
    play(
        StackConfig::default(),
        &new_data_goes_first(
            13_000,
            SACK,
            "0.260 < . 1 ack 1001 sack 11001-12001
             0.260 > . 1001:2001 ack 1
             0.260 cwnd 2
             0.270 < . 1 ack 13001",
        ),
    );
}

/// The first segment is sent again after three SACKs.
fn sent_again(options: &str, rest: &str) -> String {
    let timestamps = if options.contains("ts") { "ts 110 @10" } else { "" };
    let script = format!(
        "0.020 < . 1 ack 1 sack 1001-2001 {timestamps}
         0.021 < . 1 ack 1 sack 1001-3001 {timestamps}
         0.022 < . 1 ack 1 sack 1001-4001 {timestamps}
         0.022 > . 1:1001 ack 1
         0.022 cwnd 7\n"
    );
    ten_in_flight(10_000, options, &(script + rest))
}

#[test]
fn a_fast_retransmit_is_undone_by_the_timestamp_of_what_went_first() {
    play(
        StackConfig::default(),
        &sent_again(
            SACK_TIMESTAMPS,
            "0.023 < . 1 ack 5001 ts 111 @10
             0.023 cwnd 12
             0.024 < . 1 ack 10001 ts 111 @10
             0.024 cwnd 17",
        ),
    );
    play(
        StackConfig::default(),
        &sent_again(
            SACK_TIMESTAMPS,
            "0.032 < . 1 ack 10001 ts 111 @22
             0.032 cwnd 7",
        ),
    );
}

#[test]
fn a_fast_retransmit_is_undone_by_a_duplicate_that_the_peer_tells_of() {
    play(
        StackConfig::default(),
        &sent_again(
            SACK,
            "0.023 < . 1 ack 5001
             0.023 cwnd 7
             0.028 < . 1 ack 5001 sack 1-1001
             0.028 cwnd 10
             0.033 < . 1 ack 10001
             0.033 cwnd 15",
        ),
    );
    // The recovery is over when it comes.
    play(
        StackConfig::default(),
        &sent_again(
            SACK,
            "0.023 < . 1 ack 10001
             0.023 cwnd 7
             0.028 < . 1 ack 10001 sack 1-1001
             0.028 cwnd 10",
        ),
    );
}

#[test]
fn every_retransmission_must_have_been_a_duplicate() {
    play(
        StackConfig::default(),
        &sent_again(
            SACK,
            "0.023 < . 1 ack 1 sack 5001-10001,1001-4001
             0.023 > . 4001:5001 ack 1
             0.024 < . 1 ack 4001 sack 5001-10001
             0.032 < . 1 ack 4001 sack 1-1001,5001-10001
             0.033 < . 1 ack 10001
             0.033 cwnd 7",
        ),
    );
}

#[test]
fn a_late_segment_undoes_nothing_while_another_retransmission_is_on_its_way() {
    play(
        StackConfig::default(),
        &sent_again(
            SACK_TIMESTAMPS,
            "0.023 < . 1 ack 1 sack 5001-10001,1001-4001 ts 110 @10
             0.023 > . 4001:5001 ack 1
             0.024 < . 1 ack 4001 sack 5001-10001 ts 111 @10
             0.033 < . 1 ack 10001 ts 112 @23
             0.033 cwnd 7",
        ),
    );
}

#[test]
fn a_mark_of_congestion_is_never_undone() {
    play(
        StackConfig {
            tcp: TcpConfig {
                ecn: true,
                ..TcpConfig::default()
            },
            ..StackConfig::default()
        },
        "0.000 connect
         0.000 > SEW 0
         0.010 < S.E 0 ack 1 win 65535 mss 1012 sackok ts 100 last
         0.010 > . 1 ack 1
         0.010 write 3000
         0.010 > . 1:1001 ack 1 ect
         0.010 > . 1001:2001 ack 1 ect
         0.010 > P. 2001:3001 ack 1 ect
         0.020 < .E 1 ack 1001 ts 101 @10
         0.021 < . 1 ack 2001 ts 102 @10
         0.021 < . 1 ack 2001 sack 1-1001 ts 102 @10
         0.022 < . 1 ack 3001 ts 103 @10
         0.022 cwnd 7",
    );
}

#[test]
fn a_loss_is_told_to_an_ecn_peer_and_an_undone_one_is_not() {
    let opening = "0.000 connect
         0.000 > SEW 0
         0.010 < S.E 0 ack 1 win 65535 mss 1012 sackok ts 100 last
         0.010 > . 1 ack 1
         0.010 write 4000
         0.010 > . 1:1001 ack 1 ect
         0.010 > . 1001:2001 ack 1 ect
         0.010 > . 2001:3001 ack 1 ect
         0.010 > P. 3001:4001 ack 1 ect
         0.020 < . 1 ack 1 sack 1001-4001 ts 101 @10
         0.020 > . 1:1001 ack 1\n";
    for (echo, flags) in [("@20", "P.W"), ("@10", "P.")] {
        play(
            StackConfig {
                tcp: TcpConfig {
                    ecn: true,
                    ..TcpConfig::default()
                },
                ..StackConfig::default()
            },
            &format!(
                "{opening}
                 0.030 < . 1 ack 4001 ts 101 {echo}
                 0.031 write 1000
                 0.031 > {flags} 4001:5001 ack 1 ect"
            ),
        );
    }
}
