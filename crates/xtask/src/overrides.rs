//! `overrides.tsv`: single keys whose names the merge would order wrongly.

use anyhow::{Context as _, bail};

use crate::merge::Row;
use crate::names::Transport;

/// The corrections, in the order of the file.
#[derive(Debug)]
pub(crate) struct Overrides(Vec<Override>);

#[derive(Debug)]
struct Override {
    port: u16,
    transport: Transport,
    names: Vec<String>,
    description: String,
}

impl Overrides {
    /// Reads lines of port, protocol, names (the primary one first) and description, with tabs between
    /// them; an empty description keeps the merge's.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut overrides = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let fields: Vec<&str> = line.split('\t').collect();
            let [port, transport, names, description] = fields.as_slice() else {
                bail!("line {}: {} fields instead of 4", index + 1, fields.len());
            };
            overrides.push(Override {
                port: port
                    .parse()
                    .with_context(|| format!("line {}: port {port:?}", index + 1))?,
                transport: Transport::from_name(transport)
                    .with_context(|| format!("line {}: protocol {transport:?}", index + 1))?,
                names: names.split(',').map(str::to_owned).collect(),
                description: (*description).to_owned(),
            });
        }
        Ok(Self(overrides))
    }

    /// Puts the names of each override in the place of its row's; a former name that is among them is
    /// former no more.
    ///
    /// An override of a key that the table no longer has is an error, so that none outlives its reason.
    pub(crate) fn apply(&self, rows: &mut [Row]) -> anyhow::Result<()> {
        for change in &self.0 {
            let row = rows
                .iter_mut()
                .find(|row| {
                    (row.first, row.last, row.transport) == (change.port, change.port, change.transport)
                })
                .with_context(|| {
                    format!(
                        "{}/{} is no longer in the registry; remove its line",
                        change.port, change.transport
                    )
                })?;
            row.names.clone_from(&change.names);
            row.former.retain(|name| !change.names.contains(name));
            if !change.description.is_empty() {
                row.description.clone_from(&change.description);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printer() -> Row {
        Row {
            first: 631,
            last: 631,
            transport: Transport::Tcp,
            names: vec!["ipps".to_owned()],
            former: vec!["ipp".to_owned(), "other".to_owned()],
            description: "over HTTPS".to_owned(),
            reference: String::new(),
        }
    }

    #[test]
    fn an_override_sets_the_names_and_their_order() {
        let mut rows = [printer()];
        let overrides = Overrides::parse("# why\n631\ttcp\tipp,ipps\tInternet Printing Protocol\n").unwrap();
        overrides.apply(&mut rows).unwrap();
        assert_eq!(rows[0].names, ["ipp", "ipps"]);
        assert_eq!(rows[0].former, ["other"]);
        assert_eq!(rows[0].description, "Internet Printing Protocol");
    }

    #[test]
    fn an_override_without_its_key_is_an_error() {
        let overrides = Overrides::parse("632\ttcp\tx\t\n").unwrap();
        let error = overrides.apply(&mut [printer()]).unwrap_err().to_string();
        assert!(error.starts_with("632/tcp is no longer"), "{error}");
        assert!(Overrides::parse("631\ttcp\tx\n").is_err());
        assert!(Overrides::parse("631\ticmp\tx\t\n").is_err());
    }
}
