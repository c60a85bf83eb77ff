//! Closing: RFC 9293, sections 3.6 and 3.10.4 to 3.10.7.

use portolan_stack::{Duration, StackConfig, TcpConfig};

use crate::support::trace::play;

fn established(rest: &str) -> String {
    format!(
        "0.000 < S 0 win 65535 mss 1000
         0.000 > S. 0 ack 1
         0.010 < . 1 ack 1
         0.010 accept\n{rest}"
    )
}

fn run(rest: &str) {
    play(StackConfig::default(), &established(rest));
}

#[test]
fn we_finish_first_and_wait() {
    run("0.020 finish
         0.020 > F. 1 ack 1
         0.020 state FIN-WAIT-1
         0.030 < . 1 ack 2
         0.030 state FIN-WAIT-2
         0.040 < P. 1:101 ack 2
         0.040 > . 2 ack 101
         0.040 read 100
         0.050 < F. 101 ack 2
         0.050 > . 2 ack 102
         0.050 state TIME-WAIT
         0.050 read-end
         0.050 closed Finished");
}

#[test]
fn the_peer_finishes_first_and_we_may_still_send() {
    run("0.020 < F. 1 ack 1
         0.020 > . 1 ack 2
         0.020 state CLOSE-WAIT
         0.020 read-end
         0.030 write 100
         0.030 > P. 1:101 ack 2
         0.040 < . 2 ack 101
         0.050 finish
         0.050 > F. 101 ack 2
         0.050 state LAST-ACK
         0.060 < . 2 ack 102
         0.060 state CLOSED
         0.060 closed Finished");
}

#[test]
fn both_finish_at_once() {
    run("0.020 finish
         0.020 > F. 1 ack 1
         0.021 < F. 1 ack 1
         0.021 > . 2 ack 2
         0.021 state CLOSING
         0.030 < . 2 ack 2
         0.030 state TIME-WAIT");
}

#[test]
fn fins_that_cross_with_their_acknowledgments_go_straight_to_time_wait() {
    run("0.020 finish
         0.020 > F. 1 ack 1
         0.030 < F. 1 ack 2
         0.030 > . 2 ack 2
         0.030 state TIME-WAIT");
}

#[test]
fn data_goes_before_the_fin_and_takes_it_along() {
    run("0.020 write 500
         0.020 > P. 1:501 ack 1
         0.020 write 500
         0.021 finish
         0.021 > FP. 501:1001 ack 1
         0.030 < . 1 ack 1002
         0.030 state FIN-WAIT-2");
}

#[test]
fn a_lost_fin_is_sent_again() {
    run("0.020 finish
         0.020 > F. 1 ack 1
         0.230 > F. 1 ack 1
         0.240 < . 1 ack 2
         0.240 state FIN-WAIT-2");
}

#[test]
fn time_wait_acknowledges_a_repeated_fin_and_ends_a_minute_after_it() {
    run("0.020 finish
         0.020 > F. 1 ack 1
         0.030 < F. 1 ack 2
         0.030 > . 2 ack 2
         1.000 < F. 1 ack 2
         1.000 > . 2 ack 2
         2.000 < . 2 ack 2
         59.000 < F. 1 ack 2
         59.000 > . 2 ack 2
         118.000 < F. 1 ack 2
         118.000 > . 2 ack 2
         178.500 < F. 1 ack 2
         178.500 > R 2");
}

#[test]
fn time_wait_gives_way_to_a_newer_syn() {
    run("0.020 finish
         0.020 > F. 1 ack 1
         0.030 < F. 1 ack 2
         0.030 > . 2 ack 2
         1.000 < S 1 win 65535 mss 1000
         1.000 > . 2 ack 2
         2.000 < S 100000 win 65535 mss 1000
         2.000 > S. 0 ack 100001");
}

#[test]
fn a_reset_ends_time_wait_only_in_sequence() {
    run("0.020 finish
         0.020 > F. 1 ack 1
         0.030 < F. 1 ack 2
         0.030 > . 2 ack 2
         1.000 < R 1
         1.001 < F. 1 ack 2
         1.001 > . 2 ack 2
         2.000 < R 2
         2.001 < F. 1 ack 2
         2.001 > R 2");
}

#[test]
fn what_nobody_will_read_is_answered_with_a_reset() {
    run("0.020 < P. 1:11 ack 1
         0.020 > . 1 ack 11
         0.030 close
         0.030 > R. 1 ack 11");
}

#[test]
fn data_after_close_is_answered_with_a_reset() {
    run("0.030 close
         0.030 > F. 1 ack 1
         0.040 < P. 1:11 ack 2
         0.040 > R 2");
}

#[test]
fn abort_sends_a_reset() {
    run("0.020 write 10
         0.020 > P. 1:11 ack 1
         0.021 abort
         0.021 > R. 11 ack 1
         0.021 closed Aborted");
}

#[test]
fn a_closed_connection_waits_a_while_for_the_other_fin() {
    let config = StackConfig {
        tcp: TcpConfig {
            fin_wait: Duration::from_secs(3),
            ..TcpConfig::default()
        },
        ..StackConfig::default()
    };
    play(
        config,
        &established(
            "0.020 close
             0.020 > F. 1 ack 1
             0.030 < . 1 ack 2
             2.000 < . 1 ack 2
             4.000 < F. 1 ack 2
             4.000 > R 2",
        ),
    );
}

#[test]
fn a_half_closed_connection_waits_without_end_while_it_is_held() {
    run("0.020 finish
         0.020 > F. 1 ack 1
         0.030 < . 1 ack 2
         7000.000 state FIN-WAIT-2
         7000.000 < P. 1:11 ack 2
         7000.000 > . 2 ack 11
         7000.000 read 10");
}

#[test]
fn lingering_ends_when_the_peer_has_everything() {
    run("0.020 write 100
         0.020 > P. 1:101 ack 1
         0.020 finish
         0.020 > F. 101 ack 1
         0.030 < . 1 ack 101
         0.030 not-finished
         0.040 < . 1 ack 102
         0.040 finished
         0.040 state FIN-WAIT-2
         0.050 < P. 1:11 ack 102
         0.050 > . 102 ack 11
         0.050 read 10");
}

#[test]
fn lingering_goes_on_in_the_background_when_its_time_is_over() {
    // Half a second, in which nobody reads; after it nobody holds the connection, and it ends as one that is closed.
    run("0.020 write 100
         0.020 > P. 1:101 ack 1
         0.020 shutdown-read
         0.020 finish
         0.020 > F. 101 ack 1
         0.230 > P. 1:101 ack 1
         0.230 > F. 101 ack 1
         0.520 not-finished
         0.520 state FIN-WAIT-1
         0.520 close
         0.650 > P. 1:101 ack 1
         0.650 > F. 101 ack 1
         0.660 < . 1 ack 102
         0.700 < F. 1 ack 102
         0.700 > . 102 ack 2
         0.800 < F. 1 ack 102
         0.800 > . 102 ack 2");
    run("0.020 write 100
         0.020 > P. 1:101 ack 1
         0.020 shutdown-read
         0.020 finish
         0.020 > F. 101 ack 1
         0.030 < P. 1:11 ack 102
         0.030 > R 102");
}

#[test]
fn lingering_for_no_time_throws_away_what_waits() {
    // A window of 1000 bytes: the rest waits, and goes with the RST.
    play(
        StackConfig::default(),
        "0.000 < S 0 win 1000 mss 1000
         0.000 > S. 0 ack 1
         0.010 < . 1 ack 1 win 1000
         0.010 accept
         0.010 write 3000
         0.010 > . 1:1001 ack 1
         0.020 abort
         0.020 > R. 1001 ack 1
         0.020 close
         9.000 < . 1 ack 1001
         9.000 > R 1001",
    );
}

#[test]
fn a_shut_reading_half_ends_reads_and_both_shut_halves_end_the_peer() {
    run("0.020 < P. 1:11 ack 1
         0.020 > . 1 ack 11
         0.030 shutdown-read
         0.030 read 10
         0.030 read-end
         0.040 < P. 11:21 ack 1
         0.040 > . 1 ack 21
         0.040 read 10
         0.040 read-end
         0.050 write 5
         0.050 > P. 1:6 ack 21
         0.060 < . 21 ack 6
         0.060 finish
         0.060 > F. 6 ack 21
         0.070 < . 21 ack 7
         0.080 < P. 21:31 ack 7
         0.080 > R 7
         0.080 closed Reset");
}

#[test]
fn a_shut_reading_half_still_sees_the_peers_end() {
    run("0.020 shutdown-read
         0.020 read-end
         0.030 < F. 1 ack 1
         0.030 > . 1 ack 2
         0.030 state CLOSE-WAIT
         0.040 finish
         0.040 > F. 1 ack 2
         0.050 < . 2 ack 2
         0.050 closed Finished");
}

#[test]
fn what_came_before_a_reset_is_read_before_it_is_told() {
    play(
        StackConfig::default(),
        "0.000 < S 0 win 65535 mss 1000
         0.000 > S. 0 ack 1
         0.010 < . 1 ack 1
         0.010 accept
         0.020 < P. 1:11 ack 1
         0.020 > . 1 ack 11
         0.030 < R. 11 ack 1
         0.030 closed Reset
         0.030 read 10
         0.030 read-reset",
    );
}
