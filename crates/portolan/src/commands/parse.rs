mod describe;
mod text;

use std::io::{self, Write as _};

use portolan_core::Notation;
use serde::Serialize;

use self::describe::Description;
use crate::exit::{Answer, Failure};
use crate::message::say;
use crate::output::Output;
use crate::services;

/// Take a notation of ports apart: its parts, its services, and the bytes on the wire
///
/// Reads every notation that Portolan's commands take, and says what it is read as.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  portolan parse 443                       a port
  portolan parse https domain/udp          services
  portolan parse 22,80-443,https           a set of ports, and 1-1024,!22
  portolan parse 10.0.0.1:80 [::1]:53/udp  addresses with ports
  portolan parse http://host:8080/api      a URL, with its scheme's port
  portolan parse 127.0.0.1:8080:80/udp     a mapping, as docker run -p takes it
  portolan parse -- -1                     what begins with a hyphen

With :// it is a URL; a whole IP address is an address, so 2001:db8::1:443 has
no port; with a colon it is a mapping if ports stand first or there are more
colons, else host and port; with a comma, or ! first, a set of ports; digits
are a port or a range; all else is the name of a service.

Exit code: 0 if all can be read, 2 if one cannot; then nothing is printed but
what is wrong with it.")]
pub(crate) struct Args {
    /// A port, service, set of ports, address, host and port, URL or mapping
    #[arg(required = true, value_name = "NOTATION")]
    notations: Vec<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    parsed: &'a [Description],
}

pub(crate) fn run(args: &Args, output: &mut Output) -> Result<Answer, Failure> {
    let (services, warning) = services::load(services::FILE.as_ref());
    let parsed = args
        .notations
        .iter()
        .map(|text| {
            let notation = Notation::parse(text, &services)?;
            Ok(Description::of(text, &notation, &services))
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error: portolan_core::NotationError| Failure::Usage(error.to_string()))?;
    if let Some(warning) = warning {
        say(&warning);
    }
    if args.json {
        let document = Document {
            version: 1,
            parsed: &parsed,
        };
        serde_json::to_writer(&mut *output, &document).map_err(io::Error::from)?;
        writeln!(output)?;
    } else {
        for (index, description) in parsed.iter().enumerate() {
            if index > 0 {
                writeln!(output)?;
            }
            text::print(description, output)?;
        }
    }
    Ok(Answer::Yes)
}
