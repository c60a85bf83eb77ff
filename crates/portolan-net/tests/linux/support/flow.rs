//! What a connection of the stack does: a program behind it, in a few lines each.

use std::net::SocketAddr;

use portolan_stack::{CloseReason, ConnectionId, Instant, ReadError, Stack, WriteError};

use super::pattern;

/// What is done with each connection that a listener takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Service {
    /// Sends `send` bytes of the pattern and its FIN, and expects `expect` bytes and the peer's.
    Exchange { send: u64, expect: u64 },
    /// Sends back whatever comes, until the FIN.
    Echo,
    /// Takes the first byte, and resets.
    Reset,
    /// Reads nothing.
    Hold,
    /// Connects to this address, and passes everything on in both directions.
    Relay(SocketAddr),
}

/// How an exchange went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// What went wrong, if something did.
    pub(crate) error: Option<String>,
}

/// A connection's program.
#[derive(Debug)]
pub(crate) enum Flow {
    Exchange(Exchange),
    Echo(Pipe),
    Reset,
    Hold,
    /// Everything that comes here goes to the other connection.
    Relay {
        to: ConnectionId,
        pipe: Pipe,
    },
}

/// Sends and checks the pattern.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    send: u64,
    expect: u64,
    sent: u64,
    received: u64,
    finished: bool,
    ended: bool,
    pub(crate) keep_open: bool,
}

impl Exchange {
    pub(crate) const fn new(send: u64, expect: u64) -> Self {
        Self {
            send,
            expect,
            sent: 0,
            received: 0,
            finished: false,
            ended: false,
            keep_open: false,
        }
    }

    /// Goes on as far as it can; a report when it is over.
    pub(crate) fn turn(
        &mut self,
        now: Instant,
        stack: &mut Stack,
        id: ConnectionId,
        buffer: &mut [u8],
    ) -> Option<Report> {
        while self.sent < self.send {
            match stack.write(now, id, pattern::from(self.sent, self.send - self.sent)) {
                Ok(len) => self.sent += len as u64,
                Err(WriteError::WouldBlock) => break,
                Err(error) => return Some(self.report(Some(format!("write: {error}")))),
            }
        }
        if self.sent == self.send && !self.finished && !self.keep_open {
            self.finished = true;
            if let Err(error) = stack.finish(now, id) {
                return Some(self.report(Some(format!("finish: {error}"))));
            }
        }
        while !self.ended {
            match stack.read(now, id, buffer) {
                Ok(0) => self.ended = true,
                Ok(len) => {
                    if let Some(at) = pattern::difference(self.received, &buffer[..len]) {
                        return Some(self.report(Some(format!("byte {at} is not what was sent"))));
                    }
                    self.received += len as u64;
                }
                Err(ReadError::WouldBlock) => return None,
                Err(error) => return Some(self.report(Some(format!("read: {error}")))),
            }
        }
        (self.sent == self.send).then(|| self.report(None))
    }

    pub(crate) fn report(&self, error: Option<String>) -> Report {
        let short = (self.ended && self.received != self.expect)
            .then(|| format!("the end came after {} bytes, not {}", self.received, self.expect));
        Report {
            sent: self.sent,
            received: self.received,
            error: error.or(short),
        }
    }

    pub(crate) fn closed(&self, reason: CloseReason) -> Report {
        let is_fine = self.ended && reason == CloseReason::Finished;
        self.report((!is_fine).then(|| format!("closed: {reason}")))
    }
}

/// Bytes from one connection to another, or back to the same.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    held: Vec<u8>,
    written: usize,
    ended: bool,
    finished: bool,
}

impl Pipe {
    /// Moves what can be moved. `false` when the pipe is broken.
    pub(crate) fn turn(
        &mut self,
        now: Instant,
        stack: &mut Stack,
        from: ConnectionId,
        to: ConnectionId,
        buffer: &mut [u8],
    ) -> bool {
        loop {
            while self.written < self.held.len() {
                match stack.write(now, to, &self.held[self.written..]) {
                    Ok(len) => self.written += len,
                    Err(WriteError::WouldBlock) => return true,
                    Err(_) => return false,
                }
            }
            if self.ended {
                if !self.finished {
                    self.finished = true;
                    return stack.finish(now, to).is_ok();
                }
                return true;
            }
            self.held.clear();
            self.written = 0;
            match stack.read(now, from, buffer) {
                Ok(0) => self.ended = true,
                Ok(len) => self.held.extend_from_slice(&buffer[..len]),
                Err(ReadError::WouldBlock) => return true,
                Err(_) => return false,
            }
        }
    }

    pub(crate) const fn is_done(&self) -> bool {
        self.finished
    }
}
