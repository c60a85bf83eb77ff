//! What is known of one relayed connection: how much went which way, since when nothing did, how it ended.

use std::future::pending;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::relays::Permit;

/// How a connection is to be relayed.
#[derive(Debug, Default)]
pub struct Options {
    /// Reset both sides when nothing moved in either direction for so long; `None` waits for ever.
    pub idle: Option<Duration>,
    /// The place among [`Relays`](crate::Relays), which can end it.
    pub permit: Option<Permit>,
}

/// One of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The first one given.
    One,
    /// The second one given.
    Other,
}

/// How a relayed connection ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Ending {
    /// Both sides said that they were done.
    Finished,
    /// This side failed (it was reset, or timed out); the other was reset.
    Failed(Side, io::Error),
    /// Nothing moved for too long; both were reset.
    Idle,
    /// It was told to end by [`Relays::drain`](crate::Relays::drain); both were reset.
    Drained,
}

/// How much a connection has carried; to be shared, and read while it runs.
#[derive(Debug, Default)]
pub struct Counters {
    from_one: AtomicU64,
    from_other: AtomicU64,
    one_has_finished: AtomicBool,
    other_has_finished: AtomicBool,
}

impl Counters {
    /// Bytes that came from this side and were taken by the other.
    #[must_use]
    pub fn from(&self, side: Side) -> u64 {
        self.counter(side).load(Ordering::Relaxed)
    }

    /// Counts bytes that came from this side and were taken by the other.
    pub fn add(&self, side: Side, bytes: usize) {
        self.counter(side).fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Whether this side has said that it is done, and the other was told so, after all its bytes.
    #[must_use]
    pub fn has_finished(&self, side: Side) -> bool {
        self.mark(side).load(Ordering::Relaxed)
    }

    /// Notes that the other side was told that this one is done.
    pub(crate) fn finish(&self, side: Side) {
        self.mark(side).store(true, Ordering::Relaxed);
    }

    const fn mark(&self, side: Side) -> &AtomicBool {
        match side {
            Side::One => &self.one_has_finished,
            Side::Other => &self.other_has_finished,
        }
    }

    const fn counter(&self, side: Side) -> &AtomicU64 {
        match side {
            Side::One => &self.from_one,
            Side::Other => &self.from_other,
        }
    }
}

/// What stops a relay from outside of its two directions.
pub(crate) async fn stopped(options: &Options, counters: &Counters) -> Ending {
    let drained = async {
        match &options.permit {
            Some(permit) => permit.told_to_end().await,
            None => pending().await,
        }
    };
    tokio::select! {
        () = drained => Ending::Drained,
        () = idle(options.idle, counters) => Ending::Idle,
    }
}

/// Waits until nothing has moved for so long. It looks eight times in that span instead of noting the time of each chunk,
/// so it is late by an eighth at most.
async fn idle(limit: Option<Duration>, counters: &Counters) {
    let Some(limit) = limit else {
        return pending().await;
    };
    let total = || counters.from(Side::One).wrapping_add(counters.from(Side::Other));
    let mut seen = total();
    let mut since = Instant::now();
    let mut at = since;
    while since + limit > at {
        at += (limit / 8).max(Duration::from_millis(1));
        sleep_until(at).await;
        let now = total();
        if now != seen {
            seen = now;
            since = at;
        }
    }
}
