use super::CongestionControl;
use crate::Duration;

/// How the connections of a stack behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpConfig {
    /// How many unacknowledged bytes a connection keeps, at most 1 GiB: the most to which its buffer grows.
    pub send_buffer: usize,
    /// What it keeps at first; beyond, twice the congestion window. The same as `send_buffer`, or more, makes a buffer of
    /// fixed size.
    pub initial_send_buffer: usize,
    /// How many bytes may wait to be read, at most 1 GiB: the most to which the buffer, and so the window offered, grows.
    pub receive_buffer: usize,
    /// What may wait at first. It grows with what the program reads in a round trip, and never if that is little. The
    /// same as `receive_buffer`, or more, makes a buffer of fixed size.
    pub initial_receive_buffer: usize,
    /// Which algorithm rules the congestion window.
    pub congestion_control: CongestionControl,
    /// Offer selective acknowledgments (RFC 2018).
    pub sack: bool,
    /// Offer timestamps (RFC 7323, section 3).
    pub timestamps: bool,
    /// Offer window scaling (RFC 7323, section 2); without it windows end at 65,535 bytes.
    pub window_scaling: bool,
    /// Offer explicit congestion notification when connecting (RFC 3168); it is always granted to a peer that
    /// asks.
    pub ecn: bool,
    /// Send small segments at once instead of waiting for the acknowledgment of the one before (Nagle's
    /// algorithm, RFC 9293, section 3.7.4).
    pub no_delay: bool,
    /// Hold back what does not fill a segment until there is more, for 200 ms at most (`TCP_CORK`).
    pub cork: bool,
    /// The largest segment to offer and to send, options included (`TCP_MAXSEG`).
    pub max_segment: Option<u16>,
    /// Writers wait while this many bytes or more are written and not sent (`TCP_NOTSENT_LOWAT`).
    pub not_sent_low_water: usize,
    /// How many segments may go together in any case, if the windows allow it.
    pub min_burst: u16,
    /// Begin anew with the initial window after a pause (RFC 5681, section 4.1).
    pub restart_after_idle: bool,
    /// Grant explicit congestion notification to a peer that asks for it.
    pub accept_ecn: bool,
    /// Tell of data that came twice (RFC 2883).
    pub duplicate_sack: bool,
    /// Probe the tail of what was sent before the retransmission timeout (RFC 8985, section 7).
    pub tail_loss_probe: bool,
    /// How often a SYN-ACK is repeated before the attempt is given up.
    pub syn_ack_retries: u8,
    /// The longest retransmission timeout; that of a SYN-ACK is never below a second, and follows the stack's, not the
    /// listener's.
    pub max_rto: Duration,
    /// Count what [`ConnectionStats`](crate::ConnectionStats) tells; it takes a few hundred bytes more for each connection.
    pub statistics: bool,
    /// Spread the segments of a window over the round-trip time.
    pub pacing: bool,
    /// Ask an idle peer whether it is still there.
    pub keepalive: Option<Keepalive>,
    /// Give a connection up when sent data stays unacknowledged this long (RFC 5482).
    pub user_timeout: Option<Duration>,
    /// How long an acknowledgment may wait for company; RFC 9293, section 3.8.6.3, allows up to 500 ms.
    pub delayed_ack: Duration,
    /// How often a SYN is repeated before the attempt is given up.
    pub syn_retries: u8,
    /// How often a segment is repeated before the connection is given up (RFC 9293, section 3.8.3, R2).
    pub retries: u8,
    /// How long a closed connection waits for the peer's FIN.
    pub fin_wait: Duration,
    /// The traffic class of what is sent (`IP_TOS`, `IPV6_TCLASS`): the code point of RFC 2474 in the upper six bits. The
    /// lower two mean nothing here: they are those of ECN, which TCP itself sets.
    pub traffic_class: u8,
    /// Over how many routers it may go (`IP_TTL`, `IPV6_UNICAST_HOPS`).
    pub hop_limit: u8,
}

/// Linux's default for both IP versions (RFC 1700's 64).
pub(crate) const HOP_LIMIT: u8 = 64;

/// When to ask an idle peer whether it is still there (RFC 9293, section 3.8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// After how long without a segment.
    pub idle: Duration,
    /// How long to wait between questions.
    pub interval: Duration,
    /// How many unanswered questions end the connection.
    pub probes: u8,
}

/// Linux's values, where Linux has the setting.
impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            send_buffer: 4 << 20,
            initial_send_buffer: 64 << 10,
            receive_buffer: 6 << 20,
            initial_receive_buffer: 64 << 10,
            congestion_control: CongestionControl::Cubic,
            sack: true,
            timestamps: true,
            window_scaling: true,
            ecn: false,
            no_delay: false,
            cork: false,
            max_segment: None,
            not_sent_low_water: usize::MAX,
            min_burst: 2,
            restart_after_idle: true,
            accept_ecn: true,
            duplicate_sack: true,
            tail_loss_probe: true,
            syn_ack_retries: 5,
            max_rto: Duration::from_secs(120),
            statistics: false,
            pacing: false,
            keepalive: None,
            user_timeout: None,
            delayed_ack: Duration::from_millis(40),
            syn_retries: 6,
            retries: 15,
            fin_wait: Duration::from_secs(60),
            traffic_class: 0,
            hop_limit: HOP_LIMIT,
        }
    }
}

impl TcpConfig {
    /// By how many bits the windows offered are shifted, so that the whole receive buffer can be named.
    pub(super) fn window_shift(&self) -> u8 {
        if !self.window_scaling {
            return 0;
        }
        let limit = self.receive_limit();
        (0..14).find(|&shift| limit <= 65_535 << shift).unwrap_or(14)
    }

    /// The receive buffer that a connection begins with, as a window can name it.
    pub(super) fn first_receive_limit(&self) -> u32 {
        let most = self.receive_limit();
        u32::try_from(self.initial_receive_buffer).map_or(most, |first| first.min(most))
    }

    /// The largest receive buffer as a window can name it.
    pub(super) fn receive_limit(&self) -> u32 {
        let largest = if self.window_scaling { 1 << 30 } else { 65_535 };
        self.receive_buffer.min(largest) as u32
    }

    /// The send buffer, bounded so that sequence numbers stay comparable.
    pub(crate) fn send_limit(&self) -> usize {
        self.send_buffer.min(1 << 30)
    }
}
