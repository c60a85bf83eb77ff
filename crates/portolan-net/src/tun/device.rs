//! Opening a device, and moving packets through one of its queues without waiting.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portolan_core::table::Device;
use portolan_stack::{Offload, Packet, StackConfig};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{read, write, writev};
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use thiserror::Error;

use super::header;
pub(super) use super::header::HEADER_LEN;
use super::{interface, sys};

/// The largest IP packet, and with it the largest super-segment.
pub(super) const MAX_PACKET: usize = 65_535;

/// The buffer that [`TunQueue::recv`] needs: the largest packet with its virtio-net header.
pub const RECV_BUFFER_LEN: usize = HEADER_LEN + MAX_PACKET;

const TUN_F_CSUM: u32 = 0x01;
const TUN_F_TSO4: u32 = 0x02;
const TUN_F_TSO6: u32 = 0x04;
const TUN_F_TSO_ECN: u32 = 0x08;
const TUN_F_USO4: u32 = 0x20;
const TUN_F_USO6: u32 = 0x40;

/// How a device is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunConfig {
    /// The interface's name, at most 15 bytes; `%d` at its end makes the kernel number it, and so does no name.
    pub name: String,
    /// The longest IP packet, in bytes, pieces of super-segments and not they themselves; `None` leaves what
    /// the interface has, 1500 when it is new.
    pub mtu: Option<u32>,
    /// How many queues, each with a descriptor of its own; the kernel keeps a flow on one. 1 to 256.
    pub queues: usize,
    /// How many packets the kernel may queue for us; more are dropped. `None` leaves 500.
    pub queue_len: Option<u32>,
    /// What is asked of the kernel beside plain packets; it may grant less.
    pub offloads: Offloads,
    /// The interface stays when the last descriptor is closed, so that it can be opened again under its name.
    pub persistent: bool,
}

impl Default for TunConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            mtu: None,
            queues: 1,
            queue_len: None,
            offloads: Offloads::Datagrams,
            persistent: false,
        }
    }
}

/// What a device leaves undone, in both directions. Each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Offloads {
    /// Every packet is whole and carries its checksum.
    None,
    /// Checksums of TCP and UDP may be partial (`TUN_F_CSUM`).
    Checksums,
    /// TCP may come in super-segments of up to 64 KiB (`TUN_F_TSO4`, `TUN_F_TSO6`, `TUN_F_TSO_ECN`).
    Segments,
    /// UDP may as well (`TUN_F_USO4`, `TUN_F_USO6`; Linux 6.2 and newer).
    Datagrams,
}

impl Offloads {
    const ALL: [Self; 4] = [Self::Datagrams, Self::Segments, Self::Checksums, Self::None];

    /// What another process sent as `offloads as u8`, if it is one of them.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|&offloads| offloads as u8 == number)
    }

    const fn flags(self) -> u32 {
        let segments = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
        match self {
            Self::None => 0,
            Self::Checksums => TUN_F_CSUM,
            Self::Segments => segments,
            Self::Datagrams => segments | TUN_F_USO4 | TUN_F_USO6,
        }
    }
}

/// Why there is no device.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TunError {
    /// The kernel's switch for such devices cannot be opened.
    #[error("cannot open /dev/net/tun: {0}; {remedy}", remedy = open_remedy(.0))]
    Open(#[source] io::Error),
    /// Another program holds the interface, and packets would be shared out between both.
    #[error(
        "the TUN interface {name} is in use by another program, which would lose packets to this one; stop it, or use \
         another name"
    )]
    InUse {
        /// The interface.
        name: String,
    },
    /// The interface was refused.
    #[error("cannot make the TUN interface {}: {error}; {}", shown(.name), attach_remedy(.name, .error))]
    Attach {
        /// The name that was asked for.
        name: String,
        /// What the kernel said.
        #[source]
        error: io::Error,
    },
    /// The interface is there, but could not be set as it was to be.
    #[error("cannot set {what} of the interface {name}: {error}")]
    Set {
        /// The interface.
        name: String,
        /// What was to be set.
        what: &'static str,
        /// What the kernel said.
        #[source]
        error: io::Error,
    },
}

/// What to do if /dev/net/tun cannot be opened.
fn open_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "load the module (sudo modprobe tun), or in a container pass the device (--device /dev/net/tun)"
        }
        io::ErrorKind::PermissionDenied => {
            "run it as root, or let this user open the file (sudo chmod a+rw /dev/net/tun)"
        }
        _ => "load the module (sudo modprobe tun)",
    }
}

/// What to do if the kernel refuses an interface.
fn attach_remedy(name: &str, error: &io::Error) -> String {
    match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::PERM) => {
            let example = if name.is_empty() || name.contains('%') { "tun0" } else { name };
            format!(
                "run it as root (CAP_NET_ADMIN), or make an interface for this user: sudo ip tuntap add mode tun name \
                 {example} user $USER multi_queue vnet_hdr"
            )
        }
        Some(rustix::io::Errno::BUSY) => "another program holds it: stop that, or use another name".to_owned(),
        Some(rustix::io::Errno::INVAL) => {
            "a name has 1 to 15 bytes; an interface that is there must be a TUN with as many queues (multi_queue for \
             several)"
                .to_owned()
        }
        _ => "use another name".to_owned(),
    }
}

/// A name as people read it.
fn shown(name: &str) -> String {
    if name.is_empty() {
        "(any name)".to_owned()
    } else {
        format!("{name:?}")
    }
}

/// A TUN interface: the kernel on one side, this program on the other.
#[derive(Debug)]
pub struct Tun {
    name: String,
    index: u32,
    offloads: Offloads,
    queues: Vec<TunQueue>,
    /// The kernel's IPv6 addresses on it.
    addresses: Mutex<Vec<Ipv6Addr>>,
}

/// How long it may take the kernel to know an address, and how often it is asked.
const OWN: Duration = Duration::from_secs(2);
const OWN_TURN: Duration = Duration::from_micros(500);

impl Tun {
    /// Makes the interface, or joins the persistent one of that name, and opens its queues. It is down, until
    /// [`Tun::up`].
    ///
    /// # Errors
    /// [`TunError`], naming what was refused; an interface that was made for it is gone again.
    pub fn open(config: &TunConfig) -> Result<Self, TunError> {
        let several = config.queues > 1;
        // Of an interface with one queue the kernel says so itself.
        if several
            && !config.name.is_empty()
            && interface::has_carrier(&config.name).is_ok_and(|it| it == Some(true))
        {
            let name = config.name.clone();
            return Err(TunError::InUse { name });
        }
        let mut flags = sys::IFF_TUN | sys::IFF_NO_PI | sys::IFF_VNET_HDR;
        if several {
            flags |= sys::IFF_MULTI_QUEUE;
        }
        let mut name = config.name.clone();
        let mut offloads = config.offloads;
        let mut queues = Vec::new();
        let drops = Arc::new(Drops::default());
        for _ in 0..config.queues.clamp(1, 256) {
            let fd = open(
                "/dev/net/tun",
                OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map_err(|error| TunError::Open(error.into()))?;
            name = sys::attach(fd.as_fd(), &name, flags).map_err(|error| TunError::Attach {
                name: name.clone(),
                error: error.into(),
            })?;
            let set = |what, result: rustix::io::Result<()>| {
                let failed = |error: rustix::io::Errno| TunError::Set {
                    name: name.clone(),
                    what,
                    error: error.into(),
                };
                result.map_err(failed)
            };
            set("the packet header", sys::set_header(fd.as_fd(), HEADER_LEN))?;
            if queues.is_empty() {
                offloads = set_offloads(fd.as_fd(), offloads).map_err(|error| TunError::Set {
                    name: name.clone(),
                    what: "offloads",
                    error,
                })?;
                // Also to take back the persistence of an interface that had it.
                set("persistence", sys::set_persistent(fd.as_fd(), config.persistent))?;
            }
            queues.push(TunQueue {
                fd,
                drops: Arc::clone(&drops),
            });
        }
        let failed = |what| {
            let name = name.clone();
            move |error| TunError::Set { name, what, error }
        };
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
            .map_err(|error| failed("the index")(error.into()))?;
        let index = name_to_index(&socket, &name).map_err(|error| failed("the index")(error.into()))?;
        let tun = Self {
            name,
            index,
            offloads,
            queues,
            addresses: Mutex::default(),
        };
        Ok(tun)
    }

    /// The interface's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface's index.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// The same as a device, for [`Builder::device`](crate::Builder::device) and the rules of a filter.
    #[must_use]
    pub fn device(&self) -> Device {
        Device::new(self.index).expect("the kernel counts from 1")
    }

    /// What the kernel granted.
    #[must_use]
    pub const fn offloads(&self) -> Offloads {
        self.offloads
    }

    /// Sets the offloads that a stack on this device may use.
    #[must_use]
    pub fn offload(&self, config: StackConfig) -> StackConfig {
        StackConfig {
            checksum_offload: self.offloads >= Offloads::Checksums,
            segmentation_offload: self.offloads >= Offloads::Segments,
            udp_segmentation_offload: self.offloads >= Offloads::Datagrams,
            ..config
        }
    }

    /// Gives the kernel an address on the interface; it reaches the rest of the prefix through it. So give the
    /// stack another address of the prefix.
    ///
    /// # Errors
    /// What the kernel says, with the name of the interface.
    pub fn add_address(&self, address: IpAddr, prefix_len: u8) -> Result<(), TunError> {
        interface::add_address(self.index, address, prefix_len)
            .map_err(|error| self.failed("an address", error))?;
        if let IpAddr::V6(address) = address {
            self.addresses().push(address);
        }
        Ok(())
    }

    /// Lets the kernel reach a prefix through the interface, which must be up.
    ///
    /// # Errors
    /// What the kernel says, with the name of the interface.
    pub fn add_route(&self, prefix: IpAddr, prefix_len: u8) -> Result<(), TunError> {
        interface::add_route(self.index, prefix, prefix_len).map_err(|error| self.failed("a route", error))
    }

    /// Brings the interface up, with the MTU and the queue length of `config`. It waits until the IPv6 addresses that were
    /// given before take what comes, two seconds at most: the kernel readies them by a task of its own.
    ///
    /// # Errors
    /// What the kernel says, with the name of the interface.
    pub fn up(&self, config: &TunConfig) -> Result<(), TunError> {
        interface::bring_up(self.index, config.mtu, config.queue_len)
            .map_err(|error| self.failed("the MTU", error))?;
        let until = Instant::now() + OWN;
        for &address in &*self.addresses() {
            // If the kernel does not say, it is as it was without the question.
            while matches!(interface::is_own(address), Ok(false)) && Instant::now() < until {
                std::thread::sleep(OWN_TURN);
            }
        }
        Ok(())
    }

    fn addresses(&self) -> MutexGuard<'_, Vec<Ipv6Addr>> {
        // Nothing that holds it panics half-way.
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The queues, to be served by a thread or task each. The interface lives as long as one of them, unless
    /// it is persistent.
    #[must_use]
    pub fn into_queues(self) -> Vec<TunQueue> {
        self.queues
    }

    fn failed(&self, what: &'static str, error: io::Error) -> TunError {
        TunError::Set {
            name: self.name.clone(),
            what,
            error,
        }
    }
}

/// Asks for offloads, and for less where the kernel is older than they are.
fn set_offloads(device: BorrowedFd<'_>, wanted: Offloads) -> io::Result<Offloads> {
    for offloads in Offloads::ALL.into_iter().filter(|&offloads| offloads <= wanted) {
        match sys::set_offloads(device, offloads.flags()) {
            Ok(()) => return Ok(offloads),
            Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::ErrorKind::InvalidInput.into())
}

/// Packets that were not moved, counted over all queues of a device.
#[derive(Debug, Default)]
struct Drops {
    refused_in: AtomicU64,
    refused_out: AtomicU64,
}

/// What a device counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TunCounters {
    /// Packets from the kernel whose virtio-net header did not fit them.
    pub refused_in: u64,
    /// Packets that the kernel did not take, because the interface is down or they are none.
    pub refused_out: u64,
}

/// One queue of a device. Neither call waits: [`io::ErrorKind::WouldBlock`] says that there is nothing to read, or no
/// room to write.
#[derive(Debug)]
pub struct TunQueue {
    fd: OwnedFd,
    drops: Arc<Drops>,
}

impl TunQueue {
    /// Takes the next packet from the kernel into `buffer`, which should have [`RECV_BUFFER_LEN`] bytes. A packet
    /// whose header does not fit it is counted and passed over.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if there is none; [`io::ErrorKind::NetworkDown`] if the interface was deleted.
    pub fn recv<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Packet<'a>> {
        loop {
            let len = match read(&self.fd, &mut *buffer) {
                Ok(len) => len,
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::BADFD) => return Err(gone()),
                Err(error) => return Err(error.into()),
            };
            let decoded = buffer[..len]
                .split_first_chunk()
                .ok_or(header::HeaderError::Short)
                .and_then(|(header, bytes)| header::decode(*header, bytes));
            match decoded {
                Ok(offload) => {
                    return Ok(Packet {
                        bytes: &buffer[HEADER_LEN..len],
                        offload,
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, len, "refused a packet of the device");
                    self.drops.refused_in.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Gives a packet to the kernel. One that it does not take is counted and dropped, as a network would.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if there is no room for it now; [`io::ErrorKind::NetworkDown`] if the interface was
    /// deleted.
    pub fn send(&self, packet: &[u8], offload: Offload) -> io::Result<()> {
        match header::encode(offload, packet) {
            Ok(header) => self.written(|| writev(&self.fd, &[IoSlice::new(&header), IoSlice::new(packet)])),
            Err(error) => {
                self.refuse_out(&error);
                Ok(())
            }
        }
    }

    /// The same for a packet that has room for the header before it: one piece of memory moves faster than two.
    pub(super) fn send_with_headroom(&self, bytes: &mut [u8], offload: Offload) -> io::Result<()> {
        let encoded = bytes
            .split_first_chunk_mut()
            .ok_or(header::HeaderError::Short)
            .and_then(|(room, packet)| {
                *room = header::encode(offload, packet)?;
                Ok(())
            });
        match encoded {
            Ok(()) => self.written(|| write(&self.fd, bytes)),
            Err(error) => {
                self.refuse_out(&error);
                Ok(())
            }
        }
    }

    fn written(&self, mut write: impl FnMut() -> rustix::io::Result<usize>) -> io::Result<()> {
        loop {
            return match write() {
                Ok(_) => Ok(()),
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::BADFD) => Err(gone()),
                Err(error @ rustix::io::Errno::AGAIN) => Err(error.into()),
                // EIO while the interface is down, EINVAL for what is no packet, ENOBUFS, ENOMEM.
                Err(error) => {
                    self.refuse_out(&error);
                    Ok(())
                }
            };
        }
    }

    /// What was counted, over all queues of the device.
    #[must_use]
    pub fn counters(&self) -> TunCounters {
        TunCounters {
            refused_in: self.drops.refused_in.load(Ordering::Relaxed),
            refused_out: self.drops.refused_out.load(Ordering::Relaxed),
        }
    }

    fn refuse_out(&self, error: &dyn std::error::Error) {
        tracing::debug!(%error, "the device does not take a packet");
        self.drops.refused_out.fetch_add(1, Ordering::Relaxed);
    }
}

/// What is said of a descriptor whose interface was deleted.
pub(super) fn gone() -> io::Error {
    io::Error::new(
        io::ErrorKind::NetworkDown,
        "the network interface is gone: it was deleted, or its namespace ended",
    )
}

/// To be sent to another process.
impl From<TunQueue> for OwnedFd {
    fn from(queue: TunQueue) -> Self {
        queue.fd
    }
}

/// A queue that [`Tun::open`] made in another process, which sent its descriptor.
impl From<OwnedFd> for TunQueue {
    fn from(fd: OwnedFd) -> Self {
        Self {
            fd,
            drops: Arc::default(),
        }
    }
}

impl AsFd for TunQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// For tokio, which waits by number.
impl AsRawFd for TunQueue {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
