//! The receiver: acknowledgments, windows, data out of order (RFC 9293, section 3.8.6; RFC 2018; RFC 2883).

use portolan_stack::{StackConfig, TcpConfig};

use crate::support::trace::play;

fn with(tcp: TcpConfig) -> StackConfig {
    StackConfig {
        tcp,
        ..StackConfig::default()
    }
}

fn established(rest: &str) -> String {
    format!(
        "0.000 < S 0 win 65535 mss 1000 sackok
         0.000 > S. 0 ack 1
         0.010 < . 1 ack 1
         0.010 accept\n{rest}"
    )
}

#[test]
fn acknowledgments_are_quick_at_first_then_wait_for_a_second_segment_or_40_ms() {
    let mut script = String::new();
    for number in 0..16 {
        let (seq, end) = (1 + number * 1000, 1001 + number * 1000);
        script += &format!(
            "0.0{} < . {seq}:{end} ack 1
             0.0{} > . 1 ack {end}\n",
            20 + number,
            20 + number
        );
    }
    script += "0.100 < . 16001:17001 ack 1
               0.101 < . 17001:18001 ack 1
               0.101 > . 1 ack 18001
               0.200 < . 18001:19001 ack 1
               0.240 > . 1 ack 19001";
    play(StackConfig::default(), &established(&script));
}

#[test]
fn what_comes_together_is_acknowledged_at_once() {
    play(
        StackConfig::default(),
        &established(
            "0.020 << . 1:101 ack 1
             0.020 << . 101:201 ack 1
             0.020 << . 201:301 ack 1
             0.020 < P. 301:401 ack 1
             0.020 > . 1 ack 401",
        ),
    );
}

#[test]
fn an_answer_takes_the_acknowledgment_along() {
    play(
        StackConfig::default(),
        &established(
            "0.020 < P. 1:101 ack 1
             0.020 > . 1 ack 101
             0.030 write 10
             0.030 > P. 1:11 ack 101
             0.040 < P. 101:201 ack 11
             0.040 > . 11 ack 201",
        ),
    );
}

#[test]
fn holes_are_told_at_once_and_the_last_block_comes_first() {
    play(
        StackConfig::default(),
        &established(
            "0.020 < . 1001:2001 ack 1
             0.020 > . 1 ack 1 sack 1001-2001
             0.021 < . 3001:4001 ack 1
             0.021 > . 1 ack 1 sack 3001-4001,1001-2001
             0.022 < . 5001:6001 ack 1
             0.022 > . 1 ack 1 sack 5001-6001,3001-4001,1001-2001
             0.023 < . 2001:3001 ack 1
             0.023 > . 1 ack 1 sack 1001-4001,5001-6001
             0.024 read-nothing
             0.024 < . 1:1001 ack 1
             0.024 > . 1 ack 4001 sack 5001-6001
             0.024 read 4000
             0.025 < . 4001:5001 ack 1
             0.025 > . 1 ack 6001
             0.025 read 2000",
        ),
    );
}

#[test]
fn a_range_that_grows_does_not_hide_those_that_came_before_it() {
    play(
        StackConfig::default(),
        &established(
            "0.020 < . 1001:2001 ack 1
             0.020 > . 1 ack 1 sack 1001-2001
             0.021 < . 3001:4001 ack 1
             0.021 > . 1 ack 1 sack 3001-4001,1001-2001
             0.022 < . 5001:6001 ack 1
             0.022 > . 1 ack 1 sack 5001-6001,3001-4001,1001-2001
             0.023 < . 7001:8001 ack 1
             0.023 > . 1 ack 1 sack 7001-8001,5001-6001,3001-4001,1001-2001
             0.024 < . 9001:10001 ack 1
             0.024 > . 1 ack 1 sack 9001-10001,7001-8001,5001-6001,1001-2001
             0.025 < . 10001:11001 ack 1
             0.025 > . 1 ack 1 sack 9001-11001,7001-8001,5001-6001,1001-2001
             0.026 < . 11001:12001 ack 1
             0.026 > . 1 ack 1 sack 9001-12001,7001-8001,5001-6001,1001-2001",
        ),
    );
}

/// A link gives what came in batches, and asks for what goes afterwards: the peer learns of every range nevertheless.
#[test]
fn each_range_of_a_batch_is_told() {
    play(
        StackConfig::default(),
        &established(
            "0.020 << . 1001:2001 ack 1
             0.020 << . 2001:3001 ack 1
             0.020 << . 4001:5001 ack 1
             0.020 << . 6001:7001 ack 1
             0.020 << . 8001:9001 ack 1
             0.020 < . 9001:10001 ack 1
             0.020 > . 1 ack 1 sack 1001-3001
             0.020 > . 1 ack 1 sack 4001-5001,1001-3001
             0.020 > . 1 ack 1 sack 6001-7001,4001-5001,1001-3001
             0.020 > . 1 ack 1 sack 8001-10001,6001-7001,4001-5001,1001-3001
             0.030 << . 1:1001 ack 1
             0.030 << . 1:1001 ack 1
             0.030 << . 1001:2001 ack 1
             0.030 << . 501:601 ack 1
             0.030 < . 3001:4001 ack 1
             0.030 > . 1 ack 3001 sack 1-2001,8001-10001,6001-7001,4001-5001
             0.030 > . 1 ack 5001 sack 501-601,8001-10001,6001-7001",
        ),
    );
}

#[test]
fn what_comes_twice_is_told_as_a_duplicate() {
    play(
        StackConfig::default(),
        &established(
            "0.020 < . 1:1001 ack 1
             0.020 > . 1 ack 1001
             0.030 < . 1:1001 ack 1
             0.030 > . 1 ack 1001 sack 1-1001
             0.040 < . 501:1501 ack 1
             0.040 > . 1 ack 1501 sack 501-1001
             0.050 < . 2001:3001 ack 1
             0.050 > . 1 ack 1501 sack 2001-3001
             0.060 < . 2001:2501 ack 1
             0.060 > . 1 ack 1501 sack 2001-2501,2001-3001",
        ),
    );
}

#[test]
fn the_window_shuts_as_the_buffer_fills_and_opens_as_it_is_read() {
    play(
        with(TcpConfig {
            receive_buffer: 4000,
            ..TcpConfig::default()
        }),
        &established(
            "0.020 < . 1:2001 ack 1
             0.020 > . 1 ack 2001 win 2000
             0.030 < . 2001:4001 ack 1
             0.030 > . 1 ack 4001 win 0
             0.040 < . 4001:4002 ack 1
             0.040 > . 1 ack 4001 win 0
             0.050 read 4000
             0.050 > . 1 ack 4001 win 4000",
        ),
    );
}

#[test]
fn a_window_does_not_open_by_slivers() {
    // Section 3.8.6.2.2: by a segment or half the buffer, whichever is less.
    play(
        with(TcpConfig {
            receive_buffer: 4000,
            ..TcpConfig::default()
        }),
        &established(
            "0.020 < . 1:1001 ack 1
             0.020 > . 1 ack 1001 win 3000
             0.030 < . 1001:4001 ack 1
             0.030 > . 1 ack 4001 win 0
             0.050 read 4000
             0.050 > . 1 ack 4001 win 4000
             0.060 < . 4001:8001 ack 1
             0.060 > . 1 ack 8001 win 0",
        ),
    );
}

#[test]
fn what_reaches_over_the_window_is_cut() {
    play(
        with(TcpConfig {
            receive_buffer: 1500,
            ..TcpConfig::default()
        }),
        &established(
            "0.020 < P. 1:2001 ack 1
             0.020 > . 1 ack 1501 win 0
             0.030 read 1500
             0.030 > . 1 ack 1501 win 1500",
        ),
    );
}

#[test]
fn a_fin_behind_a_hole_waits_for_it() {
    play(
        StackConfig::default(),
        &established(
            "0.020 < F. 1001:2001 ack 1
             0.020 > . 1 ack 1 sack 1001-2001
             0.020 state ESTABLISHED
             0.030 < . 1:1001 ack 1
             0.030 > . 1 ack 2002
             0.030 state CLOSE-WAIT
             0.030 read 2000
             0.030 read-end",
        ),
    );
}

#[test]
fn urgent_data_stays_in_line() {
    play(
        StackConfig::default(),
        "0.000 < S 0 win 65535 mss 1000
         0.000 > S. 0 ack 1
         0.010 < . 1 ack 1
         0.010 accept
         0.020 < P. 1:11 ack 1
         0.020 > . 1 ack 11
         0.030 < PU. 11:21 ack 1
         0.030 > . 1 ack 21
         0.030 read 20
         0.040 < U. 21 ack 1
         0.040 read-nothing
         0.050 < PU. 31:41 ack 1
         0.050 > . 1 ack 21
         0.060 < P. 21:31 ack 1
         0.060 > . 1 ack 41
         0.060 read 20",
    );
}
