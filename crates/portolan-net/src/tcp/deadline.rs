use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep};

/// When an operation is given up; without one it takes a word of memory.
#[derive(Debug, Default)]
pub(super) struct Deadline(Option<Pin<Box<Sleep>>>);

impl Deadline {
    pub(super) fn set(&mut self, deadline: Option<Instant>) {
        match (&mut self.0, deadline) {
            (Some(sleep), Some(deadline)) => sleep.as_mut().reset(deadline),
            (slot, Some(deadline)) => *slot = Some(Box::pin(tokio::time::sleep_until(deadline))),
            (slot, None) => *slot = None,
        }
    }

    /// What an operation gives that has to wait.
    pub(super) fn or_time_out<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_pending()
            && let Some(sleep) = &mut self.0
            && sleep.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        result
    }
}
