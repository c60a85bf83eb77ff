//! The system calls of the test, with a safe face. The only unsafe code of this crate.

#![expect(
    unsafe_code,
    reason = "socket calls with sockaddrs of our own making, which no safe crate in use offers"
)]

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use libc::{c_int, socklen_t};

/// Makes `command` start in a network namespace of its own; `with_user` if that takes a user namespace.
pub(crate) fn isolate(command: &mut Command, with_user: bool) {
    let uid = effective_uid();
    let map = format!("0 {uid} 1\n");
    let enter = move || {
        let user = if with_user { libc::CLONE_NEWUSER } else { 0 };
        // SAFETY: no pointers; the call changes the namespaces of the calling process only, which after
        // the fork has one thread.
        check(unsafe { libc::unshare(user | libc::CLONE_NEWNET) })?;
        if with_user {
            std::fs::write("/proc/self/setgroups", "deny")?;
            std::fs::write("/proc/self/uid_map", &map)?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes system calls only; the file writes allocate, which
    // glibc keeps possible in the child of a threaded process.
    unsafe { command.pre_exec(enter) };
}

/// Moves this process, which has one thread, to a new network namespace.
pub(crate) fn new_network() -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).map(drop)
}

pub(crate) fn effective_uid() -> u32 {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() }
}

/// Acts as this user from now on.
pub(crate) fn act_as(uid: u32) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::seteuid(uid) }).map(drop)
}

/// A TUN device whose packets we forge and read.
pub(crate) struct Tun(File);

impl Tun {
    pub(crate) fn open(name: &str) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")?;
        // struct ifreq: the name in 16 bytes, then the flags.
        let mut request = [0u8; 40];
        request[..name.len()].copy_from_slice(name.as_bytes());
        let flags = (libc::IFF_TUN | libc::IFF_NO_PI) as u16;
        request[16..18].copy_from_slice(&flags.to_ne_bytes());
        // SAFETY: TUNSETIFF reads and writes one struct ifreq, 40 bytes, which `request` is.
        check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, request.as_mut_ptr()) })?;
        Ok(Self(file))
    }

    pub(crate) fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        self.0.write_all(packet)
    }

    /// The next packet that the kernel sent, if there is one.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.0.read(buffer) {
            Ok(length) => Ok(Some(length)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A socket of the kernel, not blocking.
pub(crate) struct Socket(OwnedFd);

impl Socket {
    pub(crate) fn new(is_ipv6: bool, is_tcp: bool) -> io::Result<Self> {
        let family = if is_ipv6 { libc::AF_INET6 } else { libc::AF_INET };
        let kind = if is_tcp {
            libc::SOCK_STREAM
        } else {
            libc::SOCK_DGRAM
        };
        // SAFETY: no pointers.
        let fd = check(unsafe { libc::socket(family, kind | libc::SOCK_NONBLOCK, 0) })?;
        Ok(Self::owning(fd))
    }

    fn owning(fd: RawFd) -> Self {
        // SAFETY: `fd` was just returned by the kernel to us, and nobody else has it.
        Self(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    pub(crate) fn set(&self, level: c_int, option: c_int, value: &[u8]) -> io::Result<()> {
        // SAFETY: the kernel reads `value.len()` bytes at `value`.
        check(unsafe { libc::setsockopt(self.fd(), level, option, value.as_ptr().cast(), length_of(value)) })
            .map(drop)
    }

    pub(crate) fn set_int(&self, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
        self.set(level, option, &value.to_ne_bytes())
    }

    pub(crate) fn bind(&self, is_ipv6: bool, local: SocketAddr) -> io::Result<()> {
        let address = encode(is_ipv6, local);
        // SAFETY: the kernel reads `address.len()` bytes at `address`.
        check(unsafe { libc::bind(self.fd(), address.as_ptr().cast(), length_of(&address)) }).map(drop)
    }

    pub(crate) fn listen(&self) -> io::Result<()> {
        // SAFETY: no pointers.
        check(unsafe { libc::listen(self.fd(), 64) }).map(drop)
    }

    pub(crate) fn connect(&self, is_ipv6: bool, remote: SocketAddr) -> io::Result<()> {
        self.connect_raw(&encode(is_ipv6, remote))
    }

    /// connect() with AF_UNSPEC.
    pub(crate) fn disconnect(&self) -> io::Result<()> {
        self.connect_raw(&[0; 28])
    }

    /// Clears what the socket knows of the processor that its packets came in on. A connected socket
    /// notes it by itself, and wins by it over its equals after a disconnect, on that processor only.
    pub(crate) fn forget_processor(&self) -> io::Result<()> {
        self.set_int(libc::SOL_SOCKET, libc::SO_INCOMING_CPU, -1)
    }

    fn connect_raw(&self, address: &[u8]) -> io::Result<()> {
        // SAFETY: the kernel reads `address.len()` bytes at `address`.
        check(unsafe { libc::connect(self.fd(), address.as_ptr().cast(), length_of(address)) }).map(drop)
    }

    pub(crate) fn local_port(&self) -> io::Result<u16> {
        let mut address = [0u8; 28];
        let mut length = length_of(&address);
        // SAFETY: the kernel writes at most `length` bytes at `address`, and the length at `length`.
        check(unsafe { libc::getsockname(self.fd(), address.as_mut_ptr().cast(), &raw mut length) })?;
        Ok(u16::from_be_bytes([address[2], address[3]]))
    }

    /// A connection that waits to be accepted, if there is one.
    pub(crate) fn accept(&self) -> io::Result<Option<Self>> {
        let null = std::ptr::null_mut();
        // SAFETY: null pointers say that the address is not wanted.
        let fd = unsafe { libc::accept4(self.fd(), null, null.cast(), libc::SOCK_NONBLOCK) };
        match check(fd) {
            Ok(fd) => Ok(Some(Self::owning(fd))),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes this user the owner of the socket.
    pub(crate) fn give_to(&self, uid: u32) -> io::Result<()> {
        std::os::unix::fs::fchown(&self.0, Some(uid), None)
    }

    pub(crate) fn shutdown_read(&self) -> io::Result<()> {
        // SAFETY: no pointers.
        check(unsafe { libc::shutdown(self.fd(), libc::SHUT_RD) }).map(drop)
    }

    /// How many bytes or datagrams' bytes came, if any; zero is the end of the stream.
    pub(crate) fn receive(&self) -> io::Result<Option<usize>> {
        let mut buffer = [0u8; 64];
        // SAFETY: the kernel writes at most `buffer.len()` bytes at `buffer`.
        let length = unsafe {
            libc::recv(
                self.fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_DONTWAIT,
            )
        };
        match usize::try_from(length) {
            Ok(length) => Ok(Some(length)),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == ErrorKind::WouldBlock => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Closes, and resets a connection.
    pub(crate) fn abort(self) {
        let linger_zero = [1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat();
        // A UDP socket has no connection to reset.
        let _ = self.set(libc::SOL_SOCKET, libc::SO_LINGER, &linger_zero);
    }
}

/// The sockaddr of an address, 16 bytes for IPv4 and 28 for IPv6.
fn encode(is_ipv6: bool, address: SocketAddr) -> Vec<u8> {
    let port = address.port().to_be_bytes();
    if is_ipv6 {
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let family = (libc::AF_INET6 as u16).to_ne_bytes();
        [&family[..], &port, &[0; 4], &ip.octets(), &[0; 4]].concat()
    } else {
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip,
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        };
        let family = (libc::AF_INET as u16).to_ne_bytes();
        [&family[..], &port, &ip.octets(), &[0; 8]].concat()
    }
}

fn length_of(bytes: &[u8]) -> socklen_t {
    socklen_t::try_from(bytes.len()).expect("a few bytes")
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
