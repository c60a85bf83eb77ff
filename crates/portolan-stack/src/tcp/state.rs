use std::fmt;

/// The states of a connection (RFC 9293, section 3.3.2). LISTEN is not among them: a listener is another thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Both sides have sent a SYN or are about to; waiting for the peer's.
    SynSent,
    /// A SYN came and was answered; waiting for the answer to be acknowledged.
    SynReceived,
    /// Data flows both ways.
    Established,
    /// Our FIN is on its way; the peer may still send.
    FinWait1,
    /// Our FIN was acknowledged; the peer may still send.
    FinWait2,
    /// The peer's FIN came; we may still send.
    CloseWait,
    /// Both FINs are on their way; waiting for the acknowledgment of ours.
    Closing,
    /// The peer's FIN came and ours is on its way.
    LastAck,
    /// Both FINs are acknowledged; waiting for stray segments to die out.
    TimeWait,
    /// No connection.
    Closed,
}

impl State {
    /// Whether SYNs were exchanged, so that sequence numbers mean something.
    #[must_use]
    pub const fn is_synchronized(self) -> bool {
        match self {
            Self::SynSent | Self::SynReceived | Self::Closed => false,
            Self::Established
            | Self::FinWait1
            | Self::FinWait2
            | Self::CloseWait
            | Self::Closing
            | Self::LastAck
            | Self::TimeWait => true,
        }
    }

    /// Whether the peer has not yet said that it is done, so that data may come.
    #[must_use]
    pub const fn may_receive(self) -> bool {
        matches!(self, Self::Established | Self::FinWait1 | Self::FinWait2)
    }

    /// Whether the program may still write.
    #[must_use]
    pub const fn may_send(self) -> bool {
        matches!(
            self,
            Self::SynSent | Self::SynReceived | Self::Established | Self::CloseWait
        )
    }
}

/// As RFC 9293 spells it: `FIN-WAIT-1`.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::SynSent => "SYN-SENT",
            Self::SynReceived => "SYN-RECEIVED",
            Self::Established => "ESTABLISHED",
            Self::FinWait1 => "FIN-WAIT-1",
            Self::FinWait2 => "FIN-WAIT-2",
            Self::CloseWait => "CLOSE-WAIT",
            Self::Closing => "CLOSING",
            Self::LastAck => "LAST-ACK",
            Self::TimeWait => "TIME-WAIT",
            Self::Closed => "CLOSED",
        })
    }
}
