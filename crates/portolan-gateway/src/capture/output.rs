//! Where a capture goes.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;
use tokio::net::unix::pipe::Sender;

/// A file of one kind or another.
#[derive(Debug)]
pub(super) enum Output {
    /// A regular file, with its length. What does not fit is cut off, so that blocks are whole, and the next may fit.
    Regular { file: File, len: u64 },
    /// A pipe. What its reader has not taken yet waits here, and the network with it.
    Pipe { pipe: Sender, waiting: Vec<u8> },
    /// A device. What it has taken of a block cannot be taken back.
    Device(File),
    /// Nothing more can be written.
    Closed,
}

impl Output {
    pub(super) fn new(mut file: File) -> io::Result<Self> {
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
        Ok(match kind {
            FileType::RegularFile => Self::Regular {
                len: file.stream_position()?,
                file,
            },
            FileType::Fifo => Self::Pipe {
                pipe: Sender::from_file(file)?,
                waiting: Vec::new(),
            },
            _ => Self::Device(file),
        })
    }

    /// Writes all of these, or nothing; of what goes into a pipe the rest waits.
    pub(super) fn write(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        if parts.iter().all(|part| part.is_empty()) {
            return Ok(());
        }
        let result = match self {
            Self::Regular { file, len } => {
                let result = parts.iter().try_for_each(|part| file.write_all(part));
                if result.is_ok() {
                    *len += parts.iter().map(|part| part.len() as u64).sum::<u64>();
                } else if file.set_len(*len).is_ok() && file.seek(SeekFrom::Start(*len)).is_ok() {
                    return result;
                }
                result
            }
            Self::Pipe { pipe, waiting } => {
                waiting.extend(parts.iter().copied().flatten());
                write_some(|bytes| pipe.try_write(bytes), waiting)
            }
            Self::Device(file) => parts.iter().try_for_each(|part| file.write_all(part)),
            Self::Closed => return Err(io::ErrorKind::BrokenPipe.into()),
        };
        if result.is_err() {
            *self = Self::Closed;
        }
        result
    }

    /// Whether some of what was written waits for a reader.
    pub(super) fn is_waiting(&self) -> bool {
        match self {
            Self::Pipe { waiting, .. } => !waiting.is_empty(),
            Self::Regular { .. } | Self::Device(_) | Self::Closed => false,
        }
    }

    /// Ready when nothing waits, or never will be written.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self::Pipe { pipe, waiting } = self else {
            return Poll::Ready(Ok(()));
        };
        let result = loop {
            if let Err(error) = write_some(|bytes| pipe.try_write(bytes), waiting) {
                break Err(error);
            }
            if waiting.is_empty() {
                break Ok(());
            }
            if let Err(error) = ready!(pipe.poll_write_ready(cx)) {
                break Err(error);
            }
        };
        if result.is_err() {
            *self = Self::Closed;
        }
        Poll::Ready(result)
    }

    /// Waits until what was written has been taken, for so long at most, and closes it.
    pub(super) fn finish(&mut self, patience: Duration) -> io::Result<()> {
        let Self::Pipe { pipe, mut waiting } = std::mem::replace(self, Self::Closed) else {
            return Ok(());
        };
        // The runtime need not run any more.
        let pipe = File::from(pipe.into_nonblocking_fd()?);
        let until = Instant::now() + patience;
        loop {
            write_some(|bytes| (&pipe).write(bytes), &mut waiting)?;
            if waiting.is_empty() {
                return Ok(());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let left = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
            match poll(&mut [PollFd::new(&pipe, PollFlags::OUT)], Some(&left)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Writes as much as there is room for.
fn write_some(write: impl Fn(&[u8]) -> io::Result<usize>, waiting: &mut Vec<u8>) -> io::Result<()> {
    let mut written = 0;
    let result = loop {
        if written == waiting.len() {
            break Ok(());
        }
        match write(&waiting[written..]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    waiting.drain(..written);
    result
}
