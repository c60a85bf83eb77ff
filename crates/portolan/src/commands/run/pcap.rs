//! `--pcap`: what passes the device of the space, as a capture.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portolan_capture::CaptureInterface;
use portolan_core::Escaped;
use portolan_gateway::capture::{Capture, CaptureConfig, CaptureCounts, Recorder, Trouble, Whose};
use portolan_gateway::flows::FlowProtocol;
use portolan_host::{SocketFinder, SocketProtocol};
use portolan_space::{DEVICE_NAME, Space, Subnets};

use super::code::Code;
use crate::exit::Failure;
use crate::message;

/// A file that is open, for a capture to be made.
#[derive(Debug)]
pub(super) struct Pcap {
    file: File,
    path: PathBuf,
}

/// A capture that is being made.
#[derive(Debug)]
pub(super) struct Capturing {
    capture: Capture,
    path: PathBuf,
}

/// Who reads the capture from a pipe has so long for the rest of it when the program has ended.
const PATIENCE: Duration = Duration::from_secs(5);

/// AF_NETLINK, SOCK_RAW and NETLINK_SOCK_DIAG.
const SOCK_DIAG: (u16, u32, u32) = (16, 3, 4);

impl Pcap {
    /// Opens the file, and empties it: this process gives up the right to open any.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        if path == Path::new("-") {
            return Err(Failure::Usage(
                "--pcap: standard output is the program's; name a file, or a pipe: --pcap >(tcpdump -nr -)"
                    .to_owned(),
            ));
        }
        // What passes may be secret: it is for this user alone.
        let opened = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path);
        let file =
            opened.map_err(|error| Code::File.failure(format!("cannot write {}: {error}", shown(path))))?;
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// Begins the capture of this space. Call it in the runtime.
    pub(super) fn begin(
        self,
        name: &str,
        space: &Space,
        subnets: Option<&Subnets>,
    ) -> std::io::Result<(Capturing, Recorder)> {
        let v4 = subnets.map(|Subnets { v4, .. }| (v4.inside.into(), v4.gateway.into(), v4.prefix_len));
        let v6 = subnets.and_then(|subnets| subnets.v6);
        let v6 = v6.map(|v6| (v6.inside.into(), v6.gateway.into(), v6.prefix_len));
        let own_name = format!("{name}.portolan");
        let mut addresses: Vec<(IpAddr, u8)> = Vec::new();
        let mut names: Vec<(IpAddr, &str)> = Vec::new();
        for (inside, gateway, prefix_len) in [v4, v6].into_iter().flatten() {
            addresses.push((inside, prefix_len));
            names.extend([(inside, own_name.as_str()), (gateway, "host.portolan")]);
        }
        let lost = shown(&self.path);
        let (capture, recorder) = Capture::begin(CaptureConfig {
            file: self.file,
            interface: CaptureInterface {
                name: DEVICE_NAME,
                description: &format!("the device of the port space {name}"),
                addresses: &addresses,
            },
            names: &names,
            whose: whose(space),
            trouble: Trouble::new(move |error| {
                message::say(&format!(
                    "cannot write {lost}: {error}; the program runs on, and what is missing is counted"
                ));
            }),
        })?;
        Ok((
            Capturing {
                capture,
                path: self.path,
            },
            recorder,
        ))
    }
}

impl Capturing {
    /// What it has so far.
    pub(super) fn counts(&self) -> CaptureCounts {
        self.capture.counts()
    }

    /// Writes the rest, and says what there is and what is missing.
    pub(super) fn finish(self, verbose: bool) -> CaptureCounts {
        let counts = self.capture.finish(PATIENCE);
        let CaptureCounts { packets, missing, .. } = counts;
        let path = shown(&self.path);
        if missing > 0 {
            let all = packets + missing;
            message::say(&format!("{path} lacks {missing} of {all} packets"));
        } else if verbose {
            message::say(&format!("{path} has {packets} packets"));
        }
        counts
    }
}

/// Looks up which process inside has the socket of a flow.
fn whose(space: &Space) -> Whose {
    let (domain, kind, protocol) = SOCK_DIAG;
    let sockets = space.sockets();
    let mut finder = space
        .open_socket(domain, kind, protocol)
        .ok()
        .map(SocketFinder::new);
    Whose::new(move |protocol, inside: SocketAddr, outside: SocketAddr| {
        let protocol = match protocol {
            FlowProtocol::Tcp => SocketProtocol::Tcp,
            FlowProtocol::Udp => SocketProtocol::Udp,
            FlowProtocol::Icmp => return None,
        };
        let inode = finder.as_mut()?.find(protocol, inside, outside).ok()??;
        let holder = sockets.holder(inode).ok()??;
        let name = Escaped::new(holder.name()).bounded(40).to_string();
        Some(format!("{name} (pid {})", holder.pid))
    })
}

fn shown(path: &Path) -> String {
    let name = path.to_string_lossy();
    Escaped::new(&*name).bounded(100).to_string()
}
