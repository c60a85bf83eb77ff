//! Pings over a link: it is the host of the other program that answers.
//!
//! ```text
//!   gateway that asks                  gateway that is asked
//!     echo request ── ping ──────────▶ pings its own program's host
//!     echo reply   ◀── pong ────────── that has answered
//! ```
//! The data stays where it is: the reply has that of the request.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use portolan_net::{PingSocket, Pong, Stack};
use tokio::time::timeout;

use super::channel::Channel;
use super::frame::Frame;
use super::{Inner, Peer, of_family};

/// For how long an answer is waited for: that of a host on this machine.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the other gateway, and waits for its answer.
pub(super) fn ask(peer: &Peer, is_ipv4: bool) -> Option<impl Future<Output = bool> + Send + use<>> {
    let turn = Arc::clone(&peer.pinging).try_acquire_owned().ok()?;
    let answered = peer.channel()?.ask(|id| Frame::Ping { id, is_ipv4 })?;
    Some(async move {
        let has_answered = matches!(timeout(PATIENCE, answered).await, Ok(Ok(Ok(_))));
        drop(turn);
        has_answered
    })
}

/// Pings the program's host for another space, by a task of its own. Too many are lost, as on a network.
pub(super) fn answer(inner: &Inner, key: usize, channel: &Arc<Channel>, id: u32, is_ipv4: bool) {
    let Some(serving) = inner.serving.get() else {
        return;
    };
    let (Ok(turn), Some(inside)) = (
        Arc::clone(&inner.peers[key].pinging).try_acquire_owned(),
        of_family(&serving.inside, is_ipv4),
    ) else {
        return;
    };
    let (stack, channel) = (serving.stack.clone(), Arc::clone(channel));
    tokio::spawn(async move {
        if let Ok(Some(())) = timeout(PATIENCE, answers(&stack, inside)).await {
            channel.say(&Frame::Pong { id }, None);
        }
        drop(turn);
    });
}

/// Waits until a host answers a ping of the gateway's.
async fn answers(stack: &Stack, inside: IpAddr) -> Option<()> {
    let any = match inside {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = PingSocket::bind(stack, any).ok()?;
    socket.send_to(&[], inside, 1).ok()?;
    match socket.recv(&mut []).await {
        Ok(Pong::Reply(_)) => Some(()),
        Ok(Pong::Error(_)) | Err(_) => None,
    }
}
