//! Comma-separated values (RFC 4180): the wide table, one socket a line.

use std::io::{self, Write};

use super::cells::{Cell, Source};
use super::rows::Rows;

/// Writes the header and a record for each socket.
///
/// Lines end in CR LF. A field with a comma, a quote or a line break is quoted. A field that a spreadsheet
/// would take for a formula (it begins with `=`, `+`, `-`, `@`) gets an apostrophe in front: names of processes
/// are chosen by whoever starts them.
pub(super) fn write(
    out: &mut impl Write,
    source: &Source<'_>,
    cells: &[Cell],
    rows: &Rows,
    headers: bool,
) -> io::Result<()> {
    if headers {
        let names = cells.iter().map(|cell| header(*cell));
        for (position, name) in names.enumerate() {
            if position > 0 {
                out.write_all(b",")?;
            }
            out.write_all(name.as_bytes())?;
        }
        out.write_all(b"\r\n")?;
    }
    let mut text = String::new();
    for index in rows.sockets() {
        for (position, cell) in cells.iter().enumerate() {
            if position > 0 {
                out.write_all(b",")?;
            }
            text.clear();
            // Writing to a String does not fail.
            let _ = source.write(*cell, &[index as u32], &mut text);
            write_field(out, &text)?;
        }
        out.write_all(b"\r\n")?;
    }
    Ok(())
}

/// The names of the columns, in the style of the JSON fields.
fn header(cell: Cell) -> &'static str {
    match cell {
        Cell::Protocol => "protocol",
        Cell::State => "state",
        Cell::Local => "local",
        Cell::Remote => "remote",
        Cell::Service => "service",
        Cell::Reach => "reach",
        Cell::Owner => "owner",
        Cell::User => "user",
        Cell::Unit => "unit_or_container",
        Cell::Space => "space",
        Cell::Receive => "receive_queue",
        Cell::Send => "send_queue",
        Cell::Uid => "uid",
        Cell::Inode => "inode",
        Cell::Fds => "fds",
        Cell::Command => "command",
        Cell::Exe => "exe",
        Cell::Cgroup => "cgroup",
        Cell::Device => "device",
        Cell::Mark => "mark",
        Cell::Info => "tcp_info",
    }
}

fn write_field(out: &mut impl Write, text: &str) -> io::Result<()> {
    let formula = text.starts_with(['=', '+', '-', '@']);
    if !formula && !text.contains([',', '"', '\r', '\n']) {
        return out.write_all(text.as_bytes());
    }
    out.write_all(b"\"")?;
    if formula {
        out.write_all(b"'")?;
    }
    for (position, part) in text.split('"').enumerate() {
        if position > 0 {
            out.write_all(b"\"\"")?;
        }
        out.write_all(part.as_bytes())?;
    }
    out.write_all(b"\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        let cases = [
            ("nginx (812)", "nginx (812)"),
            ("", ""),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("=1+1", "\"'=1+1\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
        ];
        for (text, expected) in cases {
            let mut out = Vec::new();
            write_field(&mut out, text).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
