//! What a capture asks and tells its maker.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use super::beginnings::Beginning;
use crate::flows::FlowProtocol;
use std::net::SocketAddr;

/// Says whose flows are: a remark on the first packet of each.
pub struct Whose {
    ask: Box<Ask>,
    since: Instant,
    spent: Duration,
}

type Ask = dyn FnMut(FlowProtocol, SocketAddr, SocketAddr) -> Option<String> + Send;

/// Hears why packets cannot be written.
pub struct Trouble(Box<dyn FnOnce(&io::Error) + Send>);

/// Asking may take so long at once, and a quarter of the time: a program that opens flows by the thousand must not keep
/// the gateway at it.
const SPENT_AT_ONCE: Duration = Duration::from_millis(250);
const SHARE: u32 = 4;

impl Whose {
    /// Asks this function: it is given a protocol, the end inside and the end outside.
    #[must_use]
    pub fn new(
        ask: impl FnMut(FlowProtocol, SocketAddr, SocketAddr) -> Option<String> + Send + 'static,
    ) -> Self {
        Self {
            ask: Box::new(ask),
            since: Instant::now(),
            spent: Duration::ZERO,
        }
    }

    /// `None` if nobody knows, or too much was asked lately.
    pub(super) fn ask(&mut self, beginning: &Beginning) -> Option<String> {
        let start = Instant::now();
        if self.spent > SPENT_AT_ONCE + (start - self.since) / SHARE {
            return None;
        }
        let Beginning {
            protocol,
            inside,
            outside,
        } = *beginning;
        let remark = (self.ask)(protocol, inside, outside);
        self.spent += start.elapsed();
        remark
    }
}

impl Trouble {
    /// Tells this function.
    #[must_use]
    pub fn new(hear: impl FnOnce(&io::Error) + Send + 'static) -> Self {
        Self(Box::new(hear))
    }

    pub(super) fn hear(self, error: &io::Error) {
        (self.0)(error);
    }
}

impl fmt::Debug for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Whose")
    }
}

impl fmt::Debug for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trouble")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_too_much_is_answered_less() {
        let mut asked = 0;
        let (sender, receiver) = std::sync::mpsc::channel();
        let mut whose = Whose::new(move |_, _, _| {
            asked += 1;
            sender.send(asked).unwrap();
            std::thread::sleep(Duration::from_millis(20));
            Some("somebody".to_owned())
        });
        let beginning = Beginning {
            protocol: FlowProtocol::Udp,
            inside: ([10, 0, 0, 2], 1).into(),
            outside: ([10, 0, 0, 1], 53).into(),
        };
        let answers = (0..1000).filter_map(|_| whose.ask(&beginning)).count();
        assert_eq!(receiver.try_iter().count(), answers);
        // A quarter of a second, and a little for the time that it took.
        assert!((1..30).contains(&answers), "{answers}");
    }
}
