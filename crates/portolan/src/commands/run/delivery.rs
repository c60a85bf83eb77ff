//! What the program had sent when it ended, and is still on its way. The kernel delivers that when a process ends, so we
//! do: bytes in the device, in the stack and between the sockets.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use portolan_gateway::Gateway;
use tokio::time::{Instant, sleep};

/// Connections whose last bytes nobody took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Undelivered {
    connections: usize,
    waited: Duration,
}

/// Between two looks it is so long at first, and then up to the other.
const TURN: Duration = Duration::from_millis(1);
const TURN_MAX: Duration = Duration::from_millis(20);
/// Packets that are no connection's go on for so long at most: in a network that others have too they need not end.
const SETTLE: Duration = Duration::from_millis(100);
/// A reader that takes nothing for so long is not waited for,
const PATIENCE: Duration = Duration::from_secs(2);
/// nor all of them together for longer than this.
const PATIENCE_IN_ALL: Duration = Duration::from_secs(60);

/// Waits until what the program has sent is with the host, or nobody takes it. Poll it when the program has ended: its
/// kernel has said the end of its connections by then, and the device has it.
pub(super) async fn delivered(gateway: &Gateway) -> Result<(), Undelivered> {
    let began = Instant::now();
    let mut progress = Progress::of(gateway);
    let mut taken_at = began;
    let mut turn = TURN;
    loop {
        sleep(turn).await;
        let (now, last) = (Instant::now(), progress);
        progress = Progress::of(gateway);
        if progress.taken != last.taken {
            taken_at = now;
        }
        turn = if progress == last {
            (turn * 2).min(TURN_MAX)
        } else {
            TURN
        };
        let waited = now - began;
        let connections = gateway.flows().unfinished();
        if connections == 0 && (progress == last || waited >= SETTLE) {
            return Ok(());
        }
        if connections > 0 && (now - taken_at >= PATIENCE || waited >= PATIENCE_IN_ALL) {
            return Err(Undelivered { connections, waited });
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Progress {
    /// Packets that came from inside or went there.
    packets: u64,
    /// Bytes from inside that the host has taken.
    taken: u64,
}

impl Progress {
    fn of(gateway: &Gateway) -> Self {
        let counters = gateway.stack().counters();
        Self {
            packets: counters
                .iter()
                .map(|counters| counters.packets_in + counters.packets_out)
                .sum(),
            taken: gateway.flows().totals().traffic.bytes_out,
        }
    }
}

impl Display for Undelivered {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { connections, waited } = self;
        let (noun, whose) = match connections {
            1 => ("connection", "its last bytes"),
            _ => ("connections", "their last bytes"),
        };
        let seconds = waited.as_secs();
        write!(
            f,
            "the program has ended, and {connections} {noun} had no reader for {whose} in {seconds} s [undelivered]"
        )
    }
}
