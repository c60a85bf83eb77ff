use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use portolan_stack::Packet;

use crate::link::Batch;

/// Packets for a shard that came elsewhere: from the queues of other shards, or from this host itself.
#[derive(Debug)]
pub(crate) struct Inbox {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Made when the first packet comes: most stacks of one shard never need it.
    packets: Option<Batch>,
    driver: Option<Waker>,
}

/// Packets that wait, at most; more are dropped, as if the network had lost them.
const PACKETS: usize = 512;
/// Bytes that wait, at most.
const BYTES: usize = 1 << 20;

impl Inbox {
    pub(crate) const fn new() -> Self {
        Self {
            state: Mutex::new(State {
                packets: None,
                driver: None,
            }),
        }
    }

    /// Hands over packets; says how many found no room.
    pub(crate) fn put<'a>(&self, packets: impl Iterator<Item = Packet<'a>>) -> u64 {
        let mut state = self.lock();
        let row = state.packets.get_or_insert_with(|| Batch::new(PACKETS, BYTES));
        let dropped = packets.map(|packet| u64::from(!row.push(packet))).sum();
        let driver = state.driver.take();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        dropped
    }

    /// Exchanges what is there for the empty `spare`; else remembers whom to wake. Says whether there was
    /// something.
    pub(crate) fn take(&self, spare: &mut Option<Batch>, cx: &Context<'_>) -> bool {
        let mut state = self.lock();
        if state.packets.as_ref().is_some_and(|packets| !packets.is_empty()) {
            std::mem::swap(&mut state.packets, spare);
            return true;
        }
        if !state
            .driver
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            state.driver = Some(cx.waker().clone());
        }
        false
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
