//! The callbacks: C's arguments in, calls of the [`Harness`], results and errno out.
#![expect(unsafe_code, reason = "C calls these, and finds the first by its name")]

use std::ffi::{CStr, c_char, c_int, c_longlong, c_uint, c_ulong, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use libc::{
    epoll_event, iovec, loff_t, msghdr, nfds_t, pollfd, size_t, sockaddr, socklen_t, ssize_t, timeval,
    useconds_t,
};

use crate::abi::Interface;
use crate::call::{Call, Outcome};
use crate::errno::Errno;
use crate::flags::Flags;
use crate::harness::Harness;
use crate::memory::{self, Span};

/// What packetdrill calls after it has loaded the object: makes a world and fills the table in.
///
/// # Safety
/// `flags` is null or text that ends with a zero byte, and `out` points at packetdrill's table. Callbacks are made with the
/// `userdata` of the table, from any thread, until `free` was called; pointers that they get are as libc's calls of the same
/// names demand.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn packetdrill_interface_init(flags: *const c_char, out: *mut Interface) {
    let text = if flags.is_null() {
        String::new()
    } else {
        // SAFETY: it is text that ends with a zero byte, as this function demands.
        unsafe { CStr::from_ptr(flags) }.to_string_lossy().into_owned()
    };
    let harness = Box::new(Harness::new(&Flags::parse(&text)));
    let interface = Interface {
        userdata: Box::into_raw(harness).cast(),
        free: Some(free),
        socket: Some(socket),
        bind: Some(bind),
        listen: Some(listen),
        accept: Some(accept),
        connect: Some(connect),
        read: Some(read),
        readv: Some(readv),
        recv: Some(recv),
        recvfrom: Some(recvfrom),
        recvmsg: Some(recvmsg),
        write: Some(write),
        writev: Some(writev),
        send: Some(send),
        sendto: Some(sendto),
        sendmsg: Some(sendmsg),
        fcntl: Some(fcntl),
        ioctl: Some(ioctl),
        close: Some(close),
        shutdown: Some(shutdown),
        getsockopt: Some(getsockopt),
        setsockopt: Some(setsockopt),
        poll: Some(poll),
        netdev_send: Some(netdev_send),
        netdev_receive: Some(netdev_receive),
        usleep: Some(usleep),
        gettimeofday: Some(gettimeofday),
        epoll_create: Some(epoll_create),
        epoll_ctl: Some(epoll_ctl),
        epoll_wait: Some(epoll_wait),
        pipe: Some(pipe),
        splice: Some(splice),
    };
    memory::store(out, interface);
}

/// Runs a callback. A panic ends here: it must not run through C.
fn enter(userdata: *mut c_void, act: impl FnOnce(&Harness) -> Result<usize, Errno>) -> isize {
    // SAFETY: it is the box that `packetdrill_interface_init` gave away, which lives until `free`; the harness locks.
    let harness = unsafe { &*userdata.cast::<Harness>() };
    match catch_unwind(AssertUnwindSafe(|| act(harness))) {
        Ok(Ok(value)) => value as isize,
        Ok(Err(errno)) => {
            errno.set();
            -1
        }
        Err(_) => {
            eprintln!("portolan-packetdrill: a callback panicked");
            Errno(libc::EIO).set();
            -1
        }
    }
}

/// The same for callbacks that give an int.
fn enter_int(userdata: *mut c_void, act: impl FnOnce(&Harness) -> Result<usize, Errno>) -> c_int {
    enter(userdata, act) as c_int
}

unsafe extern "C" fn free(userdata: *mut c_void) {
    // SAFETY: it is the box that `packetdrill_interface_init` gave away; this callback is the last.
    drop(unsafe { Box::from_raw(userdata.cast::<Harness>()) });
}

unsafe extern "C" fn socket(userdata: *mut c_void, domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    enter_int(userdata, |harness| {
        let fd = harness.act(|world| world.socket(domain, kind, protocol))?;
        Ok(fd as usize)
    })
}

unsafe extern "C" fn bind(
    userdata: *mut c_void,
    fd: c_int,
    address: *const sockaddr,
    len: socklen_t,
) -> c_int {
    enter_int(userdata, |harness| {
        let address = memory::load_address(address, len)?.ok_or(Errno(libc::EAFNOSUPPORT))?;
        harness.act(|world| world.bind(fd, address)).map(|()| 0)
    })
}

unsafe extern "C" fn listen(userdata: *mut c_void, fd: c_int, backlog: c_int) -> c_int {
    enter_int(userdata, |harness| {
        harness.act(|world| world.listen(fd, backlog)).map(|()| 0)
    })
}

unsafe extern "C" fn accept(
    userdata: *mut c_void,
    fd: c_int,
    address: *mut sockaddr,
    len: *mut socklen_t,
) -> c_int {
    enter_int(userdata, |harness| {
        match harness.perform(Call::Accept { fd, flags: 0 })? {
            Outcome::Accepted(fd, peer, is_v6) => {
                if !address.is_null() {
                    memory::store_address(address, len, peer, is_v6);
                }
                Ok(fd as usize)
            }
            other => unexpected(&other),
        }
    })
}

unsafe extern "C" fn connect(
    userdata: *mut c_void,
    fd: c_int,
    address: *const sockaddr,
    len: socklen_t,
) -> c_int {
    enter_int(userdata, |harness| {
        let Some(remote) = memory::load_address(address, len)? else {
            return harness.act(|world| world.disconnect(fd)).map(|()| 0);
        };
        let begun = false;
        harness.perform(Call::Connect { fd, remote, begun }).map(|_| 0)
    })
}

unsafe extern "C" fn read(userdata: *mut c_void, fd: c_int, buffer: *mut c_void, len: size_t) -> ssize_t {
    enter(userdata, |harness| {
        receive(harness, fd, &[Span::new(buffer, len)], 0).map(|(len, _)| len)
    })
}

unsafe extern "C" fn readv(userdata: *mut c_void, fd: c_int, vector: *const iovec, count: c_int) -> ssize_t {
    enter(userdata, |harness| {
        let spans = memory::spans(vector, usize::try_from(count).map_err(|_| Errno(libc::EINVAL))?)?;
        receive(harness, fd, &spans, 0).map(|(len, _)| len)
    })
}

unsafe extern "C" fn recv(
    userdata: *mut c_void,
    fd: c_int,
    buffer: *mut c_void,
    len: size_t,
    flags: c_int,
) -> ssize_t {
    enter(userdata, |harness| {
        receive(harness, fd, &[Span::new(buffer, len)], flags).map(|(len, _)| len)
    })
}

unsafe extern "C" fn recvfrom(
    userdata: *mut c_void,
    fd: c_int,
    buffer: *mut c_void,
    len: size_t,
    flags: c_int,
    _address: *mut sockaddr,
    address_len: *mut socklen_t,
) -> ssize_t {
    enter(userdata, |harness| {
        let (len, _) = receive(harness, fd, &[Span::new(buffer, len)], flags)?;
        // TCP says nothing of where bytes came from.
        memory::store(address_len, 0);
        Ok(len)
    })
}

unsafe extern "C" fn recvmsg(
    userdata: *mut c_void,
    fd: c_int,
    message: *mut msghdr,
    flags: c_int,
) -> ssize_t {
    enter(userdata, |harness| {
        let mut header = memory::load(message).ok_or(Errno(libc::EFAULT))?;
        let spans = memory::spans(header.msg_iov, header.msg_iovlen)?;
        let (len, unread) = receive(harness, fd, &spans, flags)?;
        header.msg_namelen = 0;
        memory::store(message, header);
        memory::store_control(message, unread);
        Ok(len)
    })
}

unsafe extern "C" fn write(userdata: *mut c_void, fd: c_int, buffer: *const c_void, len: size_t) -> ssize_t {
    enter(userdata, |harness| {
        transmit(harness, fd, &[Span::new(buffer, len)], 0)
    })
}

unsafe extern "C" fn writev(userdata: *mut c_void, fd: c_int, vector: *const iovec, count: c_int) -> ssize_t {
    enter(userdata, |harness| {
        let spans = memory::spans(vector, usize::try_from(count).map_err(|_| Errno(libc::EINVAL))?)?;
        transmit(harness, fd, &spans, 0)
    })
}

unsafe extern "C" fn send(
    userdata: *mut c_void,
    fd: c_int,
    buffer: *const c_void,
    len: size_t,
    flags: c_int,
) -> ssize_t {
    enter(userdata, |harness| {
        transmit(harness, fd, &[Span::new(buffer, len)], flags)
    })
}

unsafe extern "C" fn sendto(
    userdata: *mut c_void,
    fd: c_int,
    buffer: *const c_void,
    len: size_t,
    flags: c_int,
    _address: *const sockaddr,
    _address_len: socklen_t,
) -> ssize_t {
    // Of a stream socket the address says nothing.
    enter(userdata, |harness| {
        transmit(harness, fd, &[Span::new(buffer, len)], flags)
    })
}

unsafe extern "C" fn sendmsg(
    userdata: *mut c_void,
    fd: c_int,
    message: *const msghdr,
    flags: c_int,
) -> ssize_t {
    enter(userdata, |harness| {
        let header = memory::load(message).ok_or(Errno(libc::EFAULT))?;
        let spans = memory::spans(header.msg_iov, header.msg_iovlen)?;
        transmit(harness, fd, &spans, flags)
    })
}

unsafe extern "C" fn fcntl(userdata: *mut c_void, fd: c_int, command: c_int, argument: usize) -> c_int {
    // The upper bits of an int argument mean nothing.
    let argument = argument as c_int;
    enter_int(userdata, |harness| {
        harness
            .act(|world| world.fcntl(fd, command, argument))
            .map(|value| value as usize)
    })
}

unsafe extern "C" fn ioctl(userdata: *mut c_void, fd: c_int, request: c_ulong, value: *mut c_int) -> c_int {
    enter_int(userdata, |harness| {
        let got = harness.act(|world| world.ioctl(fd, request))?;
        memory::store(value, got);
        Ok(0)
    })
}

unsafe extern "C" fn close(userdata: *mut c_void, fd: c_int) -> c_int {
    enter_int(userdata, |harness| {
        if let Some(lingering) = harness.act(|world| world.close(fd))? {
            harness.perform(lingering)?;
        }
        Ok(0)
    })
}

unsafe extern "C" fn shutdown(userdata: *mut c_void, fd: c_int, how: c_int) -> c_int {
    enter_int(userdata, |harness| {
        harness.act(|world| world.shutdown(fd, how)).map(|()| 0)
    })
}

unsafe extern "C" fn getsockopt(
    userdata: *mut c_void,
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    enter_int(userdata, |harness| {
        let room = memory::load(len).ok_or(Errno(libc::EFAULT))?;
        let bytes = harness.act(|world| world.option(fd, level, name))?;
        let written = Span::new(value, room as usize).write(&bytes);
        memory::store(len, written as socklen_t);
        Ok(0)
    })
}

unsafe extern "C" fn setsockopt(
    userdata: *mut c_void,
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> c_int {
    enter_int(userdata, |harness| {
        let bytes = Span::new(value, len as usize).read()?;
        harness
            .act(|world| world.set_option(fd, level, name, &bytes))
            .map(|()| 0)
    })
}

unsafe extern "C" fn poll(userdata: *mut c_void, fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int {
    enter_int(userdata, |harness| {
        let fds = memory::elements(fds, count as usize)?;
        let call = Call::Poll {
            fds: fds.iter().map(|asked| (asked.fd, asked.events)).collect(),
            deadline: harness.act(|world| world.deadline(timeout)),
        };
        match harness.perform(call)? {
            Outcome::Polled(ready) => {
                for (asked, &ready) in fds.iter_mut().zip(&ready) {
                    asked.revents = ready;
                }
                Ok(ready.iter().filter(|&&ready| ready != 0).count())
            }
            other => unexpected(&other),
        }
    })
}

unsafe extern "C" fn netdev_send(userdata: *mut c_void, buffer: *const c_void, len: size_t) -> c_int {
    enter_int(userdata, |harness| {
        let packet = Span::new(buffer, len).read()?;
        harness.act(|world| world.take_in(&packet));
        Ok(0)
    })
}

unsafe extern "C" fn netdev_receive(
    userdata: *mut c_void,
    buffer: *mut c_void,
    len: *mut size_t,
    at: *mut c_longlong,
) -> c_int {
    enter_int(userdata, |harness| {
        let room = memory::load(len).ok_or(Errno(libc::EFAULT))?;
        // Without a packet its length is none: any other answer would have us asked for ever.
        let (when, packet) = harness
            .next_packet()
            .unwrap_or_else(|| (harness.act(|world| world.now()), Vec::new()));
        let written = Span::new(buffer, room).write(&packet);
        memory::store(len, written);
        memory::store(at, when.as_micros() as c_longlong);
        Ok(0)
    })
}

unsafe extern "C" fn usleep(userdata: *mut c_void, micros: useconds_t) -> c_int {
    enter_int(userdata, |harness| {
        harness.sleep_micros(u64::from(micros));
        Ok(0)
    })
}

unsafe extern "C" fn gettimeofday(userdata: *mut c_void, time: *mut timeval, _zone: *mut c_void) -> c_int {
    enter_int(userdata, |harness| {
        let micros = harness.time().as_micros() as i64;
        let value = timeval {
            tv_sec: micros / 1_000_000,
            tv_usec: micros % 1_000_000,
        };
        memory::store(time, value);
        Ok(0)
    })
}

unsafe extern "C" fn epoll_create(userdata: *mut c_void, size: c_int) -> c_int {
    enter_int(userdata, |harness| {
        if size <= 0 {
            return Err(Errno(libc::EINVAL));
        }
        harness.act(|world| world.epoll_create()).map(|fd| fd as usize)
    })
}

unsafe extern "C" fn epoll_ctl(
    userdata: *mut c_void,
    epoll: c_int,
    operation: c_int,
    fd: c_int,
    event: *mut epoll_event,
) -> c_int {
    enter_int(userdata, |harness| {
        let interest = memory::load(event).map(|event| (event.events, event.u64));
        harness
            .act(|world| world.epoll_ctl(epoll, operation, fd, interest))
            .map(|()| 0)
    })
}

unsafe extern "C" fn epoll_wait(
    userdata: *mut c_void,
    epoll: c_int,
    events: *mut epoll_event,
    most: c_int,
    timeout: c_int,
) -> c_int {
    enter_int(userdata, |harness| {
        let most = usize::try_from(most)
            .ok()
            .filter(|&most| most > 0)
            .ok_or(Errno(libc::EINVAL))?;
        let out = memory::elements(events, most)?;
        let call = Call::EpollWait {
            fd: epoll,
            most,
            deadline: harness.act(|world| world.deadline(timeout)),
        };
        match harness.perform(call)? {
            Outcome::Events(ready) => {
                for (place, &(events, data)) in out.iter_mut().zip(&ready) {
                    *place = epoll_event { events, u64: data };
                }
                Ok(ready.len())
            }
            other => unexpected(&other),
        }
    })
}

unsafe extern "C" fn pipe(userdata: *mut c_void, _ends: *mut c_int) -> c_int {
    enter_int(userdata, |_| Err(Errno(libc::ENOSYS)))
}

unsafe extern "C" fn splice(
    userdata: *mut c_void,
    _from: c_int,
    _from_offset: *mut loff_t,
    _to: c_int,
    _to_offset: *mut loff_t,
    _len: size_t,
    _flags: c_uint,
) -> ssize_t {
    enter(userdata, |_| Err(Errno(libc::ENOSYS)))
}

/// Reads into the places and says how many bytes, and with TCP_INQ how many are left.
fn receive(
    harness: &Harness,
    fd: c_int,
    spans: &[Span],
    flags: c_int,
) -> Result<(usize, Option<i32>), Errno> {
    let call = Call::Read {
        fd,
        len: memory::total(spans),
        flags,
        faulty: spans.iter().any(|span| span.is_faulty()),
        got: Vec::new(),
    };
    match harness.perform(call)? {
        Outcome::Bytes(bytes, unread) => {
            memory::scatter(spans, &bytes);
            Ok((bytes.len(), unread))
        }
        other => unexpected(&other).map(|len| (len, None)),
    }
}

fn transmit(harness: &Harness, fd: c_int, spans: &[Span], flags: c_int) -> Result<usize, Errno> {
    let call = Call::Write {
        fd,
        bytes: memory::gather(spans)?,
        flags,
        done: 0,
    };
    match harness.perform(call)? {
        Outcome::Count(len) => Ok(len),
        other => unexpected(&other),
    }
}

/// A call came to what another comes to.
fn unexpected(outcome: &Outcome) -> Result<usize, Errno> {
    debug_assert!(false, "{outcome:?}");
    Err(Errno(libc::EIO))
}
