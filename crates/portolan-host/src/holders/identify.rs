use std::collections::HashMap;

use rustix::io::Errno;

use super::scan::leads_to;
use super::{Holding, Holdings};
use crate::{ProcRoot, Process, ReadProcessError, Users};

impl Holdings {
    /// Reads the processes that hold a socket, and drops the holdings of those that are no longer there.
    ///
    /// A process may have ended since it was found, and its number may have been given to another. Where
    /// the start time leaves that open, the descriptor itself is asked again.
    #[must_use]
    pub fn identify(&mut self, root: &ProcRoot, users: &mut Users) -> HashMap<i32, Process> {
        let mut by_process: HashMap<i32, Vec<Holding>> = HashMap::new();
        for holding in &self.holdings {
            by_process.entry(holding.pid).or_default().push(*holding);
        }
        let mut processes = HashMap::with_capacity(by_process.len());
        for (pid, holdings) in by_process {
            match Process::read(root, pid, users) {
                Ok(process) => {
                    if process.start_time < self.began || still_there(root, &holdings) {
                        processes.insert(pid, process);
                    }
                }
                Err(ReadProcessError::Gone { .. }) => {}
                Err(error) => self
                    .warnings
                    .push(format!("{error}; the sockets it holds show no owner")),
            }
        }
        self.holdings
            .retain(|holding| processes.contains_key(&holding.pid));
        processes
    }
}

/// Whether a process holds one of the sockets that were found with it. If we may not look, what was found
/// a moment ago stands.
fn still_there(root: &ProcRoot, holdings: &[Holding]) -> bool {
    holdings.iter().any(|holding| {
        let answer = root
            .process_dir(holding.pid)
            .and_then(|process| leads_to(process, holding.fd, holding.inode));
        match answer {
            Ok(same) => same,
            Err(error) => matches!(Errno::from_io_error(&error), Some(Errno::ACCESS | Errno::PERM)),
        }
    })
}
