//! The bytes of the kernel's description of its own types.
#![expect(
    unsafe_code,
    reason = "a mapping without a copy is in neither std nor rustix's safe part"
)]

use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr::NonNull;

/// The type description of the running kernel, mapped where the kernel can (Linux 6.16), else read.
///
/// Reading costs a system call for each of some 1300 pages.
#[derive(Debug)]
pub(crate) struct KernelTypes(Bytes);

#[derive(Debug)]
enum Bytes {
    Mapped(Mapping),
    Read(Vec<u8>),
}

impl KernelTypes {
    /// Maps or reads the description.
    ///
    /// # Errors
    /// If the kernel has none, or keeps it to itself.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        // Only this file system promises that the pages stay as they are.
        if rustix::fs::fstatfs(&file)?.f_type == SYSFS_MAGIC
            && let Some(mapping) = Mapping::of(&file, length)
        {
            return Ok(Self(Bytes::Mapped(mapping)));
        }
        let mut bytes = Vec::with_capacity(length.min(LENGTH_MAX));
        file.by_ref().take(LENGTH_MAX as u64).read_to_end(&mut bytes)?;
        Ok(Self(Bytes::Read(bytes)))
    }
}

impl Deref for KernelTypes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Mapped(mapping) => mapping.bytes(),
            Bytes::Read(bytes) => bytes,
        }
    }
}

/// A mapped file, taken back at the end.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

impl Mapping {
    fn of(file: &File, length: usize) -> Option<Self> {
        if length == 0 || length > LENGTH_MAX {
            return None;
        }
        // SAFETY: a new mapping at an address that the kernel chooses touches no memory of ours; the
        // descriptor is open.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ,
                libc::MAP_PRIVATE,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return None;
        }
        Some(Self {
            start: NonNull::new(start.cast())?,
            length,
        })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: `start` is a mapping of `length` readable bytes until `self` is dropped, which no
        // borrow outlives. They are constants of the kernel's image: nobody writes to them and the
        // file cannot get shorter.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is exactly the mapping made in `of`, and no borrow of it is left. It cannot
        // fail for such a range.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// The type of the file system (include/uapi/linux/magic.h).
const SYSFS_MAGIC: rustix::fs::FsWord = 0x6265_6572;

/// Several times the length of any kernel's description.
const LENGTH_MAX: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_holds_what_reading_gives() {
        let path = Path::new("/sys/kernel/btf/vmlinux");
        match KernelTypes::open(path) {
            Ok(types) => assert!(*types == std::fs::read(path).unwrap()),
            Err(error) => eprintln!("skipped: cannot open {}: {error}", path.display()),
        }
    }

    #[test]
    fn a_file_that_may_change_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "types").unwrap();
        let types = KernelTypes::open(file.path()).unwrap();
        assert!(matches!(types.0, Bytes::Read(_)));
        assert_eq!(&*types, b"types");
    }
}
