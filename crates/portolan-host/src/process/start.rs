use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::StartTime;

impl StartTime {
    /// The present moment in the same unit: a process with a smaller start time runs already.
    #[must_use]
    pub fn now() -> Self {
        Self::of(since_boot(), ticks_per_second())
    }

    /// The moment on the wall clock, exact to a tick (10 ms), as long as the clock has not been set since
    /// the process started.
    #[must_use]
    pub fn wall_clock(self) -> SystemTime {
        let now = SystemTime::now();
        let boot = now.checked_sub(since_boot()).unwrap_or(SystemTime::UNIX_EPOCH);
        self.after(boot, ticks_per_second())
    }

    fn of(since_boot: Duration, ticks_per_second: u64) -> Self {
        let fraction = u64::from(since_boot.subsec_nanos()) * ticks_per_second / 1_000_000_000;
        Self(
            since_boot
                .as_secs()
                .saturating_mul(ticks_per_second)
                .saturating_add(fraction),
        )
    }

    fn after(self, boot: SystemTime, ticks_per_second: u64) -> SystemTime {
        let seconds = self.0 / ticks_per_second;
        let nanoseconds = self.0 % ticks_per_second * 1_000_000_000 / ticks_per_second;
        boot.checked_add(Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds))
            .unwrap_or(boot)
    }
}

/// The time since boot, suspension included: what field 22 of /proc/PID/stat counts.
fn since_boot() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Boottime);
    let nanoseconds = u32::try_from(tv_nsec).unwrap_or(0).min(999_999_999);
    Duration::new(u64::try_from(tv_sec).unwrap_or(0), nanoseconds)
}

/// The unit of that field, USER_HZ.
fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_become_a_moment_and_back() {
        let boot = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let start = StartTime(12_345);
        assert_eq!(start.after(boot, 100), boot + Duration::from_millis(123_450));
        assert_eq!(StartTime::of(Duration::from_millis(123_459), 100), start);
    }

    #[test]
    fn no_number_overflows() {
        let boot = SystemTime::UNIX_EPOCH;
        assert_eq!(StartTime(u64::MAX).after(boot, 1), boot);
        assert_eq!(StartTime::of(Duration::MAX, 1000).0, u64::MAX);
        // A start in the future of a real clock stays a moment.
        let _ = StartTime(u64::MAX).wall_clock();
    }

    #[test]
    fn now_grows() {
        let before = StartTime::now();
        assert!(before.0 > 0);
        assert!(StartTime::now() >= before);
        let started = before.wall_clock();
        let age = SystemTime::now().duration_since(started).unwrap_or_default();
        assert!(age < Duration::from_secs(60), "{age:?}");
    }
}
