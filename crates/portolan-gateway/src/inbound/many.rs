//! Taking very many ports: the kernel has most of the work, and several processors can do it at once.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::thread;
use std::time::{Duration, Instant};

use portolan_core::{Mapping, Port};
use rustix::io::Errno;

use super::bound::{self, BoundSocket, HolderFinder};
use super::{Bound, Place, PublishError, Published};

/// From so many on a thread costs less than it saves.
pub(super) const MANY: u32 = 4_096;
/// More threads get in each other's way: descriptors are given out one by one.
const THREADS_MAX: usize = 4;

/// The ports of the host and those inside that they lead to.
type Pairs<'a> = &'a [(Port, Port)];

/// What one thread has taken, and the place at which it had to stop.
type Taken = (Vec<BoundSocket>, Option<(Place, Errno)>);

impl Bound {
    /// Takes the ports of a mapping, none of which is to be chosen.
    pub(super) fn bind_many(
        &mut self,
        mapping: &Mapping,
        target: Option<IpAddr>,
        present: &[Published],
        finder: &HolderFinder<'_>,
    ) -> Result<(), PublishError> {
        let pairs: Vec<(Port, Port)> = mapping.pairs().collect();
        let threads = thread::available_parallelism()
            .map_or(1, usize::from)
            .min(THREADS_MAX);
        let take = |pairs: Pairs<'_>| take(mapping, target, pairs);
        let mut shares = pairs.chunks(pairs.len().div_ceil(threads));
        let own = shares.next().unwrap_or_default();
        let taken: Vec<Taken> = thread::scope(|scope| {
            let others: Vec<_> = shares
                .map(|share| {
                    (
                        share,
                        thread::Builder::new().spawn_scoped(scope, move || take(share)),
                    )
                })
                .collect();
            let own = take(own);
            let others = others.into_iter().map(|(share, thread)| match thread {
                Ok(thread) => match thread.join() {
                    Ok(taken) => taken,
                    Err(panic) => std::panic::resume_unwind(panic),
                },
                // There is none to be had: one after the other, then.
                Err(_) => take(share),
            });
            std::iter::once(own).chain(others).collect()
        });
        wait_until_alone();
        let mut first = None;
        for (sockets, stopped) in taken {
            self.sockets.extend(sockets);
            first = first.or(stopped);
        }
        let Some((place, errno)) = first else {
            return Ok(());
        };
        let own = self.published().chain(present.iter().copied());
        let refusal = bound::refusal(errno, &place, own, finder);
        Err(PublishError::Refused { place, refusal })
    }
}

/// Takes these ports, up to the first that is not to be had.
fn take(mapping: &Mapping, target: Option<IpAddr>, pairs: Pairs<'_>) -> Taken {
    let protocols = mapping.protocol().protocols();
    let mut sockets = Vec::with_capacity(pairs.len() * protocols.len());
    for &(port, inner) in pairs {
        for &protocol in protocols {
            let place = Place {
                protocol,
                address: mapping.address(),
                interface: mapping.interface(),
                port,
            };
            match bound::bind(&place) {
                Err(errno) => return (sockets, Some((place, errno))),
                Ok((socket, _)) => sockets.push(BoundSocket {
                    socket: socket.into(),
                    published: Published {
                        place,
                        target,
                        inner,
                        is_chosen: false,
                        is_auto: false,
                    },
                }),
            }
        }
    }
    (sockets, None)
}

/// A thread that has been joined is still one of the process for some microseconds, and a process that has several may not
/// enter a user namespace. Where there were others all the time this does not wait for long.
fn wait_until_alone() {
    let until = Instant::now() + Duration::from_millis(10);
    // The directory has an entry for each thread, and the two that every directory has.
    while std::fs::metadata("/proc/self/task").is_ok_and(|data| data.nlink() > 3) && Instant::now() < until {
        thread::sleep(Duration::from_micros(50));
    }
}
