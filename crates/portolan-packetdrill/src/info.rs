//! TCP_INFO as Linux lays it out.

use portolan_stack::{ConnectionInfo, ConnectionStats, Duration, Instant, LossState, State};

/// The states as numbers of tcp_states.h.
pub(crate) const CLOSE: u8 = 7;
pub(crate) const LISTEN: u8 = 10;
/// The size of the structure.
const SIZE: usize = 280;

/// The structure of a socket without a connection.
pub(crate) fn of_state(state: u8) -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    bytes[0] = state;
    bytes
}

/// The bits of tcpi_options.
const TIMESTAMPS: u8 = 1;
const SACK: u8 = 2;
const WINDOW_SCALE: u8 = 4;
const ECN: u8 = 8;

/// The structure of a connection; `None` for one that is gone.
pub(crate) fn tcp_info(info: Option<&ConnectionInfo>, stats: &ConnectionStats, now: Instant) -> Vec<u8> {
    let Some(info) = info else {
        return of_state(CLOSE);
    };
    let mut out = Layout(of_state(number(info.state)));
    let mss = u32::from(info.send_mss).max(1);
    let micros = |time: Duration| time.as_micros() as u32;
    let age = |at: Instant| now.since(at).as_millis() as u32;
    out.0[1] = match info.loss_state {
        LossState::Disorder => 1,
        LossState::Reduced => 2,
        LossState::Recovery => 3,
        LossState::Loss => 4,
        _ => 0,
    };
    let in_flight = info.unacknowledged > 0;
    out.0[2] = if in_flight { info.attempts } else { 0 };
    out.0[3] = if in_flight { 0 } else { info.attempts };
    out.0[4] = info.backoff;
    let options = [
        (info.timestamps, TIMESTAMPS),
        (info.sack, SACK),
        (info.window_shifts.is_some(), WINDOW_SCALE),
        (info.ecn, ECN),
    ];
    out.0[5] = options.iter().filter(|(on, _)| *on).map(|(_, bit)| bit).sum();
    let (send, receive) = info.window_shifts.unwrap_or((0, 0));
    out.0[6] = send | receive << 4;
    let data = info.advertised_mss;
    for (at, value) in [
        (8, micros(info.rto)),
        (16, mss),
        (20, u32::from(info.receive_mss.max(data.min(536)))),
        (24, info.unacknowledged),
        (28, info.sacked),
        (32, info.lost),
        (36, info.retransmitted),
        (44, age(info.last_sent)),
        (52, age(stats.last_received)),
        (56, age(info.last_heard)),
        (60, u32::from(info.path_mss) + 40),
        (64, info.receive_window),
        (68, info.rtt.map_or(0, micros)),
        (72, micros(info.rtt_variation)),
        (76, threshold(info.slow_start_threshold, mss)),
        (80, info.congestion_window / mss),
        (
            84,
            u32::from(info.advertised_mss) - if info.timestamps { 12 } else { 0 },
        ),
        (88, u32::from(info.reordering)),
        (100, stats.retransmitted as u32),
        (136, stats.segments_out as u32),
        (140, stats.segments_in as u32),
        (144, info.not_sent as u32),
        (148, info.least_rtt.map_or(u32::MAX, micros)),
        (152, stats.data_segments_in as u32),
        (156, stats.data_segments_out as u32),
        (192, stats.delivered as u32),
        (216, stats.duplicate_sacks as u32),
        (220, stats.reorderings as u32),
        (228, info.send_window),
        (232, info.receive_window),
        (240, stats.timeouts as u32),
        (248, stats.marked as u32),
    ] {
        out.u32(at, value);
    }
    for (at, value) in [
        (104, info.pacing_rate.unwrap_or(u64::MAX)),
        (112, u64::MAX),
        (120, stats.bytes_acknowledged),
        (128, stats.bytes_received),
        (168, stats.busy.as_micros()),
        (176, stats.window_limited.as_micros()),
        (184, stats.buffer_limited.as_micros()),
        (200, stats.bytes_sent),
        (208, info.bytes_retransmitted),
    ] {
        out.u64(at, value);
    }
    out.0
}

fn threshold(bytes: u32, mss: u32) -> u32 {
    if bytes == u32::MAX >> 1 {
        bytes
    } else {
        bytes / mss
    }
}

fn number(state: State) -> u8 {
    match state {
        State::Established => 1,
        State::SynSent => 2,
        State::SynReceived => 3,
        State::FinWait1 => 4,
        State::FinWait2 => 5,
        State::TimeWait => 6,
        State::Closed => CLOSE,
        State::CloseWait => 8,
        State::LastAck => 9,
        State::Closing => 11,
    }
}

struct Layout(Vec<u8>);

impl Layout {
    fn u32(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }

    fn u64(&mut self, at: usize, value: u64) {
        self.0[at..at + 8].copy_from_slice(&value.to_ne_bytes());
    }
}
