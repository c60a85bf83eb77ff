use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, fstatfs, openat, readlinkat_raw, statat};
use rustix::io::Errno;
use rustix::path::DecInt;

/// A directory laid out as /proc is: the real one, or a fixture.
///
/// Everything below it is opened by descriptor. A descriptor of `/proc/PID` names that one process for
/// good: when the process is gone, reading through it fails, even if its number was given to another.
#[derive(Debug)]
pub struct ProcRoot {
    dir: OwnedFd,
    live: bool,
}

impl ProcRoot {
    /// The /proc of this process.
    ///
    /// # Errors
    /// If /proc cannot be opened, or is no proc file system.
    pub fn system() -> Result<Self, ProcRootError> {
        let root = Self::open(Path::new("/proc"))?;
        if root.live {
            Ok(root)
        } else {
            Err(ProcRootError::NotMounted)
        }
    }

    /// A directory in the shape of /proc.
    ///
    /// # Errors
    /// If it cannot be opened as a directory.
    pub fn open(path: &Path) -> Result<Self, ProcRootError> {
        let open_error = |source: Errno| ProcRootError::Open {
            path: path.to_owned(),
            source: source.into(),
        };
        let dir = openat(CWD, path, DIRECTORY, Mode::empty()).map_err(open_error)?;
        let live = fstatfs(&dir).map_err(open_error)?.f_type == PROC_SUPER_MAGIC;
        Ok(Self { dir, live })
    }

    /// Whether this is a proc file system, and not a fixture.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        self.live
    }

    /// Whether this is a proc file system that numbers the processes as this process sees them.
    pub(crate) fn is_own(&self) -> bool {
        let me = rustix::process::getpid().as_raw_nonzero().get();
        self.live && read_link(&self.dir, c"self").is_ok_and(|text| decimal(&text) == Some(me))
    }

    /// Whether the processes of others are kept out of sight (the mount option `hidepid`).
    ///
    /// The first process of a PID namespace lives as long as the namespace does, so where it does not
    /// show, processes are being hidden.
    #[must_use]
    pub fn hides_processes(&self) -> bool {
        self.live && statat(&self.dir, c"1", AtFlags::empty()).is_err()
    }

    /// The numbers of the processes that show, rising.
    pub(crate) fn pids(&self) -> io::Result<Vec<i32>> {
        let mut pids = Vec::new();
        // A descriptor of our own: reading a directory moves its position.
        let dir = openat(&self.dir, c".", DIRECTORY, Mode::empty())?;
        for_each_number(&dir, |pid, _| {
            pids.push(pid);
            Ok(ControlFlow::Continue(()))
        })?;
        pids.sort_unstable();
        Ok(pids)
    }

    /// The directory of one process, to look up paths in.
    pub(crate) fn process_dir(&self, pid: i32) -> io::Result<OwnedFd> {
        Ok(openat(
            &self.dir,
            DecInt::new(pid),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?)
    }
}

/// Why a directory cannot stand for /proc.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcRootError {
    /// It cannot be opened.
    #[error("cannot open {}: {source}; processes are read from there", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// /proc is an ordinary directory.
    #[error(
        "/proc is not a proc file system, so processes cannot be read; mount it: mount -t proc proc /proc"
    )]
    NotMounted,
}

/// Calls `each` with every entry of a directory whose name is a decimal number, and with the name itself,
/// until it breaks off or fails.
///
/// The directory is read in pieces of 32 KiB, so memory does not grow with its length.
pub(crate) fn for_each_number(
    dir: impl AsFd,
    mut each: impl FnMut(i32, &CStr) -> io::Result<ControlFlow<()>>,
) -> io::Result<()> {
    let mut buffer = [MaybeUninit::uninit(); 32 * 1024];
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if let Some(number) = decimal(entry.file_name().to_bytes())
            && each(number, entry.file_name())?.is_break()
        {
            break;
        }
    }
    Ok(())
}

/// Reads a file below `dir` from its beginning, `limit_bytes` of it at most.
pub(crate) fn read_bounded(dir: impl AsFd, name: &CStr, limit_bytes: usize) -> io::Result<Vec<u8>> {
    let file = openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = Vec::with_capacity(limit_bytes.min(4096));
    while text.len() < limit_bytes {
        if text.len() == text.capacity() {
            text.reserve(text.len());
        }
        match rustix::io::read(&file, rustix::buffer::spare_capacity(&mut text)) {
            Ok(0) => break,
            Ok(_) => {}
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    text.truncate(limit_bytes);
    Ok(text)
}

/// Where a symbolic link below `dir` leads, by its text alone: what it names is never touched.
pub(crate) fn read_link(dir: impl AsFd, name: &CStr) -> io::Result<Vec<u8>> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); libc::PATH_MAX as usize];
    let (text, _) = readlinkat_raw(dir, name, &mut buffer)?;
    Ok(text.to_vec())
}

/// A number of digits alone, without sign; `None` for anything else, overflow included.
pub(crate) fn decimal(text: &[u8]) -> Option<i32> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0i32, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| i32::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The type of a proc file system (include/uapi/linux/magic.h).
const PROC_SUPER_MAGIC: rustix::fs::FsWord = 0x9fa0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_takes_digits_alone() {
        let cases: [(&[u8], Option<i32>); 9] = [
            (b"0", Some(0)),
            (b"4711", Some(4711)),
            (b"2147483647", Some(i32::MAX)),
            (b"2147483648", None),
            (b"", None),
            (b"+1", None),
            (b"-1", None),
            (b"1 ", None),
            ("\u{661}".as_bytes(), None),
        ];
        for (text, expected) in cases {
            assert_eq!(decimal(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_real_proc_lists_this_process() {
        let root = ProcRoot::system().unwrap();
        assert!(root.is_live());
        let me = std::process::id().cast_signed();
        assert!(root.pids().unwrap().contains(&me));
    }

    #[test]
    fn a_fixture_is_not_live_and_other_names_are_no_processes() {
        let tree = tempfile::tempdir().unwrap();
        for name in ["1", "20", "self", "7a", "99999999999"] {
            std::fs::create_dir(tree.path().join(name)).unwrap();
        }
        let root = ProcRoot::open(tree.path()).unwrap();
        assert!(!root.is_live());
        assert!(!root.hides_processes());
        assert_eq!(root.pids().unwrap(), [1, 20]);
        // Reading the directory again starts from its beginning.
        assert_eq!(root.pids().unwrap(), [1, 20]);
    }

    #[test]
    fn a_missing_root_names_itself() {
        let error = ProcRoot::open(Path::new("/nowhere/at/all")).unwrap_err();
        assert!(
            error.to_string().starts_with("cannot open /nowhere/at/all: "),
            "{error}"
        );
    }

    #[test]
    fn reading_stops_at_the_limit() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::write(tree.path().join("long"), vec![b'x'; 10_000]).unwrap();
        let root = ProcRoot::open(tree.path()).unwrap();
        for (limit, expected) in [(0, 0), (1, 1), (1024, 1024), (5000, 5000), (20_000, 10_000)] {
            assert_eq!(read_bounded(&root.dir, c"long", limit).unwrap().len(), expected);
        }
    }
}
