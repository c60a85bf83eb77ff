use std::collections::HashMap;
use std::net::IpAddr;

use portolan_core::Port;
use portolan_core::wire::{Dissection, IpProtocol, SeqNum, TcpFlags, Transport};

/// The conversations of a capture, summed up by four-tuple.
///
/// Both directions are one flow. At most as many are kept as the table was made for; what belongs to
/// others is counted in [`FlowTable::beyond`].
#[derive(Debug)]
pub struct FlowTable {
    places: HashMap<FlowKey, usize>,
    flows: Vec<Flow>,
    maximum: usize,
    beyond: Tally,
}

/// One end of a flow. A protocol without ports, or a fragment that does not show them, has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Side {
    /// The address.
    pub address: IpAddr,
    /// The port.
    pub port: Option<Port>,
}

/// What the packets of one flow have in common, whichever way they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The protocol.
    pub protocol: IpProtocol,
    /// The lesser of the two ends.
    pub low: Side,
    /// The greater of the two ends.
    pub high: Side,
}

/// Packets, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many packets.
    pub packets: u64,
    /// Their bytes as they were on the link, headers included.
    pub bytes: u64,
}

/// One conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The protocol.
    pub protocol: IpProtocol,
    /// Who began: the sender of the SYN if there is one, else of the first packet.
    pub client: Side,
    /// The other end.
    pub server: Side,
    /// What the client sent.
    pub sent: Tally,
    /// What the server sent.
    pub received: Tally,
    /// When the first packet was captured, in nanoseconds since 1970.
    pub first: Option<i128>,
    /// When the last packet was captured.
    pub last: Option<i128>,
    /// All TCP flags the client showed.
    pub client_flags: TcpFlags,
    /// All TCP flags the server showed.
    pub server_flags: TcpFlags,
    /// The first sequence number seen of the client.
    client_start: Option<SeqNum>,
    /// The first sequence number seen of the server.
    server_start: Option<SeqNum>,
    /// Whether an ICMP message said that the server could not be reached.
    unreachable: bool,
}

/// What became of a flow, judged by what the capture shows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FlowState {
    /// Not TCP: packets one way only.
    OneWay,
    /// Not TCP: packets both ways.
    TwoWay,
    /// A SYN that nobody answered.
    Unanswered,
    /// A SYN that was answered with RST, or any packet that was answered with ICMP unreachable.
    Refused,
    /// SYN and SYN,ACK, but no acknowledgment of it.
    HalfOpen,
    /// Opened in this capture and not closed.
    Established,
    /// One end has sent its FIN.
    HalfClosed,
    /// Both ends have sent their FIN.
    Closed,
    /// Broken off with RST.
    Reset,
    /// TCP whose beginning is not in the capture, and whose end is not either.
    Midstream,
}

impl FlowTable {
    /// An empty table that keeps `maximum` flows; one takes some 300 bytes.
    #[must_use]
    pub fn new(maximum: usize) -> Self {
        Self {
            places: HashMap::new(),
            flows: Vec::new(),
            maximum,
            beyond: Tally::default(),
        }
    }

    /// Adds a packet of `bytes` bytes, captured at `time`; gives its flow, and whether it went from client to
    /// server. `None` if it is not IP, or its flow is beyond those that are kept.
    pub fn add(&mut self, packet: &Dissection<'_>, time: Option<i128>, bytes: u64) -> Option<(&Flow, bool)> {
        let ip = packet.ip?;
        let (source, destination) = ends(&ip);
        self.note_unreachable(packet);
        let key = FlowKey::new(ip.protocol(), source, destination);
        let tcp = match packet.transport {
            Some(Transport::Tcp(segment)) => Some((segment.flags(), segment.seq())),
            _ => None,
        };
        let place = match self.places.get(&key) {
            Some(place) => *place,
            None if self.flows.len() == self.maximum => {
                self.beyond.add(bytes);
                return None;
            }
            None => {
                let place = self.flows.len();
                // SYN,ACK comes from the server, even when the SYN is not in the capture.
                let is_answer = tcp.is_some_and(|(flags, _)| flags.contains(TcpFlags::SYN | TcpFlags::ACK));
                let (client, server) = if is_answer {
                    (destination, source)
                } else {
                    (source, destination)
                };
                self.places.insert(key, place);
                self.flows.push(Flow::new(ip.protocol(), client, server, time));
                place
            }
        };
        let flow = &mut self.flows[place];
        let forward = flow.add(source, time, bytes);
        if let Some((flags, seq)) = tcp {
            flow.add_tcp(forward, flags, seq);
        }
        Some((flow, forward))
    }

    /// The flows, in the order in which they began.
    #[must_use]
    pub fn flows(&self) -> &[Flow] {
        &self.flows
    }

    /// The packets of flows that were not kept.
    #[must_use]
    pub fn beyond(&self) -> Tally {
        self.beyond
    }

    /// An ICMP "unreachable" is a packet of its own flow, and an answer to another.
    fn note_unreachable(&mut self, packet: &Dissection<'_>) {
        let quoted = match packet.transport {
            Some(Transport::Icmpv4(message)) if message.kind() == 3 && message.code() != 4 => {
                message.quoted()
            }
            Some(Transport::Icmpv6(message)) if message.kind() == 1 => message.quoted(),
            _ => None,
        };
        if let Some(Ok(quoted)) = quoted {
            let (source, destination) = ends(&quoted);
            let key = FlowKey::new(quoted.protocol(), source, destination);
            if let Some(place) = self.places.get(&key) {
                self.flows[*place].unreachable = true;
            }
        }
    }
}

fn ends(ip: &portolan_core::wire::IpPacket<'_>) -> (Side, Side) {
    let (source, destination) = ip.ports().unzip();
    (
        Side {
            address: ip.source(),
            port: source,
        },
        Side {
            address: ip.destination(),
            port: destination,
        },
    )
}

impl FlowKey {
    fn new(protocol: IpProtocol, a: Side, b: Side) -> Self {
        Self {
            protocol,
            low: a.min(b),
            high: a.max(b),
        }
    }
}

impl Tally {
    fn add(&mut self, bytes: u64) {
        self.packets += 1;
        self.bytes += bytes;
    }
}

impl Flow {
    fn new(protocol: IpProtocol, client: Side, server: Side, time: Option<i128>) -> Self {
        Self {
            protocol,
            client,
            server,
            sent: Tally::default(),
            received: Tally::default(),
            first: time,
            last: time,
            client_flags: TcpFlags::empty(),
            server_flags: TcpFlags::empty(),
            client_start: None,
            server_start: None,
            unreachable: false,
        }
    }

    fn add(&mut self, source: Side, time: Option<i128>, bytes: u64) -> bool {
        let forward = source == self.client;
        if forward {
            self.sent.add(bytes);
        } else {
            self.received.add(bytes);
        }
        // Captures of several interfaces are not always in order.
        self.first = self.first.min(time).or(time);
        self.last = self.last.max(time);
        forward
    }

    fn add_tcp(&mut self, forward: bool, flags: TcpFlags, seq: SeqNum) {
        let (seen, start) = if forward {
            (&mut self.client_flags, &mut self.client_start)
        } else {
            (&mut self.server_flags, &mut self.server_start)
        };
        *seen |= flags;
        // A new SYN is a new connection of the same four-tuple. An RST in answer to a SYN may have any
        // number, mostly 0, which says nothing of the stream.
        if flags.contains(TcpFlags::SYN) || start.is_none() && !flags.contains(TcpFlags::RST) {
            *start = Some(seq);
        }
    }

    /// How far `seq`, sent by the client if `forward`, lies behind the first number seen of its sender.
    #[must_use]
    pub fn relative_seq(&self, forward: bool, seq: SeqNum) -> Option<u32> {
        let start = if forward {
            self.client_start
        } else {
            self.server_start
        };
        start.map(|start| seq.get().wrapping_sub(start.get()))
    }

    /// How far `ack`, sent by the client if `forward`, lies behind the first number seen of the other end.
    #[must_use]
    pub fn relative_ack(&self, forward: bool, ack: SeqNum) -> Option<u32> {
        self.relative_seq(!forward, ack)
    }

    /// What became of it.
    #[must_use]
    pub fn state(&self) -> FlowState {
        let (client, server) = (self.client_flags, self.server_flags);
        if self.unreachable && self.received.packets == 0 {
            return FlowState::Refused;
        }
        if self.protocol != IpProtocol::TCP {
            return if self.received.packets == 0 {
                FlowState::OneWay
            } else {
                FlowState::TwoWay
            };
        }
        let opened = client.contains(TcpFlags::SYN);
        let answered = server.contains(TcpFlags::SYN | TcpFlags::ACK);
        let fins = u8::from(client.contains(TcpFlags::FIN)) + u8::from(server.contains(TcpFlags::FIN));
        if opened && !answered && server.contains(TcpFlags::RST) {
            return FlowState::Refused;
        }
        match fins {
            // An RST after both FINs closes nothing any more.
            2 => FlowState::Closed,
            _ if (client | server).contains(TcpFlags::RST) => FlowState::Reset,
            1 => FlowState::HalfClosed,
            _ if answered && client.contains(TcpFlags::ACK) => FlowState::Established,
            _ if answered => FlowState::HalfOpen,
            _ if opened && self.received.packets == 0 => FlowState::Unanswered,
            _ => FlowState::Midstream,
        }
    }
}

impl FlowState {
    /// In a word, as JSON carries it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OneWay => "one-way",
            Self::TwoWay => "two-way",
            Self::Unanswered => "unanswered",
            Self::Refused => "refused",
            Self::HalfOpen => "half-open",
            Self::Established => "established",
            Self::HalfClosed => "half-closed",
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Midstream => "midstream",
        }
    }
}

#[cfg(test)]
mod tests {
    use portolan_core::wire::{ChecksumFill, Icmpv4Message, Ipv4Repr, LinkType, TcpRepr};

    use super::*;

    const CLIENT: [u8; 4] = [10, 0, 0, 1];
    const SERVER: [u8; 4] = [10, 0, 0, 2];

    fn ip(source: [u8; 4], destination: [u8; 4], protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
        let repr = Ipv4Repr {
            dscp: 0,
            ecn: 0,
            identification: 0,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            time_to_live: 64,
            protocol,
            source: source.into(),
            destination: destination.into(),
            options: &[],
            payload_len: payload.len(),
        };
        let mut packet = vec![0; 20];
        repr.emit(&mut packet).unwrap();
        packet.extend(payload);
        packet
    }

    fn segment(from_client: bool, port: u16, flags: TcpFlags, seq: u32, ack: u32) -> Vec<u8> {
        let (source, destination, ports) = if from_client {
            (CLIENT, SERVER, (port, 80))
        } else {
            (SERVER, CLIENT, (80, port))
        };
        let repr = TcpRepr {
            source_port: Port::new(ports.0),
            destination_port: Port::new(ports.1),
            seq: SeqNum::new(seq),
            ack: SeqNum::new(ack),
            flags,
            window: 0,
            urgent_pointer: 0,
            options: &[],
        };
        let mut bytes = vec![0; 20];
        repr.emit(&mut bytes, ChecksumFill::Zero).unwrap();
        ip(source, destination, IpProtocol::TCP, &bytes)
    }

    fn state(packets: &[(bool, TcpFlags)]) -> FlowState {
        let mut table = FlowTable::new(10);
        for (from_client, flags) in packets {
            let bytes = segment(*from_client, 4000, *flags, 0, 0);
            table.add(&Dissection::of(LinkType::Ip, &bytes), None, 40);
        }
        assert_eq!(table.flows().len(), 1);
        table.flows()[0].state()
    }

    #[test]
    fn the_flags_tell_what_became_of_it() {
        let (syn, ack, fin, rst) = (TcpFlags::SYN, TcpFlags::ACK, TcpFlags::FIN, TcpFlags::RST);
        let open = [(true, syn), (false, syn | ack), (true, ack)];
        let with = |more: &[(bool, TcpFlags)]| state(&[&open[..], more].concat());
        assert_eq!(state(&open[..1]), FlowState::Unanswered);
        assert_eq!(state(&open[..2]), FlowState::HalfOpen);
        assert_eq!(state(&open), FlowState::Established);
        assert_eq!(state(&[(true, syn), (false, rst | ack)]), FlowState::Refused);
        assert_eq!(with(&[(true, fin | ack)]), FlowState::HalfClosed);
        assert_eq!(with(&[(true, fin | ack), (false, fin | ack)]), FlowState::Closed);
        assert_eq!(with(&[(true, rst)]), FlowState::Reset);
        assert_eq!(
            with(&[(true, fin | ack), (false, fin | ack), (true, rst)]),
            FlowState::Closed
        );
        assert_eq!(state(&[(true, ack), (false, ack)]), FlowState::Midstream);
        assert_eq!(state(&[(false, syn | ack), (true, ack)]), FlowState::Established);
    }

    #[test]
    fn both_directions_are_one_flow_and_numbers_are_relative_to_its_start() {
        let mut table = FlowTable::new(10);
        let mut add = |from_client, flags, seq, ack, time| {
            let bytes = segment(from_client, 4000, flags, seq, ack);
            let packet = Dissection::of(LinkType::Ip, &bytes);
            let (flow, forward) = table.add(&packet, Some(time), 40).unwrap();
            assert_eq!(forward, from_client);
            (
                flow.relative_seq(forward, SeqNum::new(seq)),
                flow.relative_ack(forward, SeqNum::new(ack)),
            )
        };
        assert_eq!(add(true, TcpFlags::SYN, u32::MAX, 0, 5), (Some(0), None));
        assert_eq!(
            add(false, TcpFlags::SYN | TcpFlags::ACK, 700, 0, 6),
            (Some(0), Some(1))
        );
        assert_eq!(add(true, TcpFlags::ACK, 9, 701, 4), (Some(10), Some(1)));
        let [flow] = table.flows() else { panic!("one flow") };
        assert_eq!(
            (flow.sent, flow.received),
            (
                Tally {
                    packets: 2,
                    bytes: 80
                },
                Tally {
                    packets: 1,
                    bytes: 40
                }
            )
        );
        assert_eq!((flow.first, flow.last), (Some(4), Some(6)));
    }

    #[test]
    fn what_is_beyond_the_ceiling_is_counted() {
        let mut table = FlowTable::new(2);
        for port in [1, 2, 3, 1, 4] {
            let bytes = segment(true, port, TcpFlags::ACK, 0, 0);
            let kept = table
                .add(&Dissection::of(LinkType::Ip, &bytes), None, 40)
                .is_some();
            assert_eq!(kept, port <= 2);
        }
        assert_eq!(table.flows().len(), 2);
        assert_eq!(
            table.beyond(),
            Tally {
                packets: 2,
                bytes: 80
            }
        );
    }

    #[test]
    fn an_unreachable_answers_the_flow_it_quotes() {
        let mut table = FlowTable::new(10);
        let datagram = ip(CLIENT, SERVER, IpProtocol::UDP, &[0, 9, 0, 53, 0, 8, 0, 0]);
        table.add(&Dissection::of(LinkType::Ip, &datagram), None, 28);
        let mut message = vec![0; 8];
        message.extend(&datagram);
        Icmpv4Message::DestinationUnreachable {
            code: 3,
            next_hop_mtu: 0,
        }
        .emit(&mut message)
        .unwrap();
        let message = ip(SERVER, CLIENT, IpProtocol::ICMP, &message);
        assert_eq!(table.flows()[0].state(), FlowState::OneWay);
        table.add(&Dissection::of(LinkType::Ip, &message), None, 56);
        assert_eq!(table.flows()[0].state(), FlowState::Refused);
        assert_eq!(table.flows().len(), 2);
    }
}
