//! `list` as JSON: one document, or one object a line.

use std::io::{self, Write};

use portolan_core::registry::Services;
use portolan_host::Snapshot;
use serde::{Serialize, Serializer};

use super::rows::Rows;
use crate::json::{HiddenObject, SocketObject, VERSION};

/// Writes the document; sockets are made into JSON one by one.
pub(super) fn write(
    out: &mut impl Write,
    snapshot: &Snapshot,
    services: &Services,
    rows: &Rows,
) -> io::Result<()> {
    let document = Document {
        version: VERSION,
        sockets: Sockets {
            snapshot,
            services,
            rows,
        },
        hidden: HiddenObject::from(&snapshot.hidden),
        warnings: &snapshot.warnings,
    };
    serde_json::to_writer(&mut *out, &document)?;
    out.write_all(b"\n")
}

/// Writes each socket on a line of its own.
pub(super) fn write_lines(
    out: &mut impl Write,
    snapshot: &Snapshot,
    services: &Services,
    rows: &Rows,
) -> io::Result<()> {
    for index in rows.sockets() {
        serde_json::to_writer(&mut *out, &SocketObject::new(snapshot, index, services))?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    sockets: Sockets<'a>,
    hidden: HiddenObject<'a>,
    warnings: &'a [String],
}

struct Sockets<'a> {
    snapshot: &'a Snapshot,
    services: &'a Services,
    rows: &'a Rows,
}

impl Serialize for Sockets<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let sockets = self.rows.sockets();
        serializer.collect_seq(sockets.map(|index| SocketObject::new(self.snapshot, index, self.services)))
    }
}
