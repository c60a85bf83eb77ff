//! What ten thousand rules cost a stack: bulk data, datagrams and connections with and without them, in turns.
//!
//! `cargo bench -p portolan-stack --bench filter`
//!
//! What is established passes by the first rule; the others are an allow-list of hosts and ports, of which the last one is
//! used, behind the drop policy. Two stacks ask them, each as packets come and as they go. Beside no filter stands one of
//! ten rules, which tracks the same connections. Each figure is the median of all rounds; ratios are of medians.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant as Clock;

use portolan_core::filter::{Action, Chain, ConnectionStates, Filter, Rule};
use portolan_core::table::{Device, Host};
use portolan_core::{Port, PortRange};
use portolan_stack::{Event, Instant, Packet, Stack, StackConfig};

const ROUNDS: usize = 15;
const RULES: u32 = 10_000;
const SERVER: [u8; 4] = [10, 0, 0, 2];

fn main() {
    let made = Clock::now();
    let many = Rules::both_ways(RULES);
    println!("two chains of {RULES} rules each made in {:?}", made.elapsed());
    let filters = [None, Some(Rules::both_ways(10)), Some(many)];
    for (name, unit, run) in [
        (
            "TCP bulk, 1500 bytes",
            "MB/s",
            bulk as fn(&Option<Arc<Filter>>) -> f64,
        ),
        ("UDP, 64 bytes, one flow", "datagrams/s", datagrams),
        ("UDP, 64 bytes, new flows", "datagrams/s", strangers),
        ("TCP connect and close", "connections/s", connections),
    ] {
        let mut values = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            for (filter, values) in filters.iter().zip(&mut values) {
                values.push(run(filter));
            }
        }
        let [without, few, many] = values.map(median);
        println!(
            "{name:25} {without:>9.0} {unit} without; 10 rules {:.3}, {RULES} rules {:.3} of it: {:.3} of 10 rules",
            few / without,
            many / without,
            many / few
        );
    }
}

struct Rules;

impl Rules {
    /// The same rules for what comes and what goes.
    fn both_ways(count: u32) -> Arc<Filter> {
        let established = || Rule::new(Action::Accept).states(ConnectionStates::ESTABLISHED);
        let list = || {
            (1..count).map(move |number| {
                let last = number + 1 == count;
                let host = if last {
                    IpAddr::from(SERVER)
                } else {
                    IpAddr::V4((0xC633_6400 + number / 10).into())
                };
                let ports = if last {
                    PortRange::ALL
                } else {
                    PortRange::single(Port::new(1000 + (number % 10) as u16))
                };
                Rule::new(Action::Accept).to(host).to_ports(ports.into())
            })
        };
        let chain = || Chain::new(std::iter::once(established()).chain(list()), Action::Drop);
        Arc::new(Filter {
            input: chain(),
            output: chain(),
        })
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn stack(last: u8, filter: &Option<Arc<Filter>>) -> Stack {
    let mut host = Host::new();
    host.add_address(Device::new(1).unwrap(), IpAddr::from([10, 0, 0, last]), Some(24));
    let mut stack = Stack::new(StackConfig::default(), host, [last; 16]);
    stack.set_filter(filter.clone());
    stack
}

fn end(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], port))
}

/// Carries all packets between both until neither has more.
fn carry(now: Instant, a: &mut Stack, b: &mut Stack, buffer: &mut [u8]) {
    loop {
        let mut is_silent = true;
        for forward in [true, false] {
            let (from, to) = if forward {
                (&mut *a, &mut *b)
            } else {
                (&mut *b, &mut *a)
            };
            while let Some(transmit) = from.poll_transmit(now, buffer) {
                is_silent = false;
                let packet = Packet {
                    bytes: &buffer[..transmit.len],
                    offload: transmit.offload,
                };
                to.handle_packet(now, packet);
            }
        }
        if is_silent {
            return;
        }
    }
}

fn bulk(filter: &Option<Arc<Filter>>) -> f64 {
    let (mut a, mut b) = (stack(1, filter), stack(2, filter));
    let (now, mut buffer) = (Instant::from_millis(1), vec![0; 1500]);
    let listener = b.listen(end(2, 80), 1).unwrap();
    let id = a.connect(now, end(1, 0), end(2, 80)).unwrap();
    carry(now, &mut a, &mut b, &mut buffer);
    let accepted = b.accept(listener).unwrap();
    let (data, mut out, mut moved) = (vec![7; 1 << 18], vec![0; 1 << 18], 0);
    let start = Clock::now();
    while moved < 64 << 20 {
        let _ = a.write(now, id, &data);
        carry(now, &mut a, &mut b, &mut buffer);
        while let Ok(len @ 1..) = b.read(now, accepted, &mut out) {
            moved += len;
        }
        while a.poll_event().or_else(|| b.poll_event()).is_some() {}
    }
    moved as f64 / 1e6 / start.elapsed().as_secs_f64()
}

fn datagrams(filter: &Option<Arc<Filter>>) -> f64 {
    exchange(filter, 1)
}

fn strangers(filter: &Option<Arc<Filter>>) -> f64 {
    exchange(filter, 50_000)
}

/// Datagrams to as many ports of the server, one after the other.
fn exchange(filter: &Option<Arc<Filter>>, ports: u16) -> f64 {
    let (mut a, mut b) = (stack(1, filter), stack(2, filter));
    let (now, mut buffer, mut out) = (Instant::from_millis(1), vec![0; 1500], [0; 64]);
    let from = a.bind_udp(end(1, 0)).unwrap();
    let every = portolan_core::table::Scope {
        addresses: portolan_core::table::Addresses::Own,
        ports: PortRange::ALL,
    };
    let to = b.bind_udp_for(every).unwrap();
    let count = 200_000u32;
    let start = Clock::now();
    for number in 0..count {
        let port = 1000 + (number % u32::from(ports)) as u16;
        a.send_datagram(from, [10, 0, 0, 1].into(), end(2, port), &[1; 64])
            .unwrap();
        if number % 32 == 31 {
            carry(now, &mut a, &mut b, &mut buffer);
            while let Ok(Some(_)) = b.receive_datagram(to, &mut out) {}
            while b.poll_event().is_some() {}
        }
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}

fn connections(filter: &Option<Arc<Filter>>) -> f64 {
    let (mut a, mut b) = (stack(1, filter), stack(2, filter));
    let mut buffer = vec![0; 1500];
    let listener = b.listen(end(2, 80), 100).unwrap();
    let count = 20_000u64;
    let start = Clock::now();
    for number in 0..count {
        // TIME-WAIT ends meanwhile.
        let now = Instant::from_millis(1 + number * 10);
        let id = a.connect(now, end(1, 0), end(2, 80)).unwrap();
        carry(now, &mut a, &mut b, &mut buffer);
        let accepted = b.accept(listener).unwrap();
        a.close(now, id).unwrap();
        carry(now, &mut a, &mut b, &mut buffer);
        b.close(now, accepted).unwrap();
        carry(now, &mut a, &mut b, &mut buffer);
        while let Some(event) = a.poll_event().or_else(|| b.poll_event()) {
            assert!(!matches!(event, Event::SynGone(..)));
        }
        a.handle_timeout(now);
        b.handle_timeout(now);
    }
    count as f64 / start.elapsed().as_secs_f64()
}
