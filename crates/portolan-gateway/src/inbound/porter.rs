//! Taking ports in another process, which may do what the gateway has given up: take low ports, and see who holds one.
//!
//! ```text
//!   Porter::take ─▶ Order ─▶ serve ─▶ bind ─▶ socket, or why not and who holds it
//! ```
//! One message each way. The gateway that reads what a hostile program sends can have ports taken by it, and no more.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use portolan_core::{Port, Protocol, Zone};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;

use super::bound::{self, HolderFinder};
use super::{Place, sys};

/// Has ports taken by whoever [`serve_porter`]s the other end of its channel.
#[derive(Debug)]
pub struct Porter {
    channel: AsyncFd<OwnedFd>,
}

/// A place, as it is asked for.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    is_udp: bool,
    address: Option<IpAddr>,
    interface: Option<String>,
    port: u16,
    /// Whether it is to be found out who holds it, if somebody does: that takes a look at every process.
    names_holder: bool,
}

/// What became of it; with a socket if there is no refusal.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    refusal: Option<String>,
}

/// No message has more bytes.
const MESSAGE_MAX: usize = 4096;

impl Porter {
    /// A porter at the other end of `channel`, a socket of SOCK_SEQPACKET that does not wait. To be called in a runtime.
    ///
    /// # Errors
    /// If the runtime cannot wait for it.
    pub fn new(channel: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            channel: sys::register(channel)?,
        })
    }

    /// Has a port taken: its socket, or in words why it is not to be had.
    ///
    /// One at a time: whoever gives the future up must give the porter up.
    ///
    /// # Errors
    /// If the other end is gone.
    #[expect(
        clippy::needless_pass_by_ref_mut,
        reason = "an answer belongs to the last order, so there is one at a time"
    )]
    pub(super) async fn take(
        &mut self,
        place: &Place,
        names_holder: bool,
    ) -> io::Result<Result<OwnedFd, String>> {
        let order = serde_json::to_vec(&Order {
            is_udp: place.protocol == Protocol::Udp,
            address: place.address,
            interface: place.interface.map(|zone| zone.as_str().to_owned()),
            port: place.port.get(),
            names_holder,
        })?;
        rustix::net::send(self.channel.get_ref(), &order, SendFlags::NOSIGNAL)?;
        loop {
            let mut ready = self.channel.readable().await?;
            match receive(self.channel.get_ref()) {
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(errno) => return Err(errno.into()),
                Ok(None) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(Some((bytes, socket))) => {
                    let answer: Answer = serde_json::from_slice(&bytes)?;
                    return match (answer.refusal, socket) {
                        (Some(refusal), _) => Ok(Err(refusal)),
                        (None, Some(socket)) => Ok(Ok(socket)),
                        // It was sent, and this process had no descriptor left to have it in.
                        (None, None) => {
                            Ok(Err(format!("cannot publish {place}: {}", bound::no_descriptor())))
                        }
                    };
                }
            }
        }
    }
}

/// Takes the ports that the [`Porter`] at the other end of `channel`, which waits, asks for, until that is gone. `finder`
/// says who holds one that is taken.
///
/// # Errors
/// If the channel fails, or what comes through it is no order.
pub fn serve_porter(channel: impl AsFd, finder: &HolderFinder<'_>) -> io::Result<()> {
    while let Some((bytes, _)) = receive(&channel)? {
        let order: Order = serde_json::from_slice(&bytes)?;
        let interface = match order.interface.as_deref().map(str::parse::<Zone>) {
            None => None,
            Some(Ok(zone)) => Some(zone),
            Some(Err(_)) => return Err(io::ErrorKind::InvalidData.into()),
        };
        let place = Place {
            protocol: if order.is_udp {
                Protocol::Udp
            } else {
                Protocol::Tcp
            },
            address: order.address,
            interface,
            port: Port::new(order.port),
        };
        let nobody = |_, _| None;
        let finder: &HolderFinder<'_> = if order.names_holder { finder } else { &nobody };
        match bound::bind_place(&place, finder) {
            Ok(socket) => answer(&channel, None, Some(&socket))?,
            Err(error) => answer(&channel, Some(error.to_string()), None)?,
        }
    }
    Ok(())
}

fn answer(channel: &impl AsFd, refusal: Option<String>, socket: Option<&OwnedFd>) -> io::Result<()> {
    let text = serde_json::to_vec(&Answer { refusal })?;
    let fds: Vec<_> = socket.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        // There is room for one.
        let _ = control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    sendmsg(channel, &[IoSlice::new(&text)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The next message, and the descriptor with it; `None` at the end.
fn receive(channel: &impl AsFd) -> rustix::io::Result<Option<(Vec<u8>, Option<OwnedFd>)>> {
    let mut bytes = vec![0; MESSAGE_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut iov = [IoSliceMut::new(&mut bytes)];
        match recvmsg(channel, &mut iov, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
        _ => None,
    });
    bytes.truncate(received.bytes);
    Ok(Some((bytes, descriptor)))
}
