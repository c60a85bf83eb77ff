use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};

use portolan_capture::{CaptureError, CaptureReader, hex, is_capture};
use portolan_core::Escaped;

use super::{Losses, Packet};
use crate::exit::Failure;

/// What is to be decoded, and what to call it.
pub(super) struct Input {
    pub(super) source: Source,
    pub(super) name: String,
}

/// Where packets come from.
pub(super) enum Source {
    Capture(Box<CaptureReader<Box<dyn Read>>>),
    Text { packets: Vec<Vec<u8>>, next: usize },
}

/// As much text as is read: 64 packets of the greatest length, as dumps write them.
const MAX_TEXT: u64 = 64 << 20;
/// How much of what was typed a message repeats, in characters.
const MAX_SHOWN: usize = 60;

impl Input {
    /// Opens a file, takes hexadecimal text, or reads standard input.
    pub(super) fn open(argument: &str) -> Result<Self, Failure> {
        let name = Escaped::new(argument).bounded(MAX_SHOWN).to_string();
        if argument == "-" {
            let name = "standard input".to_owned();
            return Self::read(Box::new(io::stdin()), name);
        }
        match fs::metadata(argument) {
            Ok(found) if found.is_dir() => Err(Failure::Usage(format!(
                "{name} is a directory; name a capture in it"
            ))),
            Ok(_) => match File::open(argument) {
                Ok(file) => Self::read(Box::new(file), name),
                Err(error) => Err(unreadable(&name, &error)),
            },
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound
                        | ErrorKind::InvalidFilename
                        | ErrorKind::InvalidInput
                        | ErrorKind::NotADirectory
                ) =>
            {
                let packets = hex::packets(argument.as_bytes()).map_err(|fault| {
                    Failure::Usage(format!(
                        "{name} is no file, and no packet in hexadecimal either: {fault}"
                    ))
                })?;
                Ok(Self {
                    source: Source::Text { packets, next: 0 },
                    name,
                })
            }
            Err(error) => Err(unreadable(&name, &error)),
        }
    }

    fn read(mut reader: Box<dyn Read>, name: String) -> Result<Self, Failure> {
        let mut start = Vec::new();
        let failed = |error: &io::Error| unreadable(&name, error);
        reader
            .by_ref()
            .take(4)
            .read_to_end(&mut start)
            .map_err(|error| failed(&error))?;
        if is_capture(&start) {
            let whole: Box<dyn Read> = Box::new(io::Cursor::new(start).chain(reader));
            let reader = CaptureReader::new(whole)
                .map_err(|error| Failure::System(format!("{name}: {}", super::said(&error))))?;
            return Ok(Self {
                source: Source::Capture(Box::new(reader)),
                name,
            });
        }
        let mut text = start;
        reader
            .take(MAX_TEXT)
            .read_to_end(&mut text)
            .map_err(|error| failed(&error))?;
        if text.len() as u64 > MAX_TEXT {
            return Err(Failure::Usage(format!(
                "{name} is no capture, and as text it is longer than {MAX_TEXT} bytes"
            )));
        }
        let packets = hex::packets(&text).map_err(|fault| {
            Failure::Usage(format!(
                "{name} is neither a pcap or pcapng capture nor hexadecimal text: {fault}"
            ))
        })?;
        Ok(Self {
            source: Source::Text { packets, next: 0 },
            name,
        })
    }

    pub(super) fn losses(&self, broken_off: Option<CaptureError>) -> Losses {
        Losses {
            damaged_blocks: match &self.source {
                Source::Capture(reader) => reader.damaged(),
                Source::Text { .. } => 0,
            },
            broken_off,
        }
    }
}

impl Source {
    /// Whether the next packet has to be waited for.
    pub(super) fn is_drained(&self) -> bool {
        match self {
            Self::Capture(reader) => reader.is_drained(),
            Self::Text { .. } => false,
        }
    }

    pub(super) fn next(&mut self) -> Result<Option<Packet<'_>>, CaptureError> {
        match self {
            Self::Capture(reader) => Ok(reader.next_frame()?.map(|frame| Packet {
                number: frame.number,
                time: frame.time,
                interface: Some(frame.interface),
                link_number: Some(frame.link),
                link: None,
                original_len: u64::from(frame.original_len),
                bytes: frame.bytes,
                dissection: None,
                numbers: None,
            })),
            Self::Text { packets, next } => {
                let packet = packets.get(*next);
                *next += 1;
                let number = *next as u64;
                Ok(packet.map(|bytes| Packet {
                    number,
                    time: None,
                    interface: None,
                    link_number: None,
                    link: None,
                    original_len: bytes.len() as u64,
                    bytes,
                    dissection: None,
                    numbers: None,
                }))
            }
        }
    }
}

fn unreadable(name: &str, error: &io::Error) -> Failure {
    let text = format!("cannot read {name}: {error}");
    match error.kind() {
        ErrorKind::PermissionDenied => Failure::NotPermitted(format!("{text}; its owner or root can")),
        _ => Failure::System(text),
    }
}
