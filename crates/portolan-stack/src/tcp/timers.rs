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
pub(super) struct Timers {
    deadlines: [Instant; TIMERS.len()],
    /// When the stack looks at the connection at the latest.
    looked_at: Instant,
    /// The first deadline that was set since that was settled; it may have been taken away again.
    sooner: Instant,
}

impl Timers {
    pub(super) const fn new() -> Self {
        Self {
            deadlines: [Instant::NEVER; TIMERS.len()],
            looked_at: Instant::NEVER,
            sooner: Instant::NEVER,
        }
    }

    /// Sets the deadline of `timer`.
    pub(super) fn arm(&mut self, timer: Timer, deadline: Instant) {
        self.deadlines[timer as usize] = deadline;
        self.sooner = self.sooner.min(deadline);
    }

    /// Takes the deadline of `timer` away.
    pub(super) fn cancel(&mut self, timer: Timer) {
        self.deadlines[timer as usize] = Instant::NEVER;
    }

    /// Takes all deadlines away.
    pub(super) fn cancel_all(&mut self) {
        self.deadlines = [Instant::NEVER; TIMERS.len()];
    }

    pub(super) fn is_armed(&self, timer: Timer) -> bool {
        self.deadlines[timer as usize] != Instant::NEVER
    }

    /// The first deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        let first = self.deadlines.iter().copied().min().unwrap_or(Instant::NEVER);
        (first != Instant::NEVER).then_some(first)
    }

    /// The first deadline, if it comes before the stack would look at the connection; from here on it does so then.
    /// Most deadlines move back with every segment, and few segments make one sooner.
    #[inline]
    pub(super) fn take_sooner(&mut self) -> Option<Instant> {
        if self.sooner >= self.looked_at {
            return None;
        }
        self.sooner = Instant::NEVER;
        let first = self.next().filter(|&first| first < self.looked_at)?;
        self.looked_at = first;
        Some(first)
    }

    /// Reads a word of each cache line.
    pub(super) const fn touch(&self) -> u64 {
        self.sooner.as_nanos() ^ self.deadlines[Timer::Retransmit as usize].as_nanos()
    }

    /// The stack looks at the connection now, and not again before it is told a time.
    pub(super) const fn look(&mut self) {
        self.looked_at = Instant::NEVER;
        self.sooner = Instant::START;
    }

    /// The first deadline of any timer but `except`.
    pub(super) fn all_but(&self, except: Timer) -> Option<Instant> {
        let others = TIMERS.into_iter().filter(|&timer| timer != except);
        others
            .map(|timer| self.deadline(timer))
            .min()
            .filter(|&first| first != Instant::NEVER)
    }

    pub(super) fn deadline(&self, timer: Timer) -> Instant {
        self.deadlines[timer as usize]
    }

    /// A timer whose deadline has come; it is not armed any more.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<Timer> {
        let due = TIMERS
            .into_iter()
            .find(|&timer| self.deadlines[timer as usize] <= now)?;
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
    fn only_what_is_sooner_than_the_next_look_is_told() {
        let mut timers = Timers::new();
        timers.arm(Timer::Retransmit, Instant::from_millis(200));
        assert_eq!(timers.take_sooner(), Some(Instant::from_millis(200)));
        timers.arm(Timer::Retransmit, Instant::from_millis(300));
        assert_eq!(timers.take_sooner(), None);
        // Set and taken away at once.
        timers.arm(Timer::DelayedAck, Instant::from_millis(40));
        timers.cancel(Timer::DelayedAck);
        assert_eq!(timers.take_sooner(), None);
        timers.arm(Timer::DelayedAck, Instant::from_millis(50));
        assert_eq!(timers.take_sooner(), Some(Instant::from_millis(50)));
        timers.cancel(Timer::DelayedAck);
        assert_eq!(timers.take_sooner(), None);
        timers.look();
        assert_eq!(timers.take_sooner(), Some(Instant::from_millis(300)));
        timers.cancel_all();
        timers.look();
        assert_eq!(timers.take_sooner(), None);
        timers.arm(Timer::Linger, Instant::from_millis(900));
        assert_eq!(timers.take_sooner(), Some(Instant::from_millis(900)));
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
