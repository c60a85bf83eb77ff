//! What ICMP says of a path: RFC 1191, RFC 5927, RFC 6069, RFC 1122, section 4.2.3.9.

use portolan_stack::{Duration, StackConfig, TcpConfig};

use crate::support::trace::play;

/// A connection with segments of 1460 bytes, without timestamps.
fn run(rest: &str) {
    let script = format!(
        "0.000 < S 0 win 60000 mss 1460
         0.000 > S. 0 ack 1
         0.010 < . 1 ack 1 win 60000
         0.010 accept\n{rest}"
    );
    play(StackConfig::default(), &script);
}

fn connect(rest: &str) {
    play(
        StackConfig::default(),
        &format!("0.000 connect\n0.000 > S 0\n{rest}"),
    );
}

#[test]
fn what_the_path_does_not_take_is_sent_again_at_once_in_smaller_pieces() {
    run("1.000 write 4380
         1.000 > . 1:1461 ack 1
         1.000 > . 1461:2921 ack 1
         1.000 > P. 2921:4381 ack 1
         1.010 icmp 3/4 1 1240
         1.010 > . 1:1201 ack 1
         1.010 > . 1201:1461 ack 1
         1.010 > . 1461:2661 ack 1
         1.010 > . 2661:2921 ack 1
         1.010 > . 2921:4121 ack 1
         1.010 > P. 4121:4381 ack 1
         1.010 cwnd 10
         1.011 icmp 3/4 1461 1240
         1.020 < . 1 ack 4381 win 60000
         1.020 write 1201
         1.020 > . 4381:5581 ack 1
         1.020 > P. 5581:5582 ack 1");
}

#[test]
fn nobody_makes_segments_smaller_than_512_bytes() {
    // Linux's ip_rt_min_pmtu; below it routers may cut.
    run("1.000 write 1460
         1.000 > P. 1:1461 ack 1
         1.010 icmp 3/4 1 68
         1.010 > . 1:513 ack 1 cut
         1.010 > . 513:1025 ack 1 cut
         1.010 > P. 1025:1461 ack 1 cut
         1.020 icmp 3/4 1 1
         1.030 < . 1 ack 1461 win 60000");
}

#[test]
fn a_wider_path_is_tried_after_ten_minutes() {
    run("1.000 write 1460
         1.000 > P. 1:1461 ack 1
         1.010 icmp 3/4 1 1040
         1.010 > . 1:1001 ack 1
         1.010 > P. 1001:1461 ack 1
         1.020 < . 1 ack 1461 win 60000
         600.000 write 1001
         600.000 > . 1461:2461 ack 1
         600.000 > P. 2461:2462 ack 1
         600.020 < . 1 ack 2462 win 60000
         602.000 write 1460
         602.000 > P. 2462:3922 ack 1");
}

#[test]
fn what_quotes_no_number_in_flight_changes_nothing() {
    run("1.000 write 1460
         1.000 > P. 1:1461 ack 1
         1.010 icmp 3/4 0 1240
         1.010 icmp 3/4 1462 1240
         1.010 icmp 3/1 70000
         1.020 < . 1 ack 1461 win 60000
         1.030 write 1460
         1.030 > P. 1461:2921 ack 1");
    connect(
        "0.010 icmp 3/3 5
             0.010 state SYN-SENT",
    );
}

#[test]
fn an_error_ends_the_attempt_to_connect() {
    for (error, reason) in [
        ("3/0", "Unreachable-NetworkUnreachable-"),
        ("3/1", "Unreachable-HostUnreachable-"),
        ("3/2", "Unreachable-ProtocolUnreachable-"),
        ("3/3", "Refused"),
        ("3/5", "Unreachable-SourceRouteFailed-"),
        ("3/6", "Unreachable-NetworkUnknown-"),
        ("3/7", "Unreachable-HostUnknown-"),
        ("3/8", "Unreachable-SourceIsolated-"),
        ("3/9", "Unreachable-NetworkProhibited-"),
        ("3/13", "Unreachable-HostProhibited-"),
        ("11/0", "Unreachable-TimeExceeded-"),
        ("12/0", "Unreachable-ParameterProblem-"),
    ] {
        connect(&format!("0.010 icmp {error} 0\n0.010 closed {reason}"));
    }
    // Source quench, redirect, an unknown code: nothing.
    connect("0.010 icmp 4/0 0\n0.010 icmp 5/1 0\n0.010 icmp 3/16 0\n0.010 state SYN-SENT");
}

#[test]
fn an_error_of_an_established_connection_is_told_only_when_it_times_out() {
    let config = StackConfig {
        tcp: TcpConfig {
            user_timeout: Some(Duration::from_secs(1)),
            ..TcpConfig::default()
        },
        ..StackConfig::default()
    };
    let script = |news: &str| {
        format!(
            "0.000 < S 0 win 60000 mss 1460
             0.000 > S. 0 ack 1
             0.100 < . 1 ack 1 win 60000
             0.100 accept
             1.000 write 10
             1.000 > P. 1:11 ack 1
             {news}
             1.300 > P. 1:11 ack 1
             1.900 > P. 1:11 ack 1"
        )
    };
    let ended = |news, reason| {
        play(config, &format!("{}\n3.200 closed {reason}", script(news)));
    };
    ended("1.010 icmp 3/3 1", "Unreachable-PortUnreachable-");
    ended("1.010 icmp 3/13 1", "Unreachable-HostProhibited-");
    ended("", "TimedOut");
}

#[test]
fn an_acknowledgment_makes_an_error_forgotten() {
    let config = StackConfig {
        tcp: TcpConfig {
            user_timeout: Some(Duration::from_millis(500)),
            ..TcpConfig::default()
        },
        ..StackConfig::default()
    };
    play(
        config,
        "0.000 < S 0 win 60000 mss 1460
         0.000 > S. 0 ack 1
         0.100 < . 1 ack 1 win 60000
         0.100 accept
         1.000 write 10
         1.000 > P. 1:11 ack 1
         1.010 icmp 3/13 1
         1.100 < . 1 ack 11 win 60000
         2.000 write 10
         2.000 > P. 11:21 ack 1
         2.300 > P. 11:21 ack 1
         2.901 closed TimedOut",
    );
}

#[test]
fn a_link_that_is_down_is_no_congestion() {
    // RFC 6069: 0.3 s, 0.6 s, and when the network says that the link is down, 0.6 s again.
    run("1.000 write 10
         1.000 > P. 1:11 ack 1
         1.210 > P. 1:11 ack 1
         1.630 > P. 1:11 ack 1
         1.640 icmp 3/1 1
         2.050 > P. 1:11 ack 1");
}

#[test]
fn a_half_open_connection_ends_by_what_will_not_pass() {
    for (error, lives) in [
        ("3/1", false),
        ("3/0", false),
        ("11/0", false),
        ("3/3", true),
        ("3/13", true),
    ] {
        let (wait, end) = if lives {
            ("1.000 > S. 0 ack 1", "1.020 accept")
        } else {
            // What acknowledges the answer finds nobody.
            ("", "1.020 > R 1")
        };
        play(
            StackConfig::default(),
            &format!(
                "0.000 < S 0 win 60000 mss 1460
                 0.000 > S. 0 ack 1
                 0.010 icmp {error} 0
                 {wait}
                 1.020 < . 1 ack 1 win 60000
                 {end}"
            ),
        );
    }
}
