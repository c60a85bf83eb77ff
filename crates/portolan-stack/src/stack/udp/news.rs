use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use super::super::events::Notice;
use super::options::DontFragment;
use super::{News, Stack, UdpId};
use crate::PathError;

/// Errors that wait for the program; more push out the oldest.
const MAX_ERRORS: usize = 64;

/// An ICMP error about a datagram that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UdpError {
    /// What it says.
    pub error: PathError,
    /// Where the datagram came from.
    pub local: SocketAddr,
    /// Where the datagram went to.
    pub remote: SocketAddr,
    /// Who says it: the destination, or a router.
    pub reporter: IpAddr,
    /// With [`PathError::TooBig`], the longest packet that the reporter can pass on.
    pub mtu: Option<usize>,
}

/// Errors in the order in which they came. Without any it takes no memory.
#[derive(Debug, Default)]
pub(in super::super) struct ErrorQueue(VecDeque<UdpError>);

impl ErrorQueue {
    pub(in super::super) fn push(&mut self, error: UdpError) {
        if self.0.len() == MAX_ERRORS {
            self.0.pop_front();
        }
        self.0.push_back(error);
    }

    pub(in super::super) fn pop(&mut self) -> Option<UdpError> {
        let first = self.0.pop_front();
        if self.0.is_empty() {
            self.0 = VecDeque::new();
        }
        first
    }

    pub(in super::super) fn clear(&mut self) {
        self.0 = VecDeque::new();
    }
}

impl Stack {
    /// The next ICMP error about a datagram of this socket, if it asked for them by
    /// [`UdpOption::ReportErrors`](super::UdpOption::ReportErrors).
    pub fn next_udp_error(&mut self, id: UdpId) -> Option<UdpError> {
        self.udp.get_mut(id)?.errors.pop()
    }

    /// An ICMP error came about a datagram of this socket. As in Linux a connected one is told of those that trying
    /// again does not help, and one that asked for it of all. One with a scope speaks for many, and what one of them is told
    /// fails no call of the others.
    pub(in super::super) fn take_udp_news(&mut self, id: UdpId, news: UdpError) {
        let Some(socket) = self.udp.get_mut(id) else {
            return;
        };
        let is_wanted = news.error != PathError::TooBig || socket.manner.dont_fragment != DontFragment::Dont;
        if socket.manner.reports_errors {
            socket.errors.push(news);
        } else if socket.peer.is_none() || !news.error.is_hard() || !is_wanted {
            return;
        }
        if self.table.scope(socket.socket).is_none() {
            socket.error = Some(news.error);
        }
        self.tell_udp_socket(id, News::ERROR);
    }

    /// Notes what the program is to be told of a socket.
    pub(super) fn tell_udp_socket(&mut self, id: UdpId, news: News) {
        let Some(socket) = self.udp.get_mut(id) else {
            return;
        };
        socket.news |= news;
        if !socket.is_noticed {
            socket.is_noticed = true;
            self.notices.push_back(Notice::Udp(id));
        }
    }
}
