//! Probes that the program answers (RFC 9293, section 3.8.4).

use portolan_stack::StackConfig;

use crate::support::trace::play;

#[test]
fn a_probe_is_answered_when_the_program_says_so() {
    play(
        StackConfig::default(),
        "0.000 < S 0 win 65535 mss 1000
         0.000 > S. 0 ack 1
         0.010 < . 1 ack 1
         0.010 accept
         1.000 < . 0 ack 1
         1.000 > . 1 ack 1
         1.000 not-probed
         1.500 hold-probes
         2.000 < . 0 ack 1
         2.000 probed
         2.000 not-probed
         2.100 answer-probe
         2.100 > . 1 ack 1
         3.000 < . 0 ack 1
         4.000 probed
         4.000 < P. 1:11 ack 1
         4.000 > . 1 ack 11
         4.100 read 10
         5.000 < . 10:11 ack 1
         5.000 probed",
    );
}

/// Who asks for a window is told of it: that is no question of who is there.
#[test]
fn a_probe_of_a_shut_window_is_answered_at_once() {
    let mut config = StackConfig::default();
    config.tcp.receive_buffer = 2000;
    play(
        config,
        "0.000 < S 0 win 65535 mss 1000
         0.000 > S. 0 ack 1
         0.010 < . 1 ack 1
         0.010 accept
         0.010 hold-probes
         0.020 < P. 1:2001 ack 1
         0.020 > . 1 ack 2001 win 0
         0.800 < . 2000 ack 1
         0.800 > . 1 ack 2001 win 0
         0.800 not-probed",
    );
}
