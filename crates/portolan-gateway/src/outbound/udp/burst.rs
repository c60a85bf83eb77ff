//! Datagrams of the program that wait to be sent together.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use portolan_stack::{Datagram, HeaderFields};
use socket2::SockAddr;

use super::sessions::SessionKey;
use super::socket::HostSocket;
use super::sys::{LONGEST, Outgoing};

/// Datagrams in one piece of memory, in the order of their coming.
pub(super) struct Burst {
    bytes: Box<[u8]>,
    used: usize,
    pub(super) runs: Vec<Run>,
}

/// Datagrams to one destination that follow each other, of one length but for the last.
pub(super) struct Run {
    pub(super) session: SessionKey,
    pub(super) socket: Arc<HostSocket>,
    pub(super) to: SockAddr,
    /// The last of them.
    pub(super) datagram: Datagram,
    start: usize,
    end: usize,
    piece_len: usize,
    pub(super) count: u32,
    /// Whether another one may follow.
    is_open: bool,
}

/// How much is gathered, in bytes.
const ROOM: usize = 4 * LONGEST;
/// How many pieces the kernel takes at once (UDP_MAX_SEGMENTS was 64 before Linux 6.9).
const PIECES: u32 = 64;
/// How long they may be together: what fits into an IPv4 packet with headers.
const PIECES_LEN: usize = 65_000;

impl Burst {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; ROOM].into_boxed_slice(),
            used: 0,
            runs: Vec::new(),
        }
    }

    /// Where the next datagram goes; `None` if there may be no room for it.
    pub(super) fn room(&mut self) -> Option<&mut [u8]> {
        self.bytes.get_mut(self.used..self.used + LONGEST)
    }

    /// The datagram that was just put there.
    pub(super) fn last(&self, datagram: &Datagram) -> &[u8] {
        &self.bytes[self.used..self.used + datagram.len]
    }

    /// Adds the datagram that was just put there to the last run, if it is of the same flow and fits.
    pub(super) fn append(&mut self, datagram: &Datagram) -> bool {
        let Some(run) = self.runs.last_mut() else {
            return false;
        };
        let len = datagram.len;
        let fits = run.is_open
            && run.count < PIECES
            && (1..=run.piece_len).contains(&len)
            && run.end + len - run.start <= PIECES_LEN
            && datagram.piece_len.is_none()
            && ends(&run.datagram) == ends(datagram)
            && fields(&run.datagram) == fields(datagram);
        if fits {
            run.count += 1;
            run.end += len;
            run.is_open = len == run.piece_len;
            run.datagram = *datagram;
            self.used += len;
        }
        fits
    }

    /// Begins a run with the datagram that was just put there. Alone it stays if `is_alone`.
    pub(super) fn begin(
        &mut self,
        session: SessionKey,
        socket: Arc<HostSocket>,
        dial: SocketAddr,
        datagram: &Datagram,
        is_alone: bool,
    ) {
        let (start, len) = (self.used, datagram.len);
        self.used += len;
        // A device may have merged several already.
        let piece_len = datagram.piece_len.map_or(len, |len| len.get().into());
        let count = if len == 0 { 1 } else { len.div_ceil(piece_len) };
        self.runs.push(Run {
            session,
            socket,
            to: dial.into(),
            datagram: *datagram,
            start,
            end: self.used,
            piece_len,
            count: count as u32,
            is_open: !is_alone && len > 0 && datagram.piece_len.is_none(),
        });
    }

    pub(super) fn bytes(&self, run: &Run) -> &[u8] {
        &self.bytes[run.start..run.end]
    }

    /// All went.
    pub(super) fn clear(&mut self) {
        self.runs.clear();
        self.used = 0;
    }
}

impl Run {
    /// What goes along with each of them.
    pub(super) fn fields(&self) -> HeaderFields {
        fields(&self.datagram)
    }

    /// The run as one datagram that is to be cut.
    pub(super) fn together<'a>(&'a self, bytes: &'a [u8]) -> Outgoing<'a> {
        let piece_len = u16::try_from(self.piece_len).ok().and_then(NonZeroU16::new);
        Outgoing {
            to: &self.to,
            bytes,
            piece_len: piece_len.filter(|_| self.count > 1),
        }
    }

    /// The run as the datagrams that it is of.
    pub(super) fn apart<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = Outgoing<'a>> {
        let step = self.piece_len.max(1);
        (0..self.count as usize).map(move |number| Outgoing {
            to: &self.to,
            bytes: &bytes[(number * step).min(bytes.len())..((number + 1) * step).min(bytes.len())],
            piece_len: None,
        })
    }
}

const fn ends(datagram: &Datagram) -> (SocketAddr, SocketAddr) {
    (datagram.remote, datagram.local)
}

const fn fields(datagram: &Datagram) -> HeaderFields {
    HeaderFields {
        hop_limit: datagram.hop_limit,
        traffic_class: datagram.traffic_class,
    }
}
