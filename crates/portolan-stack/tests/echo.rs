//! ICMP echo sockets between two stacks.

use std::net::IpAddr;

use portolan_core::table::{Device, Host};
use portolan_core::wire::checksum;
use portolan_stack::{
    BindEchoError, EchoId, Event, Instant, Offload, Packet, PathError, SendError, Stack, StackConfig,
};

const NOW: Instant = Instant::from_millis(1000);

fn stack(last: u8) -> Stack {
    let mut host = Host::new();
    let device = Device::new(1).unwrap();
    host.add_address(device, IpAddr::from([10, 0, 0, last]), Some(24));
    let v6 = IpAddr::from([0xFD00, 0, 0, 0, 0, 0, 0, u16::from(last)]);
    host.add_address(device, v6, Some(64));
    Stack::new(StackConfig::default(), host, [last; 16])
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn sent(stack: &mut Stack) -> Vec<Vec<u8>> {
    let mut buffer = [0; 1500];
    std::iter::from_fn(|| {
        let transmit = stack.poll_transmit(NOW, &mut buffer)?;
        Some(buffer[..transmit.len].to_vec())
    })
    .collect()
}

fn handle(stack: &mut Stack, bytes: &[u8]) {
    let offload = Offload::default();
    stack.handle_packet(NOW, Packet { bytes, offload });
}

fn carry(a: &mut Stack, b: &mut Stack) -> usize {
    let mut count = 0;
    loop {
        let (there, back) = (sent(a), sent(b));
        if there.is_empty() && back.is_empty() {
            return count;
        }
        count += there.len() + back.len();
        there.iter().for_each(|packet| handle(b, packet));
        back.iter().for_each(|packet| handle(a, packet));
    }
}

/// The sequence number, the data and who sent it.
fn receive(stack: &mut Stack, id: EchoId) -> Option<(u16, Vec<u8>, IpAddr)> {
    let mut out = vec![0; 66_000];
    let echo = stack.receive_echo(id, &mut out).unwrap()?;
    out.truncate(echo.len);
    Some((echo.sequence, out, echo.remote))
}

#[test]
fn requests_of_any_length_are_answered_to_who_asked() {
    for (here, there, any, longest) in [
        ("10.0.0.1", "10.0.0.2", "0.0.0.0", 65_507),
        ("fd00::1", "fd00::2", "::", 65_527),
    ] {
        let (mut a, mut b) = (stack(1), stack(2));
        let (here, there) = (ip(here), ip(there));
        let one = a.bind_echo(here, 0).unwrap();
        let two = a.bind_echo(ip(any), 7).unwrap();
        let (_, identifier) = a.echo_local(one).unwrap();
        assert_ne!(identifier, 0);
        assert_eq!(a.bind_echo(ip(any), 7), Err(BindEchoError::InUse(7)));
        for (sequence, len) in [(1, 0), (2, 56), (3, 1472), (4, 5000), (5, longest)] {
            let data: Vec<u8> = (0..len).map(|n| (n % 253) as u8).collect();
            a.send_echo(one, here, there, sequence, &data).unwrap();
            let packets = carry(&mut a, &mut b);
            assert!(packets > 2 || len < 1473, "{len}: {packets}");
            assert!(receive(&mut a, one) == Some((sequence, data, there)), "{len}");
            assert_eq!(receive(&mut a, two), None);
            assert_eq!(a.poll_event(), Some(Event::Echo(one)));
            assert_eq!(a.poll_event(), None);
        }
        let long = a.send_echo(two, here, there, 1, &vec![0; longest + 1]);
        let too_long = SendError::TooLong {
            len: longest + 1,
            limit: longest,
        };
        assert_eq!(long, Err(too_long));
        a.send_echo(two, here, there, 9, b"two").unwrap();
        carry(&mut a, &mut b);
        assert_eq!(receive(&mut a, two), Some((9, b"two".to_vec(), there)));

        // A reply that nobody asked for any more.
        a.send_echo(two, here, there, 10, b"late").unwrap();
        a.close_echo(two).unwrap();
        carry(&mut a, &mut b);
        assert_eq!(a.counters().other_protocols, 1);
        assert!(a.send_echo(two, here, there, 1, b"").is_err());
        assert!(a.bind_echo(here, 7).is_ok(), "the identifier is free at once");
        assert_eq!((a.buffered_bytes(), b.buffered_bytes()), (0, 0));
    }
}

#[test]
fn a_socket_sends_from_addresses_that_it_has() {
    let mut a = stack(1);
    let there = ip("10.0.0.2");
    assert_eq!(a.bind_echo(there, 0), Err(BindEchoError::NotLocal(there)));
    let one = a.bind_echo(ip("0.0.0.0"), 0).unwrap();
    for source in ["10.0.0.2", "0.0.0.0", "fd00::1"] {
        let wrong = a.send_echo(one, ip(source), there, 1, b"");
        assert!(matches!(wrong, Err(SendError::WrongSource { .. })), "{source}");
    }
}

#[test]
fn every_identifier_can_be_had_and_no_more() {
    let mut a = stack(1);
    let any = ip("0.0.0.0");
    for identifier in (1..=65_535).filter(|&identifier| identifier != 4711) {
        a.bind_echo(any, identifier).unwrap();
    }
    let last = a.bind_echo(any, 0).unwrap();
    assert_eq!(a.echo_local(last), Some((any, 4711)));
    assert_eq!(a.bind_echo(any, 0), Err(BindEchoError::Exhausted));
    assert!(
        a.bind_echo(ip("::"), 0).is_ok(),
        "the other IP version has its own"
    );
}

#[test]
fn a_router_that_drops_a_request_is_heard() {
    let mut a = stack(1);
    let (here, there) = (ip("10.0.0.1"), ip("10.0.0.2"));
    let one = a.bind_echo(here, 0).unwrap();
    a.set_echo_hop_limit(one, 3).unwrap();
    for (kind, code, error, mtu) in [
        (11, 0, PathError::TimeExceeded, None),
        (3, 1, PathError::HostUnreachable, None),
        (3, 4, PathError::TooBig, Some(1000)),
    ] {
        a.send_echo(one, here, there, 77, &[1; 1400]).unwrap();
        let request = sent(&mut a).remove(0);
        assert_eq!((request[8], request[6]), (3, 0x40), "hop limit, do not fragment");
        let mut news = vec![0x45, 0, 0, 56, 0, 0, 0, 0, 64, 1, 0, 0, 192, 0, 2, 1, 10, 0, 0, 1];
        news.extend([
            kind,
            code,
            0,
            0,
            0,
            0,
            1000u16.to_be_bytes()[0],
            1000u16.to_be_bytes()[1],
        ]);
        news.extend(&request[..28]);
        for (from, to) in [(20, 56), (0, 20)] {
            let sum = checksum(&news[from..to]).to_be_bytes();
            let place = if from == 0 { 10 } else { 22 };
            news[place..place + 2].copy_from_slice(&sum);
        }
        handle(&mut a, &news);
        assert_eq!(a.poll_event(), Some(Event::Echo(one)));
        let told = a.next_echo_error(one).unwrap();
        assert_eq!(
            (told.sequence, told.error.error, told.error.mtu),
            (77, error, mtu)
        );
        assert_eq!(
            (told.error.remote.ip(), told.error.reporter),
            (there, ip("192.0.2.1"))
        );
        assert_eq!(a.next_echo_error(one), None);
    }
    a.send_echo(one, here, there, 78, &[1; 1400]).unwrap();
    assert!(
        sent(&mut a).iter().all(|packet| packet.len() <= 1000),
        "the path is known"
    );
}
