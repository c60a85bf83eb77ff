//! From what a person calls a container to a process in it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{ProcRoot, cgroup, proc_root};

/// Where container engines keep the names that people gave their containers.
#[derive(Clone, Debug)]
pub(crate) struct Stores {
    /// A directory with one directory for each container, `config.v2.json` in it: docker's.
    docker: PathBuf,
    /// Files with a list of containers each: podman's, of root and of this user.
    podman: Vec<PathBuf>,
}

impl Stores {
    /// Those of this machine.
    pub(crate) fn system() -> Self {
        let podman = "storage/overlay-containers/containers.json";
        let of_user = std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share/containers"));
        Self {
            docker: PathBuf::from("/var/lib/docker/containers"),
            podman: of_user
                .into_iter()
                .chain([PathBuf::from("/var/lib/containers")])
                .map(|directory| directory.join(podman))
                .collect(),
        }
    }

    /// The identifiers of the containers that have this name.
    fn ids(&self, name: &str) -> BTreeSet<String> {
        let mut ids = BTreeSet::new();
        for entry in fs::read_dir(&self.docker)
            .into_iter()
            .flatten()
            .flatten()
            .take(MOST_CONTAINERS)
        {
            let Some(config) = json(&entry.path().join("config.v2.json")) else {
                continue;
            };
            let named = config["Name"].as_str().map(|known| known.trim_start_matches('/'));
            if named == Some(name)
                && let Some(id) = config["ID"].as_str()
            {
                ids.insert(id.to_owned());
            }
        }
        for list in &self.podman {
            let Some(list) = json(list) else { continue };
            for container in list.as_array().into_iter().flatten().take(MOST_CONTAINERS) {
                let names = container["names"].as_array().into_iter().flatten();
                if names
                    .filter_map(serde_json::Value::as_str)
                    .any(|known| known == name)
                    && let Some(id) = container["id"].as_str()
                {
                    ids.insert(id.to_owned());
                }
            }
        }
        ids
    }
}

/// A process in the one container that has this name, this identifier, or an identifier that begins so.
///
/// `None` if there is none, or more than one.
pub(crate) fn process_of(root: &ProcRoot, stores: &Stores, wanted: &str) -> Option<i32> {
    let named = stores.ids(wanted);
    let mut found: Option<(String, i32)> = None;
    for pid in root.pids().ok()? {
        let Some(id) = container_of(root, pid) else {
            continue;
        };
        let is_meant = named.contains(&id) || (wanted.len() >= SHORTEST_ID && id.starts_with(wanted));
        match &found {
            _ if !is_meant => {}
            None => found = Some((id, pid)),
            Some((known, _)) if *known == id => {}
            Some(_) => return None,
        }
    }
    found.map(|(_, pid)| pid)
}

fn container_of(root: &ProcRoot, pid: i32) -> Option<String> {
    let text = proc_root::read_bounded(root.process_dir(pid).ok()?, c"cgroup", CGROUP_LIMIT).ok()?;
    cgroup::place(&text).container.map(|container| container.id)
}

fn json(path: &Path) -> Option<serde_json::Value> {
    let len = fs::metadata(path).ok()?.len();
    if len > STORE_LIMIT {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// As short as docker and podman accept without a name: with less, the chance of another container is large.
const SHORTEST_ID: usize = 4;

/// More containers than this are not looked through.
const MOST_CONTAINERS: usize = 10_000;

/// A store larger than this, in bytes, is not read.
const STORE_LIMIT: u64 = 16 << 20;

/// So much of /proc/PID/cgroup is read, in bytes.
const CGROUP_LIMIT: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = "3f2a91c0be11d0c58a8d2a7e2c4d6c1f0b9a87e6d5c4b3a2918070605040302f";
    const DB: &str = "3f2a00000000000000000000000000000000000000000000000000000000aaaa";
    const POD: &str = "c0ffee0000000000000000000000000000000000000000000000000000000001";

    fn fixture() -> (tempfile::TempDir, ProcRoot, Stores) {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: String, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for (pid, cgroup) in [
            (10, "0::/init.scope".to_owned()),
            (20, format!("0::/system.slice/docker-{WEB}.scope")),
            (21, format!("0::/system.slice/docker-{WEB}.scope")),
            (30, format!("0::/system.slice/docker-{DB}.scope")),
            (40, format!("0::/machine.slice/libpod-{POD}.scope")),
        ] {
            put(format!("proc/{pid}/cgroup"), &cgroup);
        }
        put(
            format!("docker/{WEB}/config.v2.json"),
            &format!(r#"{{"ID":"{WEB}","Name":"/web"}}"#),
        );
        put(format!("docker/{DB}/config.v2.json"), "not json");
        put(
            "podman.json".into(),
            &format!(r#"[{{"id":"{POD}","names":["pod","alias"]}}, 7]"#),
        );
        let root = ProcRoot::open(&dir.path().join("proc")).unwrap();
        let stores = Stores {
            docker: dir.path().join("docker"),
            podman: vec![dir.path().join("podman.json")],
        };
        (dir, root, stores)
    }

    #[test]
    fn a_container_is_found_by_name_by_id_and_by_the_beginning_of_its_id() {
        let (_dir, root, stores) = fixture();
        for (wanted, pid) in [
            ("web", Some(20)),
            ("pod", Some(40)),
            ("alias", Some(40)),
            (WEB, Some(20)),
            ("3f2a9", Some(20)),
            ("3f2a0", Some(30)),
            // The beginning of two, and too short.
            ("3f2a", None),
            ("c0f", None),
            ("database", None),
            ("", None),
        ] {
            assert_eq!(process_of(&root, &stores, wanted), pid, "{wanted:?}");
        }
    }
}
