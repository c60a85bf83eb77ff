//! The calls that neither std nor rustix has a safe face for: making processes, becoming a program, signals.
#![expect(
    unsafe_code,
    reason = "fork, clone, exec and signal masks; each call below says why it is sound"
)]

use std::ffi::{CStr, CString, c_char, c_int};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::ptr;

use rustix::io::{Errno, Result};
use rustix::process::{Pid, Signal};
use rustix::thread::UnshareFlags;

/// Makes a copy of this process, of the calling thread alone; gives the copy's number, or `None` in the copy.
///
/// It is the C library's fork, which leaves the allocator usable in the copy even if other threads of this
/// process were in it (glibc, musl). The copy must touch no other lock that another thread could have held: no
/// standard output, no environment, no logging; and it must end by [`exit_now`].
pub(crate) fn fork() -> Result<Option<Pid>> {
    // SAFETY: fork has no arguments. What the copy may not do, because threads are missing there, is said above, and
    // held to by `setup` and `init`, its only users.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(last_error());
    }
    Ok(Pid::from_raw(pid))
}

/// The same, but the copy becomes a child of this process's parent, so that the parent can wait for it.
///
/// Only for a process with a single thread: this is the bare system call, which readies no library.
pub(crate) fn fork_sibling() -> Result<Option<Pid>> {
    let flags = libc::c_long::from(libc::CLONE_PARENT | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and with no stack given, clone(2) is fork(2) with another parent: the copy has its
    // own memory. All arguments but the flags are 0, so their order, which differs among machines, does not matter
    // (s390x, where the flags come second, is told apart).
    let pid = unsafe {
        if cfg!(target_arch = "s390x") {
            libc::syscall(libc::SYS_clone, 0_usize, flags, 0_usize, 0_usize, 0_usize)
        } else {
            libc::syscall(libc::SYS_clone, flags, 0_usize, 0_usize, 0_usize, 0_usize)
        }
    };
    if pid < 0 {
        return Err(last_error());
    }
    Ok(Pid::from_raw(pid as i32))
}

/// Ends this process at once: no destructors, no buffers written twice.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes a number and does not return.
    unsafe { libc::_exit(code) }
}

/// Moves this process into new namespaces. For a process with a single thread.
pub(crate) fn unshare(flags: UnshareFlags) -> Result<()> {
    debug_assert!(!flags.contains(UnshareFlags::FILES));
    // SAFETY: the one danger is FILES, descriptors that other threads no longer see; it is never asked for.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Words for a program, as execve(2) takes them.
#[derive(Debug)]
pub(crate) struct Words {
    /// What `pointers` points into.
    _owned: Vec<CString>,
    /// Ends with a null pointer.
    pointers: Vec<*const c_char>,
}

// SAFETY: the pointers lead to the strings owned beside them, which nobody changes.
unsafe impl Send for Words {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Words {}

impl Words {
    pub(crate) fn new(words: Vec<CString>) -> Self {
        let pointers = words
            .iter()
            .map(|word| word.as_ptr())
            .chain([ptr::null()])
            .collect();
        Self {
            _owned: words,
            pointers,
        }
    }
}

/// Becomes the program at this path, which has a slash; returns only if it cannot be run. A file without a header that
/// the kernel knows is a script of sh.
pub(crate) fn exec(program: &CStr, arguments: &Words, environment: &Words) -> Errno {
    // SAFETY: `program` and every pointer of both lists, which end in null, lead to strings that live as long as the
    // borrows; execvpe changes none of them.
    unsafe {
        libc::execvpe(
            program.as_ptr(),
            arguments.pointers.as_ptr(),
            environment.pointers.as_ptr(),
        )
    };
    last_error()
}

/// A signal mask.
#[derive(Clone, Copy)]
pub(crate) struct SignalMask(libc::sigset_t);

impl SignalMask {
    /// Every signal.
    pub(crate) fn full() -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigfillset writes the whole set that the pointer leads to, and cannot fail.
        unsafe {
            libc::sigfillset(set.as_mut_ptr());
            Self(set.assume_init())
        }
    }

    /// Makes it the mask of the calling thread; gives the one before.
    pub(crate) fn apply(&self) -> Self {
        let mut before = MaybeUninit::uninit();
        // SAFETY: both pointers lead to sets that live through the call; it cannot fail, since SIG_SETMASK is
        // right, so it has written the old mask.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, before.as_mut_ptr());
            Self(before.assume_init())
        }
    }
}

/// A descriptor that tells of every signal which the process has blocked; it does not wait.
pub(crate) fn signal_descriptor() -> Result<OwnedFd> {
    let all = SignalMask::full();
    // SAFETY: the set lives through the call; -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, &raw const all.0, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(last_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Closes every descriptor from `first` to `last`. Nothing in this process may use one of them again.
pub(crate) fn close_range(first: u32, last: u32) -> Result<()> {
    // SAFETY: numbers only. The one caller is init at its start, which has no other use of what it was forked with:
    // the values that own those descriptors are never dropped, since init ends by `exit_now`.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result == 0 {
        return Ok(());
    }
    // Linux before 5.9, or a filter of system calls that does not know it.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let limit = limit
        .and_then(|limit| u32::try_from(limit).ok())
        .unwrap_or(1 << 20);
    for number in first..=last.min(limit) {
        // SAFETY: as above; a number that is not open is refused.
        unsafe { libc::close(number.cast_signed()) };
    }
    Ok(())
}

/// Gives SIGPIPE back the effect that it has in programs: Rust's start-up ignores it, and that would be inherited.
pub(crate) fn default_sigpipe() {
    // SAFETY: SIG_DFL is no handler of ours; no code runs because of this call.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// The signal with this number, if it can be one.
pub(crate) fn signal(number: i32) -> Option<Signal> {
    if !(1..=64).contains(&number) {
        return None;
    }
    // SAFETY: rustix keeps its signals apart from those that the C library uses for its threads (32 and 33); sending
    // one to another process, all that we do with it, does no harm here. The number is not 0.
    Some(unsafe { Signal::from_raw_unchecked(number) })
}

fn last_error() -> Errno {
    // SAFETY: errno is the calling thread's own, and always there.
    let number: c_int = unsafe { *libc::__errno_location() };
    Errno::from_raw_os_error(number)
}

/// A packet socket that sees all that comes in on an interface, with a virtio-net header before each Ethernet frame
/// (packet(7)). It does not wait.
pub(crate) fn packet_socket(interface: u32, protocol: u16) -> Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: three numbers; protocol 0 sees nothing until the socket is bound.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    if fd < 0 {
        return Err(last_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    set_option(fd, libc::SOL_PACKET, PACKET_VNET_HDR, 1)?;
    // Without these it works as well, only slower: our own packets shown to us, a queue before the device, and 200 KiB
    // of room, three super-segments.
    let _ = set_option(fd, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1);
    let _ = set_option(fd, libc::SOL_PACKET, PACKET_QDISC_BYPASS, 1);
    if set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, ROOM).is_err() {
        let _ = set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, ROOM);
    }
    // SAFETY: all of sockaddr_ll is numbers, for which zero bytes are a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = interface.cast_signed();
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the pointer leads to a sockaddr_ll that lives through the call, and `len` is its size.
    if unsafe { libc::bind(fd, (&raw const address).cast(), len) } < 0 {
        return Err(last_error());
    }
    Ok(socket)
}

/// The process at the other end of a Unix socket.
pub(crate) struct Peer {
    /// Its number here; 0 if it has none.
    pub(crate) pid: i32,
    pub(crate) uid: u32,
    /// The process itself, from Linux 6.5 on.
    pub(crate) handle: Option<OwnedFd>,
}

/// Who connected by this Unix socket.
pub(crate) fn peer(socket: BorrowedFd<'_>) -> Result<Peer> {
    let mut credentials = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut len = size_of_val(&credentials) as libc::socklen_t;
    // SAFETY: both pointers lead to values that live through the call, and `len` is the size of the first.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut len,
        )
    };
    if result < 0 {
        return Err(last_error());
    }
    let mut handle: c_int = -1;
    let mut len = size_of_val(&handle) as libc::socklen_t;
    // SAFETY: as above.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut handle).cast(),
            &raw mut len,
        )
    };
    let handle = if result == 0 && handle >= 0 {
        // SAFETY: the kernel has just given us this descriptor, and nobody else knows it.
        Some(unsafe { OwnedFd::from_raw_fd(handle) })
    } else if last_error() == Errno::NOPROTOOPT {
        None
    } else {
        // The client has ended, and its number may be another's.
        return Err(Errno::SRCH);
    };
    Ok(Peer {
        pid: credentials.pid,
        uid: credentials.uid,
        handle,
    })
}

/// asm-generic/socket.h; the C library does not have it yet.
const SO_PEERPIDFD: c_int = 77;

fn set_option(fd: c_int, level: c_int, option: c_int, value: c_int) -> Result<()> {
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: every option that is set here takes one int, which lives through the call.
    let result = unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), len) };
    if result < 0 { Err(last_error()) } else { Ok(()) }
}

const PACKET_VNET_HDR: c_int = 15;
const PACKET_QDISC_BYPASS: c_int = 20;
const PACKET_IGNORE_OUTGOING: c_int = 23;
/// Bytes that may wait in a packet socket.
const ROOM: c_int = 8 << 20;
