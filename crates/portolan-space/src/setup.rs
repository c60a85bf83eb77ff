//! The builder: the process that makes the namespaces and the device, starts init in them, and ends.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use portolan_net::tun::{Offloads, Tun, TunConfig, TunError};
use rustix::io::Errno;
use rustix::thread::UnshareFlags;

use crate::channel::{Channel, Message};
use crate::config::{Execution, Network, SpaceConfig};
use crate::device::{self, DEVICE_NAME, DeviceKind};
use crate::error::Step;
use crate::id_map::{self, Caller};
use crate::init;
use crate::namespaces;
use crate::shortcut;
use crate::sys::{self, SignalMask};

/// All that the builder needs to know; made before it is forked.
pub(crate) struct Plan<'a> {
    pub(crate) config: &'a SpaceConfig,
    pub(crate) execution: &'a Execution,
    pub(crate) pid_namespace: bool,
    /// The mask that the program is to have.
    pub(crate) signals: SignalMask,
    /// The directory that the program starts in, to be gone to again after mounts were joined.
    pub(crate) directory: Option<std::path::PathBuf>,
}

/// Does all of it, in the forked process, and never returns.
pub(crate) fn run(plan: &Plan<'_>, channel: Channel, sockets: Channel) -> ! {
    let made = make(plan, &channel).and_then(|()| {
        // Init must be a child of the maker, which waits for it; the builder is gone by then.
        sys::fork_sibling().map_err(|error| (Step::Process, error))
    });
    // If nobody reads it any more, the maker is gone, and init will notice by itself.
    let _ = match made {
        Ok(None) => init::run(plan, channel, sockets),
        Ok(Some(pid)) => channel.send(Message::Init(pid.as_raw_nonzero().get())),
        Err((step, errno)) => channel.send(Message::Failed(step.number(), errno)),
    };
    sys::exit_now(0)
}

fn make(plan: &Plan<'_>, channel: &Channel) -> Result<(), (Step, Errno)> {
    let config = plan.config;
    let is_elsewhere = namespaces::join(&config.network).map_err(|error| (Step::JoinNamespace, error))?;
    if matches!(config.network, Network::Space(_)) {
        if let Some(directory) = &plan.directory {
            rustix::process::chdir(directory).map_err(|error| (Step::Directory, error))?;
        }
        return Ok(());
    }
    let is_new = matches!(config.network, Network::New);
    if is_new {
        new_user_namespace(channel)?;
        sys::unshare(UnshareFlags::NEWNET).map_err(|error| (Step::NetworkNamespace, error))?;
        device::loopback_up().map_err(|error| (Step::Loopback, error))?;
        note(channel, &namespaces::open_ports());
    }
    let device = make_device(config, channel)?;
    // A namespace of somebody else's keeps its rules and settings.
    if is_new && let Err(error) = shortcut::prepare(&config.subnets) {
        note(channel, &[(Step::Shortcut, error)]);
    }
    // The rights over a network namespace that was joined are those of its owner; the program must not have them.
    if is_elsewhere {
        // The kernel lets only its parent namespace and itself write the maps of one; the maker is in neither.
        let caller = Caller::here();
        sys::unshare(UnshareFlags::NEWUSER).map_err(|error| (Step::UserNamespace, error))?;
        id_map::write_own(caller, config.identity)?;
    } else if !is_new {
        new_user_namespace(channel)?;
    }
    let refused = namespaces::leave_the_rest(plan.pid_namespace);
    note(channel, &refused);
    // A PID namespace takes a /proc that shows it, and that a mount namespace.
    let without = [Step::MountNamespace, Step::PidNamespace];
    if plan.pid_namespace
        && let Some(cause) = refused.iter().find(|(step, _)| without.contains(step))
    {
        return Err(*cause);
    }
    let Queues { kind, offloads, fds } = device;
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| fd.as_fd()).collect();
    let message = Message::Device {
        kind: kind.number(),
        offloads,
    };
    channel
        .send_with(message, &fds)
        .map_err(|error| (Step::Process, error))
}

/// Makes a user namespace, and waits until the maker has written its maps.
fn new_user_namespace(channel: &Channel) -> Result<(), (Step, Errno)> {
    sys::unshare(UnshareFlags::NEWUSER).map_err(|error| (Step::UserNamespace, error))?;
    let answer = channel.send(Message::NeedMaps).and_then(|()| channel.receive());
    match answer {
        Ok(Some(received)) if received.message == Message::MapsWritten => Ok(()),
        // The maker has given up, and knows why.
        Ok(_) => sys::exit_now(0),
        Err(error) => Err((Step::IdMap, error)),
    }
}

struct Queues {
    kind: DeviceKind,
    offloads: u8,
    fds: Vec<OwnedFd>,
}

fn make_device(config: &SpaceConfig, channel: &Channel) -> Result<Queues, (Step, Errno)> {
    let tun = if config.avoid_tun {
        None
    } else {
        match open_tun(config) {
            Ok(queues) => Some(queues),
            Err(error) => {
                note(channel, &[(Step::Tun, error)]);
                None
            }
        }
    };
    let queues = match tun {
        Some(queues) => queues,
        None => Queues {
            kind: DeviceKind::Veth,
            offloads: Offloads::Segments as u8,
            fds: vec![device::make_veth(config).map_err(|error| (Step::Veth, error))?],
        },
    };
    if let Some(error) = device::configure(config, queues.kind)? {
        note(channel, &[(Step::Ipv6, error)]);
    }
    Ok(queues)
}

fn open_tun(config: &SpaceConfig) -> Result<Queues, Errno> {
    let wanted = TunConfig {
        name: DEVICE_NAME.to_owned(),
        queues: config.queues,
        offloads: Offloads::Datagrams,
        // A device of ours goes with its namespace, which the kernel takes away by itself; whoever closed the last
        // descriptor would wait for that, ten milliseconds and more.
        persistent: matches!(config.network, Network::New),
        ..TunConfig::default()
    };
    let tun = Tun::open(&wanted).map_err(|error| errno(&error))?;
    let offloads = tun.offloads() as u8;
    let mut fds = Vec::new();
    for queue in tun.into_queues() {
        fds.push(queue.into());
    }
    Ok(Queues {
        kind: DeviceKind::Tun,
        offloads,
        fds,
    })
}

fn note(channel: &Channel, notes: &[(Step, Errno)]) {
    for (step, errno) in notes {
        let _ = channel.send(Message::Note(step.number(), *errno));
    }
}

/// What the kernel said, in whatever of the ways to fail.
fn errno(error: &TunError) -> Errno {
    let (TunError::Open(error) | TunError::Attach { error, .. } | TunError::Set { error, .. }) = error else {
        return Errno::IO;
    };
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
