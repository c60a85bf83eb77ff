//! What the processes of a space tell each other: short messages, and the descriptors that go with them.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, IoSlice, IoSliceMut, Result};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::process::Pid;

use crate::holder::{Holder, NAME_LEN};

/// The most descriptors in one message: the queues of a device.
pub(crate) const MAX_FDS: usize = 64;
const LEN: usize = 12 + NAME_LEN + 1;

/// A message. Both ends are one build of one program, so its form is nobody else's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// Inside: the user namespace is there and waits for its maps.
    NeedMaps,
    /// Outside: they are written.
    MapsWritten,
    /// Inside: a step failed that can be done without.
    Note(u8, Errno),
    /// Inside: a step failed, and nothing more will come.
    Failed(u8, Errno),
    /// Inside: here are the queues of the device, of this kind and with these offloads.
    Device { kind: u8, offloads: u8 },
    /// Inside: the first process of the space has this number outside.
    Init(i32),
    /// Inside: here are the namespaces of the space.
    Namespaces,
    /// Inside: all is ready, the program can start.
    Ready,
    /// Outside: start it.
    Go,
    /// Inside, sent by the program's process itself just before it becomes the program.
    Started,
    /// Inside: it could not become the program.
    NotRun(Errno),
    /// Inside: the program was stopped by this signal.
    Stopped(i32),
    /// Inside: the program ended, by exit with a code or by a signal.
    Exited { code: i32, signal: i32 },
    /// Outside: send the program this signal.
    Signal(i32),
    /// Outside: open up to so many sockets in the space.
    Open {
        domain: u16,
        kind: u32,
        protocol: u32,
        count: u8,
        /// For the way past the device.
        is_marked: bool,
    },
    /// Inside: here they are.
    Opened,
    /// Inside: it was refused.
    OpenRefused(Errno),
    /// Outside: who holds the socket with this inode?
    Who(u64),
    /// Inside: this process does, or none that is known.
    HeldBy(Option<Holder>),
}

impl Message {
    fn encode(self) -> [u8; LEN] {
        let (tag, a, b, c): (u8, u8, i32, i32) = match self {
            Self::NeedMaps => (1, 0, 0, 0),
            Self::MapsWritten => (2, 0, 0, 0),
            Self::Note(step, errno) => (3, step, errno.raw_os_error(), 0),
            Self::Failed(step, errno) => (4, step, errno.raw_os_error(), 0),
            Self::Device { kind, offloads } => (5, kind, i32::from(offloads), 0),
            Self::Init(pid) => (6, 0, pid, 0),
            Self::Ready => (7, 0, 0, 0),
            Self::Go => (8, 0, 0, 0),
            Self::Started => (9, 0, 0, 0),
            Self::NotRun(errno) => (10, 0, errno.raw_os_error(), 0),
            Self::Stopped(signal) => (11, 0, signal, 0),
            Self::Exited { code, signal } => (12, 0, code, signal),
            Self::Signal(signal) => (13, 0, signal, 0),
            Self::Open {
                domain,
                kind,
                protocol,
                ..
            } => (14, domain as u8, kind.cast_signed(), protocol.cast_signed()),
            Self::Opened => (15, 0, 0, 0),
            Self::OpenRefused(errno) => (16, 0, errno.raw_os_error(), 0),
            Self::Namespaces => (17, 0, 0, 0),
            Self::Who(inode) => (18, 0, inode as i32, (inode >> 32) as i32),
            Self::HeldBy(holder) => (19, 0, holder.map_or(0, |holder| holder.pid), 0),
        };
        let mut bytes = [0; LEN];
        bytes[0] = tag;
        bytes[1] = a;
        if let Self::Open { count, is_marked, .. } = self {
            bytes[2..4].copy_from_slice(&[count, is_marked.into()]);
        }
        bytes[4..8].copy_from_slice(&b.to_ne_bytes());
        bytes[8..12].copy_from_slice(&c.to_ne_bytes());
        if let Self::HeldBy(Some(holder)) = self {
            bytes[12..12 + NAME_LEN].copy_from_slice(&holder.name);
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LEN] = bytes.try_into().ok()?;
        let [
            tag,
            a,
            count,
            is_marked,
            b0,
            b1,
            b2,
            b3,
            c0,
            c1,
            c2,
            c3,
            name @ ..,
            _,
        ] = *bytes;
        let (b, c) = (
            i32::from_ne_bytes([b0, b1, b2, b3]),
            i32::from_ne_bytes([c0, c1, c2, c3]),
        );
        // An errno of 0 is none; rustix would not take it.
        let errno = || (1..4096).contains(&b).then(|| Errno::from_raw_os_error(b));
        Some(match tag {
            1 => Self::NeedMaps,
            2 => Self::MapsWritten,
            3 => Self::Note(a, errno()?),
            4 => Self::Failed(a, errno()?),
            5 => Self::Device {
                kind: a,
                offloads: b as u8,
            },
            6 => Self::Init(b),
            7 => Self::Ready,
            8 => Self::Go,
            9 => Self::Started,
            10 => Self::NotRun(errno()?),
            11 => Self::Stopped(b),
            12 => Self::Exited { code: b, signal: c },
            13 => Self::Signal(b),
            14 => Self::Open {
                domain: u16::from(a),
                kind: b.cast_unsigned(),
                protocol: c.cast_unsigned(),
                count,
                is_marked: is_marked != 0,
            },
            15 => Self::Opened,
            16 => Self::OpenRefused(errno()?),
            17 => Self::Namespaces,
            18 => Self::Who(u64::from(b.cast_unsigned()) | u64::from(c.cast_unsigned()) << 32),
            19 => Self::HeldBy((b != 0).then_some(Holder { pid: b, name })),
            _ => return None,
        })
    }
}

/// One end of a connection that keeps messages apart (SOCK_SEQPACKET).
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

/// A message that came, with the number that its sender has here, if that was asked for.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) message: Message,
    pub(crate) sender: Option<Pid>,
    pub(crate) fds: Vec<OwnedFd>,
}

impl Channel {
    /// Two ends.
    pub(crate) fn pair() -> Result<(Self, Self)> {
        let (one, other) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self(one), Self(other)))
    }

    /// Has senders' numbers told.
    pub(crate) fn tell_senders(&self) -> Result<()> {
        rustix::net::sockopt::set_socket_passcred(&self.0, true)
    }

    /// Sends a message.
    pub(crate) fn send(&self, message: Message) -> Result<()> {
        self.send_with(message, &[])
    }

    /// Sends a message with descriptors.
    pub(crate) fn send_with(&self, message: Message, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Errno::TOOBIG);
        }
        let bytes = message.encode();
        let iov = [IoSlice::new(&bytes)];
        rustix::io::retry_on_intr(|| sendmsg(&self.0, &iov, &mut control, SendFlags::NOSIGNAL)).map(drop)
    }

    /// Waits for the next message; `None` if the other end is closed.
    pub(crate) fn receive(&self) -> Result<Option<Received>> {
        self.receive_with(RecvFlags::CMSG_CLOEXEC)
    }

    /// The same without waiting ([`Errno::AGAIN`]).
    pub(crate) fn try_receive(&self) -> Result<Option<Received>> {
        self.receive_with(RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT)
    }

    fn receive_with(&self, flags: RecvFlags) -> Result<Option<Received>> {
        let mut bytes = [0; LEN];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS), ScmCredentials(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut iov = [IoSliceMut::new(&mut bytes)];
            match recvmsg(&self.0, &mut iov, &mut control, flags) {
                Err(Errno::INTR) => {}
                // The other end died with messages of ours unread.
                Err(Errno::CONNRESET) => return Ok(None),
                other => break other?,
            }
        };
        let mut fds = Vec::new();
        let mut sender = None;
        for message in control.drain() {
            match message {
                RecvAncillaryMessage::ScmRights(rights) => fds.extend(rights),
                RecvAncillaryMessage::ScmCredentials(credentials) => sender = Some(credentials.pid),
                _ => {}
            }
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        let message = Message::decode(&bytes[..received.bytes.min(LEN)]).ok_or(Errno::PROTO)?;
        Ok(Some(Received { message, sender, fds }))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_as_they_were_sent_with_their_descriptors() {
        let (one, other) = Channel::pair().unwrap();
        other.tell_senders().unwrap();
        let messages = [
            Message::NeedMaps,
            Message::MapsWritten,
            Message::Note(3, Errno::PERM),
            Message::Failed(4, Errno::NOSPC),
            Message::Device { kind: 1, offloads: 3 },
            Message::Init(4711),
            Message::Namespaces,
            Message::Ready,
            Message::Go,
            Message::Started,
            Message::NotRun(Errno::NOENT),
            Message::Stopped(19),
            Message::Exited { code: 3, signal: 0 },
            Message::Exited { code: 0, signal: 9 },
            Message::Signal(15),
            Message::Open {
                domain: 10,
                kind: 0x80002,
                protocol: u32::MAX,
                count: 64,
                is_marked: true,
            },
            Message::Opened,
            Message::OpenRefused(Errno::MFILE),
            Message::Who(u64::MAX - 0xFFFF),
            Message::HeldBy(None),
            Message::HeldBy(Some(Holder {
                pid: 3,
                name: *b"fifteen letters",
            })),
        ];
        for message in messages {
            one.send_with(message, &[one.as_fd(), other.as_fd()]).unwrap();
            let received = other.receive().unwrap().unwrap();
            assert_eq!(received.message, message);
            assert_eq!(received.sender, Some(rustix::process::getpid()));
            assert_eq!(received.fds.len(), 2);
        }
        assert!(matches!(other.try_receive(), Err(Errno::AGAIN)));
        drop(one);
        assert!(other.receive().unwrap().is_none());
    }
}
