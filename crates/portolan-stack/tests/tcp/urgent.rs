//! Where urgent data stands, for who asks; it stays in line (RFC 9293, section 3.8.5; RFC 6093).

use portolan_stack::StackConfig;

use crate::support::trace::play;

const OPENED: &str = "0.000 < S 0 win 65535 mss 1000
     0.000 > S. 0 ack 1
     0.010 < . 1 ack 1
     0.010 accept
    ";

fn play_opened(script: &str) {
    play(StackConfig::default(), &format!("{OPENED}{script}"));
}

#[test]
fn the_last_urgent_byte_is_told_until_it_is_read() {
    play_opened(
        "0.020 urgent-none
         0.020 < PU. 1:11 ack 1
         0.020 > . 1 ack 11
         0.020 urgent 9
         0.020 read 10
         0.020 urgent-none",
    );
}

#[test]
fn a_pointer_may_come_before_its_byte_and_a_later_one_counts() {
    play_opened(
        "0.020 < U. 1 ack 1
         0.020 urgent 0
         0.020 read-nothing
         0.030 < PU. 1:11 ack 1
         0.030 > . 1 ack 11
         0.030 urgent 9
         0.040 < PU. 1:6 ack 1
         0.040 > . 1 ack 11
         0.040 urgent 9
         0.040 read 10
         0.040 urgent-none",
    );
}

#[test]
fn a_pointer_beyond_the_end_is_none() {
    play_opened(
        "0.020 < FU. 1:1 ack 1
         0.020 > . 1 ack 2
         0.020 urgent-none
         0.020 read-end",
    );
}

#[test]
fn written_urgent_data_is_pointed_at_until_it_is_acknowledged() {
    play_opened(
        "0.020 write-urgent 3
         0.020 > P.U 1:4 ack 1
         0.030 < . 1 ack 4
         0.030 write 2
         0.030 > P. 4:6 ack 1
         0.040 < . 1 ack 6
         0.040 write-urgent 1500
         0.040 > .U 6:1006 ack 1
         0.040 > P.U 1006:1506 ack 1
         0.050 < . 1 ack 1506
         0.050 write 1
         0.050 > P. 1506:1507 ack 1",
    );
}
