//! Bytes that come with descriptors (SCM_RIGHTS, unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// The kernel passes no more descriptors at once (SCM_MAX_FD).
pub(super) const RIGHTS_MAX: usize = 253;

/// Sends a short line at once, with descriptors.
///
/// # Errors
/// If they are too many, or the other end has gone.
pub(super) async fn send(stream: &UnixStream, line: &[u8], rights: &[OwnedFd]) -> io::Result<()> {
    let fds: Vec<_> = rights.iter().map(|fd| fd.as_fd()).collect();
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    stream
        .async_io(Interest::WRITABLE, || send_with(stream, line, &fds, flags))
        .await
}

/// The same by a socket that waits.
///
/// # Errors
/// As above.
pub(super) fn send_waiting(stream: &StdUnixStream, line: &[u8], rights: &[BorrowedFd<'_>]) -> io::Result<()> {
    loop {
        match send_with(stream, line, rights, SendFlags::NOSIGNAL) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn send_with(stream: impl AsFd, line: &[u8], rights: &[BorrowedFd<'_>], flags: SendFlags) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(RIGHTS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(rights)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let sent = sendmsg(stream, &[IoSlice::new(line)], &mut control, flags)?;
    if sent == line.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

/// Reads a line of at most `max` bytes, and the descriptors that come with it. Nothing behind the line may come before
/// it is answered.
pub(super) fn receive(stream: &StdUnixStream, max: usize) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let (mut line, mut rights) = (Vec::new(), Vec::new());
    while line.last() != Some(&b'\n') && line.len() < max {
        let mut bytes = [0; 4096];
        let received = loop {
            match receive_with(stream, &mut bytes, &mut rights) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        line.extend_from_slice(&bytes[..received]);
    }
    Ok((line, rights))
}

/// Reads `count` descriptors, and the bytes that come with them.
///
/// # Errors
/// If the other end has gone, sends no descriptor with a byte, or more of them; or no place is left for them.
pub(super) async fn receive_all(stream: &UnixStream, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut rights = Vec::new();
    while rights.len() < count {
        let before = rights.len();
        stream
            .async_io(Interest::READABLE, || receive_with(stream, &mut [0], &mut rights))
            .await?;
        if rights.len() == before || rights.len() > count {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(rights)
}

/// Reads what is there, and gives how many bytes that was: at least one.
fn receive_with(stream: impl AsFd, bytes: &mut [u8], rights: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(RIGHTS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut iov = [IoSliceMut::new(bytes)];
    let received = recvmsg(stream, &mut iov, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            rights.extend(more);
        }
    }
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // Some were lost: this process may have no more of them.
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(rustix::io::Errno::MFILE.into());
    }
    Ok(received.bytes)
}
