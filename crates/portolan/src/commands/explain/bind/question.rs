//! From the words of the command line to the question.

use portolan_core::registry::Services;
use portolan_core::table::Transport;
use portolan_core::{Address, Host, Notation, Port, Protocol};
use portolan_host::{BindQuestion, SpaceSelect, user_id};

use super::Args;
use crate::exit::Failure;
use crate::footer::shortened;

pub(super) fn parse(args: &Args, services: &Services) -> Result<BindQuestion, Failure> {
    let (before, text) = match args.socket.as_slice() {
        [protocol, text] => (Some(protocol.as_str()), text.as_str()),
        [text] => (None, text.as_str()),
        // clap lets no other number through.
        [..] => return Err(Failure::Usage("one socket is meant, as in: tcp :80".to_owned())),
    };
    let before = before.map(protocol).transpose()?;
    let (target, behind) = target(text, before, services)?;
    if let (Some(before), Some(behind)) = (before, behind)
        && before != behind
    {
        return Err(Failure::Usage(format!(
            "{} says {behind} and the word before it {before}; leave one of them out",
            shortened(text)
        )));
    }
    let uid = match &args.user {
        None => None,
        Some(name) => Some(user_id(name).ok_or_else(|| {
            Failure::Usage(format!(
                "no user is named {}; give a name of /etc/passwd or a number",
                shortened(name)
            ))
        })?),
    };
    Ok(BindQuestion {
        transport: transport(before.or(behind).unwrap_or(Protocol::Tcp))?,
        address: target.address,
        port: target.port,
        reuse_address: args.reuse_address,
        reuse_port: args.reuse_port,
        v6_only: args.v6_only,
        device: args.device.clone(),
        uid,
        space: SpaceSelect::from_text(&args.space),
    })
}

struct Target {
    address: Option<Address>,
    port: Port,
}

/// `:80`, `10.0.0.1:http`, `80`, `https`, each with a protocol behind it or not.
fn target(
    text: &str,
    before: Option<Protocol>,
    services: &Services,
) -> Result<(Target, Option<Protocol>), Failure> {
    let wrong = |error: portolan_core::NotationError| Failure::Usage(error.to_string());
    // A service may have different ports for different protocols.
    let needs_protocol = !text.contains('/') && !text.ends_with(|last: char| last.is_ascii_digit());
    let notation = match before {
        Some(protocol) if needs_protocol => {
            // What is wrong is said of the user's own words, if it is wrong by itself.
            let named = format!("{text}/{protocol}");
            Notation::parse(&named, services).or_else(|error| Notation::parse(text, services).and(Err(error)))
        }
        _ => Notation::parse(text, services),
    };
    let every = |port| Target { address: None, port };
    match notation.map_err(wrong)? {
        Notation::Port { port, protocol } => Ok((every(port), protocol)),
        Notation::Service {
            name,
            ports,
            protocol,
        } => match *ports.ranges() {
            [range] if range.len() == 1 => Ok((every(range.first()), protocol)),
            _ => Err(Failure::Usage(format!(
                "the service {name} has {} ports where one is meant; give its number",
                ports.len()
            ))),
        },
        Notation::Endpoint { endpoint, protocol } => {
            let address = match endpoint.host {
                Host::Any => None,
                Host::Address(address) => Some(address),
                Host::Name(name) => {
                    return Err(Failure::Usage(format!(
                        "{} is a name, and a socket is bound to an address; give that, or :{} for every address",
                        shortened(name.as_str()),
                        endpoint.port
                    )));
                }
            };
            let port = endpoint.port;
            Ok((Target { address, port }, protocol))
        }
        Notation::Address(address) => {
            let hint = match address.unbracketed_port() {
                Some((ip, port)) => format!("; with brackets [{ip}]:{port} has port {port}"),
                None => String::new(),
            };
            Err(Failure::Usage(format!(
                "{address} is an address without a port{hint}"
            )))
        }
        _ => Err(Failure::Usage(format!(
            "{} is no socket address; one is meant, as in :80, 127.0.0.1:8080 or [::1]:443",
            shortened(text)
        ))),
    }
}

fn protocol(word: &str) -> Result<Protocol, Failure> {
    let unknown = || {
        Failure::Usage(format!(
            "{} is no protocol; tcp or udp goes before the address, as in: tcp :80",
            shortened(word)
        ))
    };
    let protocol = word.parse::<Protocol>().map_err(|_| unknown())?;
    transport(protocol).map(|_| protocol)
}

fn transport(protocol: Protocol) -> Result<Transport, Failure> {
    match protocol {
        Protocol::Tcp => Ok(Transport::Tcp),
        Protocol::Udp => Ok(Transport::Udp),
        other => Err(Failure::Usage(format!(
            "binding {other} sockets cannot be explained; tcp and udp can"
        ))),
    }
}
