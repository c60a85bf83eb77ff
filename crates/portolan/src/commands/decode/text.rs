use std::fmt;
use std::net::{IpAddr, SocketAddr};

use portolan_capture::anatomy::describe_option;
use portolan_core::registry::Services;
use portolan_core::wire::{
    ChecksumState, Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, IpPacket, ParseError, TcpFlags,
    TcpSegment, Transport,
};
use portolan_core::{Port, Protocol};

use super::{Args, Packet, seconds, utc};

/// A packet in one line.
pub(super) struct Line<'a> {
    pub(super) packet: &'a Packet<'a>,
    pub(super) start: Option<i128>,
    pub(super) args: &'a Args,
    pub(super) services: &'a Services,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let packet = self.packet;
        write!(f, "{:>5}  ", packet.number)?;
        match (packet.time, self.start) {
            (Some(time), _) if self.args.utc => {
                write!(f, "{}  ", utc(time).unwrap_or_else(|| "?".to_owned()))?;
            }
            (Some(time), Some(start)) => write!(f, "{:>12}  ", seconds(time - start))?,
            _ => {}
        }
        let Some(dissection) = &packet.dissection else {
            let number = packet.link_number.unwrap_or_default();
            return write!(f, "link type {number} is not known, {} bytes", packet.bytes.len());
        };
        if let Some(ethertype) = dissection.not_ip {
            write!(f, "{ethertype}, {} bytes", packet.original_len)?;
        }
        if let Some(ip) = &dissection.ip {
            self.addresses(ip, f)?;
            match &dissection.transport {
                Some(transport) => self.transport(transport, ip, f)?,
                None => write!(f, "  {}", ip.protocol())?,
            }
        }
        match dissection.fault {
            Some(fault) => write!(f, "{}! {fault}", if dissection.ip.is_some() { "  " } else { "" }),
            None => Ok(()),
        }
    }
}

impl Line<'_> {
    fn addresses(&self, ip: &IpPacket<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (source, destination) = ip.ports().unzip();
        // The client's port is one of many; by chance it may have a name, which says nothing.
        let forward = self.packet.numbers.is_none_or(|numbers| numbers.forward);
        end(ip.source(), source, f)?;
        if !forward {
            self.service(ip, source, f)?;
        }
        f.write_str(" > ")?;
        end(ip.destination(), destination, f)?;
        if forward {
            self.service(ip, destination, f)?;
        }
        Ok(())
    }

    fn service(&self, ip: &IpPacket<'_>, port: Option<Port>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = name(self.services, port, ip.protocol().transport());
        name.map_or(Ok(()), |name| write!(f, " ({name})"))
    }

    fn transport(
        &self,
        transport: &Transport<'_>,
        ip: &IpPacket<'_>,
        f: &mut fmt::Formatter<'_>,
    ) -> fmt::Result {
        match transport {
            Transport::Tcp(segment) => self.tcp(segment, ip, f)?,
            Transport::Udp(datagram) => {
                write!(f, "  udp len {}", payload_len(transport, ip))?;
                if datagram.length() == 0 {
                    f.write_str(" (length field 0)")?;
                }
            }
            Transport::UdpLite(datagram) => {
                write!(
                    f,
                    "  udplite len {} coverage {}",
                    datagram.payload().len(),
                    datagram.coverage()
                )?;
            }
            Transport::Icmpv4(message) => icmpv4(message, f)?,
            Transport::Icmpv6(message) => icmpv6(message, f)?,
            Transport::Fragment { protocol } => {
                let end = usize::from(ip.fragment_offset()) + ip.payload().len();
                write!(f, "  {protocol} fragment, bytes {}-{end}", ip.fragment_offset())?;
            }
            Transport::Other { protocol } => write!(f, "  {protocol} len {}", payload_len(transport, ip))?,
            _ => {}
        }
        match transport.checksum_state(ip) {
            Some(ChecksumState::Wrong) => f.write_str("  ! wrong checksum"),
            _ => Ok(()),
        }
    }

    fn tcp(&self, segment: &TcpSegment<'_>, ip: &IpPacket<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = self
            .packet
            .numbers
            .filter(|_| !self.args.absolute)
            .unwrap_or_default();
        let flags = segment.flags();
        write!(
            f,
            "  tcp {flags} seq {}",
            numbers.seq.unwrap_or_else(|| segment.seq().get())
        )?;
        if flags.contains(TcpFlags::ACK) {
            write!(f, " ack {}", numbers.ack.unwrap_or_else(|| segment.ack().get()))?;
        }
        write!(
            f,
            " win {} len {}",
            segment.window(),
            payload_len(&Transport::Tcp(*segment), ip)
        )?;
        if flags.contains(TcpFlags::URG) {
            write!(f, " urg {}", segment.urgent_pointer())?;
        }
        if segment.header_len() > TcpSegment::MIN_HEADER_LEN {
            f.write_str(" <")?;
            for (place, option) in segment.options().enumerate() {
                let text =
                    option.map_or_else(|fault| format!("! {fault}"), |option| describe_option(&option));
                write!(f, "{}{text}", if place > 0 { ", " } else { "" })?;
            }
            f.write_str(">")?;
        }
        Ok(())
    }
}

/// The name by which a port of a protocol is known.
pub(super) fn name(services: &Services, port: Option<Port>, protocol: Option<Protocol>) -> Option<&str> {
    services.name(port?, protocol?)
}

/// The bytes the transport protocol carries, those included that were not captured.
pub(super) fn payload_len(transport: &Transport<'_>, ip: &IpPacket<'_>) -> usize {
    match transport {
        Transport::Udp(datagram) if datagram.length() != 0 => {
            usize::from(datagram.length()).saturating_sub(transport.header_len())
        }
        other => ip.payload().len() + ip.missing() - other.header_len(),
    }
}

fn end(address: IpAddr, port: Option<Port>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match port {
        Some(port) => write!(f, "{}", SocketAddr::new(address, port.get())),
        None => write!(f, "{address}"),
    }
}

fn icmpv4(packet: &Icmpv4Packet<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let message = packet.message();
    write!(f, "  icmp {}", message.name())?;
    if let Some(code) = message.code_name() {
        write!(f, ": {code}")?;
    }
    match message {
        Icmpv4Message::EchoRequest { identifier, sequence }
        | Icmpv4Message::EchoReply { identifier, sequence } => {
            write!(f, " id {identifier} seq {sequence}")?;
        }
        Icmpv4Message::DestinationUnreachable {
            code: 4,
            next_hop_mtu,
        } => write!(f, " mtu {next_hop_mtu}")?,
        Icmpv4Message::Redirect { gateway, .. } => write!(f, " to {gateway}")?,
        Icmpv4Message::ParameterProblem { pointer, .. } => write!(f, " at byte {pointer}")?,
        _ => {}
    }
    quoted(packet.quoted(), f)
}

fn icmpv6(packet: &Icmpv6Packet<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let message = packet.message();
    write!(f, "  icmpv6 {}", message.name())?;
    if let Some(code) = message.code_name() {
        write!(f, ": {code}")?;
    }
    match message {
        Icmpv6Message::EchoRequest { identifier, sequence }
        | Icmpv6Message::EchoReply { identifier, sequence } => {
            write!(f, " id {identifier} seq {sequence}")?;
        }
        Icmpv6Message::PacketTooBig { mtu } => write!(f, " mtu {mtu}")?,
        Icmpv6Message::ParameterProblem { pointer, .. } => write!(f, " at byte {pointer}")?,
        _ => {}
    }
    if let Some((target, destination)) = packet.redirect() {
        write!(f, " for {destination} to {target}")?;
    }
    quoted(packet.quoted(), f)
}

fn quoted(packet: Option<Result<IpPacket<'_>, ParseError>>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match packet {
        None => Ok(()),
        Some(Err(fault)) => write!(f, ", about a packet that cannot be read: {fault}"),
        Some(Ok(ip)) => {
            let (source, destination) = ip.ports().unzip();
            write!(f, ", about {} ", ip.protocol())?;
            end(ip.source(), source, f)?;
            f.write_str(" > ")?;
            end(ip.destination(), destination, f)
        }
    }
}
