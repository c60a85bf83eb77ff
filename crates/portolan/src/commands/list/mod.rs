//! The open ports of this machine, and its connections.
//!
//! ```text
//! Args ─▶ Selection ─▶ Query ─▶ Snapshot::take ─▶ Matcher ─▶ Rows ─┬▶ Source ─▶ Table, CSV ─▶ stdout
//!                                                                  ├▶ SocketObject ─▶ JSON ─▶ stdout
//!                                                                  └▶ footer ─▶ stderr
//! ```

mod args;
mod cells;
mod csv;
mod document;
mod nothing;
mod rows;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

use portolan_core::registry::Services;
use portolan_host::select::{HostNames, Matcher, Selection};
use portolan_host::{
    Family, ProtocolSet, Query, Snapshot, SocketProtocol, SpaceError, SpaceName, SpaceSelect, State, StateSet,
};

pub(crate) use args::Args;

use self::args::Format;
use self::cells::{Cell, Show, Source};
use self::rows::Rows;
use crate::cli::similar_command;
use crate::commands::spaces;
use crate::exit::{Answer, Failure};
use crate::output::Output;
use crate::text::address::EndText;
use crate::text::table::{Look, Table};
use crate::{footer, services, terminal};

/// What the arguments mean.
struct Wanted {
    selection: Selection,
    protocols: ProtocolSet,
    states: StateSet,
    family: Option<Family>,
}

pub(crate) fn run(args: &Args, verbose: bool, named: bool, output: &mut Output) -> Result<Answer, Failure> {
    if let (true, Some(space)) = (args.flows, &args.space) {
        return spaces::flows(space, args.format() == Format::Json, output);
    }
    let (services, services_warning) = services::load(Path::new(services::FILE));
    let wanted = Wanted::new(args, &services)?;
    let mut snapshot = Snapshot::take(&wanted.query(args)).map_err(space_failure)?;
    spaces::name_spaces(&mut snapshot);
    let rows = wanted.rows(&snapshot, &services, args);
    if rows.is_empty()
        && !named
        && let Some(failure) = slip(&args.filter)
    {
        return Err(failure);
    }

    let look = Look {
        width: terminal::width(),
        colour: output.colour(),
        headers: !args.no_headers,
        unicode: terminal::is_unicode(),
    };
    let dropped = wanted.write(args, look, &snapshot, &services, &rows, output)?;
    // What is said on standard error comes after what it is about.
    output.flush()?;
    footer::write(&footer::Footer {
        snapshot: &snapshot,
        // A document says by itself what is hidden.
        hidden: args.format() != Format::Json,
        dropped: &dropped,
        services_warning: services_warning.as_deref(),
        verbose,
        named_protocols: !args.protocols().is_empty(),
        marks_unseen: wanted.marks_unseen(&snapshot),
    });
    Ok(if rows.is_empty() {
        wanted.nothing(args, &snapshot)
    } else {
        Answer::Yes
    })
}

impl Wanted {
    fn new(args: &Args, services: &Services) -> Result<Self, Failure> {
        let selection = Selection::parse(&args.filter, args.family_hint(), &HostNames::new(services))
            .map_err(|error| Failure::Usage(error.to_string()))?;
        let states = match (args.states(), selection.states()) {
            (Some(option), Some(filter)) => option.intersection(filter),
            (Some(states), None) | (None, Some(states)) => states,
            // Whoever asks for a remote end asks for what has one.
            (None, None) if args.all || selection.mentions_remote() => StateSet::ALL,
            (None, None) => StateSet::OPEN,
        };
        let flags = args.protocols();
        let asked = if !flags.is_empty() {
            flags
        } else if selection.mentions_unix() {
            ProtocolSet::ALL
        } else {
            ProtocolSet::PORTS
        };
        let possible = selection.protocols();
        Ok(Self {
            protocols: asked
                .iter()
                .filter(|protocol| possible.contains(*protocol))
                .collect(),
            states,
            family: args.family(),
            selection,
        })
    }

    fn query(&self, args: &Args) -> Query {
        Query {
            protocols: self.protocols,
            states: self.states,
            local_ports: self.selection.local_ports(!self.shows_connections()),
            space: args.space.as_deref().map_or(SpaceSelect::Every, spaces::select),
            owners: args.format() != Format::Quiet || self.selection.needs_owners(),
            tcp_info: args.info,
        }
    }

    fn rows(&self, snapshot: &Snapshot, services: &Services, args: &Args) -> Rows {
        let matcher = Matcher::new(&self.selection, snapshot, self.protocols, self.states);
        let selected = (0..snapshot.sockets.len()).filter(|index| {
            let family = snapshot.sockets[*index].family;
            self.family.is_none_or(|wanted| wanted == family) && matcher.matches(*index)
        });
        Rows::new(
            snapshot,
            services,
            selected,
            args.sort,
            args.format() != Format::Wide,
        )
    }

    /// Prints the rows. Gives the headers of the columns that found no place.
    fn write(
        &self,
        args: &Args,
        look: Look,
        snapshot: &Snapshot,
        services: &Services,
        rows: &Rows,
        output: &mut impl Write,
    ) -> io::Result<Vec<&'static str>> {
        let format = args.format();
        let show = Show {
            connections: self.shows_connections(),
            spaces: rows
                .sockets()
                .any(|index| snapshot.space(snapshot.sockets[index].space).name != SpaceName::Host),
            wide: matches!(format, Format::Wide | Format::Csv),
            info: args.info,
        };
        match format {
            Format::Json => document::write(output, snapshot, services, rows)?,
            Format::Ndjson => document::write_lines(output, snapshot, services, rows)?,
            Format::Csv => {
                let plain = Look { width: None, ..look };
                let show = Show {
                    spaces: true,
                    connections: true,
                    ..show
                };
                let source = Source::new(snapshot, services, plain).with_every_holder();
                csv::write(output, &source, &Cell::columns(show), rows, look.headers)?;
            }
            Format::Quiet => write_quiet(snapshot, rows, output)?,
            Format::Table | Format::Wide => {
                let cells = Cell::columns(show);
                let mut source = Source::new(snapshot, services, look);
                if format == Format::Wide {
                    source = source.with_every_holder();
                }
                let columns = cells.iter().map(|cell| cell.column()).collect();
                if !rows.is_empty() {
                    let mut table = Table::new(output, columns, look);
                    for row in rows.iter() {
                        table.row(|column, text| source.write(cells[column], row, text))?;
                    }
                    return table.finish();
                }
            }
        }
        Ok(Vec::new())
    }

    /// Whether there can be sockets with a remote end.
    fn shows_connections(&self) -> bool {
        !self.states.intersection(StateSet::OPEN.complement()).is_empty()
    }

    /// Whether the filter asks for marks that the kernel did not show.
    fn marks_unseen(&self, snapshot: &Snapshot) -> bool {
        self.selection.mentions_mark() && snapshot.sockets.iter().any(|socket| socket.mark.is_none())
    }

    /// Says that nothing was found, and of what.
    fn nothing(&self, args: &Args, snapshot: &Snapshot) -> Answer {
        nothing::say_nothing(
            &args.filter,
            self.protocols,
            self.states,
            args.space.as_deref(),
            snapshot,
        );
        let options = !args.protocols().is_empty() || args.states().is_some() || args.family().is_some();
        if options || !self.selection.is_everything() {
            Answer::No
        } else {
            Answer::Yes
        }
    }
}

/// A filter that fits nothing and looks like a command: a slip of the finger, or options before the command.
fn slip(filter: &[String]) -> Option<Failure> {
    let (first, rest) = filter.split_first()?;
    let command = similar_command(first)?;
    let rest = rest.iter().map(|word| format!(" {}", footer::shortened(word)));
    Some(Failure::Usage(format!(
        "no socket fits `{first}`; did you mean the command `portolan {command}{}`? (options come after its name; \
         for a filter write portolan list {first})",
        rest.collect::<String>(),
    )))
}

/// `tcp 0.0.0.0:80`, each once.
fn write_quiet(snapshot: &Snapshot, rows: &Rows, output: &mut impl Write) -> io::Result<()> {
    let mut seen = BTreeSet::<(SocketProtocol, State, String)>::new();
    for index in rows.sockets() {
        let socket = &snapshot.sockets[index];
        let space = snapshot.space(socket.space);
        let mut text = EndText::local(socket, space).to_string();
        if socket.remote.is_some() {
            text.push(' ');
            text.push_str(&EndText::remote(socket, space).to_string());
        }
        if seen.insert((socket.protocol, socket.state, text.clone())) {
            writeln!(output, "{} {text}", socket.protocol)?;
        }
    }
    Ok(())
}

/// How a command ends that could not read what it was pointed at.
pub(crate) fn space_failure(error: SpaceError) -> Failure {
    let text = error.to_string();
    match error {
        SpaceError::NoSuchName { .. } | SpaceError::NoSuchProcess(_) => Failure::Usage(text),
        SpaceError::NotPermitted { .. } => Failure::NotPermitted(text),
        // /proc missing, or a fault that this program does not know yet.
        _ => Failure::System(text),
    }
}

#[cfg(test)]
mod tests;
