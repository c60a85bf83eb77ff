//! A program in a space and our stack outside of it, over each kind of device.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portolan_net::tun::{FrameLink, TunLink, TunQueue};
use portolan_net::{Link, Stack, TcpListener, TcpStream, UdpSocket};
use portolan_space::{Device, DeviceKind, INSIDE_MAC, OUTSIDE_MAC, Space, Subnets};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy, split};
use tokio::time::{sleep, timeout};

use super::users::{as_each_user, skipped};
use super::{Ended, start, with_each_device};

/// Sends 3 MiB to a gateway and wants them back, by TCP; then 100 datagrams of each of some lengths, one after the other,
/// by UDP; in the end it serves one connection.
const CLIENT: &str = r#"
import socket, sys, threading
for gateway in sys.argv[1:]:
    data = bytes(range(256)) * 12288
    tcp = socket.create_connection((gateway, 7), 20)
    def send():
        tcp.sendall(data)
        tcp.shutdown(socket.SHUT_WR)
    threading.Thread(target=send).start()
    back = bytearray()
    while part := tcp.recv(1 << 20):
        back += part
    assert back == data, (gateway, len(back))
    tcp.close()
    udp = socket.socket(socket.AF_INET6 if ":" in gateway else socket.AF_INET, socket.SOCK_DGRAM)
    udp.connect((gateway, 7))
    udp.settimeout(20)
    for length in (0, 1, 1400, 20000):
        for number in range(100):
            datagram = bytes([number]) * length
            udp.send(datagram)
            assert udp.recv(65536) == datagram, (gateway, number, length)
    server = socket.create_server(("::" if ":" in gateway else "", 80), family=udp.family)
    server.settimeout(20)
    stream, peer = server.accept()
    assert peer[0] == gateway, peer
    while part := stream.recv(1 << 20):
        stream.sendall(part)
    server.close()
    stream.close()
"#;

#[test]
fn a_program_and_our_stack_talk_over_each_device() {
    as_each_user("links::a_program_and_our_stack_talk_over_each_device", || {
        let found = std::process::Command::new("python3").arg("--version").output();
        if !found.is_ok_and(|output| output.status.success()) {
            return skipped("no python3 for this user");
        }
        for mut config in with_each_device("") {
            let subnets = config.subnets;
            config.program.path = "python3".into();
            config.program.arguments = ["-c", CLIENT].map(Into::into).to_vec();
            let gateways = gateways(&subnets);
            let names = gateways.iter().map(|(gateway, _)| gateway.to_string().into());
            config.program.arguments.extend(names);
            let Some(mut space) = start(&config) else { return };
            let device = space.take_device().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let limit = Duration::from_secs(60);
                let ended = timeout(limit, serve(&mut space, device, &gateways)).await;
                assert_eq!(ended.expect("the program ends"), Ended::Exited(0));
            });
        }
    });
}

/// The gateways with the addresses inside.
fn gateways(subnets: &Subnets) -> Vec<(IpAddr, IpAddr)> {
    let v6 = subnets.v6.map(|v6| (v6.gateway.into(), v6.inside.into()));
    let v4 = (subnets.v4.gateway.into(), subnets.v4.inside.into());
    [Some(v4), v6].into_iter().flatten().collect()
}

/// A link over the device.
fn link(device: Device) -> Box<dyn Link> {
    let mtu = device.mtu as usize;
    let queue = device.queues.into_iter().next().unwrap();
    match device.kind {
        DeviceKind::Veth => {
            Box::new(FrameLink::new(queue, OUTSIDE_MAC, INSIDE_MAC, mtu, device.offloads).unwrap())
        }
        _ => Box::new(TunLink::new(TunQueue::from(queue), mtu, device.offloads).unwrap()),
    }
}

/// Echoes on port 7 of the gateways, and asks port 80 inside of each, until the program has ended.
async fn serve(space: &mut Space, device: Device, gateways: &[(IpAddr, IpAddr)]) -> Ended {
    let mut builder = Stack::builder();
    for &(gateway, _) in gateways {
        builder = builder.address(gateway, if gateway.is_ipv4() { 24 } else { 64 });
    }
    let (stack, driver) = builder.build(link(device)).unwrap();
    tokio::spawn(driver);
    for &(gateway, _) in gateways {
        let at = SocketAddr::new(gateway, 7);
        let listener = TcpListener::bind(&stack, at).unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (mut reader, mut writer) = split(stream);
            copy(&mut reader, &mut writer).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        let socket = UdpSocket::bind(&stack, at).unwrap();
        tokio::spawn(async move {
            let mut room = vec![0; 65_536];
            while let Ok((len, peer)) = socket.recv_from(&mut room).await {
                socket.send_to(&room[..len], peer).await.unwrap();
            }
        });
    }
    space.go().unwrap();
    for &(_, inside) in gateways {
        ask(&stack, SocketAddr::new(inside, 80)).await;
    }
    loop {
        if let Some(portolan_space::Event::Ended(ended)) = space.poll().unwrap() {
            return ended;
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// Sends 1 MiB to a server that gives it back.
async fn ask(stack: &Stack, server: SocketAddr) {
    let data: Vec<u8> = (0..1 << 20).map(|at: u32| at.to_be_bytes()[2]).collect();
    let stream = loop {
        match TcpStream::connect(stack, server).await {
            Ok(stream) => break stream,
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused),
        }
        sleep(Duration::from_millis(5)).await;
    };
    let (mut reader, mut writer) = split(stream);
    let mut back = Vec::new();
    let send = async {
        writer.write_all(&data).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let (read, ()) = tokio::join!(reader.read_to_end(&mut back), send);
    read.unwrap();
    assert!(
        back == data,
        "{} bytes of {} from {server}",
        back.len(),
        data.len()
    );
}
