//! `iana.lock`: which versions of the packages the table is made from, and what their bytes hash to.

use anyhow::{Context as _, bail, ensure};
use sha2::{Digest as _, Sha512};

/// The pinned packages.
#[derive(Debug)]
pub(crate) struct Lock {
    pins: Vec<Pin>,
}

/// One package as it was when the table was last made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pin {
    pub(crate) package: String,
    pub(crate) version: String,
    /// The file of the package that is read.
    pub(crate) file: String,
    /// SHA-512 of the archive that `npm pack` writes, in hexadecimal.
    pub(crate) archive_sha512: String,
    /// SHA-512 of `file`, in hexadecimal.
    pub(crate) file_sha512: String,
}

impl Lock {
    /// Reads lines of five fields with tabs between them; `#` begins a comment line.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut pins = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let fields: Vec<&str> = line.split('\t').collect();
            let [package, version, file, archive_sha512, file_sha512] = fields.as_slice() else {
                bail!("line {}: {} fields instead of 5", index + 1, fields.len());
            };
            pins.push(Pin {
                package: (*package).to_owned(),
                version: (*version).to_owned(),
                file: (*file).to_owned(),
                archive_sha512: (*archive_sha512).to_owned(),
                file_sha512: (*file_sha512).to_owned(),
            });
        }
        Ok(Self { pins })
    }

    /// The pin of `package`.
    pub(crate) fn pin(&self, package: &str) -> anyhow::Result<&Pin> {
        self.pins
            .iter()
            .find(|pin| pin.package == package)
            .with_context(|| format!("iana.lock does not name the package {package}"))
    }
}

impl Pin {
    /// `NAME@VERSION`, as npm writes it.
    pub(crate) fn spec(&self) -> String {
        format!("{}@{}", self.package, self.version)
    }
}

/// Whether `bytes` hash to `expected`; `what` names them in the error.
pub(crate) fn verify(what: &str, bytes: &[u8], expected: &str) -> anyhow::Result<()> {
    let found: String = Sha512::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    ensure!(
        found == expected,
        "{what} has sha512 {found}, but iana.lock pins {expected}; fetch it again, or, if the version was \
         raised on purpose, write the new sum into iana.lock"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // FIPS 180-4's example: SHA-512 of "abc".
    const ABC: &str = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                       2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";

    #[test]
    fn a_sum_that_differs_is_refused_with_both_sums() {
        verify("abc", b"abc", ABC).unwrap();
        let error = verify("abd", b"abd", ABC).unwrap_err().to_string();
        assert!(error.starts_with("abd has sha512 "), "{error}");
        assert!(error.contains(ABC), "{error}");
    }

    #[test]
    fn a_line_with_a_missing_field_is_named() {
        let lock = Lock::parse("# head\np\t1.0.0\tf.json\taa\tbb\n").unwrap();
        assert_eq!(lock.pin("p").unwrap().spec(), "p@1.0.0");
        assert!(lock.pin("q").unwrap_err().to_string().contains('q'));
        let error = Lock::parse("# head\np\t1.0.0\n").unwrap_err().to_string();
        assert_eq!(error, "line 2: 2 fields instead of 5");
    }
}
