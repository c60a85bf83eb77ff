//! What `who` says of a port, for programs.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;

use jiff::Timestamp;
use portolan_core::json_text;
use portolan_core::registry::Services;
use portolan_host::{PortHolder, PortUse, Process, Snapshot, SpaceName};
use serde::Serialize;

use crate::json::{HiddenObject, Shown, SocketObject, VERSION};

/// Writes one document; docs/json.md describes every field.
pub(super) fn write(
    out: &mut impl Write,
    snapshot: &Snapshot,
    services: &Services,
    ancestors: &HashMap<i32, Vec<Process>>,
    uses: &[PortUse],
) -> io::Result<()> {
    let mut sockets = uses
        .iter()
        .flat_map(|usage| &usage.sockets)
        .copied()
        .collect::<Vec<_>>();
    sockets.sort_unstable();
    sockets.dedup();
    let document = Document {
        version: VERSION,
        holders: uses
            .iter()
            .map(|usage| Holder::new(snapshot, services, ancestors, usage))
            .collect(),
        sockets: sockets
            .iter()
            .map(|&index| SocketObject::new(snapshot, index, services))
            .collect(),
        hidden: HiddenObject::from(&snapshot.hidden),
    };
    serde_json::to_writer(&mut *out, &document).map_err(io::Error::from)?;
    out.write_all(b"\n")
}

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    holders: Vec<Holder<'a>>,
    sockets: Vec<SocketObject<'a>>,
    hidden: HiddenObject<'a>,
}

/// What one process, or nobody, does with one port.
#[derive(Serialize)]
struct Holder<'a> {
    port: u16,
    protocol: &'static str,
    service: Option<&'a str>,
    space: Shown<&'a SpaceName>,
    pid: Option<i32>,
    ownerless: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    published_by: Option<&'a str>,
    name: Option<Cow<'a, str>>,
    cwd: Option<Cow<'a, str>>,
    started: Option<Shown<Timestamp>>,
    ancestors: Vec<Ancestor<'a>>,
    inodes: Vec<u64>,
    connections: usize,
    waiting: usize,
}

impl<'a> Holder<'a> {
    fn new(
        snapshot: &'a Snapshot,
        services: &'a Services,
        ancestors: &'a HashMap<i32, Vec<Process>>,
        usage: &PortUse,
    ) -> Self {
        let (pid, ownerless) = match usage.holder {
            PortHolder::Process(pid) => (Some(pid), None),
            PortHolder::Nobody(reason) => (None, Some(reason.name())),
        };
        let process = pid.and_then(|pid| snapshot.processes.get(&pid));
        let above = pid
            .and_then(|pid| ancestors.get(&pid))
            .map_or(&[][..], Vec::as_slice);
        Self {
            port: usage.port.get(),
            protocol: usage.protocol.name(),
            service: usage
                .protocol
                .transport()
                .and_then(|transport| services.name(usage.port, transport)),
            space: Shown(&snapshot.space(usage.space).name),
            pid,
            ownerless,
            published_by: usage
                .sockets
                .iter()
                .find_map(|index| snapshot.published.get(index))
                .map(|by| &*by.space),
            name: process.map(|process| json_text(process.name.as_bytes())),
            cwd: process
                .and_then(|process| process.cwd.as_ref())
                .map(|cwd| json_text(cwd.as_os_str().as_bytes())),
            started: process
                .and_then(|process| Timestamp::try_from(process.start_time.wall_clock()).ok())
                // Cut off as the text does, so that both name the same second.
                .and_then(|started| Timestamp::from_second(started.as_second()).ok())
                .map(Shown),
            ancestors: above
                .iter()
                .map(|process| Ancestor {
                    pid: process.pid,
                    name: json_text(process.name.as_bytes()),
                })
                .collect(),
            inodes: usage
                .sockets
                .iter()
                .map(|&index| snapshot.sockets[index].inode)
                .collect(),
            connections: usage.connections.len(),
            waiting: usage.waiting,
        }
    }
}

/// A process above another, the parent first.
#[derive(Serialize)]
struct Ancestor<'a> {
    pid: i32,
    name: Cow<'a, str>,
}
