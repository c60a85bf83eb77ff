//! Relaying between two sockets of the system, whose bytes stay in the kernel (splice(2)).

use std::io;
use std::pin::pin;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, recv, send, sockopt};
use rustix::pipe::{SpliceFlags, splice as splice_call};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::end::End as _;
use crate::flow::{Counters, Ending, Options, Side, stopped};
use crate::pipes::{Pipe, PipePool};

/// The most that is moved at once, in bytes; what the pipe holds limits it further.
const MAX_MOVE: usize = 1 << 20;
/// What is copied at once where there is no pipe, in bytes.
const MAX_COPY: usize = 16 << 10;

/// Passes bytes between two TCP connections of the system, both ways, until it is over.
pub async fn splice(
    one: TcpStream,
    other: TcpStream,
    pipes: &PipePool,
    options: Options,
    counters: Arc<Counters>,
) -> Ending {
    one.must_finish();
    other.must_finish();
    let ending = {
        // Pinned here, or each would be there twice: as what is waited for, and as what the block below was given.
        let there = pin!(direction(&one, Side::One, &other, pipes, &counters));
        let back = pin!(direction(&other, Side::Other, &one, pipes, &counters));
        let both = async { tokio::try_join!(there, back) };
        tokio::select! {
            done = both => match done {
                Ok(_) => Ending::Finished,
                Err((side, error)) => Ending::Failed(side, error),
            },
            ending = stopped(&options, &counters) => ending,
        }
    };
    if !matches!(ending, Ending::Finished) {
        one.reset();
        other.reset();
    }
    ending
}

/// Passes on what comes from one side until that side is done.
async fn direction(
    source: &TcpStream,
    side: Side,
    target: &TcpStream,
    pipes: &PipePool,
    counters: &Counters,
) -> Result<(), (Side, io::Error)> {
    let opposite = match side {
        Side::One => Side::Other,
        Side::Other => Side::One,
    };
    loop {
        tokio::select! {
            biased;
            ready = source.readable() => ready.map_err(|error| (side, error))?,
            error = target.failed() => return Err((opposite, error)),
        }
        // It is readable: now it pays to have a pipe.
        let mut held = Held::take(pipes);
        loop {
            let taken = match source.try_io(Interest::READABLE, || held.fill(source)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                taken => taken.map_err(|error| (side, error))?,
            };
            if taken == 0 {
                target.finish().map_err(|error| (opposite, error))?;
                counters.finish(side);
                return Ok(());
            }
            while held.len() > 0 {
                let given = target.try_io(Interest::WRITABLE, || held.empty(target));
                match given {
                    Ok(given) => counters.add(side, given),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::select! {
                        biased;
                        ready = target.writable() => ready.map_err(|error| (opposite, error))?,
                        error = source.failed() => return Err((side, error)),
                    },
                    Err(error) => return Err((opposite, error)),
                }
            }
            // One connection with much to say must not keep others from being heard.
            tokio::task::consume_budget().await;
        }
    }
}

/// Bytes on their way: in a pipe, or without one in memory.
struct Held<'a> {
    pipes: &'a PipePool,
    pipe: Option<Pipe>,
    /// How many there are.
    len: usize,
    /// Those in memory, and where the first of them is.
    copied: Box<[u8]>,
    start: usize,
    /// The only byte there is, if it is an urgent one.
    urgent: Option<u8>,
}

impl<'a> Held<'a> {
    fn take(pipes: &'a PipePool) -> Self {
        let pipe = pipes.take();
        let copied = if pipe.is_some() { 0 } else { MAX_COPY };
        Self {
            pipes,
            pipe,
            len: 0,
            copied: vec![0; copied].into_boxed_slice(),
            start: 0,
            urgent: None,
        }
    }

    const fn len(&self) -> usize {
        self.len
    }

    /// Takes bytes from a socket, when there are none; 0 is the end.
    fn fill(&mut self, source: &TcpStream) -> io::Result<usize> {
        self.start = 0;
        self.len = match &self.pipe {
            Some(pipe) => {
                let splice = || splice_call(source, None, &pipe.writer, None, MAX_MOVE, FLAGS);
                match retry_on_intr(splice) {
                    // The kernel splices nothing from an urgent byte on, and calls that the end if a FIN has come.
                    Ok(0) | Err(Errno::AGAIN) if has_urgent(source)? => self.fill_urgent(source)?,
                    moved => moved?,
                }
            }
            None => {
                // In line, and as any other byte: reads tell no mark.
                if has_urgent(source)? {
                    sockopt::set_socket_oobinline(source, true)?;
                }
                retry_on_intr(|| rustix::io::read(source, &mut self.copied[..]))?
            }
        };
        Ok(self.len)
    }

    /// Takes the next byte, which is urgent.
    fn fill_urgent(&mut self, source: &TcpStream) -> rustix::io::Result<usize> {
        // Only now, since it is seldom: until it is read the kernel keeps it in its place.
        sockopt::set_socket_oobinline(source, true)?;
        let mut byte = [0];
        let (len, _) = retry_on_intr(|| recv(source, &mut byte, RecvFlags::DONTWAIT))?;
        self.urgent = (len > 0).then_some(byte[0]);
        Ok(len)
    }

    /// Gives bytes to a socket.
    fn empty(&mut self, target: &TcpStream) -> io::Result<usize> {
        let given = match (self.urgent, &self.pipe) {
            (Some(byte), _) => {
                let given = retry_on_intr(|| send(target, &[byte], SendFlags::NOSIGNAL | SendFlags::OOB))?;
                self.urgent = None;
                given
            }
            (None, Some(pipe)) => {
                retry_on_intr(|| splice_call(&pipe.reader, None, target, None, self.len, FLAGS))?
            }
            (None, None) => {
                let rest = &self.copied[self.start..self.start + self.len];
                retry_on_intr(|| send(target, rest, SendFlags::NOSIGNAL))?
            }
        };
        self.start += given;
        self.len -= given;
        Ok(given)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        match self.pipe.take() {
            Some(pipe) if self.len == 0 || self.urgent.is_some() => self.pipes.give_back(pipe),
            Some(_) => self.pipes.lose(),
            None => {}
        }
    }
}

const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);

/// Whether the peer has sent an urgent byte that was not read.
fn has_urgent(socket: &TcpStream) -> rustix::io::Result<bool> {
    let mut fds = [PollFd::new(socket, PollFlags::PRI)];
    let ready = retry_on_intr(|| poll(&mut fds, Some(&Timespec::default())))?;
    Ok(ready > 0 && fds[0].revents().contains(PollFlags::PRI))
}
