//! Ending those who hold a port, and nobody else.

use std::collections::BTreeMap;

use portolan_host::{HandleError, PortHolder, PortUse, ProcRoot, ProcessHandle, Signal, Snapshot};

use super::chosen::place;
use super::report::printable;
use crate::ask::ask;
use crate::exit::{Answer, Failure};
use crate::footer::say;

/// Sends `signal` to every process that holds one of the ports, after asking.
///
/// A process is taken hold of before the question and checked again after it: its start time, so that no
/// other process has its number, and that it still holds one of the sockets.
pub(super) fn run(
    snapshot: &Snapshot,
    uses: &[&PortUse],
    signal: Signal,
    yes: bool,
) -> Result<Answer, Failure> {
    let root = ProcRoot::system().map_err(|error| Failure::System(error.to_string()))?;
    let mut targets: BTreeMap<i32, Target> = BTreeMap::new();
    let mut unnamed = 0;
    for usage in uses {
        match usage.holder {
            PortHolder::Process(pid) => {
                let target = targets.entry(pid).or_default();
                target.ports.push(format!(
                    "{}/{}{}",
                    usage.port,
                    usage.protocol,
                    place(snapshot.space(usage.space))
                ));
                for index in &usage.sockets {
                    // Of a published port what counts is the socket behind it.
                    match snapshot.published.get(index).map(|by| by.inode) {
                        None => target.inodes.push(snapshot.sockets[*index].inode),
                        Some(Some(inode)) => target.inodes.push(inode),
                        Some(None) => target.is_for_all = true,
                    }
                }
            }
            PortHolder::Nobody(_) if usage.holder.is_somebody() => unnamed += 1,
            PortHolder::Nobody(_) => {}
        }
    }
    let mut handles = Vec::new();
    let mut failures = Vec::new();
    for (pid, target) in &targets {
        let process = snapshot.processes.get(pid).ok_or(HandleError::Gone { pid: *pid });
        match process.and_then(|process| ProcessHandle::open(&root, *pid, process.start_time)) {
            Ok(handle) => handles.push((handle, target)),
            Err(error) => failures.push(error),
        }
    }
    let names = handles.iter().map(|(handle, target)| {
        let name = snapshot
            .processes
            .get(&handle.pid())
            .map(|process| printable(&process.name));
        format!(
            "{} (pid {}), which holds {}",
            name.unwrap_or_default(),
            handle.pid(),
            target.ports.join(", ")
        )
    });
    let question = format!("send {signal} to {}?", names.collect::<Vec<_>>().join("; "));
    if !handles.is_empty() && !yes && !ask(&question, "--yes")? {
        return Ok(Answer::No);
    }
    for (handle, target) in &handles {
        match end(&root, handle, target, signal) {
            Ok(true) => say(&format!(
                "sent {signal} to pid {}, which held {}",
                handle.pid(),
                target.ports.join(", ")
            )),
            Ok(false) => say(&format!(
                "pid {} no longer holds {}; it was left alone",
                handle.pid(),
                target.ports.join(", ")
            )),
            Err(error) => failures.push(error),
        }
    }
    outcome(failures, unnamed)
}

/// What one process is to be ended for.
#[derive(Default)]
struct Target {
    ports: Vec<String>,
    inodes: Vec<u64>,
    /// It is the program of a space that publishes the port, and holds nothing there.
    is_for_all: bool,
}

/// Whether the signal was sent: not to a process that has let go of the sockets.
fn end(
    root: &ProcRoot,
    handle: &ProcessHandle,
    target: &Target,
    signal: Signal,
) -> Result<bool, HandleError> {
    if target.is_for_all {
        handle.send_signal(signal)?;
        return Ok(true);
    }
    for inode in &target.inodes {
        if handle.still_holds(root, *inode)? {
            handle.send_signal(signal)?;
            return Ok(true);
        }
    }
    Ok(false)
}

fn outcome(failures: Vec<HandleError>, unnamed: usize) -> Result<Answer, Failure> {
    let mut not_permitted = Vec::new();
    let mut failed = Vec::new();
    for error in failures {
        match error {
            // Whoever has ended holds nothing any more, which is what was asked for.
            HandleError::Gone { .. } | HandleError::Reused { .. } => say(&error.to_string()),
            HandleError::NotPermitted { .. } => not_permitted.push(error.to_string()),
            _ => failed.push(error.to_string()),
        }
    }
    if unnamed > 0 {
        not_permitted.push(
            "a holder may not be seen, so it was sent no signal: it belongs to another user or to the kernel; \
             as root it can be named"
                .to_owned(),
        );
    }
    if !not_permitted.is_empty() {
        return Err(Failure::NotPermitted(not_permitted.join("; ")));
    }
    if !failed.is_empty() {
        return Err(Failure::System(failed.join("; ")));
    }
    Ok(Answer::Yes)
}
