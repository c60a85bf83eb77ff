//! Pipes: what splice(2) moves bytes through.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

/// Empty pipes, to be used again: making one costs two descriptors and some microseconds.
///
/// A connection has a pipe only while bytes are in it, so few serve many.
#[derive(Debug)]
pub struct PipePool {
    state: Mutex<State>,
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Pipe>,
    /// Those in use and those idle.
    count: usize,
}

/// Both ends of a pipe.
#[derive(Debug)]
pub(crate) struct Pipe {
    pub(crate) reader: OwnedFd,
    pub(crate) writer: OwnedFd,
}

/// What a pipe should hold: a burst of super-segments. The kernel gives less to users with many pipes.
const CAPACITY: usize = 256 << 10;

impl PipePool {
    /// A pool of at most `limit` pipes, with two descriptors each. Connections beyond copy their bytes instead.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            state: Mutex::default(),
            limit,
        }
    }

    /// Pipes that there are, in use or not.
    #[must_use]
    pub fn count(&self) -> usize {
        self.with(|state| state.count)
    }

    /// An empty pipe; `None` at the limit, or if the system has no descriptors left.
    pub(crate) fn take(&self) -> Option<Pipe> {
        let may_make = self.with(|state| {
            if let Some(pipe) = state.idle.pop() {
                return Err(pipe);
            }
            let may = state.count < self.limit;
            state.count += usize::from(may);
            Ok(may)
        });
        match may_make {
            Err(pipe) => Some(pipe),
            Ok(false) => None,
            Ok(true) => match pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK) {
                Ok((reader, writer)) => {
                    let _ = fcntl_setpipe_size(&writer, CAPACITY);
                    Some(Pipe { reader, writer })
                }
                Err(_) => {
                    self.lose();
                    None
                }
            },
        }
    }

    /// Takes back a pipe, which must be empty.
    pub(crate) fn give_back(&self, pipe: Pipe) {
        self.with(|state| state.idle.push(pipe));
    }

    /// A pipe was closed, since there are bytes in it that nobody wants.
    pub(crate) fn lose(&self) {
        self.with(|state| state.count -= 1);
    }

    /// Nothing in here can leave the state half changed, so a panic elsewhere does not matter.
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
