//! Segments of others: RFC 5961, RFC 7323 (PAWS), RFC 9293, section 3.10.7.4.

use portolan_stack::{StackConfig, TcpConfig};

use crate::support::trace::play;

fn run(rest: &str) {
    let script = format!(
        "0.000 < S 0 win 1000 mss 1000 sackok ts 1000 0
         0.000 > S. 0 ack 1
         0.010 < . 1 ack 1 win 1000 ts 1010 0
         0.010 accept\n{rest}"
    );
    play(StackConfig::default(), &script);
}

#[test]
fn a_reset_counts_only_at_the_next_number() {
    run("1.000 < R 5
         1.000 > . 1 ack 1
         2.000 < R 2000000000
         3.000 < R 0
         3.000 state ESTABLISHED
         4.000 < R 1
         4.000 closed Reset");
}

#[test]
fn a_reset_may_carry_data_and_comes_through_a_shut_window() {
    run("0.020 < R 1:41
         0.020 closed Reset");
    play(
        StackConfig {
            tcp: TcpConfig {
                initial_receive_buffer: 1000,
                receive_buffer: 1000,
                ..TcpConfig::default()
            },
            ..StackConfig::default()
        },
        "0.000 < S 0 win 65535 mss 1000
         0.000 > S. 0 ack 1
         0.010 < . 1 ack 1
         0.010 accept
         0.020 < P. 1:1001 ack 1
         0.020 > . 1 ack 1001 win 0
         0.030 < R 1001
         0.030 closed Reset",
    );
}

#[test]
fn a_syn_is_challenged() {
    run("1.000 < S 1 ts 2000 0
         1.000 > . 1 ack 1
         2.000 < S 70000000 ts 2000 0
         2.000 > . 1 ack 1
         2.000 state ESTABLISHED");
}

#[test]
fn challenges_are_limited_to_two_a_second() {
    run("1.000 < R 5
         1.000 > . 1 ack 1
         1.100 < R 5
         1.200 < R 6
         1.499 < R 7
         1.501 < R 8
         1.501 > . 1 ack 1");
}

#[test]
fn an_acknowledgment_of_what_was_never_sent_is_challenged() {
    run("1.000 < . 1 ack 500 ts 2000 0
         1.000 > . 1 ack 1
         2.000 < P. 1:11 ack 500 ts 2000 0
         2.000 > . 1 ack 1
         2.000 read-nothing");
}

#[test]
fn a_much_older_acknowledgment_is_challenged_and_its_data_is_not_taken() {
    run("1.000 write 800
         1.000 > P. 1:801 ack 1
         1.010 < . 1 ack 801 win 1000 ts 2000 0
         1.020 write 800
         1.020 > P. 801:1601 ack 1
         1.030 < . 1 ack 1601 win 1000 ts 2000 0
         2.000 < P. 1:11 ack 1 win 1000 ts 3000 0
         2.000 > . 1601 ack 1
         2.000 read-nothing
         3.000 < P. 1:11 ack 801 win 1000 ts 3000 0
         3.000 > . 1601 ack 11
         3.000 read 10");
}

#[test]
fn an_old_timestamp_is_acknowledged_and_dropped() {
    run("1.000 < P. 1:11 ack 1 ts 900 0
         1.000 > . 1 ack 1
         1.000 read-nothing
         2.000 < P. 1:11 ack 1 ts 1010 0
         2.000 > . 1 ack 11
         2.000 read 10");
}

#[test]
fn a_segment_without_the_agreed_timestamp_is_taken() {
    // RFC 7323, section 3.2, would drop it. Linux does not, since middleboxes strip options.
    run("1.000 < P. 1:11 ack 1
         1.000 > . 1 ack 11
         1.000 read 10
         2.000 < R 11
         2.000 closed Reset");
}

#[test]
fn after_24_days_an_old_timestamp_means_nothing() {
    run("2073700.000 < P. 1:11 ack 1 ts 900 0
         2073700.000 > . 1 ack 11 ts 0 900
         2073700.000 read 10");
}

#[test]
fn segments_outside_of_the_window_are_acknowledged_and_dropped() {
    run("1.000 < P. 2000000000:2000000010 ack 1 ts 2000 0
         1.000 > . 1 ack 1
         1.001 < . 2000000000 ack 1 ts 2000 0
         1.001 > . 1 ack 1
         1.002 < . 2000000000 ack 1 ts 2000 0
         1.003 < P 1:11 ts 2000 0
         1.003 read-nothing");
}
