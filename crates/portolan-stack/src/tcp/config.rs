use super::CongestionControl;
use crate::Duration;

/// How the connections of a stack behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpConfig {
    /// How many unacknowledged bytes a connection keeps, at most 1 GiB.
    pub send_buffer: usize,
    /// How many bytes may wait to be read; it is the largest window offered, at most 1 GiB.
    pub receive_buffer: usize,
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
    /// How long a closed connection keeps its four-tuple, twice the maximum segment lifetime.
    pub time_wait: Duration,
    /// How long a closed connection waits for the peer's FIN.
    pub fin_wait: Duration,
}

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
            send_buffer: 1 << 20,
            receive_buffer: 1 << 20,
            congestion_control: CongestionControl::Cubic,
            sack: true,
            timestamps: true,
            window_scaling: true,
            ecn: false,
            no_delay: false,
            pacing: false,
            keepalive: None,
            user_timeout: None,
            delayed_ack: Duration::from_millis(40),
            syn_retries: 6,
            retries: 15,
            time_wait: Duration::from_secs(60),
            fin_wait: Duration::from_secs(60),
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

    /// The receive buffer as a window can name it.
    pub(super) fn receive_limit(&self) -> u32 {
        let largest = if self.window_scaling { 1 << 30 } else { 65_535 };
        self.receive_buffer.min(largest) as u32
    }

    /// The send buffer, bounded so that sequence numbers stay comparable.
    pub(super) fn send_limit(&self) -> usize {
        self.send_buffer.min(1 << 30)
    }
}
