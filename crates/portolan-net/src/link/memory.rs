//! Two ends in one process.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::{Batch, Capabilities, Link};

/// One end of a [`pair`].
#[derive(Debug)]
pub struct MemoryLink {
    capabilities: Capabilities,
    incoming: Arc<Mutex<Direction>>,
    outgoing: Arc<Mutex<Direction>>,
}

/// What is under way to one end.
#[derive(Debug)]
struct Direction {
    packets: Batch,
    receiver: Option<Waker>,
    sender: Option<Waker>,
    is_closed: bool,
}

/// Packets that wait in each direction, at most.
const PACKETS: usize = 256;
/// Bytes that wait in each direction, at most.
const BYTES: usize = 512 << 10;

/// Two links with a wire between them: what one sends, the other receives. Nothing is lost: a sender waits while
/// the wire holds 256 packets or 512 KiB. With one end gone, the other's receives and sends fail.
#[must_use]
pub fn pair(capabilities: Capabilities) -> (MemoryLink, MemoryLink) {
    let direction = || {
        Arc::new(Mutex::new(Direction {
            packets: Batch::new(PACKETS, BYTES),
            receiver: None,
            sender: None,
            is_closed: false,
        }))
    };
    let (there, back) = (direction(), direction());
    let one = MemoryLink {
        capabilities,
        incoming: Arc::clone(&back),
        outgoing: Arc::clone(&there),
    };
    let other = MemoryLink {
        capabilities,
        incoming: there,
        outgoing: back,
    };
    (one, other)
}

impl Link for MemoryLink {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<()>> {
        let mut wire = lock(&self.incoming);
        if wire.packets.is_empty() {
            if wire.is_closed {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            keep_waker(&mut wire.receiver, cx);
            return Poll::Pending;
        }
        while let Some(packet) = wire.packets.front() {
            if !batch.push(packet) {
                break;
            }
            wire.packets.pop_front();
        }
        let sender = wire.sender.take();
        drop(wire);
        if let Some(sender) = sender {
            sender.wake();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<()>> {
        let mut wire = lock(&self.outgoing);
        if wire.is_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        while let Some(packet) = batch.front() {
            if !wire.packets.push(packet) {
                break;
            }
            batch.pop_front();
        }
        let receiver = if wire.packets.is_empty() {
            None
        } else {
            wire.receiver.take()
        };
        let result = if batch.is_empty() {
            Poll::Ready(Ok(()))
        } else {
            keep_waker(&mut wire.sender, cx);
            Poll::Pending
        };
        drop(wire);
        if let Some(receiver) = receiver {
            receiver.wake();
        }
        result
    }
}

impl Drop for MemoryLink {
    fn drop(&mut self) {
        for wire in [&self.incoming, &self.outgoing] {
            let mut wire = lock(wire);
            wire.is_closed = true;
            let wakers = [wire.receiver.take(), wire.sender.take()];
            drop(wire);
            for waker in wakers.into_iter().flatten() {
                waker.wake();
            }
        }
    }
}

/// No code that holds the lock can leave the queue half changed, so a panic elsewhere does not matter.
fn lock(wire: &Mutex<Direction>) -> MutexGuard<'_, Direction> {
    wire.lock().unwrap_or_else(PoisonError::into_inner)
}

fn keep_waker(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

#[cfg(test)]
mod tests {
    use portolan_stack::{Offload, Packet};

    use super::*;

    fn filled(count: usize) -> Batch {
        let mut batch = Batch::new(count, count * 100);
        for number in 0..count {
            assert!(batch.push(Packet {
                bytes: &[number as u8; 60],
                offload: Offload::default(),
            }));
        }
        batch
    }

    #[test]
    fn a_full_wire_makes_the_sender_wait_and_loses_nothing() {
        let (mut one, mut other) = pair(Capabilities::plain(1500));
        let mut cx = Context::from_waker(Waker::noop());
        let mut batch = filled(PACKETS + 10);
        let mut received = Batch::new(PACKETS, BYTES);
        assert!(other.poll_receive(&mut cx, &mut received).is_pending());
        assert!(one.poll_send(&mut cx, &mut batch).is_pending());
        assert_eq!(batch.len(), 10);
        assert!(other.poll_receive(&mut cx, &mut received).is_ready());
        assert_eq!(received.len(), PACKETS);
        received.clear();
        assert!(matches!(one.poll_send(&mut cx, &mut batch), Poll::Ready(Ok(()))));
        assert!(other.poll_receive(&mut cx, &mut received).is_ready());
        assert_eq!(received.len(), 10);
        assert_eq!(received.front().unwrap().bytes[0], PACKETS as u8);
    }

    #[test]
    fn an_end_that_is_gone_is_seen_after_what_it_sent() {
        let (mut one, mut other) = pair(Capabilities::plain(1500));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(one.poll_send(&mut cx, &mut filled(1)).is_ready());
        drop(one);
        let mut received = Batch::new(4, 0);
        assert!(matches!(
            other.poll_receive(&mut cx, &mut received),
            Poll::Ready(Ok(()))
        ));
        assert_eq!(received.len(), 1);
        assert!(matches!(
            other.poll_receive(&mut cx, &mut received),
            Poll::Ready(Err(_))
        ));
        assert!(matches!(
            other.poll_send(&mut cx, &mut filled(1)),
            Poll::Ready(Err(_))
        ));
    }
}
