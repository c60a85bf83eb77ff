//! Stand-ins: one socket in TIME-WAIT for all connections of a claim, whose four-tuples somebody else keeps.
//!
//! A socket of the table is more than a connection in TIME-WAIT needs, and a server that closes first has many. Beside
//! its four-tuple such a connection holds only its port, which it has in common with its likes: for a bind, one of
//! them is as much in the way as all.

use super::claim::{Claim, State, Transport};
use super::error::{NoSuchSocket, StateError};
use super::{PortTable, SocketId};
use crate::demux::FourTuple;

/// Says which socket stands for a four-tuple that the caller keeps: see [`PortTable::connect_beside`].
pub type Taken<'a> = dyn Fn(&PortTable, &FourTuple) -> Option<SocketId> + 'a;

impl PortTable {
    /// Takes a TCP connection into TIME-WAIT whose four-tuple the caller keeps from now on, and delivers for. Its name
    /// means nothing any more; the port is held as after [`Close::TimeWait`](super::Close::TimeWait) by the socket that
    /// is given. It stands for all connections with the same local end, options and user, and has no remote. It stays
    /// until [`end_wait`](Self::end_wait) was called for each: [`advance`](Self::advance) does not end it.
    ///
    /// # Errors
    /// If there is no such socket, or it is no connection.
    pub fn hand_over(&mut self, id: SocketId) -> Result<SocketId, StateError> {
        let index = self.index(id)?;
        let claim = self.claim_of(index);
        if claim.transport != Transport::Tcp || claim.state != State::Connected {
            return Err(StateError::NotConnected);
        }
        let waiting = Claim {
            state: State::TimeWait,
            ..claim
        };
        let as_tenant = claim.is_automatic();
        if let Some((stand_in, stands_for)) = self.records.stand_in_of(&waiting, as_tenant) {
            *stands_for += 1;
            self.remove(index);
            return Ok(self.sockets.id(stand_in));
        }
        self.leave_flow(index);
        self.adopt_as(index, &waiting, as_tenant);
        self.records.begin_stand_in(self.home_of(index), index);
        Ok(id)
    }

    /// One of those that a socket stands for waits no more. With the last one the port is given back.
    ///
    /// # Errors
    /// If there is no such stand-in.
    pub fn end_wait(&mut self, stand_in: SocketId) -> Result<(), NoSuchSocket> {
        let index = self.index(stand_in)?;
        let home = self.home_of(index);
        let (stand_in, stands_for) = self.records.stand_in(home).ok_or(NoSuchSocket)?;
        if stand_in != index {
            return Err(NoSuchSocket);
        }
        *stands_for -= 1;
        if *stands_for == 0 {
            self.remove(index);
        }
        Ok(())
    }

    /// Forgets that a socket, which leaves the table, stands for others.
    pub(super) fn forget_stand_in(&mut self, index: u32) {
        let home = self.home_of(index);
        if let Some((stand_in, stands_for)) = self.records.stand_in(home)
            && stand_in == index
        {
            *stands_for = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Accepted, BindError, Family, Host, Owner, PortChoice};

    #[test]
    fn one_socket_holds_the_port_until_the_last_of_its_likes_is_gone() {
        let mut host = Host::new();
        let device = crate::table::Device::new(1).unwrap();
        host.add_address(device, "10.8.0.1".parse().unwrap(), Some(24));
        let mut table = PortTable::new(host, [1; 16]);
        let server: std::net::SocketAddr = "10.8.0.1:80".parse().unwrap();
        let new = |table: &mut PortTable| table.socket(Transport::Tcp, Family::Ipv4, Owner::ROOT);
        let listener = new(&mut table);
        table.bind(listener, server, PortChoice::Any).unwrap();
        table.listen(listener, PortChoice::Any).unwrap();
        let stand_ins: Vec<_> = (1000..1010)
            .map(|port| {
                let ends = Accepted {
                    local: server,
                    remote: ([10, 8, 0, 9], port).into(),
                    device: None,
                };
                let connection = table.accept(listener, ends).unwrap();
                table.hand_over(connection).unwrap()
            })
            .collect();
        let stand_in = stand_ins[0];
        assert!(stand_ins.iter().all(|&other| other == stand_in));
        assert_eq!((table.len(), table.flow_count()), (2, 0));
        assert_eq!(table.remote(stand_in), Ok(None));
        assert_eq!(table.local(stand_in), Ok(server));
        assert!(table.hand_over(listener).is_err() && table.hand_over(stand_in).is_err());
        assert_eq!(table.end_wait(listener), Err(NoSuchSocket));
        table.close(listener, crate::table::Close::Gone).unwrap();
        for left in (0..10).rev() {
            let other = new(&mut table);
            let refused = table.bind(other, server, PortChoice::Any).unwrap_err();
            let BindError::InUse(in_use) = refused else {
                panic!("{refused}");
            };
            assert_eq!(in_use.in_the_way, [stand_in], "{left}");
            table.close(other, crate::table::Close::Gone).unwrap();
            table.end_wait(stand_in).unwrap();
        }
        assert_eq!(table.len(), 0);
        let other = new(&mut table);
        assert!(table.bind(other, server, PortChoice::Any).is_ok());
        assert_eq!(table.end_wait(stand_in), Err(NoSuchSocket));
    }

    #[test]
    fn connect_passes_over_what_its_caller_keeps() {
        let mut host = Host::new();
        let device = crate::table::Device::new(1).unwrap();
        host.add_address(device, "10.8.0.1".parse().unwrap(), Some(24));
        let mut table = PortTable::new(host, [1; 16]);
        let remote: std::net::SocketAddr = "10.8.0.9:80".parse().unwrap();
        let source = "10.8.0.1".parse().unwrap();
        let first = table.socket(Transport::Tcp, Family::Ipv4, Owner::ROOT);
        let port = table.connect(first, remote, source, PortChoice::Any).unwrap();
        let kept = FourTuple::new((source, port.get()).into(), remote).unwrap();
        let stand_in = table.hand_over(first).unwrap();
        let taken = |_: &PortTable, tuple: &FourTuple| (*tuple == kept).then_some(stand_in);
        let second = table.socket(Transport::Tcp, Family::Ipv4, Owner::ROOT);
        let exactly = PortChoice::Exactly(port);
        assert!(
            table
                .connect_beside(second, remote, source, exactly, &taken)
                .is_err()
        );
        let other = table
            .connect_beside(second, remote, source, PortChoice::Any, &taken)
            .unwrap();
        assert_ne!(other, port);
        // To another remote the port is free, as beside any connection with an automatic one.
        let third = table.socket(Transport::Tcp, Family::Ipv4, Owner::ROOT);
        let elsewhere = "10.8.0.9:81".parse().unwrap();
        let shared = table.connect_beside(third, elsewhere, source, exactly, &taken);
        assert_eq!(shared, Ok(port));
    }

    /// Connections of more local addresses than a port has room for as tenants, established and in TIME-WAIT: each is
    /// in the way of a bind of its address, and nothing is left of them in the end.
    #[test]
    fn a_port_with_many_classes_of_connections_answers_for_each() {
        let mut host = Host::new();
        let device = crate::table::Device::new(1).unwrap();
        let addresses: [std::net::IpAddr; 4] = [1, 2, 3, 4].map(|last| [10, 8, 0, last].into());
        for address in addresses {
            host.add_address(device, address, Some(24));
        }
        let mut table = PortTable::new(host, [1; 16]);
        let exactly = PortChoice::Exactly(40_000.into());
        let connect = |table: &mut PortTable, source, server: u8| {
            let remote = ([10, 8, 0, server], 80).into();
            let socket = table.socket(Transport::Tcp, Family::Ipv4, Owner::ROOT);
            table.connect(socket, remote, source, exactly).unwrap();
            socket
        };
        let holders_of = |table: &mut PortTable, address| {
            let other = table.socket(Transport::Tcp, Family::Ipv4, Owner::ROOT);
            let bound = table.bind(other, (address, 40_000).into(), PortChoice::Any);
            table.close(other, crate::table::Close::Gone).unwrap();
            match bound {
                Ok(_) => Vec::new(),
                Err(BindError::InUse(in_use)) => in_use.in_the_way,
                Err(error) => panic!("{error}"),
            }
        };
        let mut opened = Vec::new();
        let mut waiting = Vec::new();
        for address in addresses {
            assert!(holders_of(&mut table, address).is_empty());
            for server in 101..104 {
                opened.push((address, connect(&mut table, address, server)));
            }
            for server in 104..107 {
                let socket = connect(&mut table, address, server);
                waiting.push((address, table.hand_over(socket).unwrap()));
            }
        }
        for places in waiting.chunks(3) {
            assert!(places.iter().all(|place| *place == places[0]));
        }
        let everywhere = holders_of(&mut table, [0, 0, 0, 0].into());
        assert!(everywhere.len() >= 4, "{everywhere:?}");
        for address in addresses {
            let in_the_way = holders_of(&mut table, address);
            let here = |sockets: &[(std::net::IpAddr, SocketId)], socket: &SocketId| {
                sockets.contains(&(address, *socket))
            };
            assert_eq!(in_the_way.len(), 2, "{address}");
            assert_eq!(
                in_the_way.iter().filter(|socket| here(&opened, socket)).count(),
                1
            );
            assert_eq!(
                in_the_way.iter().filter(|socket| here(&waiting, socket)).count(),
                1
            );
            for (_, socket) in opened.extract_if(.., |(at, _)| *at == address) {
                let local = Ok((address, 40_000).into());
                assert_eq!(table.local(socket), local);
                table.close(socket, crate::table::Close::Gone).unwrap();
            }
            assert_eq!(holders_of(&mut table, address).len(), 1);
            for (_, stand_in) in waiting.extract_if(.., |(at, _)| *at == address) {
                assert_eq!(holders_of(&mut table, address), [stand_in]);
                table.end_wait(stand_in).unwrap();
            }
            assert!(holders_of(&mut table, address).is_empty());
        }
        assert_eq!((table.len(), table.flow_count()), (0, 0));
        assert!(table.records.holders(Transport::Tcp, 40_000.into()).is_none());
    }
}
