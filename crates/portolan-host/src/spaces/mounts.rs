use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::find::inode_of;

/// A network namespace kept alive by a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) inode: u64,
    pub(super) path: PathBuf,
}

/// The network namespaces mounted anywhere that this process sees: `ip netns` does so in /run/netns, docker in
/// /run/docker/netns.
pub(super) fn mounted(root: &Path) -> io::Result<Vec<Mount>> {
    let text = fs::read(root.join("thread-self/mountinfo"))?;
    let mut mounts: Vec<Mount> = text.split(|byte| *byte == b'\n').filter_map(parse).collect();
    mounts.sort_by(|one, other| one.path.cmp(&other.path));
    // With shared propagation the same mount is listed twice.
    mounts.dedup();
    Ok(mounts)
}

impl Mount {
    /// The name that `ip netns` uses.
    pub(super) fn name(&self) -> Option<String> {
        let directory = self.path.parent()?;
        if directory != Path::new("/run/netns") && directory != Path::new("/var/run/netns") {
            return None;
        }
        Some(self.path.file_name()?.to_string_lossy().into_owned())
    }
}

/// A line of proc_pid_mountinfo(5): the fourth field is `net:[INODE]` for a namespace, the fifth the place.
fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ').skip(3);
    let inode = inode_of(fields.next()?)?;
    let path = PathBuf::from(OsString::from_vec(unescape(fields.next()?)));
    Some(Mount { inode, path })
}

/// Blanks, tabs, line feeds and backslashes are written as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let escaped = match (first, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                rest = after;
                (a - b'0') << 6 | (b - b'0') << 3 | (c - b'0')
            }
            _ => *first,
        };
        bytes.push(escaped);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn namespaces_are_told_from_other_mounts() {
        let line = b"632 29 0:4 net:[4026532281] /run/netns/a\\040b rw shared:319 - nsfs nsfs rw";
        let mount = parse(line).unwrap();
        assert_eq!(
            (mount.inode, mount.name().unwrap()),
            (4_026_532_281, "a b".to_owned())
        );
        let line = b"632 29 0:4 net:[4026532281] /run/docker/netns/1-x rw - nsfs nsfs rw";
        assert_eq!(parse(line).unwrap().name(), None);
        assert_eq!(
            parse(b"632 29 0:4 mnt:[4026532281] /run/x rw - nsfs nsfs rw"),
            None
        );
        assert_eq!(parse(b"22 29 0:21 / /proc rw - proc proc rw"), None);
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn escapes_are_undone_once() {
        assert_eq!(unescape(b"a\\134040\\011\\9"), b"a\\040\t\\9");
    }

    proptest! {
        #[test]
        fn any_line_ends(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&line);
        }
    }
}
