//! Figures of a connection.

use super::State;
use super::connection::{Connection, Traits};
use super::recovery::Phase;
use crate::{Duration, Instant};

/// Figures of one connection, as Linux's `TCP_INFO` has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// The state.
    pub state: State,
    /// SRTT, once measured.
    pub rtt: Option<Duration>,
    /// RTTVAR.
    pub rtt_variation: Duration,
    /// The retransmission timeout, with its doublings.
    pub rto: Duration,
    /// The congestion window, in bytes.
    pub congestion_window: u32,
    /// Below it the congestion window doubles each round trip, in bytes.
    pub slow_start_threshold: u32,
    /// Bytes that are in the network.
    pub in_flight: u32,
    /// The largest data of a segment that is sent.
    pub send_mss: u16,
    /// What the peer lets us send, in bytes.
    pub send_window: u32,
    /// Bytes written and not acknowledged.
    pub send_queue: usize,
    /// Bytes received and not read.
    pub receive_queue: usize,
    /// Bytes of data that were sent again.
    pub bytes_retransmitted: u64,
    /// The largest data of a segment that came, or the peer's and our own limits of it.
    pub receive_mss: u16,
    /// The largest segment that this side takes, options included.
    pub advertised_mss: u16,
    /// The largest segment that the path takes, options included.
    pub path_mss: u16,
    /// The window that this side offers, in bytes.
    pub receive_window: u32,
    /// The least round-trip time.
    pub least_rtt: Option<Duration>,
    /// Segments that were sent and are not acknowledged.
    pub unacknowledged: u32,
    /// Of those the ones that arrived behind a hole.
    pub sacked: u32,
    /// Of those the ones given for lost.
    pub lost: u32,
    /// Of those the ones that were sent again.
    pub retransmitted: u32,
    /// By how many segments things come late.
    pub reordering: u16,
    /// What the sender does about losses.
    pub loss_state: LossState,
    /// Retransmission timeouts, or window probes, since the peer last answered.
    pub attempts: u8,
    /// How often the timeout is doubled.
    pub backoff: u8,
    /// Bytes that were written and not sent.
    pub not_sent: usize,
    /// Bytes a second at which the window would be spread over a round trip.
    pub pacing_rate: Option<u64>,
    /// Whether timestamps, SACK, window scaling and ECN were agreed on.
    pub timestamps: bool,
    /// See `timestamps`.
    pub sack: bool,
    /// The shifts of the peer's window and ours, if they were agreed on.
    pub window_shifts: Option<(u8, u8)>,
    /// See `timestamps`.
    pub ecn: bool,
    /// When data was sent last.
    pub last_sent: Instant,
    /// When the peer was heard last.
    pub last_heard: Instant,
}

/// What a sender does about losses, in Linux's words for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LossState {
    /// Nothing is wrong.
    #[default]
    Open,
    /// Something is missing at the peer; it may be late only.
    Disorder,
    /// A router has marked a packet: the window shrinks.
    Reduced,
    /// Something was lost: the window shrinks, and it is sent again.
    Recovery,
    /// The retransmission timer fired: it begins anew.
    Loss,
}

impl Connection {
    /// Figures for people.
    pub(crate) fn info(&self) -> ConnectionInfo {
        let segments = self.board.segments();
        ConnectionInfo {
            state: self.state,
            rtt: self.rtt.smoothed(),
            rtt_variation: self.rtt.variation(),
            rto: self.rtt.rto(),
            congestion_window: self.window.cwnd,
            slow_start_threshold: self.window.ssthresh,
            in_flight: self.in_flight(),
            send_mss: self.snd_mss,
            send_window: self.snd_wnd,
            send_queue: self.queue.len(),
            receive_queue: self.reassembly.ready(),
            bytes_retransmitted: self.bytes_retransmitted,
            receive_mss: self.acks.largest().min(self.link_mss.into()) as u16,
            advertised_mss: self.advertised_mss(),
            path_mss: self.path_mss,
            receive_window: self.rcv_edge.since(self.reassembly.next()).max(0) as u32,
            least_rtt: self.rtt.minimum(),
            unacknowledged: segments.unacknowledged,
            sacked: segments.sacked + u32::from(self.duplicates),
            lost: segments.lost,
            retransmitted: segments.resent,
            reordering: self.rack.reordering(),
            loss_state: self.loss_state(),
            attempts: self.attempts,
            backoff: self.rtt.backoff(),
            not_sent: self.not_sent(),
            pacing_rate: self.pacing_rate(),
            timestamps: self.traits.contains(Traits::TIMESTAMPS),
            sack: self.traits.contains(Traits::SACK),
            window_shifts: self
                .traits
                .contains(Traits::WINDOW_SCALING)
                .then_some((self.snd_shift, self.rcv_shift)),
            ecn: self.traits.contains(Traits::ECN),
            last_sent: self.last_sent,
            last_heard: self.last_heard,
        }
    }

    fn advertised_mss(&self) -> u16 {
        let own = self.own_config.as_ref().and_then(|own| own.max_segment);
        own.unwrap_or(u16::MAX).min(self.link_mss)
    }

    fn loss_state(&self) -> LossState {
        match self.phase {
            // What a mark asks for is never undone.
            Phase::Recovery { .. } if self.undo.is_none() && self.board.lost() == 0 => LossState::Reduced,
            Phase::Recovery { .. } => LossState::Recovery,
            Phase::Loss { .. } => LossState::Loss,
            Phase::Open if self.board.sacked() > 0 || self.duplicates > 0 => LossState::Disorder,
            Phase::Open => LossState::Open,
        }
    }
}
