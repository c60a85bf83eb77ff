//! `cargo xtask gen-ports DIR`: IANA's registry, from two npm packages into one table.
//!
//! ```text
//! DIR ─▶ packages::find ─▶ lock::verify ─▶ packages::read_* ─▶ merge ─▶ overrides ─▶ table::write ─▶ iana-ports.tsv
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::lock::Lock;
use crate::overrides::Overrides;
use crate::{merge, packages, table};

/// Makes the committed table anew from the packages under `dir`.
pub(crate) fn run(dir: &Path) -> anyhow::Result<()> {
    let data = data_directory();
    let lock = Lock::parse(&read(&data.join("iana.lock"))?).context("iana.lock")?;
    let newer = packages::load(&lock, dir, packages::NEWER)?;
    let older = packages::load(&lock, dir, packages::OLDER)?;
    let assigned = packages::read_newer(&newer).context(packages::NEWER)?;
    let former = packages::read_older(&older).context(packages::OLDER)?;

    let mut rows = merge::merge(assigned, former);
    Overrides::parse(&read(&data.join("overrides.tsv"))?)
        .and_then(|overrides| overrides.apply(&mut rows))
        .context("overrides.tsv")?;

    let path = data.join("iana-ports.tsv");
    fs::write(&path, table::print(&rows, &lock)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    let named: u32 = rows
        .iter()
        .filter(|row| !row.names.is_empty())
        .map(merge::Row::keys)
        .sum();
    println!(
        "{}: {named} keys with a name, {} rows",
        path.display(),
        rows.len()
    );
    Ok(())
}

/// Where the registry's crate keeps its data, so that the crate can be published by itself.
fn data_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../portolan-core/data")
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
