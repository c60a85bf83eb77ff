use std::io;
use std::task::{Context, Poll};

use portolan_stack::Packet;

use super::{Batch, Capabilities, Link};

/// Which way a packet goes, as the stack sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// It was received.
    In,
    /// It is sent.
    Out,
}

/// Who looks at the packets of a [`Tap`].
pub trait Observer: Send {
    /// Whether it can look at more packets. While it cannot, none pass: nothing is missed, and the network waits.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let _ = cx;
        Poll::Ready(())
    }

    /// A packet passes. Super-segments come whole, and with the checksum that somebody behind is to complete, as
    /// [`Packet::offload`] says; [`Pieces`](portolan_stack::Pieces) makes packets of the wire of them.
    fn observe(&mut self, direction: Direction, packet: Packet<'_>);

    /// Those that pass in this turn have been observed, and go on now.
    fn turn_ends(&mut self) {}
}

/// A link whose packets are looked at as they pass, in both directions: for a capture, say. A packet that is sent is seen
/// before the link has it, one that is received before the stack has it.
#[derive(Debug)]
pub struct Tap<L, O> {
    link: L,
    observer: O,
    /// How many packets at the front of the batch that is being sent were seen already.
    seen: usize,
}

impl<L: Link, O: Observer> Tap<L, O> {
    /// Shows the packets of `link` to `observer`.
    pub const fn new(link: L, observer: O) -> Self {
        Self {
            link,
            observer,
            seen: 0,
        }
    }

    fn show<'a>(&mut self, direction: Direction, packets: impl Iterator<Item = Packet<'a>>) {
        let mut is_turn = false;
        for packet in packets {
            self.observer.observe(direction, packet);
            is_turn = true;
        }
        if is_turn {
            self.observer.turn_ends();
        }
    }
}

impl<L: Link, O: Observer> Link for Tap<L, O> {
    fn capabilities(&self) -> Capabilities {
        self.link.capabilities()
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<()>> {
        if self.observer.poll_ready(cx).is_pending() {
            return Poll::Pending;
        }
        let before = batch.len();
        let result = self.link.poll_receive(cx, batch);
        self.show(Direction::In, batch.iter().skip(before));
        result
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<()>> {
        if self.observer.poll_ready(cx).is_pending() {
            return Poll::Pending;
        }
        // Those at the front are from last time, when the link was busy.
        let seen = self.seen.min(batch.len());
        self.show(Direction::Out, batch.iter().skip(seen));
        let result = self.link.poll_send(cx, batch);
        self.seen = batch.len();
        result
    }
}
