//! Containers by the names of their cgroups.
//!
//! Each engine names the cgroup of a container after it, in one of two styles: with systemd's cgroup
//! driver a scope `PREFIX-ID.scope`, with the cgroupfs driver a plain directory `ID` below one of the
//! engine's own. The monitor of a container (conmon, `lxc.monitor`) lives outside of it and works for it
//! alone; it holds the container's published ports, and counts as part of it.

use crate::Container;

use super::unit::unescape;

/// The innermost container in a path, and the number of parts up to and including it.
pub(super) fn find(parts: &[&str]) -> Option<(Container, usize)> {
    (0..parts.len()).rev().find_map(|index| {
        let (engine, id) = recognise(parts[index], &parts[..index])?;
        Some((Container { engine, id }, index + 1))
    })
}

/// The engine and the id, if `part`, which stands below `above`, is the cgroup of a container.
fn recognise(part: &str, above: &[&str]) -> Option<(&'static str, String)> {
    if let Some(machine) = part
        .strip_prefix("systemd-nspawn@")
        .and_then(|rest| rest.strip_suffix(".service"))
    {
        return Some(("systemd-nspawn", unescape(machine)));
    }
    if let Some(machine) = part
        .strip_prefix("machine-")
        .and_then(|rest| rest.strip_suffix(".scope"))
    {
        return Some(registered_machine(unescape(machine)));
    }
    for prefix in ["lxc.payload.", "lxc.monitor."] {
        if let Some(name) = part.strip_prefix(prefix)
            && !name.is_empty()
        {
            return Some(("lxc", name.to_owned()));
        }
    }
    // runc's notation SLICE:PREFIX:NAME, taken literally where the cgroupfs driver got it.
    let mut fields = part.rsplitn(3, ':');
    if let (Some(id), Some(engine), Some(_slice)) = (fields.next(), fields.next(), fields.next())
        && is_id(id)
    {
        let known = PREFIXES
            .iter()
            .find(|(prefix, _)| prefix.strip_suffix('-') == Some(engine));
        return Some((known.map_or(OTHER, |(_, engine)| engine), id.to_owned()));
    }
    let name = part.strip_suffix(".scope").unwrap_or(part);
    for (prefix, engine) in PREFIXES {
        if let Some(id) = name.strip_prefix(prefix)
            && is_id(id)
        {
            return Some((engine, id.to_owned()));
        }
    }
    below_a_directory_of(part, above)
}

/// A plain directory is known by what stands above it.
fn below_a_directory_of(part: &str, above: &[&str]) -> Option<(&'static str, String)> {
    match above {
        [.., "lxc"] => return Some(("lxc", part.to_owned())),
        // `ctr run` chooses this namespace, and its containers have names.
        ["default"] => return Some(("containerd", part.to_owned())),
        // The id of a task on Fargate, and a number.
        ["ecs", task] => {
            let (id, count) = part.split_once('-').unwrap_or((part, "0"));
            if id == *task && count.bytes().all(|byte| byte.is_ascii_digit()) {
                return Some(("ecs", part.to_owned()));
            }
        }
        _ => {}
    }
    if !(part.len() == FULL_ID_LEN && is_id(part)) {
        return None;
    }
    let engine = above.iter().rev().find_map(|name| {
        if name.starts_with("kubepods") {
            return Some("kubernetes");
        }
        DIRECTORIES
            .iter()
            .find_map(|(directory, engine)| (directory == name).then_some(*engine))
    });
    Some((engine.unwrap_or(OTHER), part.to_owned()))
}

/// A machine that registered with systemd-machined under this name.
fn registered_machine(name: String) -> (&'static str, String) {
    let engine = if name.starts_with("qemu-") {
        "libvirt-qemu"
    } else if name.starts_with("lxc-") {
        "libvirt-lxc"
    } else {
        "systemd-nspawn"
    };
    (engine, name)
}

/// Whether this is the id of a container: hexadecimal digits, at least as many as the short form has.
fn is_id(text: &str) -> bool {
    (SHORT_ID_LEN..=FULL_ID_LEN).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// What stands before the id in the name of a cgroup.
const PREFIXES: [(&str, &str); 9] = [
    ("docker-", "docker"),
    ("libpod-conmon-", "podman"),
    ("libpod-payload-", "podman"),
    ("libpod-", "podman"),
    ("cri-containerd-", "containerd"),
    ("nerdctl-", "containerd"),
    ("crio-conmon-", "cri-o"),
    ("crio-", "cri-o"),
    ("runc-", "runc"),
];

/// The directories below which an engine puts its containers by their full ids.
const DIRECTORIES: [(&str, &str); 7] = [
    ("docker", "docker"),
    ("libpod_parent", "podman"),
    ("nerdctl", "containerd"),
    ("k8s.io", "containerd"),
    ("moby", "docker"),
    ("ecs", "ecs"),
    ("buildkit", "buildkit"),
];

/// A container by its full id, of an engine that leaves no other sign.
const OTHER: &str = "oci";

const SHORT_ID_LEN: usize = 12;
const FULL_ID_LEN: usize = 64;
