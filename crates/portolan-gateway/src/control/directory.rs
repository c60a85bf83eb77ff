//! Where the sockets of running spaces lie, a name each.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::process::geteuid;
use thiserror::Error;

/// A directory of this user alone.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
}

/// The name of a space: a label of a host name, so that others can look it up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpaceName(String);

/// A text that is no name of a space.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a name has 1 to 63 letters a to z, digits and hyphens, no hyphen at either end; as in web-2")]
pub struct NameError;

/// A name that is this process's, and its socket.
#[derive(Debug)]
pub struct Claim {
    /// The name.
    pub name: SpaceName,
    /// Listens.
    pub listener: UnixListener,
    /// What the socket is bound to; whoever ends last removes it.
    pub path: PathBuf,
}

/// Why a name could not be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// Another space has it.
    #[error("a space named {0} is running; choose another --name, or: portolan spaces stop {0}")]
    Taken(String),
    /// The directory belongs to somebody else, or others may enter it.
    #[error(
        "the directory {} is not of this user alone; remove it, or set XDG_RUNTIME_DIR to one that is",
        .0.display()
    )]
    NotOurs(PathBuf),
    /// The system failed.
    #[error("cannot make the control socket in {}: {error}", path.display())]
    System {
        /// Where.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

/// What follows the name of a space in that of its socket.
const ENDING: &str = ".sock";

impl SpaceName {
    const MAX: usize = 63;

    /// A name made from a text that is none: `python3.11` is `python3-11`.
    #[must_use]
    pub fn like(text: &str) -> Self {
        let letters = text.chars().map(|letter| match letter.to_ascii_lowercase() {
            letter @ ('a'..='z' | '0'..='9') => letter,
            _ => '-',
        });
        let name: String = letters.take(Self::MAX - 6).collect();
        match name.trim_matches('-') {
            "" => Self("space".to_owned()),
            name => Self(name.to_owned()),
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for SpaceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let fits = |letter: u8| matches!(letter, b'a'..=b'z' | b'0'..=b'9' | b'-');
        let is_name = (1..=Self::MAX).contains(&text.len())
            && text.bytes().all(fits)
            && !text.starts_with('-')
            && !text.ends_with('-');
        is_name.then(|| Self(text.to_owned())).ok_or(NameError)
    }
}

impl Directory {
    /// That of this user: `$XDG_RUNTIME_DIR/portolan`, or `/run/user/UID/portolan`, or `/tmp/portolan-UID`. It need not
    /// be there.
    #[must_use]
    pub fn of_user() -> Self {
        let uid = geteuid().as_raw();
        let given = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let usual = PathBuf::from(format!("/run/user/{uid}"));
        let runtime = given.into_iter().chain([usual]).find(|path| is_own(path, uid));
        let path = match runtime {
            Some(path) => path.join("portolan"),
            None => PathBuf::from(format!("/tmp/portolan-{uid}")),
        };
        Self { path }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes a name for this process: `wanted` itself, or if `or_similar` is set one with a number behind it. A socket
    /// whose space is gone is replaced.
    ///
    /// # Errors
    /// If the name is taken, or the directory cannot be used.
    pub fn claim(&self, wanted: &SpaceName, or_similar: bool) -> Result<Claim, ClaimError> {
        let system = |error| ClaimError::System {
            path: self.path.clone(),
            error,
        };
        match DirBuilder::new().mode(0o700).create(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(system(error)),
            _ => {}
        }
        if !self.is_safe() {
            return Err(ClaimError::NotOurs(self.path.clone()));
        }
        // One at a time: who finds a dead socket must not remove the living one that replaced it.
        let lock = File::open(&self.path).map_err(system)?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|error| system(error.into()))?;
        let similar = (2..=if or_similar { NUMBER_MAX } else { 1 }).map(|n| format!("{}-{n}", wanted.0));
        for name in std::iter::once(wanted.0.clone()).chain(similar) {
            let path = self.path_of(&name);
            if UnixStream::connect(&path).is_ok() {
                continue;
            }
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(system(error)),
                _ => {}
            }
            let listener = UnixListener::bind(&path).map_err(system)?;
            let owner = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(&path, owner).map_err(system)?;
            let name = SpaceName(name);
            return Ok(Claim { name, listener, path });
        }
        Err(ClaimError::Taken(wanted.0.clone()))
    }

    /// The names of those whose sockets are there, in order.
    #[must_use]
    pub fn names(&self) -> Vec<SpaceName> {
        if !self.is_safe() {
            return Vec::new();
        }
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let sockets = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()));
        let mut names: Vec<SpaceName> = sockets
            .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(ENDING)?.parse().ok())
            .collect();
        names.sort_unstable();
        names
    }

    /// The socket of the space with this name.
    #[must_use]
    pub fn socket(&self, name: &SpaceName) -> PathBuf {
        self.path_of(&name.0)
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}{ENDING}"))
    }

    /// Whether it is a directory of this user, which nobody else may enter, and no symbolic link.
    fn is_safe(&self) -> bool {
        let uid = geteuid().as_raw();
        fs::symlink_metadata(&self.path)
            .is_ok_and(|data| data.is_dir() && data.uid() == uid && data.mode() & 0o077 == 0)
    }
}

fn is_own(path: &Path, uid: u32) -> bool {
    path.is_absolute() && fs::metadata(path).is_ok_and(|data| data.is_dir() && data.uid() == uid)
}

/// So many spaces have the same name but for a number.
const NUMBER_MAX: u32 = 9_999;

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> (tempfile::TempDir, Directory) {
        let above = tempfile::tempdir().unwrap();
        let path = above.path().join("portolan");
        (above, Directory { path })
    }

    #[test]
    fn names_are_labels_of_host_names() {
        for name in ["a", "web-2", "0", &"x".repeat(63)] {
            assert_eq!(name.parse::<SpaceName>().unwrap().as_str(), name);
        }
        for text in ["", "-a", "a-", "A", "a.b", "a/b", "ä", "..", &"x".repeat(64)] {
            assert!(text.parse::<SpaceName>().is_err(), "{text}");
        }
        for (text, name) in [
            ("python3.11", "python3-11"),
            ("Web", "web"),
            ("..", "space"),
            ("", "space"),
        ] {
            assert_eq!(SpaceName::like(text).as_str(), name);
        }
        assert!(
            SpaceName::like(&"é".repeat(200))
                .as_str()
                .parse::<SpaceName>()
                .is_ok()
        );
    }

    #[test]
    fn a_name_is_had_once_and_again_when_its_space_is_gone() {
        let (_above, directory) = directory();
        let web: SpaceName = "web".parse().unwrap();
        let first = directory.claim(&web, false).unwrap();
        assert!(matches!(directory.claim(&web, false), Err(ClaimError::Taken(name)) if name == "web"));
        let second = directory.claim(&web, true).unwrap();
        assert_eq!(second.name.as_str(), "web-2");
        let mode = fs::metadata(&first.path).unwrap().mode() & 0o777;
        assert_eq!(
            (mode, fs::metadata(directory.path()).unwrap().mode() & 0o777),
            (0o600, 0o700)
        );
        assert_eq!(directory.names(), [web.clone(), second.name]);
        // The file stays, as after a kill, and nobody listens there.
        drop(first.listener);
        directory.claim(&web, false).unwrap();
    }

    #[test]
    fn a_directory_that_others_may_enter_is_refused() {
        let (_above, directory) = directory();
        DirBuilder::new().mode(0o700).create(directory.path()).unwrap();
        fs::set_permissions(
            directory.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        let web: SpaceName = "web".parse().unwrap();
        assert!(matches!(
            directory.claim(&web, false),
            Err(ClaimError::NotOurs(_))
        ));
        fs::remove_dir(directory.path()).unwrap();
        std::os::unix::fs::symlink("/tmp", directory.path()).unwrap();
        assert!(matches!(
            directory.claim(&web, false),
            Err(ClaimError::NotOurs(_))
        ));
        assert_eq!(directory.names(), []);
    }
}
