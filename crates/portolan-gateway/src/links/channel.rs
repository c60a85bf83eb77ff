//! The connection between two gateways: a Unix socket that carries frames, and descriptors with some of them.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{Notify, oneshot};

use super::frame::{FRAME_MAX, Frame};

/// One end of a link that is up.
#[derive(Debug)]
pub(super) struct Channel {
    stream: UnixStream,
    outbox: Mutex<Outbox>,
    /// There is something to be sent.
    filled: Notify,
    /// Who waits for the answer to which question.
    asked: Mutex<Asked>,
}

/// What came with an answer: a connected socket if that was asked for, or the error number of a connect that failed.
pub(super) type Answer = Result<Option<OwnedFd>, Errno>;

#[derive(Debug, Default)]
struct Outbox {
    frames: VecDeque<(Vec<u8>, Option<OwnedFd>)>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Asked {
    next: u32,
    waiting: HashMap<u32, oneshot::Sender<Answer>>,
    /// Nobody will be answered any more.
    is_over: bool,
}

/// Datagrams that wait to be sent, in bytes: more are lost.
const DATAGRAMS_MAX: usize = 1 << 20;
/// Whatever waits, in bytes: a side that asks and does not listen has no link.
const OUTBOX_MAX: usize = 8 << 20;
/// Questions at once to which there is no answer yet.
const ASKED_MAX: usize = 4_096;
/// Descriptors that come before the frames that they belong to.
const RIGHTS_MAX: usize = 64;

impl Channel {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            outbox: Mutex::default(),
            filled: Notify::new(),
            asked: Mutex::default(),
        }
    }

    /// Says something, with a descriptor if there is one; it goes as soon as there is room.
    pub(super) fn say(&self, frame: &Frame<'_>, right: Option<OwnedFd>) {
        let bytes = frame.encode();
        let mut outbox = lock(&self.outbox);
        outbox.bytes += bytes.len();
        outbox.frames.push_back((bytes, right));
        drop(outbox);
        self.filled.notify_one();
    }

    /// The same for a datagram, which is lost if many wait.
    pub(super) fn try_say(&self, datagram: &Frame<'_>) -> bool {
        if lock(&self.outbox).bytes > DATAGRAMS_MAX {
            return false;
        }
        self.say(datagram, None);
        true
    }

    /// Asks for something, with a number of its own, and gives what brings the answer; nothing if the link is over, or
    /// too many wait.
    pub(super) fn ask(
        &self,
        question: impl FnOnce(u32) -> Frame<'static>,
    ) -> Option<oneshot::Receiver<Answer>> {
        let (answer, answered) = oneshot::channel();
        let mut asked = lock(&self.asked);
        // Those who no longer wait make room.
        if asked.waiting.len() >= ASKED_MAX {
            asked.waiting.retain(|_, answer| !answer.is_closed());
        }
        if asked.is_over || asked.waiting.len() >= ASKED_MAX {
            return None;
        }
        let mut id = asked.next;
        while asked.waiting.contains_key(&id) {
            id = id.wrapping_add(1);
        }
        asked.next = id.wrapping_add(1);
        asked.waiting.insert(id, answer);
        drop(asked);
        self.say(&question(id), None);
        Some(answered)
    }

    /// Sends and hears until the other side has gone, or speaks nonsense; `heard` is told of questions and datagrams.
    pub(super) async fn run(&self, heard: impl FnMut(Frame<'_>)) {
        tokio::select! {
            _ = self.send() => {}
            _ = self.hear(heard) => {}
        }
        let mut asked = lock(&self.asked);
        asked.is_over = true;
        // Whoever waits hears that by the end of the channel.
        asked.waiting.clear();
        drop(asked);
        let _ = rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Both);
    }

    async fn send(&self) -> io::Result<()> {
        loop {
            let next = {
                let mut outbox = lock(&self.outbox);
                if outbox.bytes > OUTBOX_MAX {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                outbox.frames.pop_front()
            };
            let Some((bytes, right)) = next else {
                self.filled.notified().await;
                continue;
            };
            let mut rest = &bytes[..];
            let mut right = right.as_ref();
            while !rest.is_empty() {
                let send = || {
                    let fds = right.map(|right| [right.as_fd()]);
                    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                    let mut control = SendAncillaryBuffer::new(&mut space);
                    if let Some(fds) = &fds {
                        control.push(SendAncillaryMessage::ScmRights(fds));
                    }
                    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
                    Ok(sendmsg(&self.stream, &[IoSlice::new(rest)], &mut control, flags)?)
                };
                let sent = self.stream.async_io(Interest::WRITABLE, send).await?;
                rest = &rest[sent..];
                // It went with the first byte.
                right = None;
            }
            lock(&self.outbox).bytes -= bytes.len();
        }
    }

    async fn hear(&self, mut heard: impl FnMut(Frame<'_>)) -> io::Result<()> {
        let mut bytes = vec![0; 4 * FRAME_MAX];
        let mut len = 0;
        let mut rights = VecDeque::new();
        loop {
            let room = &mut bytes[len..];
            let received = self
                .stream
                .async_io(Interest::READABLE, || receive(&self.stream, room, &mut rights))
                .await?;
            if received == 0 || rights.len() > RIGHTS_MAX {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            len += received;
            let mut rest = &bytes[..len];
            while let Some((frame, behind)) =
                Frame::decode(rest).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?
            {
                rest = behind;
                match frame {
                    Frame::Opened { id, errno: 0 } => {
                        let right = rights.pop_front().ok_or(io::ErrorKind::InvalidData)?;
                        self.answered(id, Ok(Some(right)));
                    }
                    Frame::Opened { id, errno } => {
                        self.answered(id, Err(Errno::from_raw_os_error(errno.into())));
                    }
                    Frame::Pong { id } => self.answered(id, Ok(None)),
                    frame => heard(frame),
                }
            }
            // What begins a frame goes to the front, and fits there.
            let kept = rest.len();
            bytes.copy_within(len - kept..len, 0);
            len = kept;
            tokio::task::consume_budget().await;
        }
    }

    fn answered(&self, id: u32, answer: Answer) {
        if let Some(waiting) = lock(&self.asked).waiting.remove(&id) {
            // Whoever has given up meanwhile lets the connection go.
            let _ = waiting.send(answer);
        }
    }
}

/// Reads bytes, and the descriptors that come with them.
fn receive(stream: &UnixStream, room: &mut [u8], rights: &mut VecDeque<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(RIGHTS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut iov = [IoSliceMut::new(room)];
    let received = recvmsg(stream, &mut iov, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            rights.extend(more);
        }
    }
    Ok(received.bytes)
}

/// No code that holds these locks can leave what they guard half changed, so a panic elsewhere does not matter.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
