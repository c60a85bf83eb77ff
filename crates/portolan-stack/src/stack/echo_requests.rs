//! Echo requests to addresses that are not this host's, for a program that answers in their place: what a gateway needs
//! that pings for others.
//!
//! ```text
//!   link ─▶ request to another address ─▶ receive_echo_request ─▶ program ─┬▶ answer_echo ─▶ reply from that address
//!                                                                          └▶ reject_echo ─▶ error that quotes it
//! ```

use std::net::{IpAddr, SocketAddr};

use portolan_core::demux::FourTuple;
use portolan_core::wire::{Icmpv4Message, Icmpv4Packet, Icmpv6Message, IpPacket};
use thiserror::Error;

use super::echo::{hop_limit, longest_echo, traffic_class};
use super::events::Notice;
use super::icmp::{Control, IcmpError, Rejected};
use super::{HeaderFields, SendError, Stack};
use crate::buffer::Datagrams;

/// What takes the requests.
#[derive(Debug)]
pub(super) struct EchoGate {
    received: Datagrams<EchoRequest>,
    is_noticed: bool,
}

/// An echo request to an address that is not this host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EchoRequest {
    /// Who asks.
    pub source: IpAddr,
    /// Who is asked.
    pub destination: IpAddr,
    /// Which of the asker's programs asks.
    pub identifier: u16,
    /// Its how manieth question it is.
    pub sequence: u16,
    /// How many bytes of data it has. If that is more than the buffer took, the rest is lost.
    pub len: usize,
    /// How many more routers it might have passed.
    pub hop_limit: u8,
    /// Its differentiated services and ECN.
    pub traffic_class: u8,
}

/// Somebody takes the echo requests already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the echo requests to other hosts are taken: one program answers them")]
pub struct EchoRequestsTaken;

impl Stack {
    /// Keeps echo requests to addresses that are not this host's for the program, which is told by
    /// [`Event::EchoRequests`](crate::Event::EchoRequests). Those to its own are answered as ever.
    ///
    /// # Errors
    /// If they are kept already.
    pub fn take_echo_requests(&mut self) -> Result<(), EchoRequestsTaken> {
        if self.echo_gate.is_some() {
            return Err(EchoRequestsTaken);
        }
        self.echo_gate = Some(Box::new(EchoGate {
            received: Datagrams::new(self.config.udp_buffer),
            is_noticed: false,
        }));
        Ok(())
    }

    /// Keeps echo requests no longer; those that wait are lost.
    pub fn leave_echo_requests(&mut self) {
        if let Some(mut gate) = self.echo_gate.take() {
            gate.received.clear(&mut self.pool);
        }
    }

    /// Takes the next request, as much of its data as fits into `out`; `None` if there is none.
    pub fn receive_echo_request(&mut self, out: &mut [u8]) -> Option<EchoRequest> {
        let gate = self.echo_gate.as_mut()?;
        let (&first, _) = gate.received.first()?;
        gate.received.copy_first(out);
        gate.received.pop(&mut self.pool);
        Some(first)
    }

    /// Answers a request with a reply of `data` from the address that was asked, under these fields of the IP header.
    ///
    /// # Errors
    /// [`SendError::WouldBlock`] if too many answers wait; [`SendError::TooLong`].
    pub fn answer_echo(
        &mut self,
        request: &EchoRequest,
        fields: HeaderFields,
        data: &[u8],
    ) -> Result<(), SendError> {
        let tuple = request.tuple()?;
        let limit = longest_echo(&tuple);
        if data.len() > limit {
            let len = data.len();
            return Err(SendError::TooLong { len, limit });
        }
        let EchoRequest {
            identifier, sequence, ..
        } = *request;
        let reply = match request.source {
            IpAddr::V4(_) => Control::V4(Icmpv4Message::EchoReply { identifier, sequence }),
            IpAddr::V6(_) => Control::V6(Icmpv6Message::EchoReply { identifier, sequence }),
        };
        if self.queue_control(tuple, reply, fields, data) {
            Ok(())
        } else {
            Err(SendError::WouldBlock)
        }
    }

    /// Answers a request with an ICMP error from the address that was asked. `start` is what is known of the request's
    /// data, and quoted.
    ///
    /// One answer for one request, by the program's own word: the limits of other ICMP errors do not apply.
    ///
    /// # Errors
    /// [`SendError::WouldBlock`] if too many answers wait.
    pub fn reject_echo(
        &mut self,
        request: &EchoRequest,
        start: &[u8],
        why: IcmpError,
    ) -> Result<(), SendError> {
        let tuple = request.tuple()?;
        let EchoRequest {
            identifier, sequence, ..
        } = *request;
        let mut header = [0; Icmpv4Packet::HEADER_LEN];
        let asked = match request.source {
            IpAddr::V4(_) => Control::V4(Icmpv4Message::EchoRequest { identifier, sequence }),
            IpAddr::V6(_) => Control::V6(Icmpv6Message::EchoRequest { identifier, sequence }),
        };
        asked.emit(&tuple, &mut header);
        let rejected = Rejected {
            tuple,
            protocol: asked.protocol(),
            header,
            data_len: request.len,
            start,
        };
        if self.reject(&rejected, why) {
            Ok(())
        } else {
            Err(SendError::WouldBlock)
        }
    }

    /// Whether a request to another host is for the program.
    pub(super) const fn takes_echo(&self, message: &Control) -> bool {
        self.echo_gate.is_some() && message.is_echo_request()
    }

    /// Keeps a request for the program.
    pub(super) fn keep_echo_request(&mut self, message: &Control, ip: &IpPacket<'_>) {
        let (Control::V4(Icmpv4Message::EchoRequest { identifier, sequence })
        | Control::V6(Icmpv6Message::EchoRequest { identifier, sequence })) = *message
        else {
            return;
        };
        let Some(gate) = &mut self.echo_gate else {
            return;
        };
        let data = &ip.payload()[Icmpv4Packet::HEADER_LEN..];
        let request = EchoRequest {
            source: ip.source(),
            destination: ip.destination(),
            identifier,
            sequence,
            len: data.len(),
            hop_limit: hop_limit(ip),
            traffic_class: traffic_class(ip),
        };
        if !gate.received.push(&mut self.pool, request, data) {
            self.counters.datagrams_dropped += 1;
        } else if !gate.is_noticed {
            gate.is_noticed = true;
            self.notices.push_back(Notice::EchoRequests);
        }
    }

    /// Whether the program is to be told that there are requests.
    pub(super) fn notes_echo_requests(&mut self) -> bool {
        let gate = self.echo_gate.as_mut();
        gate.is_some_and(|gate| std::mem::take(&mut gate.is_noticed))
    }
}

impl EchoRequest {
    /// Its ends as its destination sees them.
    fn tuple(&self) -> Result<FourTuple, SendError> {
        let (local, remote) = (
            SocketAddr::new(self.destination, 0),
            SocketAddr::new(self.source, 0),
        );
        FourTuple::new(local, remote).ok_or(SendError::WrongSource {
            source_address: self.destination,
            destination: remote,
        })
    }
}
