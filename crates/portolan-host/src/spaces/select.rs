use std::io;
use std::path::Path;

use super::find::{Candidate, Found, find, host, listing_of, namespace_of, of_process};
use crate::{SpaceName, SpaceSelect};

/// Why the network namespaces that were asked for cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpaceError {
    /// No namespace has this name.
    #[error("there is no port space {name}; there are: {known} (or give the pid of a process in it)")]
    NoSuchName {
        /// The name that was asked for.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// No process has this id.
    #[error("no process has the id {0}, so there is no port space to look into")]
    NoSuchProcess(i32),
    /// It is known of, and neither entering it nor looking from outside is allowed.
    #[error("port space {name} cannot be read: {because}; it takes CAP_SYS_ADMIN (sudo)")]
    NotPermitted {
        /// What it is called.
        name: SpaceName,
        /// What was refused.
        because: String,
    },
    /// /proc cannot be read, which leads to the namespaces.
    #[error("the port spaces cannot be listed: {path}: {because}; mount /proc, or ask for --space host")]
    NoProc {
        /// The directory that was read.
        path: String,
        /// What the system said.
        because: String,
    },
}

/// The namespaces that `select` means.
pub(crate) fn select(root: &Path, select: &SpaceSelect) -> Result<Found, SpaceError> {
    let only = |candidate| Found {
        candidates: vec![candidate],
        beyond: 0,
    };
    match select {
        SpaceSelect::Every => all(root),
        SpaceSelect::Host => Ok(only(host(root))),
        SpaceSelect::Process(pid) => of_pid(root, *pid).map(only),
        SpaceSelect::Inode(inode) => {
            let name = SpaceName::Anonymous(*inode).to_string();
            one(root, &name, |candidate| candidate.inode == *inode).map(only)
        }
        SpaceSelect::Named(name) => one(root, name, |candidate| {
            candidate.name == SpaceName::Mounted(name.clone())
        })
        .map(only),
    }
}

fn all(root: &Path) -> Result<Found, SpaceError> {
    find(root).map_err(|error| SpaceError::NoProc {
        path: root.display().to_string(),
        because: error.to_string(),
    })
}

fn one(root: &Path, name: &str, wanted: impl Fn(&Candidate) -> bool) -> Result<Candidate, SpaceError> {
    let candidates = all(root)?.candidates;
    let mut known = String::new();
    for (index, candidate) in candidates.iter().enumerate() {
        if wanted(candidate) {
            return Ok(candidate.clone());
        }
        match index {
            0 => known = candidate.name.to_string(),
            1..MOST_NAMES => known = format!("{known}, {}", candidate.name),
            MOST_NAMES => known.push_str(", …"),
            _ => {}
        }
    }
    Err(SpaceError::NoSuchName {
        name: name.to_owned(),
        known,
    })
}

fn of_pid(root: &Path, pid: i32) -> Result<Candidate, SpaceError> {
    let host = host(root);
    let process = pid.to_string();
    match namespace_of(root, &process) {
        Ok(inode) if inode == host.inode => Ok(host),
        Ok(inode) => {
            // Found among all, it has its name.
            let mut candidate = one(root, &process, |candidate| candidate.inode == inode)
                .map_err(|_| SpaceError::NoSuchProcess(pid))?;
            candidate.pids.insert(0, pid);
            Ok(candidate)
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let listing = listing_of(root, &process);
            if listing.is_some() && listing == listing_of(root, "thread-self") {
                return Ok(host);
            }
            Ok(of_process(pid))
        }
        Err(_) => Err(SpaceError::NoSuchProcess(pid)),
    }
}

/// An error names so many namespaces.
const MOST_NAMES: usize = 8;

#[cfg(test)]
mod tests {
    use super::super::find::fixture::{MOUNTS, tree};
    use super::*;

    #[test]
    fn a_namespace_is_chosen_by_name_process_or_inode() {
        let root = tree(&[("1", 100), ("7", 200), ("8", 400)], MOUNTS);
        for (text, chosen) in [
            ("host", "host"),
            ("blue", "blue"),
            ("7", "blue"),
            ("1", "host"),
            ("8", "net:[400]"),
            ("pid:8", "net:[400]"),
            ("net:[200]", "blue"),
            ("net:[100]", "host"),
            ("net:[300]", "net:[300]"),
        ] {
            let found = select(root.path(), &SpaceSelect::from_text(text)).unwrap();
            let names: Vec<_> = found
                .candidates
                .iter()
                .map(|candidate| candidate.name.to_string())
                .collect();
            assert_eq!(names, [chosen], "{text}");
        }
        assert_eq!(
            select(root.path(), &SpaceSelect::Every).unwrap().candidates.len(),
            4
        );
    }

    #[test]
    fn what_is_not_there_is_named_with_what_is() {
        let root = tree(&[("7", 200)], MOUNTS);
        let error = select(root.path(), &SpaceSelect::from_text("red")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no port space red; there are: host, blue, net:[300] (or give the pid of a process in it)"
        );
        let error = select(root.path(), &SpaceSelect::from_text("net:[9]")).unwrap_err();
        assert!(matches!(error, SpaceError::NoSuchName { .. }));
        let error = select(root.path(), &SpaceSelect::from_text("99")).unwrap_err();
        assert_eq!(error, SpaceError::NoSuchProcess(99));
        let error = select(Path::new("/nonexistent"), &SpaceSelect::Every).unwrap_err();
        assert!(error.to_string().contains("/nonexistent"), "{error}");
    }

    #[test]
    fn an_error_names_some_of_many_namespaces() {
        let processes: Vec<_> = (1..=50_u64).map(|pid| (pid.to_string(), 1000 + pid)).collect();
        let processes: Vec<_> = processes
            .iter()
            .map(|(pid, inode)| (pid.as_str(), *inode))
            .collect();
        let root = tree(&processes, "");
        let error = select(root.path(), &SpaceSelect::from_text("red"))
            .unwrap_err()
            .to_string();
        assert!(error.len() < 400 && error.contains("…"), "{error}");
    }
}
