//! What the compiler cannot check: the ioctls of `/dev/net/tun` (linux/if_tun.h), and handing a descriptor to tokio.
#![allow(
    unsafe_code,
    reason = "an ioctl's argument is known to the kernel alone; each call below says what it is"
)]

use std::io::Error;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io;
use rustix::ioctl::{IntegerSetter, Opcode, Setter, Updater, ioctl, opcode};
use tokio::io::unix::AsyncFd;

use super::TunQueue;

/// IFNAMSIZ, with the NUL at the end.
const NAME_LEN: usize = 16;

const TUNSETIFF: Opcode = opcode::write::<i32>(b'T', 202);
const TUNSETPERSIST: Opcode = opcode::write::<i32>(b'T', 203);
const TUNSETOFFLOAD: Opcode = opcode::write::<u32>(b'T', 208);
const TUNSETVNETHDRSZ: Opcode = opcode::write::<i32>(b'T', 216);
const TUNSETVNETLE: Opcode = opcode::write::<i32>(b'T', 220);

/// The device is a TUN: IP packets, no Ethernet.
pub(super) const IFF_TUN: u16 = 0x0001;
/// More descriptors may join the device.
pub(super) const IFF_MULTI_QUEUE: u16 = 0x0100;
/// No four bytes of protocol before each packet.
pub(super) const IFF_NO_PI: u16 = 0x1000;
/// A virtio-net header before each packet.
pub(super) const IFF_VNET_HDR: u16 = 0x4000;

/// struct ifreq, as TUNSETIFF reads and writes it: the name, and the flags in a union of 24 bytes.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; NAME_LEN],
    flags: u16,
    rest: [u8; 22],
}

/// Makes the descriptor a queue of the interface `name`, or of one that the kernel names if it is empty or
/// ends in `%d`; gives the name.
pub(super) fn attach(device: BorrowedFd<'_>, name: &str, flags: u16) -> io::Result<String> {
    let mut request = InterfaceRequest {
        name: [0; NAME_LEN],
        flags,
        rest: [0; 22],
    };
    let bytes = name.as_bytes();
    if bytes.len() >= NAME_LEN || bytes.contains(&0) {
        return Err(io::Errno::INVAL);
    }
    request.name[..bytes.len()].copy_from_slice(bytes);
    // SAFETY: TUNSETIFF reads and writes one struct ifreq, 40 bytes on 64-bit and 32 on 32-bit machines; the
    // request is #[repr(C)], has 40, and lives until the call returns.
    unsafe { ioctl(device, Updater::<TUNSETIFF, InterfaceRequest>::new(&mut request)) }?;
    let len = request
        .name
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(NAME_LEN);
    Ok(String::from_utf8_lossy(&request.name[..len]).into_owned())
}

/// Keeps the interface when its last descriptor is closed, or no longer.
pub(super) fn set_persistent(device: BorrowedFd<'_>, persistent: bool) -> io::Result<()> {
    // SAFETY: TUNSETPERSIST takes its argument by value and touches no memory of ours.
    unsafe {
        ioctl(
            device,
            IntegerSetter::<TUNSETPERSIST>::new_usize(usize::from(persistent)),
        )
    }
}

/// Tells the kernel what it may leave to us (TUN_F_*).
pub(super) fn set_offloads(device: BorrowedFd<'_>, offloads: u32) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value and touches no memory of ours.
    unsafe {
        ioctl(
            device,
            IntegerSetter::<TUNSETOFFLOAD>::new_usize(offloads as usize),
        )
    }
}

/// Fixes the length of the virtio-net header, and its byte order to little endian.
pub(super) fn set_header(device: BorrowedFd<'_>, len: usize) -> io::Result<()> {
    let len = i32::try_from(len).map_err(|_| io::Errno::INVAL)?;
    // SAFETY: TUNSETVNETHDRSZ reads one int, which the setter holds until the call returns.
    unsafe { ioctl(device, Setter::<TUNSETVNETHDRSZ, i32>::new(len)) }?;
    // SAFETY: TUNSETVNETLE reads one int, which the setter holds until the call returns.
    unsafe { ioctl(device, Setter::<TUNSETVNETLE, i32>::new(1)) }
}

/// Has tokio wait for the queue. Needs a runtime with I/O.
pub(super) fn register(queue: TunQueue) -> Result<AsyncFd<TunQueue>, Error> {
    // SAFETY: `AsRawFd` of a queue gives the descriptor that the queue owns, always the same one, and the queue, moved
    // into the `AsyncFd`, closes it only after that has let go of it.
    unsafe { AsyncFd::register(queue) }.map_err(|error| error.into_parts().1)
}

/// The same for a socket.
pub(super) fn register_socket(socket: OwnedFd) -> Result<AsyncFd<OwnedFd>, Error> {
    // SAFETY: an `OwnedFd` gives always the descriptor that it owns, and closes it only after the `AsyncFd`, which it is
    // moved into, has let go of it.
    unsafe { AsyncFd::register(socket) }.map_err(|error| error.into_parts().1)
}
