use portolan_stack::Instant;

/// The stack's time: nanoseconds since it was made, by tokio's clock. Where tokio's time is paused, so is the
/// stack's, and a test of hours takes no time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: tokio::time::Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            start: tokio::time::Instant::now(),
        }
    }

    pub(crate) fn now(self) -> Instant {
        let nanos = self.start.elapsed().as_nanos();
        Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// When this moment is for tokio.
    pub(crate) fn at(self, moment: Instant) -> tokio::time::Instant {
        self.start + std::time::Duration::from_nanos(moment.as_nanos())
    }
}
