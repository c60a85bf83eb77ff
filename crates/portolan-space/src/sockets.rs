//! Sockets of the space in the hands of its maker, and whose the others are.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::SocketType;

use crate::channel::{Channel, MAX_FDS, Message, Received};
use crate::holder::Holder;

/// Opens sockets inside, from wherever: it is a handle, and outlives the [`Space`](crate::Space), with errors then.
#[derive(Clone, Debug)]
pub struct Sockets {
    line: Arc<Mutex<Line>>,
}

#[derive(Debug)]
struct Line {
    channel: Channel,
    /// An answer did not come in time. If it comes later, it would be taken for that to the next question.
    is_broken: bool,
}

/// Init does little else than answer; a program that may send it signals could keep it from that.
const PATIENCE: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

impl Sockets {
    pub(crate) fn new(channel: Channel) -> Self {
        Self {
            line: Arc::new(Mutex::new(Line {
                channel,
                is_broken: false,
            })),
        }
    }

    /// Opens sockets inside, which do not wait: they are of the space's ports for as long as they live, wherever they are
    /// used. For connections to programs inside that spare the device, and for looking at their sockets.
    ///
    /// Up to `count` of them, at most 64; at least one. The calling thread waits for some 20 µs, and 5 s at most.
    ///
    /// # Errors
    /// What the kernel says inside; [`Errno::PIPE`] if the space has ended.
    pub fn open(&self, domain: u16, kind: u32, protocol: u32, count: usize) -> Result<Vec<OwnedFd>, Errno> {
        self.open_with(
            |count| Message::Open {
                domain,
                kind,
                protocol,
                count,
                is_marked: false,
            },
            count,
        )
    }

    /// The same, of TCP, for the way past the device: they may bind the gateway's address (`IP_TRANSPARENT`), and reach the
    /// program from there (`SO_MARK`, see [`Space::has_shortcut`](crate::Space::has_shortcut)). Whoever uses them needs no
    /// right to do so.
    ///
    /// # Errors
    /// As above; [`Errno::PERM`] of a space whose network was there before.
    pub fn open_marked(&self, domain: u16, count: usize) -> Result<Vec<OwnedFd>, Errno> {
        self.open_with(
            |count| Message::Open {
                domain,
                kind: SocketType::STREAM.as_raw(),
                protocol: 0,
                count,
                is_marked: true,
            },
            count,
        )
    }

    fn open_with(&self, question: impl FnOnce(u8) -> Message, count: usize) -> Result<Vec<OwnedFd>, Errno> {
        let received = self.ask(question(count.clamp(1, MAX_FDS) as u8))?;
        match received.message {
            // None of them arrived: this process has no descriptor left.
            Message::Opened if received.fds.is_empty() => Err(Errno::MFILE),
            Message::Opened => Ok(received.fds),
            Message::OpenRefused(errno) => Err(errno),
            _ => Err(Errno::PROTO),
        }
    }

    /// The process inside that holds the socket with this inode; `None` if it was closed, or whoever has it may not be
    /// looked at. Where several have it, one of them.
    ///
    /// The calling thread waits for some 50 µs, longer if there are many processes with many descriptors, and 5 s at most.
    ///
    /// # Errors
    /// [`Errno::PIPE`] if the space has ended.
    pub fn holder(&self, inode: u64) -> Result<Option<Holder>, Errno> {
        match self.ask(Message::Who(inode))?.message {
            Message::HeldBy(holder) => Ok(holder),
            _ => Err(Errno::PROTO),
        }
    }

    /// Asks init, and waits for its answer.
    fn ask(&self, question: Message) -> Result<Received, Errno> {
        // A panic elsewhere cannot have left the line half used: nothing in here panics.
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if line.is_broken {
            return Err(Errno::PIPE);
        }
        line.channel.send(question)?;
        let answered = loop {
            match poll(&mut [PollFd::new(&line.channel, PollFlags::IN)], Some(&PATIENCE)) {
                Err(Errno::INTR) => {}
                result => break result?,
            }
        };
        if answered == 0 {
            line.is_broken = true;
            return Err(Errno::TIMEDOUT);
        }
        line.channel.receive()?.ok_or(Errno::PIPE)
    }
}
