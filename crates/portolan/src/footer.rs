//! What is said on standard error beside the answer: what could not be seen, and where the answer came from.

use std::io::{self, Write};

use portolan_core::Escaped;
use portolan_host::{PassedOver, Snapshot};

pub(crate) use crate::message::say;

/// What there is to say.
pub(crate) struct Footer<'a> {
    pub(crate) snapshot: &'a Snapshot,
    /// Whether to count what is hidden.
    pub(crate) hidden: bool,
    /// Columns that found no place.
    pub(crate) dropped: &'a [&'static str],
    pub(crate) services_warning: Option<&'a str>,
    pub(crate) verbose: bool,
    /// Whether protocols were asked for by name.
    pub(crate) named_protocols: bool,
    /// Marks were asked for and not shown.
    pub(crate) marks_unseen: bool,
}

pub(crate) fn write(footer: &Footer<'_>) {
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
        named_protocols,
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
    if verbose || named_protocols {
        for protocol in snapshot.unlisted.iter() {
            writeln!(out, "portolan: this kernel does not list its {protocol} sockets")?;
        }
        for protocol in snapshot.unseen_by_text.iter() {
            writeln!(
                out,
                "portolan: {protocol} sockets are not seen where netlink cannot be asked: the text files of /proc \
                 do not show them"
            )?;
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
        for PassedOver { collector, reason } in &snapshot.passed_over {
            writeln!(out, "portolan: not by {collector}: {}", Escaped::new(reason))?;
        }
        let spaces = snapshot
            .spaces
            .iter()
            .map(|space| space.name.to_string())
            .collect::<Vec<_>>();
        writeln!(out, "portolan: port spaces: {}", Escaped::new(&spaces.join(", ")))?;
    }
    Ok(())
}

/// Untrusted words, short enough for one line.
pub(crate) fn shortened(text: &str) -> String {
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
            unseen_by_text: portolan_host::ProtocolSet::EMPTY.with(portolan_host::SocketProtocol::Mptcp),
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
            named_protocols: false,
            marks_unseen: false,
        };
        write_to(&footer, &mut text).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "portolan: columns left out at this width: USER, UNIT/CONTAINER\n\
             portolan: could not read the owners of 2 sockets and 1 port space; run as root\n\
             portolan: mptcp sockets are not seen where netlink cannot be asked: the text files of /proc do not \
             show them\n\
             portolan: the dump was \\x1b interrupted\n\
             portolan: read by sock_diag netlink\n\
             portolan: port spaces: \n"
        );
    }
}
