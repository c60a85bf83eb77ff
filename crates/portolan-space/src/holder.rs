//! Which process inside holds a socket, as init can tell: it sees the processes of the space, and their maker, once it
//! has given up most rights, does not.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// The length of a process's name, in bytes (TASK_COMM_LEN without the zero at its end).
pub(crate) const NAME_LEN: usize = 15;

/// A process that holds a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its number in the space.
    pub pid: i32,
    /// Its name, with zeros behind it.
    pub(crate) name: [u8; NAME_LEN],
}

impl Holder {
    /// Its name, of its own choice: any bytes.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        let end = self.name.iter().position(|byte| *byte == 0);
        &self.name[..end.unwrap_or(NAME_LEN)]
    }
}

/// Finds holders.
#[derive(Debug, Default)]
pub(crate) struct Seeker {
    /// Who held the last one: likely who holds the next.
    last: Option<i32>,
}

/// So many descriptors are looked at for one question, some 50 ms of work, whatever the programs inside have open.
const LOOKS: usize = 32_768;

impl Seeker {
    /// The first process found that has a descriptor of the socket with this inode.
    pub(crate) fn find(&mut self, inode: u64) -> Option<Holder> {
        let socket = format!("socket:[{inode}]");
        let mut looks = LOOKS;
        let last = self.last.filter(|pid| holds(*pid, &socket, &mut looks));
        self.last = last.or_else(|| {
            processes()
                .filter(|pid| Some(*pid) != self.last)
                .find(|pid| holds(*pid, &socket, &mut looks))
        });
        let pid = self.last?;
        let mut name = [0; NAME_LEN];
        let text = fs::read(format!("/proc/{pid}/comm")).ok()?;
        let text = text.strip_suffix(b"\n").unwrap_or(&text);
        let len = text.len().min(NAME_LEN);
        name[..len].copy_from_slice(&text[..len]);
        Some(Holder { pid, name })
    }
}

/// Every process there is.
fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Whether a process has a descriptor that is called so. `looks` is how many may still be looked at.
fn holds(pid: i32, socket: &str, looks: &mut usize) -> bool {
    // One that may not be looked at, since it may not be traced, holds nothing that we know of.
    let entries = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd"));
    for entry in entries.into_iter().flatten().flatten() {
        let Some(left) = looks.checked_sub(1) else {
            return false;
        };
        *looks = left;
        if fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str().as_bytes() == socket.as_bytes()) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn who_has_a_socket_is_found_while_it_has_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
        let text = link.to_str().unwrap();
        let inode = text["socket:[".len()..text.len() - 1].parse().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let mut seeker = Seeker::default();
        // The second time it is looked at first.
        for _ in 0..2 {
            let holder = seeker.find(inode).unwrap();
            assert_eq!(holder.pid, own);
            let comm = fs::read("/proc/self/comm").unwrap();
            assert_eq!(holder.name(), comm.trim_ascii_end());
        }
        drop(listener);
        assert_eq!(seeker.find(inode), None);
    }

    #[test]
    fn a_process_with_a_great_many_descriptors_is_not_looked_through() {
        let mut looks = 2;
        assert!(!holds(
            i32::try_from(std::process::id()).unwrap(),
            "no such socket",
            &mut looks
        ));
        assert_eq!(looks, 0);
    }
}
