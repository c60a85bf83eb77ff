mod drawing;
mod flows;
mod input;
mod json;
mod text;

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::ValueEnum;
use portolan_capture::{CaptureError, FlowTable, guess_link};
use portolan_core::registry::Services;
use portolan_core::wire::{Dissection, LinkType, SeqNum, TcpFlags, Transport};

use self::input::{Input, Source};
use crate::exit::{Answer, Failure};
use crate::message::say;
use crate::output::Output;
use crate::services;

/// Show what captured packets say: addresses, ports with their services, flags, options
///
/// Reads pcap and pcapng files, and packets written as hexadecimal text: plain, or as tcpdump -x, xxd,
/// hexdump -C and Wireshark print them. Sequence numbers are shown relative to the first one seen of each
/// side. Memory stays bounded, however long the capture is.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  portolan decode capture.pcapng              a line for each packet
  tcpdump -U -w - | portolan decode -         as they come
  portolan decode --flows capture.pcap        who spoke with whom
  portolan decode --bytes --limit 1 x.pcap    the first packet, bit by bit
  portolan decode 45000028000040004006...     a packet in hexadecimal
  portolan decode --ndjson big.pcap           a JSON object for each packet

Exit code: 0 if all could be read; 2 if the input is neither a capture nor
hexadecimal text; 3 if it must not be read; 4 if it ends or breaks off in the
middle (what was whole is shown) or reading fails.")]
pub(crate) struct Args {
    /// A capture file, a packet in hexadecimal, or - for standard input
    #[arg(value_name = "FILE|HEX|-")]
    input: String,
    /// Sum the packets up by four-tuple
    #[arg(long, conflicts_with = "bytes")]
    flows: bool,
    /// Draw the headers: each field's place, bits, hex, decimal and meaning
    #[arg(long)]
    bytes: bool,
    /// Print one JSON document
    #[arg(long, conflicts_with = "ndjson")]
    json: bool,
    /// Print one JSON object a line
    #[arg(long)]
    ndjson: bool,
    /// Stop after so many packets
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Take packets to begin with this header, whatever the capture or their look says
    #[arg(long, value_name = "TYPE")]
    link: Option<LinkArg>,
    /// Show sequence and acknowledgment numbers as they stand in the packets
    #[arg(long)]
    absolute: bool,
    /// Show times of day (UTC) instead of seconds since the first packet
    #[arg(long)]
    utc: bool,
    /// Keep so many flows; packets of further ones are counted together
    #[arg(long, value_name = "N", default_value_t = 65_536)]
    max_flows: usize,
    /// Read this file in the place of /etc/services
    #[arg(long, value_name = "FILE", default_value = services::FILE)]
    services: PathBuf,
}

/// [`LinkType`] as an argument.
#[derive(Clone, Copy, Debug)]
struct LinkArg(LinkType);

impl ValueEnum for LinkArg {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [LinkArg; LinkType::ALL.len()] = {
            let mut all = [LinkArg(LinkType::Ethernet); LinkType::ALL.len()];
            let mut place = 0;
            while place < all.len() {
                all[place] = LinkArg(LinkType::ALL[place]);
                place += 1;
            }
            all
        };
        &ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.0.name()))
    }
}

/// A packet on its way to the printer.
struct Packet<'a> {
    number: u64,
    /// Nanoseconds since 1970.
    time: Option<i128>,
    interface: Option<u32>,
    /// The `LINKTYPE_*` number that the capture gives, and the type if it is known.
    link_number: Option<u32>,
    link: Option<LinkType>,
    original_len: u64,
    bytes: &'a [u8],
    dissection: Option<Dissection<'a>>,
    numbers: Option<Numbers>,
}

/// What a packet's flow says about it.
#[derive(Clone, Copy, Default)]
struct Numbers {
    seq: Option<u32>,
    ack: Option<u32>,
    /// Whether it goes from client to server.
    forward: bool,
}

/// What could not be read of the input.
#[derive(Default)]
struct Losses {
    damaged_blocks: u64,
    /// Why and where reading broke off.
    broken_off: Option<CaptureError>,
}

pub(crate) fn run(args: &Args, output: &mut Output) -> Result<Answer, Failure> {
    let mut input = Input::open(&args.input)?;
    let (services, warning) = services::load(&args.services);
    if let Some(warning) = warning {
        say(&warning);
    }
    if let (Source::Text { packets, .. }, None) = (&input.source, args.link) {
        // Before anything is printed: what cannot be told is wrong usage.
        for bytes in packets {
            guess(bytes)?;
        }
    }
    let mut table = FlowTable::new(args.max_flows);
    let mut printer = Printer::new(args, &services);
    let mut count = 0;
    let losses = loop {
        if args.limit.is_some_and(|limit| count >= limit) {
            break input.losses(None);
        }
        if input.source.is_drained() {
            // Packets that come from elsewhere are shown as they come.
            output.flush()?;
        }
        match input.source.next() {
            Ok(None) => break input.losses(None),
            Err(error) => break input.losses(Some(error)),
            Ok(Some(mut packet)) => {
                count += 1;
                packet.link = match (args.link, packet.link_number) {
                    (Some(LinkArg(link)), _) => Some(link),
                    (None, Some(number)) => LinkType::from_number(number),
                    (None, None) => Some(guess(packet.bytes)?),
                };
                packet.dissection = packet.link.map(|link| Dissection::of(link, packet.bytes));
                packet.numbers = packet
                    .dissection
                    .as_ref()
                    .and_then(|dissection| follow(&mut table, dissection, &packet));
                printer.packet(&packet, output)?;
            }
        }
    };
    printer.finish(&table, &losses, output)?;
    // What was read should stand before what was not.
    output.flush()?;
    if losses.damaged_blocks > 0 {
        say(&format!(
            "{}: {} damaged blocks were passed over",
            input.name, losses.damaged_blocks
        ));
    }
    match losses.broken_off {
        None => Ok(Answer::Yes),
        Some(error) => Err(Failure::System(format!(
            "{}: {}; {} before",
            input.name,
            said(&error),
            packets(count)
        ))),
    }
}

/// Adds the packet to its flow, and asks the flow about it.
fn follow(table: &mut FlowTable, dissection: &Dissection<'_>, packet: &Packet<'_>) -> Option<Numbers> {
    let (flow, forward) = table.add(dissection, packet.time, packet.original_len)?;
    let Some(Transport::Tcp(segment)) = dissection.transport else {
        return Some(Numbers {
            forward,
            ..Numbers::default()
        });
    };
    let ack: Option<SeqNum> = segment.flags().contains(TcpFlags::ACK).then(|| segment.ack());
    Some(Numbers {
        seq: flow.relative_seq(forward, segment.seq()),
        ack: ack.and_then(|ack| flow.relative_ack(forward, ack)),
        forward,
    })
}

fn guess(bytes: &[u8]) -> Result<LinkType, Failure> {
    guess_link(bytes).ok_or_else(|| {
        let first = bytes.first().copied().unwrap_or(0);
        Failure::Usage(format!(
            "the packet begins with neither IP nor Ethernet (byte 0x{first:02x} at 0); say what it begins with: --link TYPE"
        ))
    })
}

/// An error and its cause, in one line.
fn said(error: &CaptureError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// How packets, or the flows they sum up to, are shown.
struct Printer<'a> {
    args: &'a Args,
    services: &'a Services,
    /// When the first packet with a time was captured.
    start: Option<i128>,
    printed: u64,
}

impl<'a> Printer<'a> {
    fn new(args: &'a Args, services: &'a Services) -> Self {
        Self {
            args,
            services,
            start: None,
            printed: 0,
        }
    }

    fn packet(&mut self, packet: &Packet<'_>, output: &mut Output) -> io::Result<()> {
        self.start = self.start.or(packet.time);
        if self.args.flows {
            return Ok(());
        }
        self.printed += 1;
        if self.args.json {
            let before: &[u8] = if self.printed == 1 {
                b"{\"version\":1,\"packets\":["
            } else {
                b","
            };
            output.write_all(before)?;
            json::packet(packet, self.args.bytes, self.services, output)
        } else if self.args.ndjson {
            json::packet(packet, self.args.bytes, self.services, output)?;
            output.write_all(b"\n")
        } else {
            let shown = text::Line {
                packet,
                start: self.start,
                args: self.args,
                services: self.services,
            };
            writeln!(output, "{shown}")?;
            if self.args.bytes {
                drawing::draw(packet, self.services, output)?;
            }
            Ok(())
        }
    }

    fn finish(&self, table: &FlowTable, losses: &Losses, output: &mut Output) -> io::Result<()> {
        match (self.args.flows, self.args.json, self.args.ndjson) {
            (false, true, _) => {
                if self.printed == 0 {
                    output.write_all(b"{\"version\":1,\"packets\":[")?;
                }
                json::end_of_packets(losses, output)
            }
            (false, false, _) => Ok(()),
            (true, true, _) => flows::json(table, losses, self.services, output),
            (true, false, true) => flows::ndjson(table, self.services, output),
            (true, false, false) => flows::table(table, self.start, self.args.utc, self.services, output),
        }
    }
}

/// A number of packets, for people.
fn packets(count: u64) -> String {
    if count == 1 {
        "1 packet".to_owned()
    } else {
        format!("{count} packets")
    }
}

/// A time as RFC 3339 writes it, in UTC; `None` beyond the years that it knows.
fn utc(nanoseconds: i128) -> Option<String> {
    jiff::Timestamp::from_nanosecond(nanoseconds)
        .ok()
        .map(|time| format!("{time:.9}"))
}

/// A difference of times in seconds, to the microsecond.
fn seconds(nanoseconds: i128) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let microseconds = nanoseconds.unsigned_abs() / 1000;
    format!(
        "{sign}{}.{:06}",
        microseconds / 1_000_000,
        microseconds % 1_000_000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_differences_print() {
        assert_eq!(
            utc(1_500_000_000).as_deref(),
            Some("1970-01-01T00:00:01.500000000Z")
        );
        assert_eq!(utc(i128::MAX), None);
        assert_eq!(seconds(1_234_567_890), "1.234567");
        assert_eq!(seconds(-5_000), "-0.000005");
    }
}
