//! The answer for programs; docs/json.md describes every field.

use std::borrow::Cow;
use std::io::{self, Write};

use portolan_core::json_text;
use portolan_core::registry::Services;
use portolan_core::table::{Errno, Family};
use portolan_host::{
    BindExplanation, BindQuestion, BindVerdict, Obstacle, Sharing, SpaceName, Unsure, Users,
};
use serde::Serialize;

use super::words;
use crate::json::{HiddenObject, Shown, SocketObject, VERSION};

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    socket: PlannedObject<'a>,
    verdict: &'static str,
    port: Option<u16>,
    errno: Option<Shown<Errno>>,
    obstacle: Option<&'static str>,
    because: [String; 1],
    in_the_way: Vec<InTheWay<'a>>,
    remedy: Vec<String>,
    hidden: HiddenObject<'a>,
}

#[derive(Serialize)]
struct PlannedObject<'a> {
    protocol: &'static str,
    family: &'static str,
    local: LocalObject<'a>,
    v6_only: Option<bool>,
    device: Option<Cow<'a, str>>,
    reuse_address: bool,
    reuse_port: bool,
    uid: u32,
    user: Option<String>,
    service: Option<&'a str>,
    space: Option<Shown<&'a SpaceName>>,
}

#[derive(Serialize)]
struct LocalObject<'a> {
    address: String,
    port: u16,
    zone: Option<Cow<'a, str>>,
}

/// A socket as `list` has it, with what only this command reads.
#[derive(Serialize)]
struct InTheWay<'a> {
    #[serde(flatten)]
    socket: SocketObject<'a>,
    reuse_address: Option<bool>,
    reuse_port: Option<bool>,
}

pub(super) fn write(
    out: &mut impl Write,
    question: &BindQuestion,
    explanation: &BindExplanation,
    services: &Services,
) -> io::Result<()> {
    let planned = &explanation.planned;
    let snapshot = &explanation.snapshot;
    let protocol = words::protocol(planned.transport);
    let mut users = Users::new();
    let device = planned.device.as_ref().map(|name| json_text(name.as_bytes()));
    let has_zone = matches!(planned.local, std::net::SocketAddr::V6(local) if local.scope_id() != 0);
    let (verdict, port, errno, obstacle) = match &explanation.verdict {
        BindVerdict::Yes { port } => ("yes", Some(port.get()), None, None),
        BindVerdict::No(obstacle) => ("no", None, Some(Shown(obstacle.errno())), Some(kind(obstacle))),
        BindVerdict::Unknown(unsure) => ("unknown", None, None, Some(unsure_kind(*unsure))),
    };
    let document = Document {
        version: VERSION,
        socket: PlannedObject {
            protocol: protocol.name(),
            family: match planned.family {
                Family::Ipv4 => "ipv4",
                Family::Ipv6 => "ipv6",
            },
            local: LocalObject {
                address: planned.local.ip().to_string(),
                port: planned.local.port(),
                zone: device.clone().filter(|_| has_zone),
            },
            v6_only: (planned.family == Family::Ipv6).then_some(planned.v6_only),
            device,
            reuse_address: question.reuse_address,
            reuse_port: question.reuse_port,
            uid: planned.uid,
            user: users.name(planned.uid).map(str::to_owned),
            service: services.name(question.port, protocol),
            space: snapshot.spaces.first().map(|space| Shown(&space.name)),
        },
        verdict,
        port,
        errno,
        obstacle,
        because: [words::because(question, explanation)],
        in_the_way: explanation
            .in_the_way
            .iter()
            .zip(&explanation.sharing)
            .map(|(&index, sharing)| {
                let options = match sharing {
                    Sharing::Known(options) => Some(options),
                    Sharing::Unknown => None,
                };
                InTheWay {
                    socket: SocketObject::new(snapshot, index, services),
                    reuse_address: options.map(|options| options.reuse_address),
                    reuse_port: options.map(|options| options.reuse_port),
                }
            })
            .collect(),
        remedy: words::remedies(question, explanation),
        hidden: HiddenObject::from(&snapshot.hidden),
    };
    serde_json::to_writer(&mut *out, &document).map_err(io::Error::from)?;
    writeln!(out)
}

const fn kind(obstacle: &Obstacle) -> &'static str {
    match obstacle {
        Obstacle::InUse { .. } => "in-use",
        Obstacle::AddressNotLocal { .. } => "address-not-local",
        Obstacle::Privileged { .. } => "privileged-port",
        Obstacle::Exhausted { .. } => "ports-exhausted",
        Obstacle::NoSuchDevice { .. } => "no-such-device",
        Obstacle::NoIpv6 => "no-ipv6",
        Obstacle::MissingScope => "missing-scope",
        Obstacle::Multicast => "multicast",
        Obstacle::V6Only => "v6-only",
        _ => "other",
    }
}

const fn unsure_kind(unsure: Unsure) -> &'static str {
    match unsure {
        Unsure::Options => "options-unknown",
        Unsure::Order => "order-unknown",
        Unsure::Privilege { .. } => "privilege-unknown",
        _ => "other",
    }
}
