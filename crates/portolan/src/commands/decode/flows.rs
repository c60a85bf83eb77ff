use std::io::{self, Write};
use std::net::SocketAddr;

use portolan_capture::{Flow, FlowTable, Side};
use portolan_core::Port;
use portolan_core::registry::Services;
use portolan_core::wire::{IpProtocol, TcpFlags};
use serde::Serialize;

use super::text::name;
use super::{Losses, packets, said, seconds, utc};

#[derive(Serialize)]
struct FlowsJson<'a> {
    version: u8,
    flows: Vec<FlowJson<'a>>,
    not_kept: TallyJson,
    damaged_blocks: u64,
    broken_off: Option<String>,
}

#[derive(Serialize)]
struct FlowJson<'a> {
    protocol: String,
    client: SideJson,
    server: SideJson,
    service: Option<&'a str>,
    sent: TallyJson,
    received: TallyJson,
    first: Option<String>,
    last: Option<String>,
    duration_seconds: Option<f64>,
    client_flags: Option<Vec<&'static str>>,
    server_flags: Option<Vec<&'static str>>,
    state: &'static str,
}

#[derive(Serialize)]
struct SideJson {
    address: String,
    port: Option<u16>,
}

#[derive(Serialize)]
struct TallyJson {
    packets: u64,
    bytes: u64,
}

/// Writes the flows as one JSON document.
pub(super) fn json(
    table: &FlowTable,
    losses: &Losses,
    services: &Services,
    output: &mut impl Write,
) -> io::Result<()> {
    let document = FlowsJson {
        version: 1,
        flows: table.flows().iter().map(|flow| object(flow, services)).collect(),
        not_kept: TallyJson {
            packets: table.beyond().packets,
            bytes: table.beyond().bytes,
        },
        damaged_blocks: losses.damaged_blocks,
        broken_off: losses.broken_off.as_ref().map(said),
    };
    serde_json::to_writer(&mut *output, &document)?;
    output.write_all(b"\n")
}

/// Writes a JSON object for each flow; what was not kept is said on standard error.
pub(super) fn ndjson(table: &FlowTable, services: &Services, output: &mut impl Write) -> io::Result<()> {
    for flow in table.flows() {
        serde_json::to_writer(&mut *output, &object(flow, services))?;
        output.write_all(b"\n")?;
    }
    if let Some(text) = not_kept(table) {
        crate::message::say(&text);
    }
    Ok(())
}

/// Writes the flows as a table for people, in the order in which they began.
pub(super) fn table(
    table: &FlowTable,
    start: Option<i128>,
    in_utc: bool,
    services: &Services,
    output: &mut impl Write,
) -> io::Result<()> {
    let header = [
        "PROTO", "CLIENT", "SERVER", "SERVICE", "SENT", "RECEIVED", "FIRST", "LASTED", "STATE", "FLAGS",
    ];
    let mut rows = vec![header.map(str::to_owned)];
    for flow in table.flows() {
        let first = match (flow.first, start) {
            (Some(first), _) if in_utc => utc(first).unwrap_or_default(),
            (Some(first), Some(start)) => seconds(first - start),
            _ => String::new(),
        };
        let lasted = flow
            .first
            .zip(flow.last)
            .map(|(first, last)| seconds(last - first));
        let flags = if flow.protocol == IpProtocol::TCP {
            format!("{} / {}", flow.client_flags, flow.server_flags)
        } else {
            String::new()
        };
        rows.push([
            flow.protocol.to_string(),
            end(flow.client),
            end(flow.server),
            service(flow, services).unwrap_or("").to_owned(),
            format!("{} ({} B)", flow.sent.packets, flow.sent.bytes),
            format!("{} ({} B)", flow.received.packets, flow.received.bytes),
            first,
            lasted.unwrap_or_default(),
            flow.state().name().to_owned(),
            flags,
        ]);
    }
    let widths: [usize; 10] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0));
    for row in &rows {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        writeln!(output, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    match not_kept(table) {
        Some(text) => writeln!(output, "{text}"),
        None => Ok(()),
    }
}

fn not_kept(table: &FlowTable) -> Option<String> {
    let beyond = table.beyond();
    (beyond.packets > 0).then(|| {
        format!(
            "not kept: {} ({} bytes) of further flows; --max-flows raises the ceiling",
            packets(beyond.packets),
            beyond.bytes
        )
    })
}

fn object<'a>(flow: &Flow, services: &'a Services) -> FlowJson<'a> {
    let is_tcp = flow.protocol == IpProtocol::TCP;
    let flags = |flags: TcpFlags| is_tcp.then(|| flags.iter_names().map(|(name, _)| name).collect());
    FlowJson {
        protocol: flow.protocol.to_string(),
        client: side(flow.client),
        server: side(flow.server),
        service: service(flow, services),
        sent: TallyJson {
            packets: flow.sent.packets,
            bytes: flow.sent.bytes,
        },
        received: TallyJson {
            packets: flow.received.packets,
            bytes: flow.received.bytes,
        },
        first: flow.first.and_then(utc),
        last: flow.last.and_then(utc),
        duration_seconds: flow
            .first
            .zip(flow.last)
            .map(|(first, last)| (last - first) as f64 / 1e9),
        client_flags: flags(flow.client_flags),
        server_flags: flags(flow.server_flags),
        state: flow.state().name(),
    }
}

fn service<'a>(flow: &Flow, services: &'a Services) -> Option<&'a str> {
    name(services, flow.server.port, flow.protocol.transport())
}

fn side(side: Side) -> SideJson {
    SideJson {
        address: side.address.to_string(),
        port: side.port.map(Port::get),
    }
}

fn end(side: Side) -> String {
    match side.port {
        Some(port) => SocketAddr::new(side.address, port.get()).to_string(),
        None => side.address.to_string(),
    }
}
