use crate::Instant;

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// A tail loss probe is due (RFC 8985, section 7.2). It comes first: it puts the next one off.
    TailLoss,
    /// Nothing was acknowledged for an RTO (RFC 6298).
    Retransmit,
    /// A segment behind which others arrived is now late enough to be lost (RFC 8985, section 6.2).
    Reorder,
    /// The peer's window is shut, or too small: ask whether it still is (RFC 9293, section 3.8.6.1).
    Persist,
    /// An acknowledgment was delayed long enough (RFC 9293, section 3.8.6.3).
    DelayedAck,
    /// The connection is idle: is the peer still there? (RFC 9293, section 3.8.4).
    Keepalive,
    /// Pacing lets the next segment go.
    Pace,
    /// FIN-WAIT-2 without a program, or TIME-WAIT, ends.
    Linger,
}

const TIMERS: [Timer; 8] = [
    Timer::TailLoss,
    Timer::Retransmit,
    Timer::Reorder,
    Timer::Persist,
    Timer::DelayedAck,
    Timer::Keepalive,
    Timer::Pace,
    Timer::Linger,
];

/// The deadlines of one connection.
#[derive(Debug)]
pub(super) struct Timers([Instant; TIMERS.len()]);

impl Timers {
    pub(super) const fn new() -> Self {
        Self([Instant::NEVER; TIMERS.len()])
    }

    /// Sets the deadline of `timer`.
    pub(super) fn arm(&mut self, timer: Timer, deadline: Instant) {
        self.0[timer as usize] = deadline;
    }

    /// Takes the deadline of `timer` away.
    pub(super) fn cancel(&mut self, timer: Timer) {
        self.0[timer as usize] = Instant::NEVER;
    }

    /// Takes all deadlines away.
    pub(super) fn cancel_all(&mut self) {
        *self = Self::new();
    }

    pub(super) fn is_armed(&self, timer: Timer) -> bool {
        self.0[timer as usize] != Instant::NEVER
    }

    /// The first deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        let first = self.0.iter().copied().min().unwrap_or(Instant::NEVER);
        (first != Instant::NEVER).then_some(first)
    }

    pub(super) fn deadline(&self, timer: Timer) -> Instant {
        self.0[timer as usize]
    }

    /// A timer whose deadline has come; it is not armed any more.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<Timer> {
        let due = TIMERS.into_iter().find(|&timer| self.0[timer as usize] <= now)?;
        self.cancel(due);
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_are_those_of_the_list() {
        for (place, timer) in TIMERS.into_iter().enumerate() {
            assert_eq!(timer as usize, place);
        }
    }

    #[test]
    fn each_fires_once_at_its_time() {
        let mut timers = Timers::new();
        timers.arm(Timer::Retransmit, Instant::from_millis(200));
        timers.arm(Timer::DelayedAck, Instant::from_millis(40));
        assert_eq!(timers.next(), Some(Instant::from_millis(40)));
        assert_eq!(timers.pop_expired(Instant::from_millis(39)), None);
        assert_eq!(
            timers.pop_expired(Instant::from_millis(300)),
            Some(Timer::Retransmit)
        );
        assert_eq!(
            timers.pop_expired(Instant::from_millis(300)),
            Some(Timer::DelayedAck)
        );
        assert_eq!(timers.pop_expired(Instant::from_millis(300)), None);
        assert_eq!(timers.next(), None);
    }
}
