//! The answer for a person.

use std::io::{self, Write};

use portolan_core::registry::Services;
use portolan_core::{Escaped, Port};
use portolan_host::{BindExplanation, BindQuestion, BindVerdict, Ownership, Snapshot, Users};

use super::words::{self, PlannedText};
use crate::text::address::EndText;
use crate::text::ownerless::OwnerlessText;

pub(super) fn write(
    out: &mut impl Write,
    question: &BindQuestion,
    explanation: &BindExplanation,
    services: &Services,
) -> io::Result<()> {
    let planned = &explanation.planned;
    let mut users = Users::new();
    let answer = match &explanation.verdict {
        BindVerdict::Yes { .. } => "yes",
        BindVerdict::No(_) => "no",
        BindVerdict::Unknown(_) => "unknown",
    };
    let service = match services.name(question.port, words::protocol(planned.transport)) {
        Some(name) if question.port != Port::ZERO => format!(" ({})", Escaped::new(name)),
        Some(_) | None => String::new(),
    };
    writeln!(
        out,
        "{answer}: {}{service} by {}, {}",
        PlannedText(planned),
        words::user(planned.uid, &mut users),
        words::reach_of(planned)
    )?;
    if let BindVerdict::No(obstacle) = &explanation.verdict {
        let errno = obstacle.errno();
        row(out, "error", &format!("{errno}, {}", words::meaning(errno)))?;
    }
    for (count, (&index, &sharing)) in explanation
        .in_the_way
        .iter()
        .zip(&explanation.sharing)
        .enumerate()
    {
        let label = if count == 0 { "in the way" } else { "" };
        if count == MOST_SHOWN {
            let more = explanation.in_the_way.len() - MOST_SHOWN;
            row(out, label, &format!("and {more} more"))?;
            break;
        }
        let text = format!(
            "{}; {}",
            in_the_way(&explanation.snapshot, index),
            words::sharing_text(sharing)
        );
        row(out, label, &text)?;
    }
    row(out, "because", &words::because(question, explanation))?;
    for (count, remedy) in words::remedies(question, explanation).iter().enumerate() {
        row(out, if count == 0 { "to do" } else { "" }, remedy)?;
    }
    Ok(())
}

/// `127.0.0.1:8080 listen, cat (pid 812, root)`
fn in_the_way(snapshot: &Snapshot, index: usize) -> String {
    let socket = &snapshot.sockets[index];
    let space = snapshot.space(socket.space);
    let mut text = EndText::local(socket, space).to_string();
    if socket.remote.is_some() {
        text = format!("{text} to {}", EndText::remote(socket, space));
    }
    if socket.device != 0 {
        match space.device_name(socket.device) {
            Some(name) => text = format!("{text} on {}", Escaped::new(name)),
            None => text = format!("{text} on device {}", socket.device),
        }
    }
    let who = match snapshot.ownership.get(index) {
        Some(Ownership::Held(owners)) => owners
            .iter()
            .map(|owner| match snapshot.processes.get(&owner.pid) {
                Some(process) => {
                    let user = match &process.user {
                        Some(user) => Escaped::new(user).to_string(),
                        None => format!("uid {}", process.uid),
                    };
                    let unit = match &process.unit {
                        Some(unit) => format!(", {}", Escaped::new(unit)),
                        None => String::new(),
                    };
                    format!(
                        "{} (pid {}, {user}{unit})",
                        words::name_of(&process.name),
                        owner.pid
                    )
                }
                None => format!("pid {}", owner.pid),
            })
            .collect::<Vec<_>>()
            .join(", "),
        Some(Ownership::Nobody(ownerless)) => OwnerlessText {
            ownerless,
            uid: socket.uid,
            user: None,
        }
        .to_string(),
        None => "owner unknown".to_owned(),
    };
    format!("{text} {}, {who}", socket.state)
}

fn row(out: &mut impl Write, label: &str, text: &str) -> io::Result<()> {
    writeln!(out, "  {label:<12}{text}")
}

/// So many sockets in the way are listed; a busy port has a million connections.
const MOST_SHOWN: usize = 8;
