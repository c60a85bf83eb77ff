use netlink_packet_core::Parseable;
use netlink_packet_sock_diag::inet::InetResponseHeader;
use proptest::prelude::*;
use rustix::io::Errno;

use super::*;
use crate::netlink::script::Script;
use crate::netlink::{Message, Request};
use crate::{Family, ProtocolSet, Queues, SocketAddress, SpaceSelect, State, StateSet};

/// One of the datagrams with which a scripted kernel answers.
type Datagram = Result<Vec<u8>, Errno>;

fn everything() -> Query {
    Query {
        protocols: ProtocolSet::ALL,
        states: StateSet::ALL,
        space: SpaceSelect::Host,
        ..Query::listeners()
    }
}

fn message(flags: u16, sequence: u32, payload: &[u8], attributes: &[(u16, &[u8])]) -> Vec<u8> {
    attributes
        .iter()
        .fold(
            Request::new(BY_FAMILY, flags, sequence).bytes(payload),
            |request, (kind, value)| request.attribute(*kind, value),
        )
        .finish()
}

fn done(sequence: u32) -> Datagram {
    Ok(Request::new(Message::DONE, 2, sequence).bytes(&[0; 4]).finish())
}

fn refusal(sequence: u32, errno: Errno) -> Vec<Datagram> {
    let code = (-errno.raw_os_error()).to_ne_bytes();
    vec![Ok(Request::new(Message::ERROR, 0, sequence)
        .bytes(&code)
        .finish())]
}

/// `struct inet_diag_msg` of a socket on 127.0.0.1.
fn inet(state: u8, port: u16, inode: u32) -> Vec<u8> {
    let mut bytes = vec![0; 72];
    bytes[..2].copy_from_slice(&[2, state]);
    bytes[4..6].copy_from_slice(&port.to_be_bytes());
    bytes[8..12].copy_from_slice(&[127, 0, 0, 1]);
    bytes[68..].copy_from_slice(&inode.to_ne_bytes());
    bytes
}

fn list(
    answers: Vec<Vec<Datagram>>,
    protocol: SocketProtocol,
) -> (Result<Listed, DumpError>, Vec<Socket>, Vec<Vec<u8>>) {
    let mut diag = SockDiag::new(Script::new(answers));
    let mut sockets = Vec::new();
    let listed = diag.list(protocol, &everything(), SpaceId(3), &mut sockets);
    (listed, sockets, diag.transport.requests)
}

fn inodes(sockets: &[Socket]) -> Vec<u64> {
    sockets.iter().map(|socket| socket.inode).collect()
}

#[test]
fn a_list_that_changed_is_read_again() {
    let torn = vec![
        Ok(message(Message::INTERRUPTED, 1, &inet(10, 80, 5), &[])),
        done(1),
    ];
    let mut whole = message(0, 2, &inet(10, 80, 5), &[]);
    whole.extend(message(0, 2, &inet(10, 81, 6), &[]));
    let (listed, sockets, _) = list(vec![torn, vec![Ok(whole), done(2)]], SocketProtocol::Tcp);
    assert_eq!((listed, inodes(&sockets)), (Ok(Listed::Whole), vec![5, 6]));
}

#[test]
fn a_list_that_keeps_changing_is_given_and_called_torn() {
    let torn = |sequence| {
        vec![
            Ok(message(
                Message::INTERRUPTED,
                sequence,
                &inet(10, 80, 100 + sequence),
                &[],
            )),
            done(sequence),
        ]
    };
    let (listed, sockets, requests) = list((1..=9).map(torn).collect(), SocketProtocol::Tcp);
    assert_eq!(requests.len(), ATTEMPTS);
    assert_eq!((listed, inodes(&sockets)), (Ok(Listed::Torn), vec![104]));
}

#[test]
fn a_protocol_that_the_kernel_does_not_list_is_no_error() {
    for errno in [
        Errno::NOENT,
        Errno::INVAL,
        Errno::PROTONOSUPPORT,
        Errno::OPNOTSUPP,
    ] {
        for protocol in SocketProtocol::ALL {
            let answers = (1..=3).map(|sequence| refusal(sequence, errno)).collect();
            let (listed, sockets, _) = list(answers, protocol);
            assert_eq!(
                (listed, sockets),
                (Ok(Listed::NotOffered), vec![]),
                "{protocol} {errno}"
            );
        }
    }
}

#[test]
fn a_kernel_without_ipv6_lists_ipv4() {
    let ipv4 = vec![Ok(message(0, 1, &inet(7, 53, 5), &[])), done(1)];
    let (listed, sockets, _) = list(vec![ipv4, refusal(2, Errno::NOENT)], SocketProtocol::Udp);
    assert_eq!((listed, inodes(&sockets)), (Ok(Listed::Whole), vec![5]));
}

#[test]
fn a_failure_leaves_nothing_half_read() {
    let cut = vec![Ok(message(0, 1, &inet(7, 53, 5), &[])), Ok(vec![1, 2, 3])];
    let (listed, sockets, _) = list(vec![cut], SocketProtocol::Udp);
    assert_eq!((listed, sockets), (Err(DumpError::Damaged), vec![]));
    let second_family_lost = vec![vec![Ok(message(0, 1, &inet(7, 53, 5), &[])), done(1)], vec![]];
    let (listed, sockets, _) = list(second_family_lost, SocketProtocol::Udp);
    assert_eq!((listed, sockets), (Err(DumpError::Socket(Errno::AGAIN)), vec![]));
}

#[test]
fn mptcp_is_asked_for_by_an_attribute_and_never_taken_for_tcp() {
    let (_, _, requests) = list(vec![], SocketProtocol::Mptcp);
    let fixed = &requests[0][Message::HEADER..];
    assert_eq!(fixed[1], 253);
    let attributes: Vec<_> = crate::netlink::Attributes::new(&fixed[56..]).collect();
    assert_eq!(attributes, [(3, &262_u32.to_ne_bytes()[..])]);
}

#[test]
fn attributes_are_understood() {
    let mut info = vec![0; 168];
    info[68..72].copy_from_slice(&1234_u32.to_ne_bytes());
    info[160..].copy_from_slice(&9_u64.to_ne_bytes());
    let attributes: [(u16, &[u8]); 5] = [
        (2, &info),
        (8, &[0]),
        (11, &[1]),
        (15, &0x2a_u32.to_ne_bytes()),
        (21, &77_u64.to_ne_bytes()),
    ];
    let answer = vec![Ok(message(0, 1, &inet(1, 80, 5), &attributes)), done(1)];
    let (_, sockets, _) = list(vec![answer], SocketProtocol::Tcp);
    let socket = &sockets[0];
    assert_eq!(
        (socket.v6_only, socket.mark, socket.cgroup),
        (Some(true), Some(0x2a), Some(77))
    );
    let info = socket.tcp_info.as_ref().unwrap();
    assert_eq!((info.rtt_us, info.delivery_rate, info.snd_mss), (1234, 9, 0));
    assert_eq!(socket.space, SpaceId(3));
}

#[test]
fn sctp_endpoints_and_associations() {
    let mut datagram = message(0, 1, &inet(10, 3868, 5), &[]);
    datagram.extend(message(0, 1, &inet(3, 3868, 6), &[]));
    let answers = vec![vec![Ok(datagram), done(1)], vec![done(2)]];
    let (_, sockets, _) = list(answers, SocketProtocol::Sctp);
    let states: Vec<_> = sockets
        .iter()
        .map(|socket| (socket.state, socket.remote.is_some()))
        .collect();
    assert_eq!(states, [(State::Listen, false), (State::Established, true)]);
}

#[test]
fn vsock_listeners_and_connections() {
    let entry = |state: u8, inode: u32| {
        let mut bytes = vec![40, 1, state, 0];
        for word in [2_u32, 1024, 3, 2048, inode, 0x11, 0x22] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes
    };
    let mut datagram = message(0, 1, &entry(10, 5), &[]);
    datagram.extend(message(0, 1, &entry(1, 6), &[]));
    let (_, sockets, _) = list(vec![vec![Ok(datagram), done(1)]], SocketProtocol::Vsock);
    assert_eq!(sockets[0].state, State::Listen);
    assert_eq!(sockets[0].local, SocketAddress::Vsock { cid: 2, port: 1024 });
    assert_eq!(sockets[0].remote, None);
    assert_eq!(sockets[0].cookie, 0x22_0000_0011);
    assert_eq!(
        sockets[1].remote,
        Some(SocketAddress::Vsock { cid: 3, port: 2048 })
    );
    assert_eq!(inodes(&sockets), [5, 6]);
}

#[test]
fn unix_sockets_know_their_peers_by_name() {
    let entry = |state: u8, inode: u32| {
        let mut bytes = vec![1, 1, state, 0];
        bytes.extend(inode.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes
    };
    let queues = [3_u32.to_ne_bytes(), 128_u32.to_ne_bytes()].concat();
    let uid = 1000_u32.to_ne_bytes();
    let mut datagram = message(
        0,
        1,
        &entry(10, 5),
        &[(0, b"/run/a\x1b\n\0"), (4, &queues), (7, &uid)],
    );
    datagram.extend(message(
        0,
        1,
        &entry(1, 6),
        &[(0, b"/run/a\x1b\n\0"), (2, &7_u32.to_ne_bytes())],
    ));
    datagram.extend(message(0, 1, &entry(1, 7), &[(2, &6_u32.to_ne_bytes())]));
    datagram.extend(message(0, 1, &entry(10, 8), &[(0, b"\0abstract\0")]));
    let (_, sockets, _) = list(vec![vec![Ok(datagram), done(1)]], SocketProtocol::Unix);
    let name = |name: &[u8]| SocketAddress::Unix { name: name.into() };
    assert_eq!(sockets[0].local, name(b"/run/a\x1b\n"));
    assert_eq!(
        sockets[0].queues,
        Queues {
            receive: 3,
            send: 128
        }
    );
    assert_eq!((sockets[0].uid, &sockets[0].remote), (Some(1000), &None));
    assert_eq!(sockets[1].remote, Some(name(b"")));
    assert_eq!(sockets[2].remote, Some(name(b"/run/a\x1b\n")));
    assert_eq!(sockets[3].local, name(b"\0abstract\0"));
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    (
        prop::sample::select(vec![2_u8, 10]),
        1..=12_u8,
        proptest::collection::vec(any::<u8>(), 70..120),
    )
        .prop_map(|(family, state, rest)| [vec![family, state], rest].concat())
}

proptest! {
    #[test]
    fn any_payload_ends(
        protocol in prop::sample::select(SocketProtocol::ALL.to_vec()),
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        family in prop::sample::select(vec![1_u8, 2, 10, 40]),
    ) {
        let payload = [vec![family], payload].concat();
        let answers = vec![vec![Ok(message(0, 1, &payload, &[])), done(1)], vec![done(2)]];
        let (listed, sockets, _) = list(answers, protocol);
        prop_assert_eq!(listed, Ok(Listed::Whole));
        prop_assert!(sockets.len() <= 1);
    }

    /// Another implementation reads the same from the same bytes.
    #[test]
    fn a_second_opinion(payload in payload()) {
        let answers = vec![vec![Ok(message(0, 1, &payload, &[])), done(1)]];
        let (_, sockets, _) = list(answers, SocketProtocol::Tcp);
        let ours = &sockets[0];
        let theirs = InetResponseHeader::parse(payload.as_slice()).unwrap();
        let id = theirs.socket_id;
        let end = |address, port| SocketAddress::Inet { address, port: portolan_core::Port::new(port) };
        prop_assert_eq!(ours.family == Family::Ipv4, theirs.family == 2);
        prop_assert_eq!(&ours.local, &end(id.source_address, id.source_port));
        if let Some(remote) = &ours.remote {
            prop_assert_eq!(remote, &end(id.destination_address, id.destination_port));
        }
        prop_assert_eq!(ours.device, id.interface_id);
        prop_assert_eq!(ours.cookie.to_le_bytes(), id.cookie);
        prop_assert_eq!(ours.queues, Queues { receive: theirs.recv_queue, send: theirs.send_queue });
        if let Some(uid) = ours.uid {
            prop_assert_eq!(uid, theirs.uid);
        }
        prop_assert_eq!(ours.inode, u64::from(theirs.inode));
    }
}
