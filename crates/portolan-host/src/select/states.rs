use crate::{State, StateSet};

/// A name that no state or group of states has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no state has this name; states are listen, established, syn-sent, syn-received, fin-wait-1, fin-wait-2, \
     time-wait, close-wait, last-ack, closing, closed, unconnected, and the groups all, connected, \
     synchronized, bucket, big"
)]
pub struct UnknownState;

/// The states that a name stands for, in any case.
///
/// Our own names, those of ss(8) (`syn-recv`, `listening`, `closed`) and of /proc and netstat in their
/// spellings with and without hyphens, and the groups of ss: `all`, `connected`, `synchronized`, `bucket`,
/// `big`. `closed` and `unconnected` mean the same pair, as they do for ss: a TCP socket that is only bound
/// and a datagram socket without a peer share a state in the kernel.
///
/// # Errors
/// [`UnknownState`] for any other name.
pub fn states_named(name: &str) -> Result<StateSet, UnknownState> {
    let lower = name.to_ascii_lowercase();
    let closed = StateSet::EMPTY.with(State::Closed).with(State::Unconnected);
    let open_or_closed = closed.with(State::Listen);
    let bucket = StateSet::EMPTY.with(State::SynReceived).with(State::TimeWait);
    let one = |state| StateSet::EMPTY.with(state);
    Ok(match lower.as_str() {
        "listen" | "listening" => one(State::Listen),
        "syn-sent" | "syn_sent" => one(State::SynSent),
        "syn-received" | "syn-recv" | "syn-rcv" | "syn_recv" | "syn-rcvd" => one(State::SynReceived),
        "established" | "estab" => one(State::Established),
        "fin-wait-1" | "fin-wait1" | "fin_wait1" => one(State::FinWait1),
        "fin-wait-2" | "fin-wait2" | "fin_wait2" => one(State::FinWait2),
        "close-wait" | "close_wait" => one(State::CloseWait),
        "closing" => one(State::Closing),
        "last-ack" | "last_ack" => one(State::LastAck),
        "time-wait" | "time_wait" => one(State::TimeWait),
        "closed" | "close" | "unconnected" | "unconn" | "bound-inactive" => closed,
        "all" => StateSet::ALL,
        "connected" => open_or_closed.complement(),
        "synchronized" => open_or_closed.with(State::SynSent).complement(),
        "bucket" => bucket,
        "big" => bucket.complement(),
        _ => return Err(UnknownState),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_found_by_its_own_name() {
        for state in State::ALL {
            assert!(states_named(state.name()).unwrap().contains(state));
            assert!(
                states_named(&state.name().to_uppercase())
                    .unwrap()
                    .contains(state)
            );
        }
    }

    #[test]
    fn groups_are_those_of_ss() {
        let connected = states_named("connected").unwrap();
        assert!(!connected.contains(State::Listen) && !connected.contains(State::Unconnected));
        assert!(connected.contains(State::SynSent));
        assert!(!states_named("synchronized").unwrap().contains(State::SynSent));
        assert_eq!(
            states_named("bucket").unwrap().complement(),
            states_named("big").unwrap()
        );
        assert_eq!(states_named("listenin"), Err(UnknownState));
    }
}
