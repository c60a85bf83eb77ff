//! The kernel's numbers for the states of sockets (include/net/tcp_states.h, include/net/sctp/constants.h).

use crate::{SocketAddress, SocketProtocol, State, StateSet};

/// TCP's numbers, which most protocols borrow.
const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const SYN_RECV: u8 = 3;
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;
const TIME_WAIT: u8 = 6;
const CLOSE: u8 = 7;
const CLOSE_WAIT: u8 = 8;
const LAST_ACK: u8 = 9;
const LISTEN: u8 = 10;
const CLOSING: u8 = 11;
/// Requests of half-open connections; shown as SYN_RECV.
const NEW_SYN_RECV: u8 = 12;
/// Since Linux 6.8: bound, and neither listening nor connected.
const BOUND_INACTIVE: u8 = 13;

/// The state that `number` stands for; `None` if it is none of Linux's.
pub(crate) const fn decode(protocol: SocketProtocol, number: u8) -> Option<State> {
    match protocol {
        SocketProtocol::Tcp | SocketProtocol::Mptcp | SocketProtocol::Vsock => stream(number),
        SocketProtocol::Udp | SocketProtocol::UdpLite | SocketProtocol::Raw => datagram(number),
        SocketProtocol::Sctp => association(number),
        SocketProtocol::Unix => None,
    }
}

const fn stream(number: u8) -> Option<State> {
    Some(match number {
        ESTABLISHED => State::Established,
        SYN_SENT => State::SynSent,
        SYN_RECV | NEW_SYN_RECV => State::SynReceived,
        FIN_WAIT1 => State::FinWait1,
        FIN_WAIT2 => State::FinWait2,
        TIME_WAIT => State::TimeWait,
        CLOSE | BOUND_INACTIVE => State::Closed,
        CLOSE_WAIT => State::CloseWait,
        LAST_ACK => State::LastAck,
        LISTEN => State::Listen,
        CLOSING => State::Closing,
        _ => return None,
    })
}

const fn datagram(number: u8) -> Option<State> {
    match number {
        ESTABLISHED => Some(State::Established),
        CLOSE => Some(State::Unconnected),
        _ => None,
    }
}

/// An endpoint has TCP's LISTEN; an association has one of SCTP's own (`enum sctp_state`), whose nearest
/// kin among TCP's is given (RFC 9260, section 4).
const fn association(number: u8) -> Option<State> {
    Some(match number {
        LISTEN => State::Listen,
        // COOKIE-WAIT and COOKIE-ECHOED.
        1 | 2 => State::SynSent,
        3 => State::Established,
        // SHUTDOWN-PENDING and SHUTDOWN-SENT.
        4 | 5 => State::FinWait1,
        // SHUTDOWN-RECEIVED.
        6 => State::CloseWait,
        // SHUTDOWN-ACK-SENT has the number of an endpoint that is closed; the latter does not stay listed.
        7 => State::LastAck,
        0 => State::Closed,
        _ => return None,
    })
}

/// The states of a Unix socket: `kind` is SOCK_STREAM (1), SOCK_DGRAM (2) or SOCK_SEQPACKET (5).
pub(crate) const fn unix(kind: u16, number: u8) -> Option<State> {
    match (kind, number) {
        (2, CLOSE) => Some(State::Unconnected),
        (_, LISTEN) => Some(State::Listen),
        (_, ESTABLISHED) => Some(State::Established),
        (_, SYN_SENT) => Some(State::SynSent),
        (_, CLOSE) => Some(State::Closed),
        _ => None,
    }
}

/// The bits by which the kernel is asked for `states` of sockets that speak `protocol`.
pub(crate) fn mask(protocol: SocketProtocol, states: StateSet) -> u32 {
    if protocol == SocketProtocol::Sctp {
        // It compares the bits with endpoints only, and lists associations for any bit beyond those two.
        return if states.is_empty() { 0 } else { u32::MAX };
    }
    states.iter().fold(0, |mask, state| {
        mask | match state {
            State::Listen => 1 << LISTEN,
            State::SynSent => 1 << SYN_SENT,
            State::SynReceived => 1 << SYN_RECV,
            State::Established => 1 << ESTABLISHED,
            State::FinWait1 => 1 << FIN_WAIT1,
            State::FinWait2 => 1 << FIN_WAIT2,
            State::CloseWait => 1 << CLOSE_WAIT,
            State::Closing => 1 << CLOSING,
            State::LastAck => 1 << LAST_ACK,
            State::TimeWait => 1 << TIME_WAIT,
            State::Closed => match protocol {
                SocketProtocol::Tcp | SocketProtocol::Mptcp => 1 << CLOSE | 1 << BOUND_INACTIVE,
                SocketProtocol::Vsock | SocketProtocol::Unix => 1 << CLOSE,
                SocketProtocol::Udp
                | SocketProtocol::UdpLite
                | SocketProtocol::Raw
                | SocketProtocol::Sctp => 0,
            },
            State::Unconnected => match protocol {
                SocketProtocol::Udp
                | SocketProtocol::UdpLite
                | SocketProtocol::Raw
                | SocketProtocol::Unix => 1 << CLOSE,
                SocketProtocol::Tcp
                | SocketProtocol::Mptcp
                | SocketProtocol::Vsock
                | SocketProtocol::Sctp => 0,
            },
        }
    })
}

/// Whether a socket in this state has a remote end, given what stands in its place.
pub(crate) fn has_remote(state: State, remote: &SocketAddress) -> bool {
    match state {
        State::Listen | State::Unconnected => false,
        // A connection that was reset keeps its four-tuple; one that is only bound never had any.
        State::Closed => remote.port().is_some_and(|port| port.get() != 0),
        State::SynSent
        | State::SynReceived
        | State::Established
        | State::FinWait1
        | State::FinWait2
        | State::CloseWait
        | State::Closing
        | State::LastAck
        | State::TimeWait => true,
    }
}

/// Whether the kernel knows a user for a socket in this state. For one that is only a request or a rest of a
/// connection it says 0, which is not root.
pub(crate) const fn has_owner(state: State) -> bool {
    !matches!(state, State::TimeWait | State::SynReceived)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_that_can_be_asked_for_is_one_that_can_be_answered() {
        for protocol in SocketProtocol::ALL {
            if matches!(protocol, SocketProtocol::Sctp | SocketProtocol::Unix) {
                continue;
            }
            for state in State::ALL {
                let mask = mask(protocol, StateSet::EMPTY.with(state));
                for number in (0..32).filter(|number| mask & 1 << number != 0) {
                    if let Some(decoded) = decode(protocol, number) {
                        assert_eq!(decoded, state, "{protocol} {number}");
                    }
                }
            }
        }
    }

    #[test]
    fn listeners_ask_for_listeners_only() {
        assert_eq!(mask(SocketProtocol::Tcp, StateSet::OPEN), 1 << LISTEN);
        assert_eq!(
            mask(SocketProtocol::Udp, StateSet::OPEN),
            1 << CLOSE | 1 << LISTEN
        );
    }
}
