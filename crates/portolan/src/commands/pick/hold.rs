//! Running a program that finds the picked ports open.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::process::Command;

use portolan_core::{Escaped, Port, Protocol};
use portolan_host::{PickedPort, exec_with_sockets, start_listening};

use crate::exit::{Answer, Failure};

/// Becomes the program: this process is its process, so its exit code needs no passing on.
pub(super) fn run(
    command: &[OsString],
    picked: Vec<PickedPort>,
    protocols: &[Protocol],
) -> Result<Answer, Failure> {
    let [program, arguments @ ..] = command else {
        return Err(Failure::Usage("--hold needs a program to run".to_owned()));
    };
    let ports: Vec<Port> = picked.iter().map(|picked| picked.port).collect();
    let mut sockets = Vec::new();
    for PickedPort { port, sockets: held } in picked {
        for (socket, &protocol) in held.into_iter().zip(protocols) {
            if protocol == Protocol::Tcp {
                start_listening(&socket)
                    .map_err(|error| Failure::System(format!("cannot listen on {port}/tcp: {error}")))?;
            }
            sockets.push((socket, format!("{protocol}-{port}")));
        }
    }
    let mut child = Command::new(program);
    child.args(arguments.iter().map(|argument| with_ports(argument, &ports)));
    let Err(error) = exec_with_sockets(child, sockets);
    let name = Escaped::new(program.as_bytes()).bounded(100).to_string();
    Err(match error.kind() {
        io::ErrorKind::NotFound => Failure::ProgramNotFound(format!("cannot run {name}: not found")),
        _ => Failure::ProgramNotExecutable(format!("cannot run {name}: {error}")),
    })
}

/// The argument with `{}` replaced by the first port and `{N}` by the Nth, counted from 1. Other braces
/// stay.
fn with_ports(argument: &OsStr, ports: &[Port]) -> OsString {
    let mut result = Vec::new();
    let mut rest = argument.as_bytes();
    while let Some(open) = rest.iter().position(|&byte| byte == b'{') {
        let (before, braces) = rest.split_at(open);
        result.extend_from_slice(before);
        let place = braces.iter().position(|&byte| byte == b'}').and_then(|close| {
            let port = match &braces[1..close] {
                b"" => ports.first()?,
                number => {
                    let number: usize = std::str::from_utf8(number).ok()?.parse().ok()?;
                    ports.get(number.checked_sub(1)?)?
                }
            };
            Some((port, close + 1))
        });
        match place {
            Some((port, length)) => {
                result.extend_from_slice(port.to_string().as_bytes());
                rest = &braces[length..];
            }
            None => {
                result.push(b'{');
                rest = &braces[1..];
            }
        }
    }
    result.extend_from_slice(rest);
    OsString::from_vec(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_with_a_place_become_its_port_and_others_stay() {
        let ports = [8001, 8002].map(Port::new);
        let cases = [
            ("{}", "8001"),
            ("--port={}", "--port=8001"),
            ("{1}:{2}", "8001:8002"),
            ("{{}}", "{8001}"),
            ("{0}{3}{x}{", "{0}{3}{x}{"),
            ("plain", "plain"),
        ];
        for (argument, expected) in cases {
            assert_eq!(with_ports(OsStr::new(argument), &ports), expected, "{argument}");
        }
    }
}
