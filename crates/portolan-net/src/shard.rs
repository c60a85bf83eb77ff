//! One engine with what its sockets and its driver share.

use std::collections::VecDeque;
use std::io;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use portolan_stack::{Event, Instant, ListenerId, Stack, SynId};

use crate::clock::Clock;
use crate::wakers::{Ticket, Wait, Wakers};

/// A part of a stack's flows, with a lock of its own.
#[derive(Debug)]
pub(crate) struct Shard {
    core: Mutex<Core>,
    clock: Clock,
    /// How many [`ShardRef`]s there are.
    users: AtomicUsize,
}

/// What the lock of a shard guards.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) engine: Stack,
    pub(crate) wakers: Wakers,
    /// SYNs that wait for a word and were not given out; some may be gone.
    syns: HashMap<ListenerId, VecDeque<SynId>, FixedState>,
    /// The driver, if it sleeps.
    driver: Option<Waker>,
    /// Why the driver is gone, if it is: nothing will come or go any more.
    over: Option<Box<str>>,
}

impl Shard {
    pub(crate) fn new(engine: Stack, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            core: Mutex::new(Core {
                engine,
                wakers: Wakers::default(),
                syns: HashMap::default(),
                driver: None,
                over: None,
            }),
            clock,
            users: AtomicUsize::new(0),
        })
    }

    /// Does something that may have to be followed by packets or timers: the driver is woken.
    pub(crate) fn act<R>(&self, act: impl FnOnce(&mut Core, Instant) -> R) -> R {
        let mut core = self.lock();
        // The time is read under the lock: it must not go back for the engine.
        let result = act(&mut core, self.clock.now());
        let driver = core.driver.take();
        drop(core);
        if let Some(driver) = driver {
            driver.wake();
        }
        result
    }

    /// Looks something up, or waits for it.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&mut Core) -> R) -> R {
        look(&mut self.lock())
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// Whether sockets or handles are left that could ask for something.
    pub(crate) fn has_users(&self) -> bool {
        self.users.load(Ordering::Acquire) > 0
    }

    /// A panic under the lock is one of the engine's own; what it left may still be closed.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    /// The driver sleeps from now on.
    pub(crate) fn set_driver(&mut self, cx: &Context<'_>) {
        if !self
            .driver
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            self.driver = Some(cx.waker().clone());
        }
    }

    /// Sorts out what the engine tells: `woken` gets the tasks that are to run.
    pub(crate) fn take_events(&mut self, woken: &mut Vec<Waker>) {
        while let Some(event) = self.engine.poll_event() {
            match event {
                Event::Acceptable(id) => self.wakers.take(Wait::Acceptable(id), woken),
                Event::Readable(id) => self.wakers.take(Wait::Readable(id), woken),
                Event::Connected(id) | Event::Writable(id) => self.wakers.take(Wait::Writable(id), woken),
                Event::Closed(id, _) => {
                    self.wakers.take(Wait::Readable(id), woken);
                    self.wakers.take(Wait::Writable(id), woken);
                    self.wakers.take(Wait::Closed(id), woken);
                    self.wakers.take(Wait::Delivered(id), woken);
                }
                Event::Probed(id) => self.wakers.take(Wait::Closed(id), woken),
                Event::Finished(id) => self.wakers.take(Wait::Delivered(id), woken),
                Event::Datagrams(id) => self.wakers.take(Wait::Datagram(id), woken),
                Event::DatagramRoom(id) => self.wakers.take(Wait::DatagramRoom(id), woken),
                Event::DatagramError(id) => {
                    self.wakers.take(Wait::DatagramError(id), woken);
                    self.wakers.take(Wait::Datagram(id), woken);
                    self.wakers.take(Wait::DatagramRoom(id), woken);
                }
                Event::Echo(id) => self.wakers.take(Wait::Echo(id), woken),
                Event::EchoRequests => self.wakers.take(Wait::EchoRequests, woken),
                Event::Syn(id) => self.push_syn(id, woken),
                _ => {}
            }
        }
    }

    fn push_syn(&mut self, id: SynId, woken: &mut Vec<Waker>) {
        let Some(held) = self.engine.held_syn(id) else {
            return;
        };
        let syns = self.syns.entry(held.listener).or_default();
        if syns.len() == syns.capacity() {
            // Before it grows: the engine holds a bounded number, and the others are gone.
            syns.retain(|&id| self.engine.held_syn(id).is_some());
        }
        syns.push_back(id);
        self.wakers.take(Wait::Syn(held.listener), woken);
    }

    /// The SYN of a listener that waits longest.
    pub(crate) fn pop_syn(&mut self, listener: ListenerId) -> Option<SynId> {
        self.syns.get_mut(&listener)?.pop_front()
    }

    /// The listener is about to be closed.
    pub(crate) fn forget_syns(&mut self, listener: ListenerId) {
        self.syns.remove(&listener);
    }

    /// Gives up memory that is kept for more of what there was.
    pub(crate) fn trim(&mut self) {
        self.engine.trim();
        self.wakers.trim();
        for syns in self.syns.values_mut() {
            syns.shrink_to_fit();
        }
    }

    /// The driver has ended: whoever waits learns it.
    pub(crate) fn end(&mut self, why: &str, woken: &mut Vec<Waker>) {
        self.over = Some(why.into());
        self.driver = None;
        self.wakers.take_all(woken);
    }

    /// What a socket gives that has nothing to give yet: an error if it never will have.
    pub(crate) fn pending<T>(&self) -> Poll<io::Result<T>> {
        match self.check() {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// That the driver is still there.
    pub(crate) fn check(&self) -> io::Result<()> {
        let Some(why) = &self.over else {
            return Ok(());
        };
        Err(io::Error::new(
            io::ErrorKind::BrokenPipe,
            format!("the driver of the stack has ended: {why}"),
        ))
    }
}

/// A handle of a shard that is counted: without any, and without connections, the driver ends.
#[derive(Debug)]
pub(crate) struct ShardRef(Arc<Shard>);

impl ShardRef {
    pub(crate) fn new(shard: &Arc<Shard>) -> Self {
        shard.users.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shard))
    }

    /// Asks for the one task that polls for this: the last one that asked is woken.
    pub(crate) fn poll<T>(
        &self,
        cx: &Context<'_>,
        wait: Wait,
        poll: impl FnOnce(&mut Core, Instant) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        self.0.act(|core, now| {
            let result = poll(core, now);
            if result.is_pending() {
                core.wakers.set_polled(wait, cx);
                return core.pending();
            }
            result
        })
    }

    /// Waits beside the one task that polls: any number of futures may.
    ///
    /// `poll` is asked whenever something happened; cancelling loses nothing.
    pub(crate) async fn wait<T>(
        &self,
        wait: Wait,
        mut poll: impl FnMut(&mut Core, Instant) -> Poll<io::Result<T>>,
    ) -> io::Result<T> {
        let mut waiting = Waiting::new(self, wait);
        std::future::poll_fn(|cx| waiting.poll(cx, &mut poll)).await
    }
}

impl Clone for ShardRef {
    fn clone(&self) -> Self {
        Self::new(&self.0)
    }
}

impl Deref for ShardRef {
    type Target = Shard;

    fn deref(&self) -> &Shard {
        &self.0
    }
}

impl Drop for ShardRef {
    fn drop(&mut self) {
        if self.0.users.fetch_sub(1, Ordering::AcqRel) == 1 {
            // The last one: the driver may end.
            self.0.act(|_, _| ());
        }
    }
}

/// A future's place in a list of those who wait: it leaves the list when it is dropped.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    shard: &'a Shard,
    wait: Wait,
    ticket: Option<Ticket>,
}

impl<'a> Waiting<'a> {
    pub(crate) fn new(shard: &'a ShardRef, wait: Wait) -> Self {
        Self {
            shard: &shard.0,
            wait,
            ticket: None,
        }
    }

    /// Asks, and enters the list if it is too early.
    pub(crate) fn poll<T>(
        &mut self,
        cx: &Context<'_>,
        poll: impl FnOnce(&mut Core, Instant) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        self.shard.act(|core, now| {
            let result = poll(core, now);
            if result.is_pending() {
                core.wakers.enter(self.wait, &mut self.ticket, cx);
                return core.pending();
            }
            result
        })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.shard.look(|core| core.wakers.leave(self.wait, ticket));
        }
    }
}
