use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::Candidate;

/// Moves the calling thread into the namespace: sockets that it opens from now on are of there.
///
/// Only for a thread that ends afterwards. A pid that was given to another process meanwhile is noticed by the
/// inode.
pub(crate) fn enter(root: &Path, candidate: &Candidate) -> io::Result<()> {
    let links = candidate
        .pids
        .iter()
        .map(|pid| root.join(pid.to_string()).join("ns/net"));
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    for path in candidate.mounts.iter().cloned().chain(links) {
        match enter_by(&path, candidate.inode) {
            Ok(()) => return Ok(()),
            // What is refused matters more than what is gone.
            Err(error) if failure.kind() == io::ErrorKind::NotFound => failure = error,
            Err(_) => {}
        }
    }
    Err(failure)
}

fn enter_by(path: &Path, inode: u64) -> io::Result<()> {
    let namespace = File::open(path)?;
    if namespace.metadata()?.ino() != inode {
        return Err(io::ErrorKind::NotFound.into());
    }
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(())
}
