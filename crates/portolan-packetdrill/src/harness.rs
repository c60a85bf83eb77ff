//! One world for two threads: packetdrill's main one, and a second for calls that block.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use portolan_stack::Instant;

use crate::call::{Call, Outcome};
use crate::errno::Errno;
use crate::flags::Flags;
use crate::world::World;

thread_local! {
    /// When the last call of this thread came to its end: its next question for the time is about that.
    static ENDED_AT: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// What the callbacks share.
#[derive(Debug)]
pub(crate) struct Harness {
    shared: Mutex<Shared>,
    ended: Condvar,
    main: ThreadId,
}

#[derive(Debug)]
struct Shared {
    world: World,
    waiting: Vec<(u64, Call)>,
    done: HashMap<u64, (Result<Outcome, Errno>, Instant)>,
    next_ticket: u64,
}

impl Harness {
    /// A world that begins now, for the thread that makes it.
    pub(crate) fn new(flags: &Flags) -> Self {
        Self {
            shared: Mutex::new(Shared {
                world: World::new(flags),
                waiting: Vec::new(),
                done: HashMap::new(),
                next_ticket: 0,
            }),
            ended: Condvar::new(),
            main: thread::current().id(),
        }
    }

    /// Does something that does not wait, and whatever follows from it.
    pub(crate) fn act<R>(&self, act: impl FnOnce(&mut World) -> R) -> R {
        let mut shared = self.lock();
        shared.world.read_control();
        let result = act(&mut shared.world);
        self.follow_up(&mut shared);
        result
    }

    /// Makes a call, and waits for its end if it must: the second thread for events, the main one by moving the clock.
    pub(crate) fn perform(&self, mut call: Call) -> Result<Outcome, Errno> {
        let mut shared = self.lock();
        shared.world.read_control();
        let attempt = shared.world.attempt(&mut call);
        self.follow_up(&mut shared);
        if let Some(result) = attempt {
            self.note_end(shared.world.now());
            return result;
        }
        let ticket = shared.next_ticket;
        shared.next_ticket += 1;
        shared.waiting.push((ticket, call));
        loop {
            if let Some((result, at)) = shared.done.remove(&ticket) {
                self.note_end(at);
                return result;
            }
            if thread::current().id() != self.main {
                shared = self.ended.wait(shared).unwrap_or_else(PoisonError::into_inner);
            } else if let Some(next) = self.next_timeout(&shared) {
                shared.world.move_to(next);
                self.follow_up(&mut shared);
            } else {
                shared.waiting.retain(|(waiting, _)| *waiting != ticket);
                return Err(Errno(libc::EDEADLK));
            }
        }
    }

    /// Lets this much time pass, from timer to timer.
    pub(crate) fn sleep_micros(&self, micros: u64) {
        let mut shared = self.lock();
        shared.world.read_control();
        let until = Instant::from_nanos(shared.world.now().as_nanos() + micros * 1000);
        self.pass(&mut shared, until);
    }

    /// The time; asking for it takes a microsecond.
    pub(crate) fn time(&self) -> Instant {
        if let Some(at) = ENDED_AT.take() {
            return at;
        }
        let mut shared = self.lock();
        shared.world.read_control();
        let until = Instant::from_nanos(shared.world.now().as_nanos() + 1000);
        self.pass(&mut shared, until);
        until
    }

    /// The next packet that left and when it did; time passes until there is one. `None` if there will never be.
    pub(crate) fn next_packet(&self) -> Option<(Instant, Vec<u8>)> {
        let mut shared = self.lock();
        shared.world.read_control();
        loop {
            if let Some(packet) = shared.world.take_packet() {
                return Some(packet);
            }
            let next = self.next_timeout(&shared)?;
            shared.world.move_to(next);
            self.follow_up(&mut shared);
        }
    }

    fn pass(&self, shared: &mut MutexGuard<'_, Shared>, until: Instant) {
        while let Some(next) = self.next_timeout(shared).filter(|&next| next <= until) {
            shared.world.move_to(next);
            self.follow_up(shared);
        }
        shared.world.move_to(until);
        self.follow_up(shared);
    }

    fn next_timeout(&self, shared: &Shared) -> Option<Instant> {
        let deadlines = shared.waiting.iter().filter_map(|(_, call)| call.deadline());
        deadlines.chain(shared.world.next_timeout()).min()
    }

    /// Tries the calls that wait until none comes further: a blocked write goes on in the event that lets it.
    fn follow_up(&self, shared: &mut MutexGuard<'_, Shared>) {
        shared.world.settle();
        let mut at = 0;
        while at < shared.waiting.len() {
            let Shared {
                world, waiting, done, ..
            } = &mut **shared;
            match world.attempt(&mut waiting[at].1) {
                Some(result) => {
                    let (ticket, _) = waiting.remove(at);
                    world.settle();
                    done.insert(ticket, (result, world.now()));
                    self.ended.notify_all();
                    at = 0;
                }
                None => at += 1,
            }
        }
    }

    fn note_end(&self, at: Instant) {
        if thread::current().id() != self.main {
            ENDED_AT.set(Some(at));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
