//! Who is who: the maps of users and groups between a user namespace and the one outside (user_namespaces(7)).

use std::fs;
use std::io;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::process::{Pid, getegid, geteuid};

use crate::config::Identity;
use crate::error::Step;

/// `count` ids from `inside` on are those from `outside` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    inside: u32,
    outside: u32,
    count: u32,
}

/// Every id there is: -1 is none.
const ALL_IDS: u32 = u32::MAX;

/// Writes the maps of the user namespace in which the process `pid` is, a child of ours.
///
/// A single user and a single group need no privilege. Root maps everybody, each to himself, if it may: files keep
/// their owners, and a server can change to its user.
pub(crate) fn write(pid: Pid, identity: Identity, sub_ids: bool) -> Result<(), (Step, Errno)> {
    let caller = Caller::here();
    if sub_ids && caller.user != 0 {
        return write_sub_ids(pid, caller, identity);
    }
    if caller.user == 0 && write_all(pid).is_ok() {
        return Ok(());
    }
    write_single(&pid.as_raw_nonzero().to_string(), caller, identity)
}

/// Whether a caller whom the kernel lets map nobody, himself included, can do without maps: as root is kept from it where he
/// lacks CAP_SETFCAP (Linux 5.12), and only if the program is to be root inside he must be.
pub(crate) fn may_be_nobody(identity: Identity) -> bool {
    Caller::here().user == 0 && identity == Identity::Caller
}

/// Writes the maps of the calling process's own user namespace: a single user and a single group.
pub(crate) fn write_own(caller: Caller, identity: Identity) -> Result<(), (Step, Errno)> {
    write_single("self", caller, identity)
}

/// A user and a group, as the user namespace outside numbers them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    user: u32,
    group: u32,
}

impl Caller {
    /// Those of this process, in the user namespace where it is now.
    pub(crate) fn here() -> Self {
        Self {
            user: geteuid().as_raw(),
            group: getegid().as_raw(),
        }
    }

    /// User and group inside.
    const fn inside(self, identity: Identity) -> Self {
        match identity {
            Identity::Caller => self,
            Identity::Root => Self { user: 0, group: 0 },
        }
    }
}

fn write_single(process: &str, caller: Caller, identity: Identity) -> Result<(), (Step, Errno)> {
    let inside = caller.inside(identity);
    let single = |inside, outside| {
        text(&[Extent {
            inside,
            outside,
            count: 1,
        }])
    };
    let write = || {
        // Without CAP_SETGID outside, groups can be mapped only once nobody inside can leave one (CVE-2014-8989).
        fs::write(format!("/proc/{process}/setgroups"), "deny")?;
        fs::write(
            format!("/proc/{process}/gid_map"),
            single(inside.group, caller.group),
        )?;
        fs::write(
            format!("/proc/{process}/uid_map"),
            single(inside.user, caller.user),
        )
    };
    write().map_err(|error| (Step::IdMap, errno(&error)))
}

fn write_all(pid: Pid) -> io::Result<()> {
    let all = text(&[Extent {
        inside: 0,
        outside: 0,
        count: ALL_IDS,
    }]);
    let pid = pid.as_raw_nonzero();
    fs::write(format!("/proc/{pid}/uid_map"), &all)?;
    fs::write(format!("/proc/{pid}/gid_map"), &all)
}

/// Has the set-uid helpers of shadow write the maps, with the ranges that this user was given.
fn write_sub_ids(pid: Pid, caller: Caller, identity: Identity) -> Result<(), (Step, Errno)> {
    let failed = |error| (Step::SubIds, error);
    let names = user_names(caller.user);
    let first = caller.inside(identity);
    for (helper, file, inside, outside) in [
        ("newuidmap", "/etc/subuid", first.user, caller.user),
        ("newgidmap", "/etc/subgid", first.group, caller.group),
    ] {
        let ranges = fs::read_to_string(file)
            .map(|text| sub_ranges(&text, &names))
            .unwrap_or_default();
        if ranges.is_empty() {
            return Err(failed(Errno::NOENT));
        }
        let mut command = Command::new(helper);
        command.arg(pid.as_raw_nonzero().to_string());
        for extent in around(inside, outside, &ranges) {
            command.args([extent.inside, extent.outside, extent.count].map(|id| id.to_string()));
        }
        let status = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .map_err(|error| failed(errno(&error)))?;
        if !status.success() {
            return Err(failed(Errno::PERM));
        }
    }
    Ok(())
}

/// The names under which files speak of a user: the number, and the name in /etc/passwd.
fn user_names(user: u32) -> Vec<String> {
    let number = user.to_string();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    });
    name.into_iter().chain([number]).collect()
}

/// The ranges of these names in a file of subuid(5): first id and count.
fn sub_ranges(text: &str, names: &[String]) -> Vec<(u32, u32)> {
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let range = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (names.iter().any(|known| known == name) && range.1 > 0).then_some(range)
    };
    text.lines().filter_map(range).collect()
}

/// Maps the one id as wanted, and the ranges to the ids around it, from 0 up.
fn around(inside: u32, outside: u32, ranges: &[(u32, u32)]) -> Vec<Extent> {
    let mut extents = vec![Extent {
        inside,
        outside,
        count: 1,
    }];
    let mut next = 0;
    for &(first, count) in ranges {
        let mut taken = 0;
        while taken < count {
            if next == inside {
                next += 1;
            }
            let until = if next < inside { inside } else { ALL_IDS };
            let count = (count - taken).min(until - next);
            if count == 0 {
                return extents;
            }
            extents.push(Extent {
                inside: next,
                outside: first.saturating_add(taken),
                count,
            });
            next += count;
            taken += count;
        }
    }
    extents
}

fn text(extents: &[Extent]) -> String {
    extents
        .iter()
        .map(|extent| format!("{} {} {}\n", extent.inside, extent.outside, extent.count))
        .collect()
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_number() {
        let names = ["ada".to_owned(), "1000".to_owned()];
        let text = "root:1:2\nada:100000:65536\n1000:300000:10\nadam:5:5\nada:x:1\nada:7\nada:9:0\n";
        assert_eq!(sub_ranges(text, &names), [(100_000, 65_536), (300_000, 10)]);
    }

    #[test]
    fn the_caller_keeps_its_id_and_the_ranges_fill_what_is_around() {
        let extents = around(1000, 1000, &[(100_000, 65_536)]);
        assert_eq!(text(&extents), "1000 1000 1\n0 100000 1000\n1001 101000 64536\n");
        let extents = around(0, 1000, &[(100_000, 10), (200_000, 5)]);
        assert_eq!(text(&extents), "0 1000 1\n1 100000 10\n11 200000 5\n");
    }
}
