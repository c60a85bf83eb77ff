//! Opening: RFC 9293, section 3.5, and the options that are agreed on there.

use portolan_stack::{StackConfig, TcpConfig};

use crate::support::trace::play;

fn config() -> StackConfig {
    StackConfig::default()
}

fn with(tcp: TcpConfig) -> StackConfig {
    StackConfig { tcp, ..config() }
}

#[test]
fn a_listener_answers_and_agrees_on_every_option() {
    play(
        config(),
        "0.000 < S 0 win 65535 mss 1460 sackok ts 100 0 wscale 7
         0.000 > S. 0 ack 1 win 65535 mss 1460 sackok ts 0 100 wscale 7
         0.010 < . 1 ack 1 win 512 ts 110 0
         0.010 accept
         0.010 state ESTABLISHED
         0.020 < P. 1:101 ack 1 win 512 ts 120 0
         0.020 > . 1 ack 101 ts 0 120
         0.030 read 100
         0.030 read-nothing",
    );
}

#[test]
fn a_peer_without_options_gets_none_and_the_default_segment_size() {
    play(
        config(),
        "0.000 < S 0 win 65535
         0.000 > S. 0 ack 1 mss 1460
         0.010 < . 1 ack 1 win 65535
         0.010 accept
         0.010 write 600
         0.010 > . 1:537 ack 1
         0.010 > P. 537:601 ack 1",
    );
}

#[test]
fn connect_sends_a_syn_and_is_done_with_the_answer() {
    play(
        config(),
        "0.000 connect
         0.000 > S 0 win 65535 mss 1460 sackok wscale 7
         0.000 write 100
         0.020 < S. 0 ack 1 win 65535 mss 1000 sackok wscale 7
         0.020 > P. 1:101 ack 1
         0.020 state ESTABLISHED",
    );
}

#[test]
fn a_lost_syn_is_repeated_with_doubled_timeouts_until_the_limit() {
    play(
        with(TcpConfig {
            syn_retries: 3,
            ..TcpConfig::default()
        }),
        "0.000 connect
         0.000 > S 0
         1.000 > S 0
         3.000 > S 0
         7.000 > S 0
         14.999 state SYN-SENT
         15.001 state CLOSED
         15.001 closed TimedOut",
    );
}

#[test]
fn a_lost_answer_is_repeated_and_so_is_the_answer_to_a_repeated_syn() {
    play(
        config(),
        "0.000 < S 0 win 65535 mss 1460
         0.000 > S. 0 ack 1
         0.500 < S 0 win 65535 mss 1460
         0.500 > S. 0 ack 1
         1.000 > S. 0 ack 1
         1.500 < . 1 ack 1 win 65535
         1.500 accept",
    );
}

#[test]
fn refusal_ends_the_attempt_only_if_it_acknowledges_the_syn() {
    play(
        config(),
        "0.000 connect
         0.000 > S 0
         0.001 < R 0
         0.001 state SYN-SENT
         0.002 < R. 0 ack 7
         0.002 state SYN-SENT
         0.003 < R. 0 ack 1
         0.003 state CLOSED
         0.003 closed Refused",
    );
}

#[test]
fn a_wrong_acknowledgment_of_the_syn_is_reset() {
    play(
        config(),
        "0.000 connect
         0.000 > S 0
         0.001 < S. 0 ack 77
         0.001 > R 77
         0.001 state SYN-SENT
         0.002 < . 1 ack 0
         0.002 > R 0
         0.003 < S. 0 ack 1
         0.003 > . 1 ack 1",
    );
}

#[test]
fn both_sides_may_open_at_once() {
    play(
        config(),
        "0.000 connect
         0.000 > S 0
         0.010 < S 0 win 1000 mss 1460
         0.010 > S. 0 ack 1
         0.010 state SYN-RECEIVED
         0.020 < S. 0 ack 1 win 1000 mss 1460
         0.020 state ESTABLISHED
         0.020 write 10
         0.020 > P. 1:11 ack 1",
    );
}

/// RFC 7323, section 2.2: also where the SYN comes a second time, with the acknowledgment of ours.
#[test]
fn the_window_of_a_syn_is_not_scaled_where_both_open_at_once() {
    play(
        config(),
        "0.000 connect
         0.000 > S 0 wscale 7
         0.010 < S 0 win 1500 mss 1000 wscale 7
         0.010 > S. 0 ack 1
         0.020 < S. 0 ack 1 win 1500 mss 1000 wscale 7
         0.020 state ESTABLISHED
         0.020 write 5000
         0.020 > . 1:1001 ack 1
         0.030 < . 1 ack 1001 win 16
         0.030 > . 1001:2001 ack 1
         0.030 > . 2001:3001 ack 1",
    );
}

#[test]
fn a_wrong_acknowledgment_of_our_answer_is_reset_and_the_right_one_still_counts() {
    play(
        config(),
        "0.000 < S 0 win 65535 mss 1460
         0.000 > S. 0 ack 1
         0.010 < . 1 ack 900
         0.010 > R 900
         0.020 < . 1 ack 1
         0.020 accept
         0.020 state ESTABLISHED",
    );
}

#[test]
fn the_longest_timeout_bounds_that_of_the_answer() {
    let tcp = TcpConfig {
        max_rto: portolan_stack::Duration::from_secs(2),
        syn_ack_retries: 4,
        ..TcpConfig::default()
    };
    play(
        with(tcp),
        "0.000 < S 0 win 65535 mss 1460
         0.000 > S. 0 ack 1
         1.000 > S. 0 ack 1
         3.000 > S. 0 ack 1
         5.000 > S. 0 ack 1
         7.000 > S. 0 ack 1
         20.000 < . 1 ack 1
         20.000 > R 1",
    );
}

#[test]
fn a_reset_in_the_handshake_frees_its_place_in_the_queue() {
    // The backlog is 1: two may be half open.
    let mut script = String::new();
    for round in 0..5 {
        script += &format!(
            "{round}.000 < S 0 win 65535 mss 1460
             {round}.000 > S. 0 ack 1
             {round}.100 < R 1\n"
        );
    }
    play(config(), &script);
}

#[test]
fn ecn_is_granted_to_a_peer_that_asks() {
    play(
        config(),
        "0.000 < SEW 0 win 65535 mss 1460
         0.000 > S.E 0 ack 1
         0.010 < . 1 ack 1
         0.010 accept
         0.010 write 100
         0.010 > P. 1:101 ack 1 ect
         0.020 < P. 1:11 ack 101 ce
         0.020 > .E 101 ack 11
         0.030 < P. 11:21 ack 101
         0.030 > .E 101 ack 21
         0.040 < P.W 21:31 ack 101
         0.040 > . 101 ack 31",
    );
}

#[test]
fn ecn_bits_that_nobody_asked_for_are_ignored() {
    play(
        config(),
        "0.000 < SE 0 win 65535 mss 1460
         0.000 > S. 0 ack 1
         0.010 < .EW 1 ack 1
         0.010 accept
         0.010 write 100
         0.010 > P. 1:101 ack 1",
    );
}

#[test]
fn no_listener_means_a_reset() {
    play(
        config(),
        "0.000 < . 1:6 ack 33
         0.000 > R 33
         0.001 < F 9
         0.001 > R. 0 ack 10
         0.002 < R 9",
    );
}
