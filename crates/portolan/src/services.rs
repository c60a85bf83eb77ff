//! The names of ports on this machine: the embedded registry behind /etc/services.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use portolan_core::Escaped;
use portolan_core::registry::Services;

use crate::exit::Failure;

/// Where services(5) keeps the machine's own names.
pub(crate) const FILE: &str = "/etc/services";
/// As much as the parser reads, and a byte more, so that it can say that there was more.
const MAX_BYTES: u64 = (4 << 20) + 1;

/// The names by `path`, and a line for a person about what could not be used of it.
///
/// A machine without the file is an ordinary machine: nothing is said.
pub(crate) fn load(path: &Path) -> (Services, Option<String>) {
    match read(path) {
        Ok(text) => with_overrides(path, &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound && path == Path::new(FILE) => {
            (Services::built_in(), None)
        }
        Err(error) => {
            let warning = format!("cannot read {}: {error}; its names are left out", shown(path));
            (Services::built_in(), Some(warning))
        }
    }
}

/// The same of a file that was asked for by name: without it there is no answer.
pub(crate) fn load_given(path: &Path) -> Result<(Services, Option<String>), Failure> {
    match read(path) {
        Ok(text) => Ok(with_overrides(path, &text)),
        Err(error) => {
            let text = format!(
                "cannot read {}: {error}; name a file in the format of services(5)",
                shown(path)
            );
            Err(match error.kind() {
                io::ErrorKind::PermissionDenied => Failure::NotPermitted(text),
                _ => Failure::System(text),
            })
        }
    }
}

fn with_overrides(path: &Path, text: &[u8]) -> (Services, Option<String>) {
    let services = Services::with_overrides(text);
    let problems = services.problems();
    let warning = problems.shown().first().map(|first| {
        let count = problems.count();
        let lines = if count == 1 { "line" } else { "lines" };
        format!("{}: {count} {lines} could not be used; {first}", shown(path))
    });
    (services, warning)
}

/// Of a path a message shows at most so many characters.
const MAX_SHOWN: usize = 120;

fn shown(path: &Path) -> String {
    Escaped::new(path.as_os_str().as_encoded_bytes())
        .bounded(MAX_SHOWN)
        .to_string()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_BYTES).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_or_used_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("services");
        let (_, warning) = load(&path);
        assert!(warning.unwrap().contains("its names are left out"));

        std::fs::write(&path, "mine 7/tcp\nbad\n").unwrap();
        let (services, warning) = load(&path);
        assert!(
            warning
                .unwrap()
                .ends_with("services: 1 line could not be used; line 2: a name without PORT/PROTOCOL")
        );
        let port = services.ports("mine", portolan_core::Protocol::Tcp).unwrap();
        assert_eq!(port.first().get(), 7);
    }
}
