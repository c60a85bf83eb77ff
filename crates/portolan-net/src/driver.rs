//! What moves a shard on: packets from and to its link, and time.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use portolan_stack::Packet;
use smallvec::SmallVec;
use tokio::task::yield_now;
use tokio::time::Sleep;

use crate::hub::Hub;
use crate::link::{Batch, Link};
use crate::shard::Shard;
use crate::steering::TcpFragments;

/// The future that drives one shard of a stack over its link: spawn it, or poll it beside others.
///
/// It is one task, whatever the number of sockets. It ends when no [`Stack`](crate::Stack), socket or connection is
/// left, or with the error of its link. Dropped before that, it takes the network away: sockets give errors.
#[must_use = "nothing moves unless the driver is polled: spawn it"]
#[derive(Debug)]
pub struct Driver<L> {
    link: L,
    hub: Arc<Hub>,
    /// Which of the host's shards this is.
    number: usize,
    shard: Arc<Shard>,
    received: Batch,
    /// For each packet of `received` its shard.
    targets: Vec<Option<usize>>,
    handed_over: Option<Batch>,
    looped: Option<Batch>,
    to_send: Batch,
    fragments: TcpFragments,
    woken: Vec<Waker>,
    sleep: Option<Pin<Box<Sleep>>>,
    rest: Rest,
    is_done: bool,
}

/// Packets in one turn; the sockets wait that long for the lock.
const PACKETS: usize = 64;
/// Bytes in one turn: several of the largest packets.
const BYTES: usize = 512 << 10;
/// Turns before other tasks of the thread get theirs.
const TURNS: usize = 16;

impl<L: Link> Driver<L> {
    pub(crate) fn new(link: L, hub: Arc<Hub>, number: usize, shard: Arc<Shard>) -> Self {
        Self {
            link,
            hub,
            number,
            shard,
            received: Batch::new(PACKETS, BYTES),
            targets: Vec::with_capacity(PACKETS),
            handed_over: None,
            looped: None,
            to_send: Batch::new(PACKETS, BYTES),
            fragments: TcpFragments::new(),
            woken: Vec::new(),
            sleep: None,
            rest: Rest::default(),
            is_done: false,
        }
    }

    /// The link.
    pub fn link(&self) -> &L {
        &self.link
    }

    /// One turn. Ready when there may be more to do at once, with whether all is done for good.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if let Poll::Ready(result) = self.link.poll_receive(cx, &mut self.received) {
            result?;
        }
        self.hand_over();
        let mut is_busy = !self.received.is_empty();
        is_busy |= self.hub.inbox(self.number).take(&mut self.handed_over, cx);
        is_busy |= self.hub.loopback(self.number).take(&mut self.looped, cx);

        let deadline = match self.feed(cx) {
            Next::Finished => return Poll::Ready(Ok(true)),
            Next::At(deadline) => deadline,
        };
        for waker in self.woken.drain(..) {
            waker.wake();
        }
        if !self.to_send.is_empty() {
            match self.link.poll_send(cx, &mut self.to_send) {
                Poll::Ready(result) => {
                    result?;
                    is_busy = true;
                }
                Poll::Pending => {}
            }
        }
        if is_busy {
            self.rest.ends();
            return Poll::Ready(Ok(false));
        }
        ready!(self.wait_until(cx, deadline));
        Poll::Ready(Ok(false))
    }

    /// Gives packets of other shards to those.
    fn hand_over(&mut self) {
        self.targets.clear();
        if self.hub.steering().shards() == 1 || self.received.is_empty() {
            return;
        }
        let Self {
            received,
            targets,
            fragments,
            hub,
            number,
            ..
        } = self;
        let steering = hub.steering();
        targets.extend(
            received
                .iter()
                .map(|packet| steering.of_packet(packet.bytes, fragments)),
        );
        for other in (0..steering.shards()).filter(|other| other != number) {
            if targets.contains(&Some(other)) {
                let packets = received.iter().zip(targets.iter());
                let theirs = packets.filter(|(_, target)| **target == Some(other));
                let dropped = hub.inbox(other).put(theirs.map(|(packet, _)| packet));
                hub.count_dropped(dropped);
            }
        }
        hub.count_dropped(targets.iter().filter(|target| target.is_none()).count() as u64);
    }

    /// Brings the engine its packets and the time, and fetches what it has.
    fn feed(&mut self, cx: &Context<'_>) -> Next {
        let Self {
            hub,
            number,
            shard,
            received,
            targets,
            handed_over,
            looped,
            to_send,
            woken,
            ..
        } = self;
        let mut core = shard.lock();
        core.set_driver(cx);
        let now = shard.clock().now();
        let is_own = |index: usize| targets.get(index).is_none_or(|target| *target == Some(*number));
        let own = received.iter().enumerate().filter(|&(index, _)| is_own(index));
        let own: SmallVec<[Packet<'_>; PACKETS]> = own.map(|(_, packet)| packet).collect();
        core.engine.handle_packets(now, &own);
        drop(own);
        for packet in handed_over.iter().flat_map(Batch::iter) {
            core.engine.handle_packet(now, packet);
        }
        let loopback = core.engine.config().loopback;
        for packet in looped.iter().flat_map(Batch::iter) {
            core.engine.handle_packet_on(now, loopback, packet);
        }
        if core.engine.poll_timeout().is_some_and(|deadline| deadline <= now) {
            core.engine.handle_timeout(now);
        }
        let len = core.engine.max_packet_len();
        let mut is_drained = false;
        while let Some(mut space) = to_send.space(len) {
            let bytes = space.bytes();
            let Some(transmit) = core.engine.poll_transmit(now, bytes) else {
                is_drained = true;
                break;
            };
            let packet = Packet {
                bytes: &bytes[..transmit.len],
                offload: transmit.offload,
            };
            if !hub.loop_back(packet) {
                space.commit(transmit.len, transmit.offload);
            }
        }
        core.take_events(woken);
        let is_finished =
            is_drained && to_send.is_empty() && core.engine.connection_count() == 0 && !shard.has_users();
        let deadline = core.engine.poll_timeout();
        drop(core);
        received.clear();
        for packets in [handed_over, looped].into_iter().flatten() {
            packets.clear();
        }
        if is_finished {
            Next::Finished
        } else {
            Next::At(deadline)
        }
    }

    fn wait_until(&mut self, cx: &mut Context<'_>, deadline: Option<portolan_stack::Instant>) -> Poll<()> {
        let Some(deadline) = deadline else {
            return Poll::Pending;
        };
        let deadline = self.shard.clock().at(deadline);
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        sleep.as_mut().poll(cx)
    }
}

impl<L> Driver<L> {
    /// Tells everybody that nothing moves any more, and why.
    fn finish(&mut self, why: &str) {
        self.is_done = true;
        self.shard.lock().end(why, &mut self.woken);
        for waker in self.woken.drain(..) {
            waker.wake();
        }
    }
}

/// The time in which there is nothing to do.
///
/// A processor that falls asleep takes tens of microseconds to wake up, most of a round trip on one machine. So where
/// the last rest and the work since were both shorter than [`AWAKE`], as between a question and its answer, the driver
/// stays awake for that long. Where there is more to do, others may need the processor.
#[derive(Debug, Default)]
struct Rest {
    /// When the present one began.
    began: Option<Instant>,
    /// When the last one ended, if it was short.
    ended: Option<Instant>,
    is_awake: bool,
}

/// How long at most a driver looks again and again for something to do.
const AWAKE: Duration = Duration::from_micros(50);

impl Rest {
    fn ends(&mut self) {
        if let Some(began) = self.began.take() {
            let now = Instant::now();
            self.ended = (now - began < AWAKE).then_some(now);
        }
    }

    /// Has the driver polled again soon if it is to stay awake: when every other task has had its turn, and the
    /// descriptors have been looked at.
    fn wait(&mut self, cx: &mut Context<'_>) {
        let now = Instant::now();
        let since = match self.began {
            Some(began) => Some(began),
            None => {
                self.began = Some(now);
                self.is_awake = true;
                self.ended
            }
        };
        self.is_awake &= since.is_some_and(|since| now - since < AWAKE);
        if self.is_awake {
            // One poll puts the waker where the runtime finds it after its next look at the descriptors.
            let _: Poll<()> = pin!(yield_now()).poll(cx);
        }
    }
}

enum Next {
    /// Nobody will ask for anything again.
    Finished,
    /// When the engine has something to do of its own.
    At(Option<portolan_stack::Instant>),
}

// The link is never pinned: it is called by `&mut`.
impl<L> Unpin for Driver<L> {}

impl<L: Link> Future for Driver<L> {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        for _ in 0..TURNS {
            let Poll::Ready(done) = this.turn(cx) else {
                this.rest.wait(cx);
                return Poll::Pending;
            };
            match done {
                Ok(false) => {}
                Ok(true) => {
                    this.finish("nobody needed it");
                    return Poll::Ready(Ok(()));
                }
                Err(error) => {
                    this.finish(&error.to_string());
                    return Poll::Ready(Err(error));
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<L> Drop for Driver<L> {
    fn drop(&mut self) {
        if !self.is_done {
            self.finish("it must run as long as its sockets");
        }
    }
}
