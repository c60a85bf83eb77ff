//! A transparent proxy: whatever is routed into a TUN device is dialled from here, as tun2socks does.
//!
//!     cargo build -p portolan-net --example proxy && sudo target/debug/examples/proxy 192.0.2.0/24=127.0.0.1
//!     curl http://192.0.2.1:8080/          # reaches 127.0.0.1:8080

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use portolan_net::tun::{Tun, TunConfig, TunLink};
use portolan_net::{HeldSyn, ListenOptions, Scope, Stack, TcpListener, UnreachableCode};
use tokio::net::TcpStream;

const HELP: &str = "proxy PREFIX[=ADDRESS]: dials what is routed into a TUN device; wants CAP_NET_ADMIN
192.0.2.0/24=127.0.0.1 dials one address for all of a prefix; PREFIX alone the destination itself, which takes routes
that do not lead back into the device. A SYN is answered when the dial has ended: a refusal there is one here.";

#[tokio::main]
async fn main() {
    let words = std::env::args_os().skip(1);
    let arguments: Vec<String> = words.map(|word| word.to_string_lossy().into()).collect();
    if matches!(&arguments[..], [flag] if flag == "--help" || flag == "-h") {
        return println!("{HELP}");
    }
    let Some((prefix, to)) = parse(&arguments) else {
        eprintln!(
            "proxy: want PREFIX or PREFIX=ADDRESS, not {:?}; --help tells more",
            arguments.join(" ")
        );
        std::process::exit(2);
    };
    if let Err(error) = serve(prefix, to).await {
        eprintln!("proxy: {error}");
        std::process::exit(1);
    }
}

fn parse(arguments: &[String]) -> Option<(IpNet, Option<IpAddr>)> {
    let [argument] = arguments else { return None };
    match argument.split_once('=') {
        Some((prefix, to)) => Some((prefix.parse().ok()?, Some(to.parse().ok()?))),
        None => Some((argument.parse().ok()?, None)),
    }
}

async fn serve(prefix: IpNet, to: Option<IpAddr>) -> Result<(), Box<dyn std::error::Error>> {
    let config = TunConfig::default();
    let tun = Tun::open(&config)?;
    tun.add_address("10.78.0.1".parse()?, 32)?;
    tun.up(&config)?;
    tun.add_route(prefix.network(), prefix.prefix_len())?;
    let (name, offloads) = (tun.name().to_owned(), tun.offloads());
    let queue = tun.into_queues().remove(0);
    let (stack, driver) = Stack::builder().build(TunLink::new(queue, 1500, offloads)?)?;
    tokio::spawn(driver);
    let holding = ListenOptions {
        hold_syns: true,
        ..ListenOptions::default()
    };
    let listener = TcpListener::bind_scope(&stack, Scope::TRANSPARENT, holding)?;
    eprintln!("{prefix} leads through {name}");
    loop {
        let syn = listener.next_syn().await?;
        let wanted = syn.local_addr();
        let to = SocketAddr::new(to.unwrap_or_else(|| wanted.ip()), wanted.port());
        tokio::spawn(async move {
            match relay(syn, to).await {
                Ok((up, down)) => eprintln!("{wanted}: {up} bytes up, {down} down"),
                Err(error) => eprintln!("{wanted}: {error}"),
            }
        });
    }
}

/// Dials, answers as the dial went, and passes bytes on until both sides are done or one breaks off.
async fn relay(syn: HeldSyn, to: SocketAddr) -> io::Result<(u64, u64)> {
    let mut outside = match TcpStream::connect(to).await {
        Ok(stream) => stream,
        Err(error) => {
            match error.kind() {
                ErrorKind::ConnectionRefused => syn.refuse(),
                ErrorKind::PermissionDenied => syn.reject(UnreachableCode::Prohibited),
                ErrorKind::NetworkUnreachable => syn.reject(UnreachableCode::NoRoute),
                _ => syn.reject(UnreachableCode::Host),
            }
            return Err(error);
        }
    };
    // The other side must not take what is not whole for the end: a reset here is a reset there.
    let accepted = syn.accept().await;
    let mut inside = accepted.inspect_err(|_| drop(outside.set_zero_linger()))?;
    let relayed = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
    if relayed.is_err() {
        inside.set_zero_linger();
        outside.set_zero_linger()?;
    }
    relayed
}
