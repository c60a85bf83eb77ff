//! Tables for people: columns that fit the width, rows that are written as they come.
//!
//! Rows are formatted once into a buffer of some thousands. The widths of the columns are those of the rows
//! seen so far: they never shrink, and grow only where a later part of a long table holds something wider.
//! So memory does not grow with the table.
//!
//! Without a width (a pipe) every cell is whole and on one line. With a width, when the rows do not fit:
//!
//! 1. columns without any text go;
//! 2. text columns shrink towards their minimum, the widest first, and their cells wrap;
//! 3. columns are left out, those with the highest [`Column::expendable`] first;
//! 4. those that remain shrink below their minimum; a port is never broken apart.

use std::fmt::{self, Write as _};
use std::io::{self, Write};

use super::wrap::{width, wrap};

/// One column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(crate) header: &'static str,
    /// Numbers stand at the right.
    pub(crate) right: bool,
    /// The width below which its cells become hard to read; wider ones may be wrapped down to it.
    pub(crate) min: usize,
    /// 0 for a column that always stays; else the higher, the sooner it is left out.
    pub(crate) expendable: u8,
    /// Whether its cells end in a port, which is not broken apart.
    pub(crate) address: bool,
    /// How its cells look on a terminal.
    pub(crate) style: fn(&str) -> anstyle::Style,
}

/// How a table is to look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// The columns of the terminal; `None` for a pipe.
    pub(crate) width: Option<usize>,
    pub(crate) colour: bool,
    pub(crate) headers: bool,
    /// Whether signs beyond ASCII may be used.
    pub(crate) unicode: bool,
}

/// Between columns.
const GAP: usize = 2;
/// How narrow words become before addresses do.
const TIGHT: usize = 8;
/// Rows that are kept before they are written.
const CHUNK: usize = 2048;

/// A table under way.
pub(crate) struct Table<'a, W> {
    out: &'a mut W,
    columns: Vec<Column>,
    look: Look,
    /// The widest cell of each column, without its header.
    widths: Vec<usize>,
    text: String,
    /// Where each cell ends in `text`, row by row.
    ends: Vec<u32>,
    started: bool,
    dropped: Vec<&'static str>,
}

impl<'a, W: Write> Table<'a, W> {
    pub(crate) fn new(out: &'a mut W, columns: Vec<Column>, look: Look) -> Self {
        let widths = vec![0; columns.len()];
        Self {
            out,
            columns,
            look,
            widths,
            text: String::new(),
            ends: Vec::new(),
            started: false,
            dropped: Vec::new(),
        }
    }

    /// Adds a row; `cell` writes the text of the column of that index. A newline in a cell stacks its parts.
    pub(crate) fn row(&mut self, mut cell: impl FnMut(usize, &mut String) -> fmt::Result) -> io::Result<()> {
        for column in 0..self.columns.len() {
            let start = self.text.len();
            // Writing to a String does not fail; a Display that claims to leaves the cell as it is.
            let _ = cell(column, &mut self.text);
            let widest = self.text[start..].split('\n').map(width).max().unwrap_or(0);
            self.widths[column] = self.widths[column].max(widest);
            self.ends.push(self.text.len() as u32);
        }
        if self.ends.len() >= CHUNK * self.columns.len() {
            self.write_rows()?;
        }
        Ok(())
    }

    /// Writes what is left. Gives the headers of the columns that found no place.
    pub(crate) fn finish(mut self) -> io::Result<Vec<&'static str>> {
        self.write_rows()?;
        Ok(self.dropped)
    }

    fn write_rows(&mut self) -> io::Result<()> {
        let natural = self
            .columns
            .iter()
            .zip(&self.widths)
            .map(|(column, widest)| match self.look {
                // A pipe has the same columns every time; on a terminal an empty one only takes place.
                Look { width: Some(_), .. } if *widest == 0 => 0,
                Look { headers: true, .. } => width(column.header).max(*widest),
                Look { headers: false, .. } => *widest,
            })
            .collect::<Vec<_>>();
        let shown = match self.look.width {
            None => natural.iter().copied().map(Some).collect::<Vec<_>>(),
            Some(room) => fit(&self.columns, &natural, room),
        };
        if !self.started {
            self.started = true;
            self.dropped = self
                .columns
                .iter()
                .zip(&shown)
                .zip(&natural)
                .filter(|((_, shown), natural)| shown.is_none() && **natural > 0)
                .map(|((column, _), _)| column.header)
                .collect();
            if self.look.headers {
                let headers = self
                    .columns
                    .iter()
                    .map(|column| column.header)
                    .collect::<Vec<_>>();
                self.write_row(&headers, &shown, true)?;
            }
        }
        let text = std::mem::take(&mut self.text);
        let ends = std::mem::take(&mut self.ends);
        let mut start = 0;
        let mut cells = Vec::with_capacity(self.columns.len());
        for row in ends.chunks(self.columns.len()) {
            cells.clear();
            for end in row {
                cells.push(&text[start..*end as usize]);
                start = *end as usize;
            }
            self.write_row(&cells, &shown, false)?;
        }
        self.text = text;
        self.text.clear();
        self.ends = ends;
        self.ends.clear();
        Ok(())
    }

    fn write_row(&mut self, cells: &[&str], shown: &[Option<usize>], header: bool) -> io::Result<()> {
        let last = shown.iter().rposition(Option::is_some).unwrap_or(0);
        if self.look.width.is_none() {
            let mut pad = 0;
            for ((cell, room), column) in cells.iter().zip(shown).zip(&self.columns) {
                pad = write_cell(self.out, cell, room.unwrap_or(0), column.right, pad, None)?;
            }
            return self.out.write_all(b"\n");
        }
        let parts = cells
            .iter()
            .zip(shown)
            .zip(&self.columns)
            .map(|((cell, shown), column)| match shown {
                Some(room) => wrap(
                    cell,
                    *room,
                    |line| if column.address { port_bytes(line) } else { 0 },
                ),
                None => Vec::new(),
            })
            .collect::<Vec<_>>();
        let height = parts.iter().map(Vec::len).max().unwrap_or(0);
        for line in 0..height {
            let mut pad = 0;
            for index in 0..=last {
                let Some(room) = shown[index] else { continue };
                let part = parts[index].get(line).copied().unwrap_or("");
                let style = match (self.look.colour, header) {
                    (false, _) => None,
                    (true, true) => Some(anstyle::Style::new().bold()),
                    (true, false) => Some((self.columns[index].style)(cells[index])),
                };
                pad = write_cell(self.out, part, room, self.columns[index].right, pad, style)?;
            }
            self.out.write_all(b"\n")?;
        }
        Ok(())
    }
}

/// Writes one cell after `pad` blanks; gives the blanks that the next one needs before it. So no line ends
/// in blanks.
fn write_cell(
    out: &mut impl Write,
    text: &str,
    room: usize,
    right: bool,
    pad: usize,
    style: Option<anstyle::Style>,
) -> io::Result<usize> {
    let spare = room.saturating_sub(width(text));
    let (before, after) = if right { (pad + spare, 0) } else { (pad, spare) };
    if text.is_empty() {
        return Ok(before + after + GAP);
    }
    blanks(out, before)?;
    match style {
        Some(style) if style != anstyle::Style::new() => write!(out, "{style}{text}{style:#}")?,
        Some(_) | None => out.write_all(text.as_bytes())?,
    }
    Ok(after + GAP)
}

fn blanks(out: &mut impl Write, mut count: usize) -> io::Result<()> {
    const BLANKS: [u8; 64] = [b' '; 64];
    while count > 0 {
        let now = count.min(BLANKS.len());
        out.write_all(&BLANKS[..now])?;
        count -= now;
    }
    Ok(())
}

/// The bytes of `]:65535` or `:65535` at the end of an address.
fn port_bytes(line: &str) -> usize {
    match line.rfind(':') {
        Some(colon) if line[..colon].ends_with(']') => line.len() - colon + 1,
        Some(colon) => line.len() - colon,
        None => 0,
    }
}

/// The width for each column, `None` for those that are left out.
fn fit(columns: &[Column], natural: &[usize], room: usize) -> Vec<Option<usize>> {
    let mut widths = natural
        .iter()
        .map(|width| (*width > 0).then_some(*width))
        .collect::<Vec<_>>();
    loop {
        let minimum = |index: usize| columns[index].min;
        shrink(&mut widths, natural, room, minimum);
        if total(&widths) <= room {
            return widths;
        }
        let most_expendable = (0..columns.len())
            .filter(|index| widths[*index].is_some() && columns[*index].expendable > 0)
            .max_by_key(|index| columns[*index].expendable);
        match most_expendable {
            Some(index) => widths[index] = None,
            None => break,
        }
        for (width, natural) in widths.iter_mut().zip(natural) {
            if let Some(width) = width {
                *width = *natural;
            }
        }
    }
    // An address is worth more than the words beside it.
    let tight = |index: usize| match columns[index] {
        Column {
            address: true, min, ..
        } => min,
        Column { min, .. } => min.min(TIGHT),
    };
    shrink(&mut widths, natural, room, tight);
    shrink(&mut widths, natural, room, |_| 1);
    widths
}

/// Takes columns from the widest, one at a time, while the row is too wide and some are above their minimum.
fn shrink(widths: &mut [Option<usize>], natural: &[usize], room: usize, minimum: impl Fn(usize) -> usize) {
    let mut excess = total(widths).saturating_sub(room);
    while excess > 0 {
        let widest = (0..widths.len())
            .filter(|index| widths[*index].is_some_and(|width| width > minimum(*index).min(natural[*index])))
            .max_by_key(|index| widths[*index]);
        let Some(widest) = widest else { return };
        if let Some(width) = &mut widths[widest] {
            *width -= 1;
            excess -= 1;
        }
    }
}

fn total(widths: &[Option<usize>]) -> usize {
    let shown = widths.iter().flatten();
    let count = shown.clone().count();
    shown.sum::<usize>() + count.saturating_sub(1) * GAP
}

/// Writes the items with commas, or stacked one a line where the look has a width.
pub(crate) fn stacked<T: fmt::Display>(
    out: &mut String,
    look: Look,
    items: impl IntoIterator<Item = T>,
) -> fmt::Result {
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.write_char(if look.width.is_some() { '\n' } else { ',' })?;
        }
        write!(out, "{item}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(_: &str) -> anstyle::Style {
        anstyle::Style::new()
    }

    fn columns() -> Vec<Column> {
        let column = |header, right, min, expendable, address| Column {
            header,
            right,
            min,
            expendable,
            address,
            style: plain,
        };
        vec![
            column("PROTO", false, 5, 0, false),
            column("ADDRESS:PORT", false, 12, 0, true),
            column("N", true, 1, 1, false),
            column("REACH", false, 8, 2, false),
        ]
    }

    fn drawn(width: Option<usize>, rows: &[[&str; 4]]) -> (String, Vec<&'static str>) {
        let mut out = Vec::new();
        let look = Look {
            width,
            colour: false,
            headers: true,
            unicode: true,
        };
        let mut table = Table::new(&mut out, columns(), look);
        for row in rows {
            table.row(|column, text| text.write_str(row[column])).unwrap();
        }
        let dropped = table.finish().unwrap();
        (String::from_utf8(out).unwrap(), dropped)
    }

    const ROWS: [[&str; 4]; 2] = [
        ["tcp", "0.0.0.0:80", "7", "every address (IPv4 too)"],
        ["udp", "[2001:db8:1:2:3:4:5:6]:53", "12", ""],
    ];

    #[test]
    fn a_pipe_gets_whole_lines() {
        let (text, dropped) = drawn(None, &ROWS);
        assert_eq!(
            text,
            "PROTO  ADDRESS:PORT                N  REACH\n\
             tcp    0.0.0.0:80                  7  every address (IPv4 too)\n\
             udp    [2001:db8:1:2:3:4:5:6]:53  12\n"
        );
        assert!(dropped.is_empty());
    }

    #[test]
    fn cells_wrap_before_columns_go_and_ports_stay_whole() {
        let (text, dropped) = drawn(Some(40), &ROWS);
        assert_eq!(
            text,
            "PROTO  ADDRESS:PORT     N  REACH\n\
             tcp    0.0.0.0:80       7  every address\n\
             \x20                          (IPv4 too)\n\
             udp    [2001:db8:1:2:  12\n\
             \x20      3:4:5:6]:53\n"
        );
        assert!(dropped.is_empty());
        let (text, dropped) = drawn(Some(20), &ROWS);
        assert_eq!(dropped, ["N", "REACH"]);
        assert!(text.lines().all(|line| width(line) <= 20), "{text}");
        assert!(text.contains("]:53\n"), "{text}");
    }

    #[test]
    fn long_tables_come_whole_whatever_the_chunks() {
        let rows = vec![ROWS[0]; 3 * CHUNK + 1];
        let (text, _) = drawn(None, &rows);
        assert_eq!(text.lines().count(), rows.len() + 1);
    }
}
