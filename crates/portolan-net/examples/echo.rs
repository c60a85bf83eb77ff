//! An echo server on a TUN device: what comes to port 7 by TCP or UDP goes back (RFC 862).
//!
//!     cargo build -p portolan-net --example echo && sudo target/debug/examples/echo
//!     nc 10.77.0.2 7          # from elsewhere on this machine

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portolan_net::tun::{Tun, TunConfig, TunLink};
use portolan_net::{Stack, TcpListener, TcpStream, UdpSocket};
use tokio::io::AsyncWriteExt;

const HELP: &str = "echo [DEVICE]: serves port 7, TCP and UDP, on a TUN device; wants CAP_NET_ADMIN
The kernel has 10.77.0.1 and fd77::1 on the device, the stack 10.77.0.2 and fd77::2. DEVICE is the name that the device
gets, 1 to 15 bytes; without it the kernel chooses.";

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let name = arguments
        .next()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    if name == "--help" || name == "-h" {
        return println!("{HELP}");
    }
    if name.starts_with('-') || name.len() > 15 || name.contains(['/', ' ']) || arguments.next().is_some() {
        eprintln!("echo: want at most the name of a device; --help tells more");
        std::process::exit(2);
    }
    if let Err(error) = serve(name).await {
        eprintln!("echo: {error}");
        std::process::exit(1);
    }
}

async fn serve(name: String) -> Result<(), Box<dyn std::error::Error>> {
    let config = TunConfig {
        name,
        queues: 2,
        ..TunConfig::default()
    };
    let tun = Tun::open(&config)?;
    let here = |number: u16| -> [(IpAddr, u8); 2] {
        let v6 = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number);
        [
            (Ipv4Addr::new(10, 77, 0, number as u8).into(), 24),
            (v6.into(), 64),
        ]
    };
    for (address, prefix_len) in here(1) {
        tun.add_address(address, prefix_len)?;
    }
    tun.up(&config)?;
    let name = tun.name().to_owned();

    // A shard for each queue of the device, so that two threads can work.
    let offloads = tun.offloads();
    let links = tun
        .into_queues()
        .into_iter()
        .map(|queue| TunLink::new(queue, 1500, offloads));
    let links: Vec<TunLink> = links.collect::<Result<_, _>>()?;
    let builder = here(2)
        .into_iter()
        .fold(Stack::builder(), |builder, (address, prefix_len)| {
            builder.address(address, prefix_len)
        });
    let (stack, drivers) = builder.build_sharded(links)?;
    for driver in drivers {
        tokio::spawn(driver);
    }

    // One listener and one socket for both families, as on Linux.
    let any = "[::]:7".parse()?;
    let datagrams = UdpSocket::bind(&stack, any)?;
    tokio::spawn(async move {
        let mut bytes = vec![0; 65_535];
        while let Ok(datagram) = datagrams.recv_msg(&mut bytes).await {
            // What cannot be sent back is lost, as datagrams are.
            let _ = datagrams
                .send_msg(&bytes[..datagram.len], datagram.local, datagram.remote)
                .await;
        }
    });
    let listener = TcpListener::bind(&stack, any)?;
    eprintln!("echo on {name}: 10.77.0.2 and fd77::2, port 7");
    loop {
        let (stream, peer) = listener.accept().await?;
        tokio::spawn(async move {
            match echo(stream).await {
                Ok(bytes) => eprintln!("{peer}: {bytes} bytes"),
                Err(error) => eprintln!("{peer}: {error}"),
            }
        });
    }
}

async fn echo(mut stream: TcpStream) -> std::io::Result<u64> {
    let (mut read, mut write) = stream.split();
    let bytes = tokio::io::copy(&mut read, &mut write).await?;
    write.shutdown().await?;
    Ok(bytes)
}
