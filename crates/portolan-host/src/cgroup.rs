use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use crate::Container;

mod container;
mod unit;

/// Where a process stands in the tree of cgroups, and what that says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Placement {
    /// The path below the root of the hierarchy.
    pub(crate) path: Option<OsString>,
    /// The systemd unit.
    pub(crate) unit: Option<String>,
    /// The container.
    pub(crate) container: Option<Container>,
}

/// Reads the text of /proc/PID/cgroup (cgroups(7)).
pub(crate) fn place(text: &[u8]) -> Placement {
    let Some(path) = path(text) else {
        return Placement::default();
    };
    let readable = String::from_utf8_lossy(path);
    let (unit, container) = classify(&readable);
    Placement {
        path: Some(OsString::from_vec(path.to_vec())),
        unit,
        container,
    }
}

/// What a cgroup path says: the systemd unit and the container.
///
/// A container may run a systemd of its own; then the unit is the inner one.
fn classify(path: &str) -> (Option<String>, Option<Container>) {
    // The kernel marks a cgroup that was removed while a process still lives in it.
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    // Above the root of our own cgroup namespace, paths climb: /../other.
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != "..")
        .take(PARTS_LIMIT)
        .collect();
    match container::find(&parts) {
        Some((container, end)) => {
            let unit = unit::find(&parts[end..]).or_else(|| unit::find(&parts));
            (unit, Some(container))
        }
        None => (unit::find(&parts), None),
    }
}

/// The most telling of the paths: of the v2 hierarchy, of systemd's own v1 hierarchy, or else of the first
/// v1 hierarchy in which the process has been moved anywhere.
fn path(text: &[u8]) -> Option<&[u8]> {
    let lines = || {
        text.split(|byte| *byte == b'\n').filter_map(|line| {
            // HIERARCHY:CONTROLLERS:PATH, and the path may hold colons.
            let mut fields = line.splitn(3, |byte| *byte == b':');
            Some((fields.next()?, fields.next()?, fields.next()?))
        })
    };
    let moved = |path: &&[u8]| *path != b"/";
    let unified = lines().find_map(|(hierarchy, _, path)| (hierarchy == b"0").then_some(path));
    let systemd = lines().find_map(|(_, controllers, path)| (controllers == b"name=systemd").then_some(path));
    unified
        .filter(moved)
        .or_else(|| systemd.filter(moved))
        .or_else(|| lines().map(|(_, _, path)| path).find(moved))
        .or(unified)
        .or(systemd)
}

/// Deeper than any tree in use.
const PARTS_LIMIT: usize = 256;

#[cfg(test)]
mod tests;
