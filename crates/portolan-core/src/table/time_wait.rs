//! TIME-WAIT: a connection that we closed first keeps its four-tuple and its hold on the port for a while.

use std::time::Duration;

use super::PortTable;

/// How long: `TCP_TIMEWAIT_LEN` of Linux, which no setting changes. RFC 9293, section 3.6.1, says
/// twice the maximum segment lifetime, which would be 4 minutes.
pub const TIME_WAIT: Duration = Duration::from_secs(60);

impl PortTable {
    /// Tells the table what time it is, on any clock that does not go back; a time before an earlier
    /// one is taken for that one. Connections whose TIME-WAIT is over leave.
    pub fn advance(&mut self, now: Duration) {
        self.now = self.now.max(now);
        while let Some(&(end, id)) = self.time_wait.front()
            && end <= self.now
        {
            self.time_wait.pop_front();
            if let Some(index) = self.sockets.index(id) {
                self.remove(index);
            }
        }
    }

    /// The time at which the next TIME-WAIT ends, if there is one: when to call
    /// [`advance`](Self::advance) at the latest.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        self.time_wait.front().map(|&(end, _)| end)
    }
}
