//! Names, as the program looks them up.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use portolan_gateway::dns::{Feed, ResolvConf, Sources};
use portolan_gateway::links::Links;
use portolan_space::{ShownFile, Subnets};

/// Where the host says who resolves names for it.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where it names hosts itself.
const HOSTS: &str = "/etc/hosts";

/// The file that sends the program's look-ups to the gateway.
pub(super) fn shown(subnets: &Subnets, with_search: bool) -> Option<ShownFile> {
    // Where there is none, nothing can be shown in its place.
    let path = Path::new(RESOLV_CONF);
    let text = std::fs::read_to_string(path).ok()?;
    let gateways: Vec<_> = super::gateway_addresses(subnets)
        .into_iter()
        .map(|(address, _)| address)
        .collect();
    let contents = ResolvConf::from(&*text)
        .render(&gateways, with_search)
        .into_bytes();
    Some(ShownFile {
        path: path.to_owned(),
        contents,
    })
}

/// Where the gateway looks names up: linked spaces, and others; `with_hosts` in the host's /etc/hosts too.
pub(super) fn sources(files: &Files, links: Links) -> Sources {
    let mut readers = files.feeds.iter().map(Feed::reader);
    Sources {
        resolv_conf: readers.next().unwrap_or_else(|| Feed::default().reader()),
        hosts: readers.next(),
        spaces: Box::new(move |name| links.addresses(name)),
    }
}

/// The files of the host from which names are answered.
#[derive(Debug)]
pub(super) struct Files {
    paths: Vec<PathBuf>,
    feeds: Vec<Feed>,
}

/// Of a file so many bytes are read, in the end.
const FILE_MAX: u64 = 4 << 20;

impl Files {
    /// What they say now; one that cannot be read says nothing.
    pub(super) fn read(with_hosts: bool) -> Self {
        let paths: Vec<_> = [Some(RESOLV_CONF), with_hosts.then_some(HOSTS)]
            .into_iter()
            .flatten()
            .map(PathBuf::from)
            .collect();
        let feed = |path: &PathBuf| Feed::new(std::fs::read_to_string(path).unwrap_or_default());
        Self {
            feeds: paths.iter().map(feed).collect(),
            paths,
        }
    }

    /// Where they are, to be watched.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.paths.clone()
    }

    /// The file of this place says something else now.
    pub(super) fn changed(&self, place: usize, file: OwnedFd) {
        let mut text = String::new();
        let read = File::from(file).take(FILE_MAX).read_to_string(&mut text);
        if let (Some(feed), Ok(_)) = (self.feeds.get(place), read) {
            feed.set(text);
        }
    }
}
