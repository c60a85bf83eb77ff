//! What `parse` shows to people: a heading, then a field a line.

use std::io::{self, Write as _};

use portolan_core::Escaped;

use super::describe::{Description, HostParts, PortParts, Range};
use crate::output::Output;

/// Where the values begin.
const LABEL_WIDTH: usize = 13;
/// Of a set with more ranges than these the rest is counted.
const RANGES_MAX: usize = 20;

pub(super) fn print(description: &Description, output: &mut Output) -> io::Result<()> {
    let what = match description.kind {
        "port" => "a port",
        "range" => "a range of ports",
        "set" => "a set of ports",
        "service" => "a service",
        "address" => "an address without a port",
        "endpoint" => "a host and a port",
        "url" => "a URL",
        "mapping" => "a mapping: ports outside lead to ports inside",
        other => other,
    };
    writeln!(output, "{}: {what}", Escaped::new(&description.text).bounded(200))?;
    if description.canonical != description.text {
        field(
            output,
            "written as",
            Escaped::new(&description.canonical).bounded(200),
        )?;
    }
    if let Some(url) = &description.url {
        match url.default_port {
            Some(port) => field(
                output,
                "scheme",
                format_args!("{}, default port {port}", url.scheme),
            )?,
            None => field(output, "scheme", format_args!("{}, no default port", url.scheme))?,
        }
        if let Some(userinfo) = &url.userinfo {
            field(output, "user", Escaped::new(userinfo))?;
        }
    }
    if let Some(service) = &description.service {
        field(output, "service", service)?;
    }
    for host in &description.hosts {
        print_host(host, output)?;
    }
    if let Some(interface) = &description.interface {
        field(output, "interface", interface)?;
    }
    if let Some(protocol) = description.protocol {
        let protocol = if protocol == "both" {
            "tcp and udp"
        } else {
            protocol
        };
        field(output, "protocol", protocol)?;
    }
    if let Some(count) = description.count
        && count != 1
    {
        field(output, "ports", ranges(&description.ranges))?;
        field(output, "count", count)?;
    }
    if let Some(url) = &description.url {
        if !url.path.is_empty() {
            field(output, "path", Escaped::new(&url.path))?;
        }
        if let Some(query) = &url.query {
            field(output, "query", Escaped::new(query))?;
        }
        if let Some(fragment) = &url.fragment {
            field(output, "fragment", Escaped::new(fragment))?;
        }
    }
    for port in &description.ports {
        print_port(port, output)?;
    }
    if let Some(note) = &description.note {
        field(output, "note", note)?;
    }
    Ok(())
}

fn print_host(host: &HostParts, output: &mut Output) -> io::Result<()> {
    let label = match host.role {
        "outer" => "outside",
        "inner" => "inside",
        role => role,
    };
    match host.kind {
        "any" => field(output, label, "every address, IPv4 and IPv6")?,
        "name" => field(output, label, format_args!("{}, a name", host.text))?,
        "ipv4" => field(output, label, format_args!("{}, IPv4", host.text))?,
        _ => field(output, label, format_args!("{}, IPv6", host.text))?,
    }
    if let Some(zone) = &host.zone {
        field(output, "  zone", Escaped::new(zone))?;
    }
    if let Some(wire) = &host.wire {
        field(output, "  on the wire", bytes(wire))?;
    }
    Ok(())
}

fn print_port(port: &PortParts, output: &mut Output) -> io::Result<()> {
    let label = match port.role {
        "first" => "first port",
        "last" => "last port",
        "outer" => "port outside",
        "outer_first" => "outside, from",
        "outer_last" => "outside, to",
        "inner" => "port inside",
        "inner_first" => "inside, from",
        "inner_last" => "inside, to",
        role => role,
    };
    field(output, label, port.port)?;
    let mut services: Vec<String> = Vec::new();
    let mut names: Vec<&str> = port
        .services
        .iter()
        .map(|service| service.name.as_str())
        .collect();
    names.sort_by_key(|name| port.services.iter().position(|service| service.name == *name));
    names.dedup();
    for name in names {
        let protocols = port.services.iter().filter(|service| service.name == name);
        let protocols: Vec<&str> = protocols.map(|service| service.protocol).collect();
        services.push(format!("{} ({})", Escaped::new(name), protocols.join(", ")));
    }
    if services.is_empty() {
        services.push("none known".to_owned());
    }
    field(output, "  service", services.join("; "))?;
    let (name, other) = (port.range, port.range_other_name);
    let (first, last) = (port.range_first, port.range_last);
    field(
        output,
        "  range",
        format_args!("{name} ({other}), {first}-{last}"),
    )?;
    field(output, "  decimal", port.port)?;
    field(output, "  hex", &port.hex)?;
    let (high, low) = port.binary.split_at(8);
    field(output, "  binary", format_args!("{high} {low}"))?;
    field(output, "  on the wire", bytes(&port.wire))
}

fn field(output: &mut Output, label: &str, value: impl std::fmt::Display) -> io::Result<()> {
    writeln!(output, "  {label:LABEL_WIDTH$}  {value}")
}

fn ranges(ranges: &[Range]) -> String {
    let mut text: Vec<String> = ranges
        .iter()
        .take(RANGES_MAX)
        .map(|range| match (range.first, range.last) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        })
        .collect();
    if ranges.is_empty() {
        text.push("none".to_owned());
    }
    if ranges.len() > RANGES_MAX {
        text.push(format!("and {} more ranges", ranges.len() - RANGES_MAX));
    }
    text.join(", ")
}

fn bytes(bytes: &[u8]) -> String {
    let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.join(" ")
}
