//! Packets in batches: while the processor waits for what one packet needs, it asks for what the others need.
//!
//! With many connections a packet's way leads through memory that no cache holds: the table of four-tuples, the
//! holder of the socket, the entry of the connection. One packet at a time waits for each in turn. A batch first goes
//! along all ways together, one step at a time, and only reads.

use std::net::{Ipv4Addr, Ipv6Addr};

use portolan_core::demux::{FourTuple, MAX_BATCH};
use portolan_core::table::SocketId;
use portolan_core::wire::IpProtocol;

use super::{ConnectionId, Holder, Stack};
use crate::{Instant, Packet};

/// With fewer four-tuples all of them are in the processor's caches.
const MANY: usize = 4096;

impl Stack {
    /// Takes packets from the link, as [`Stack::handle_packet`] does one after the other. With many connections it
    /// takes a fraction of the time.
    pub fn handle_packets(&mut self, now: Instant, packets: &[Packet<'_>]) {
        for batch in packets.chunks(MAX_BATCH) {
            let found = if batch.len() > 1 && self.table.flow_count() >= MANY {
                self.touch(batch)
            } else {
                [None; MAX_BATCH]
            };
            for (&packet, found) in batch.iter().zip(found) {
                self.handle_found(now, packet, found);
            }
        }
    }

    /// Reads what the packets will need, so that it is at hand then, and says whose they are now.
    fn touch(&self, packets: &[Packet<'_>]) -> [Option<FoundConnection>; MAX_BATCH] {
        let nowhere = FourTuple::v4((Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED), (0, 0));
        let mut tuples = [nowhere; MAX_BATCH];
        // Of each packet the place of its four-tuple, counted from 1; 0 if it has none.
        let mut looks = [0; MAX_BATCH];
        let mut count = 0;
        for (packet, look) in packets.iter().zip(&mut looks) {
            if let Some(tuple) = four_tuple(packet.bytes) {
                // A burst of one connection is one look.
                if count == 0 || tuples[count - 1] != tuple {
                    tuples[count] = tuple;
                    count += 1;
                }
                *look = count;
            }
        }
        let mut found = [None; MAX_BATCH];
        if count < 2 {
            return found;
        }
        let sockets = self.table.find_connections(&tuples[..count]);
        let mut connections = [None; MAX_BATCH];
        for (connection, socket) in connections.iter_mut().zip(&sockets[..count]) {
            *connection = socket.and_then(|socket| self.connection_of(socket));
        }
        let mut entries = [None; MAX_BATCH];
        for (entry, connection) in entries.iter_mut().zip(&connections[..count]) {
            *entry = connection.and_then(|connection| self.connections.get(connection.id));
        }
        let seen = entries[..count].iter().flatten().map(|entry| entry.touch());
        // What was read is not used: the compiler must not know.
        std::hint::black_box(seen.fold(0, |all, seen| all ^ seen));
        for (found, look) in found.iter_mut().zip(looks) {
            *found = look.checked_sub(1).and_then(|place| connections[place]);
        }
        found
    }

    fn connection_of(&self, socket: SocketId) -> Option<FoundConnection> {
        match *self.holder(socket.place()) {
            Holder::Connection(id) => Some(FoundConnection { socket, id }),
            Holder::Nobody | Holder::Listener(_) | Holder::Udp(_) => None,
        }
    }
}

/// Whose a packet is, unless what came before it in its batch changes that.
#[derive(Clone, Copy, Debug)]
pub(super) struct FoundConnection {
    pub(super) socket: SocketId,
    pub(super) id: ConnectionId,
}

/// The four-tuple of a TCP segment without IP options or extension headers, nothing of it checked.
fn four_tuple(bytes: &[u8]) -> Option<FourTuple> {
    let tcp = IpProtocol::TCP.get();
    let ports = |&[a, b, c, d]: &[u8; 4]| (u16::from_be_bytes([c, d]), u16::from_be_bytes([a, b]));
    match bytes.first()? {
        0x45 => {
            let header: &[u8; 24] = bytes.first_chunk()?;
            if header[9] != tcp {
                return None;
            }
            let [source, destination] = [12, 16].map(|at| {
                let mut octets = [0; 4];
                octets.copy_from_slice(&header[at..at + 4]);
                Ipv4Addr::from(octets)
            });
            let ports = ports(header.last_chunk()?);
            Some(FourTuple::v4((destination, source), ports))
        }
        first if first >> 4 == 6 => {
            let header: &[u8; 44] = bytes.first_chunk()?;
            if header[6] != tcp {
                return None;
            }
            let [source, destination] = [8, 24].map(|at| {
                let mut octets = [0; 16];
                octets.copy_from_slice(&header[at..at + 16]);
                Ipv6Addr::from(octets)
            });
            let (local, remote) = ports(header.last_chunk()?);
            FourTuple::new((destination, local).into(), (source, remote).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_ends_and_takes_any_bytes() {
        let mut v4 = [0; 40];
        v4[0] = 0x45;
        v4[9] = 6;
        v4[12..20].copy_from_slice(&[10, 0, 0, 2, 10, 0, 0, 1]);
        v4[20..24].copy_from_slice(&[0x12, 0x34, 0, 80]);
        let expected = FourTuple::new(([10, 0, 0, 1], 80).into(), ([10, 0, 0, 2], 0x1234).into());
        assert_eq!(four_tuple(&v4), expected);
        let mut v6 = [0; 60];
        v6[0] = 0x60;
        v6[6] = 6;
        v6[8] = 0xFD;
        v6[24] = 0xFD;
        v6[39] = 1;
        v6[40..44].copy_from_slice(&[0x12, 0x34, 0, 80]);
        let expected = FourTuple::new("[fd00::1]:80".parse().unwrap(), "[fd00::]:4660".parse().unwrap());
        assert_eq!(four_tuple(&v6), expected);
        for len in 0..24 {
            assert_eq!(four_tuple(&v4[..len]), None);
        }
        for len in 0..44 {
            assert_eq!(four_tuple(&v6[..len]), None);
        }
    }
}
