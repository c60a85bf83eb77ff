use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use portolan_stack::{Instant, Offload, Packet, Pieces};
use tokio::time::Sleep;

use super::{Batch, Capabilities, Impairment, Link, Path, PathCounts};
use crate::clock::Clock;

/// A link with a bad network behind it, in both directions.
///
/// A network has no super-segments: this link takes none, and those that come from the one behind it are cut, so that
/// every packet has a fate of its own. Checksums are complete, so that a turned bit is found out.
///
/// It lives by tokio's clock, and so in virtual time where that is paused. Its timers are as fine as tokio's: a
/// packet may come up to a millisecond late.
#[derive(Debug)]
pub struct Impaired<L> {
    link: L,
    clock: Clock,
    outgoing: Path,
    incoming: Path,
    /// What has arrived and waits for the link.
    to_send: Batch,
    /// What came from the link.
    received: Batch,
    /// One piece of a super-segment.
    piece: Box<[u8]>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// Why the link gives nothing more.
    ended: Option<io::Error>,
    counts: ImpairedCounts,
}

/// What has happened on an [`Impaired`] link so far, for others than its driver: a handle.
#[derive(Clone, Debug, Default)]
pub struct ImpairedCounts(Arc<Mutex<[PathCounts; 2]>>);

impl ImpairedCounts {
    /// Of the packets that were sent, and of those that were received.
    #[must_use]
    pub fn read(&self) -> [PathCounts; 2] {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, counts: [PathCounts; 2]) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }
}

const PACKETS: usize = 64;
const BYTES: usize = 256 << 10;
/// So often in a row packets are fetched, before others have their turn.
const ROUNDS: usize = 16;

impl<L: Link> Impaired<L> {
    /// `there` is for packets that are sent, `back` for those that are received. The same seed makes the same
    /// packets suffer, if they are the same.
    pub fn new(link: L, there: Impairment, back: Impairment, seed: u64) -> Self {
        Self {
            link,
            clock: Clock::new(),
            outgoing: Path::new(there, seed),
            incoming: Path::new(back, !seed),
            to_send: Batch::new(PACKETS, BYTES),
            received: Batch::new(PACKETS, BYTES),
            piece: vec![0; Batch::MAX_PACKET].into(),
            sleep: None,
            ended: None,
            counts: ImpairedCounts::default(),
        }
    }

    /// Both directions: what is sent, and what is received.
    pub fn paths(&mut self) -> [&mut Path; 2] {
        [&mut self.outgoing, &mut self.incoming]
    }

    /// What happens, to be read at any time.
    #[must_use]
    pub fn counts(&self) -> ImpairedCounts {
        self.counts.clone()
    }

    fn count(&self) {
        self.counts
            .write([self.outgoing.counts(), self.incoming.counts()]);
    }

    /// Sends what has come through.
    fn flush(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        loop {
            let to_send = &mut self.to_send;
            let count = self
                .outgoing
                .receive(self.clock.now(), |packet| to_send.push(packet));
            if self.to_send.is_empty() {
                return Ok(());
            }
            match self.link.poll_send(cx, &mut self.to_send) {
                Poll::Ready(result) => result?,
                Poll::Pending => return Ok(()),
            }
            if count == 0 {
                return Ok(());
            }
        }
    }

    /// Lets the packets of the link set out.
    fn fetch(&mut self, cx: &mut Context<'_>) {
        for _ in 0..ROUNDS {
            if self.ended.is_some() {
                return;
            }
            match self.link.poll_receive(cx, &mut self.received) {
                Poll::Ready(Ok(())) => {
                    let now = self.clock.now();
                    for packet in self.received.iter() {
                        set_out(&mut self.incoming, now, packet, &mut self.piece);
                    }
                    self.received.clear();
                    self.count();
                }
                Poll::Ready(Err(error)) => self.ended = Some(error),
                Poll::Pending => return,
            }
        }
        // There may be more, and nobody else says so.
        cx.waker().wake_by_ref();
    }
}

/// Sends each piece of a packet on its way. What cannot be cut is for the other end to refuse.
fn set_out(path: &mut Path, now: Instant, packet: Packet<'_>, piece: &mut [u8]) {
    let offload = Offload::default();
    let Ok(mut pieces) = Pieces::new(packet) else {
        let bytes = packet.bytes;
        return path.send(now, Packet { bytes, offload });
    };
    while let Some(len) = pieces.write_next(piece) {
        let bytes = &piece[..len];
        path.send(now, Packet { bytes, offload });
    }
}

impl<L: Link> Link for Impaired<L> {
    fn capabilities(&self) -> Capabilities {
        Capabilities::plain(self.link.capabilities().mtu)
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<()>> {
        loop {
            self.flush(cx)?;
            self.fetch(cx);
            if self
                .incoming
                .receive(self.clock.now(), |packet| batch.push(packet))
                > 0
                || !batch.is_empty()
            {
                return Poll::Ready(Ok(()));
            }
            let outgoing = self
                .to_send
                .is_empty()
                .then(|| self.outgoing.next_arrival())
                .flatten();
            let next = match (outgoing, self.incoming.next_arrival()) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
            let Some(next) = next else {
                return self
                    .ended
                    .take()
                    .map_or(Poll::Pending, |error| Poll::Ready(Err(error)));
            };
            let at = self.clock.at(next);
            let sleep = self
                .sleep
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            if sleep.deadline() != at {
                sleep.as_mut().reset(at);
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<()>> {
        let now = self.clock.now();
        for packet in batch.iter() {
            set_out(&mut self.outgoing, now, packet, &mut self.piece);
        }
        batch.clear();
        self.count();
        self.flush(cx)?;
        // The rest goes when its time comes: whoever drives the link polls for received packets then.
        if let Some(next) = self.outgoing.next_arrival() {
            let at = self.clock.at(next);
            let sleep = self
                .sleep
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            if at < sleep.deadline() || sleep.is_elapsed() {
                sleep.as_mut().reset(at);
            }
            if sleep.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Ready(Ok(()))
    }
}
