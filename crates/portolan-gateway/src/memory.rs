//! Memory goes back to the system when what needed it is over.
//!
//! ```text
//!   traffic ┈┈ quiet for two looks ─▶ the stack's free buffers and tables ─▶ the allocator's free pages ─▶ system
//!                     └┈┈ 70 s later once more: connections in TIME-WAIT are gone as well
//! ```

use std::time::Duration;

use portolan_net::Stack;

use crate::flows::{Flows, Totals};

/// How often it is looked at the flows. A gateway in which nothing moves does nothing else.
const LOOK: Duration = Duration::from_secs(2);
/// A gateway that is never quiet gives memory back as often as this many looks.
const LOOKS: u32 = 30;
/// What is no load, from one look to the next: flows, bytes, datagrams.
const TRICKLE_FLOWS: usize = 16;
const TRICKLE_BYTES: u64 = 256 << 10;
const TRICKLE_PACKETS: u64 = 256;
/// So many looks after it was quiet all connections in TIME-WAIT are gone, which last a minute.
const LAST_LOOK: u32 = 35;

/// Gives memory back whenever the flows have become quiet, for as long as the gateway lasts.
pub(crate) async fn give_back(stack: Stack, flows: Flows) {
    let mut plan = Plan::new(flows.totals());
    loop {
        tokio::time::sleep(LOOK).await;
        match plan.look(flows.totals()) {
            // Whoever is busy needs its buffers again at once.
            Some(Give::Pages) => trim(),
            Some(Give::All) => {
                stack.trim();
                trim();
            }
            None => {}
        }
    }
}

/// What is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Give {
    /// Pages that nothing lies in.
    Pages,
    /// The same, after what is kept for reuse.
    All,
}

/// When memory is given back.
#[derive(Debug)]
struct Plan {
    /// What had been done when it was looked last, and when something was given back.
    seen: Totals,
    given_at: Totals,
    /// How often it was looked since something was given back, and whether it was the last time.
    looks: u32,
    is_over: bool,
}

impl Plan {
    const fn new(now: Totals) -> Self {
        Self {
            seen: now,
            given_at: now,
            looks: 0,
            is_over: true,
        }
    }

    /// What is to be given back, [`LOOK`] after the last look.
    fn look(&mut self, now: Totals) -> Option<Give> {
        let is_quiet = !has_moved(&self.seen, &now);
        self.seen = now;
        self.looks += 1;
        let give = if has_moved(&self.given_at, &now) {
            self.is_over = false;
            match is_quiet {
                true => Give::All,
                false if self.looks >= LOOKS => Give::Pages,
                false => return None,
            }
        } else if !self.is_over && self.looks >= LAST_LOOK {
            self.is_over = true;
            Give::All
        } else {
            // Looks count from when there was something to give.
            self.looks *= u32::from(!self.is_over);
            return None;
        };
        self.given_at = now;
        self.looks = 0;
        Some(give)
    }
}

/// Whether more was done between two looks than a trickle, which needs none of what is kept.
fn has_moved(before: &Totals, now: &Totals) -> bool {
    let bytes = |totals: &Totals| totals.traffic.bytes_in + totals.traffic.bytes_out;
    let packets = |totals: &Totals| totals.traffic.packets_in + totals.traffic.packets_out;
    before.open.abs_diff(now.open) > TRICKLE_FLOWS
        || now.opened - before.opened > TRICKLE_FLOWS as u64
        || bytes(now).abs_diff(bytes(before)) > TRICKLE_BYTES
        || packets(now).abs_diff(packets(before)) > TRICKLE_PACKETS
}

/// Gives the pages of the heap back that nothing lies in. The allocator keeps them otherwise, wherever anything lies
/// behind them.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the C library's own call has no other face")]
fn trim() {
    // SAFETY: it takes no memory that is in use, and may be called at any time.
    unsafe { libc::malloc_trim(0) };
}

/// The allocators of other C libraries give pages back by themselves.
#[cfg(not(target_env = "gnu"))]
const fn trim() {}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(opened: u64) -> Totals {
        Totals {
            opened,
            ..Totals::default()
        }
    }

    #[test]
    fn a_quiet_gateway_gives_back_twice_and_then_rests() {
        let mut plan = Plan::new(opened(0));
        assert!((0..1000).all(|_| plan.look(opened(0)).is_none()));
        assert_eq!(plan.look(opened(50)), None, "it may go on");
        assert_eq!(plan.look(opened(50)), Some(Give::All));
        let given: Vec<_> = (1..1000).filter(|_| plan.look(opened(50)).is_some()).collect();
        assert_eq!(given, [LAST_LOOK]);
    }

    #[test]
    fn a_trickle_after_a_load_keeps_nothing() {
        let mut plan = Plan::new(opened(0));
        assert_eq!(plan.look(opened(5000)), None, "it may go on");
        let given: Vec<_> = (1..=20).map(|n| plan.look(opened(5000 + n))).collect();
        assert_eq!(given[0], Some(Give::All));
        let again = given.iter().flatten().count();
        assert_eq!(again, 2, "seldom, for what the trickle has left: {given:?}");
    }

    #[test]
    fn a_busy_gateway_gives_back_pages_now_and_then() {
        let mut plan = Plan::new(opened(0));
        let given: Vec<_> = (1..=u64::from(3 * LOOKS))
            .map(|n| plan.look(opened(n * 50)))
            .collect();
        let pages = given.iter().filter(|give| **give == Some(Give::Pages)).count();
        assert_eq!((pages, given.iter().flatten().count()), (3, 3));
    }
}
