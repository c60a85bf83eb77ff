//! Asking the host's resolvers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout, timeout_at};

use super::query::{HEADER_LEN, Query};

/// The resolvers, and which of them answered last.
#[derive(Debug, Default)]
pub(super) struct Upstreams {
    preferred: AtomicUsize,
}

/// How long one resolver is waited for: the C library waits 5 seconds for us.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long an answer over TCP is waited for, the connection included.
const TCP_PATIENCE: Duration = Duration::from_secs(4);
/// How long all of them are.
const PATIENCE_IN_ALL: Duration = Duration::from_secs(9);
/// How many times each is asked.
const ROUNDS: usize = 2;
/// How many datagrams that are no answer are passed over before a resolver is given up: somebody guesses.
const STRANGERS_MAX: usize = 64;
/// Room for a datagram; we said that we take 1,232 bytes.
const DATAGRAM_MAX: usize = 4_096;

impl Upstreams {
    /// The reply of the first resolver that has one, whatever it is; of those that cannot answer, the last.
    pub(super) async fn ask(&self, servers: &[SocketAddr], query: &Query) -> Option<Vec<u8>> {
        let deadline = Instant::now() + PATIENCE_IN_ALL;
        let first = self.preferred.load(Ordering::Relaxed);
        let mut unwilling = None;
        for round in 0..ROUNDS {
            for place in 0..servers.len() {
                let place = (first + place) % servers.len();
                let asked = timeout_at(deadline, ask_one(servers[place], query)).await;
                match asked {
                    Ok(Ok(reply)) if is_willing(&reply) => {
                        self.preferred.store(place, Ordering::Relaxed);
                        return Some(reply);
                    }
                    Ok(Ok(reply)) => unwilling = Some(reply),
                    Ok(Err(_)) => {}
                    Err(_) => return unwilling,
                }
            }
            // Who says no says it again.
            if unwilling.is_some() && round == 0 {
                break;
            }
        }
        unwilling
    }
}

/// Whether a reply is one: SERVFAIL, NOTIMP and REFUSED send to the next resolver.
fn is_willing(reply: &[u8]) -> bool {
    let code = reply.get(3).map(|flags| flags & 0x0f);
    !matches!(code, Some(2 | 4 | 5))
}

async fn ask_one(server: SocketAddr, query: &Query) -> io::Result<Vec<u8>> {
    let reply = timeout(PATIENCE, ask_udp(server, query)).await??;
    let is_truncated = reply[2] & 0x02 != 0;
    if !is_truncated {
        return Ok(reply);
    }
    timeout(TCP_PATIENCE, ask_tcp(server, query)).await?
}

/// The question with an id that nobody knows.
fn question(query: &Query) -> io::Result<Vec<u8>> {
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    let message = query.for_upstream(u16::from_be_bytes(id));
    message.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

async fn ask_udp(server: SocketAddr, query: &Query) -> io::Result<Vec<u8>> {
    let any = match server {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    // A socket for each question has a port of its own, chosen by the kernel at random; connected, it hears the
    // resolver alone (RFC 5452, section 9.2), and at once when nobody listens there.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let message = question(query)?;
    socket.send(&message).await?;
    let mut buffer = vec![0; DATAGRAM_MAX];
    for _ in 0..STRANGERS_MAX {
        let count = socket.recv(&mut buffer).await?;
        if answers(&message, &buffer[..count]) {
            buffer.truncate(count);
            return Ok(buffer);
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

async fn ask_tcp(server: SocketAddr, query: &Query) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let message = question(query)?;
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes(), &message[..]].concat())
        .await?;
    let length = stream.read_u16().await?;
    let mut reply = Vec::new();
    stream.take(length.into()).read_to_end(&mut reply).await?;
    if reply.len() != usize::from(length) || !answers(&message, &reply) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(reply)
}

/// Whether `reply` is one to this question of ours (RFC 5452, section 9.1): the same id, and the same question.
pub(super) fn answers(question: &[u8], reply: &[u8]) -> bool {
    let (Some(asked), Some(header)) = (question.get(..HEADER_LEN), reply.get(..HEADER_LEN)) else {
        return false;
    };
    // QR set, OPCODE as in ours: QUERY, which is 0.
    if header[..2] != asked[..2] || header[2] & 0xf8 != 0x80 || header[4..6] != [0, 1] {
        return false;
    }
    let Some(name_len) = name_len(&question[HEADER_LEN..]) else {
        return false;
    };
    let of_name = HEADER_LEN..HEADER_LEN + name_len;
    // Type and class.
    let of_rest = of_name.end..of_name.end + 4;
    match (
        question.get(of_rest.clone()),
        reply.get(of_rest),
        reply.get(of_name.clone()),
    ) {
        (Some(asked), Some(rest), Some(name)) => {
            // Lengths of labels are below 64, so they have no case.
            asked == rest && name.eq_ignore_ascii_case(&question[of_name])
        }
        _ => false,
    }
}

/// How many bytes a name without compression has.
fn name_len(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match bytes.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(*length),
            _ => return None,
        }
    }
}
