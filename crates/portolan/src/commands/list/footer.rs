//! What is said on standard error beside the list: what could not be seen, and that nothing was found.

use std::io::{self, Write};

use portolan_core::Escaped;
use portolan_host::{ProtocolSet, Snapshot, StateSet};

/// What there is to say.
pub(super) struct Footer<'a> {
    pub(super) snapshot: &'a Snapshot,
    /// Whether to count what is hidden.
    pub(super) hidden: bool,
    /// Columns that found no place.
    pub(super) dropped: &'a [&'static str],
    pub(super) services_warning: Option<&'a str>,
    pub(super) verbose: bool,
    /// Marks were asked for and not shown.
    pub(super) marks_unseen: bool,
}

pub(super) fn write(footer: &Footer<'_>) {
    let mut text = Vec::new();
    // Writing to memory does not fail; nothing is left to tell anyone if standard error is closed.
    let _ = write_to(footer, &mut text);
    let _ = io::stderr().write_all(&text);
}

fn write_to(footer: &Footer<'_>, out: &mut impl Write) -> io::Result<()> {
    let Footer {
        snapshot,
        hidden,
        dropped,
        services_warning,
        verbose,
        marks_unseen,
    } = *footer;
    if !dropped.is_empty() {
        writeln!(
            out,
            "portolan: columns left out at this width: {}",
            dropped.join(", ")
        )?;
    }
    let owners = match snapshot.hidden.owners {
        0 => None,
        1 => Some("the owner of 1 socket".to_owned()),
        count => Some(format!("the owners of {count} sockets")),
    };
    let spaces = match snapshot.hidden.spaces {
        0 => None,
        1 => Some("1 port space".to_owned()),
        count => Some(format!("{count} port spaces")),
    };
    let unseen = owners.into_iter().chain(spaces).collect::<Vec<_>>();
    if hidden && !unseen.is_empty() {
        write!(out, "portolan: could not read {}", unseen.join(" and "))?;
        match &snapshot.hidden.remedy {
            Some(remedy) => writeln!(out, "; {}", Escaped::new(remedy))?,
            None => writeln!(out)?,
        }
    }
    if marks_unseen {
        writeln!(
            out,
            "portolan: some firewall marks could not be read, so that fwmark does not fit those sockets; it takes \
             CAP_NET_ADMIN (sudo)"
        )?;
    }
    for warning in snapshot
        .warnings
        .iter()
        .map(String::as_str)
        .chain(services_warning)
    {
        writeln!(out, "portolan: {}", Escaped::new(warning))?;
    }
    if verbose {
        let collectors = snapshot
            .collectors
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>();
        writeln!(out, "portolan: read by {}", collectors.join("; "))?;
        let spaces = snapshot
            .spaces
            .iter()
            .map(|space| space.name.to_string())
            .collect::<Vec<_>>();
        writeln!(out, "portolan: port spaces: {}", Escaped::new(&spaces.join(", ")))?;
    }
    Ok(())
}

/// Says that no socket fits, and what was looked for.
pub(super) fn nothing(
    filter: &[String],
    protocols: ProtocolSet,
    states: StateSet,
    space: Option<&str>,
    snapshot: &Snapshot,
) {
    let protocols = match protocols {
        ProtocolSet::PORTS | ProtocolSet::ALL => String::new(),
        some => some.iter().map(|protocol| format!("{protocol} ")).collect(),
    };
    let what = match states {
        StateSet::OPEN => "socket is open".to_owned(),
        StateSet::ALL => "socket is there".to_owned(),
        some => {
            let names = some.iter().map(|state| state.to_string()).collect::<Vec<_>>();
            format!("socket is {}", names.join(" or "))
        }
    };
    let fits = match filter {
        [] => String::new(),
        words => format!(" that fits `{}`", shortened(&words.join(" "))),
    };
    let place = match space {
        Some(space) => format!(" in {}", shortened(space)),
        None => String::new(),
    };
    let all = match states {
        StateSet::OPEN if !filter.is_empty() => "; --all looks at connections too",
        _ => "",
    };
    let similar = similar_holder(filter, snapshot);
    let _ = writeln!(
        io::stderr(),
        "portolan: no {protocols}{what}{place}{fits}{all}{similar}"
    );
}

/// A holder whose name begins with the only word of the filter: `python` for `python3`.
fn similar_holder(filter: &[String], snapshot: &Snapshot) -> String {
    let [word] = filter else {
        return String::new();
    };
    let names = snapshot
        .processes
        .values()
        .filter_map(|process| process.name.to_str())
        .filter(|name| word.len() >= 3 && name.len() > word.len() && name.starts_with(word.as_str()));
    match names.min() {
        Some(name) => format!("; there is {}: write '{}*'", Escaped::new(name), shortened(word)),
        None => String::new(),
    }
}

/// Untrusted words, short enough for one line.
pub(super) fn shortened(text: &str) -> String {
    Escaped::new(text).bounded(80).to_string()
}

#[cfg(test)]
mod tests {
    use portolan_host::{Collector, Hidden};

    use super::*;

    #[test]
    fn everything_that_is_missing_is_said() {
        let snapshot = Snapshot {
            hidden: Hidden {
                owners: 2,
                spaces: 1,
                remedy: Some("run as root".to_owned()),
            },
            warnings: vec!["the dump was \x1b interrupted".to_owned()],
            collectors: vec![Collector::SockDiag],
            ..Snapshot::default()
        };
        let mut text = Vec::new();
        let footer = Footer {
            snapshot: &snapshot,
            hidden: true,
            dropped: &["USER", "UNIT/CONTAINER"],
            services_warning: None,
            verbose: true,
            marks_unseen: false,
        };
        write_to(&footer, &mut text).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "portolan: columns left out at this width: USER, UNIT/CONTAINER\n\
             portolan: could not read the owners of 2 sockets and 1 port space; run as root\n\
             portolan: the dump was \\x1b interrupted\n\
             portolan: read by sock_diag netlink\n\
             portolan: port spaces: \n"
        );
    }
}
