//! The shared object's C interface, used as packetdrill does: socket calls, packets in and out, virtual time.
#![expect(unsafe_code, reason = "the interface is C's")]

use std::ffi::{CString, c_int, c_void};
use std::mem::MaybeUninit;
use std::thread;
use std::time::Duration;

use portolan_core::Port;
use portolan_core::wire::{
    ChecksumFill, IpPacket, IpProtocol, Ipv4Repr, PseudoHeader, SeqNum, TcpFlags, TcpRepr, TcpSegment,
};
use portolan_packetdrill::{Interface, packetdrill_interface_init};

const LOCAL: [u8; 4] = [192, 168, 0, 1];
const REMOTE: [u8; 4] = [192, 0, 2, 1];
const PORT: u16 = 8080;

/// The interface of one world; callbacks may be made from any thread.
struct Driver(Interface);

// SAFETY: `userdata` points at what the object itself locks.
unsafe impl Send for Driver {}
// SAFETY: as above.
unsafe impl Sync for Driver {}

/// Calls a callback with `userdata` first.
macro_rules! call {
    ($driver:expr, $name:ident $(, $argument:expr)*) => {{
        let interface = &$driver.0;
        // SAFETY: the callback was set by the object, and the arguments live during the call.
        unsafe { (interface.$name.expect("every member is set"))(interface.userdata $(, $argument)*) }
    }};
}

impl Driver {
    fn new() -> Self {
        let flags = CString::new("local=192.168.0.1,remote=192.0.2.1,mtu=1500").unwrap();
        let mut interface = MaybeUninit::uninit();
        // SAFETY: the flags end with a zero byte, and the table is filled in whole.
        let interface = unsafe {
            packetdrill_interface_init(flags.as_ptr(), interface.as_mut_ptr());
            interface.assume_init()
        };
        Self(interface)
    }

    fn listener(&self) -> c_int {
        let fd = call!(self, socket, libc::AF_INET, libc::SOCK_STREAM, 0);
        assert!(fd > 2);
        let address = address(LOCAL);
        let len = size_of_val(&address) as u32;
        assert_eq!(call!(self, bind, fd, (&raw const address).cast(), len), 0);
        assert_eq!(call!(self, listen, fd, 1), 0);
        fd
    }

    /// The peer sends a segment.
    fn inject(&self, seq: u32, ack: u32, flags: TcpFlags, payload: &[u8]) {
        let mut packet = vec![0; 40 + payload.len()];
        packet[40..].copy_from_slice(payload);
        let pseudo = PseudoHeader::new(REMOTE.into(), LOCAL.into()).unwrap();
        TcpRepr {
            source_port: Port::new(PORT),
            destination_port: Port::new(PORT),
            seq: SeqNum::new(seq),
            ack: SeqNum::new(ack),
            flags,
            window: 10_000,
            urgent_pointer: 0,
            options: &[],
        }
        .emit(&mut packet[20..], ChecksumFill::Complete(pseudo))
        .unwrap();
        Ipv4Repr {
            dscp: 0,
            ecn: 0,
            identification: 1,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            time_to_live: 64,
            protocol: IpProtocol::TCP,
            source: REMOTE.into(),
            destination: LOCAL.into(),
            options: &[],
            payload_len: 20 + payload.len(),
        }
        .emit(&mut packet)
        .unwrap();
        assert_eq!(call!(self, netdev_send, packet.as_ptr().cast(), packet.len()), 0);
    }

    /// The next segment that the object sends, and when in microseconds.
    fn sent(&self) -> (TcpFlags, u32, u32, Vec<u8>, i64) {
        let (packet, at) = self.packet();
        let ip = IpPacket::parse(&packet).unwrap();
        let segment = TcpSegment::parse(ip.payload()).unwrap();
        assert!(segment.has_valid_checksum(ip.pseudo_header()));
        let payload = segment.payload().to_vec();
        (
            segment.flags(),
            segment.seq().get(),
            segment.ack().get(),
            payload,
            at,
        )
    }

    fn packet(&self) -> (Vec<u8>, i64) {
        let (mut buffer, mut at) = (vec![0u8; 65_536], 0);
        let mut len = buffer.len();
        assert_eq!(
            call!(
                self,
                netdev_receive,
                buffer.as_mut_ptr().cast(),
                &raw mut len,
                &raw mut at
            ),
            0
        );
        buffer.truncate(len);
        (buffer, at)
    }

    /// Lets the peer connect; gives our initial sequence number.
    fn handshake(&self) -> u32 {
        self.inject(100, 0, TcpFlags::SYN, &[]);
        let (flags, iss, ack, _, _) = self.sent();
        assert_eq!((flags, ack), (TcpFlags::SYN | TcpFlags::ACK, 101));
        self.inject(101, iss + 1, TcpFlags::ACK, &[]);
        iss
    }

    fn accept(&self, listener: c_int) -> c_int {
        let mut peer = address([0; 4]);
        let mut len = size_of_val(&peer) as u32;
        let fd = call!(self, accept, listener, (&raw mut peer).cast(), &raw mut len);
        assert_eq!(
            (peer.sin_addr.s_addr, peer.sin_port),
            (u32::from_ne_bytes(REMOTE), PORT.to_be())
        );
        fd
    }

    fn micros(&self) -> i64 {
        let mut time = libc::timeval {
            tv_sec: 0,
            tv_usec: 0,
        };
        assert_eq!(call!(self, gettimeofday, &raw mut time, std::ptr::null_mut()), 0);
        time.tv_sec * 1_000_000 + time.tv_usec
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        call!(self, free);
    }
}

fn address(ip: [u8; 4]) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: PORT.to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(ip),
        },
        sin_zero: [0; 8],
    }
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap()
}

#[test]
fn a_connection_is_accepted_read_from_written_to_and_closed() {
    let driver = Driver::new();
    let listener = driver.listener();
    let iss = driver.handshake();
    let fd = driver.accept(listener);
    assert_ne!(fd, listener);

    driver.inject(101, iss + 1, TcpFlags::ACK | TcpFlags::PSH, b"hello");
    let (flags, seq, ack, _, _) = driver.sent();
    assert_eq!((flags, seq, ack), (TcpFlags::ACK, iss + 1, 106));
    let mut unread: c_int = 0;
    assert_eq!(call!(driver, ioctl, fd, libc::FIONREAD, &raw mut unread), 0);
    assert_eq!(unread, 5);
    let mut bytes = [0u8; 16];
    assert_eq!(call!(driver, read, fd, bytes.as_mut_ptr().cast(), bytes.len()), 5);
    assert_eq!(&bytes[..5], b"hello");

    assert_eq!(call!(driver, write, fd, b"answer".as_ptr().cast(), 6), 6);
    let (flags, _, _, payload, _) = driver.sent();
    assert_eq!(
        (flags, &payload[..]),
        (TcpFlags::ACK | TcpFlags::PSH, &b"answer"[..])
    );
    driver.inject(106, iss + 7, TcpFlags::ACK, &[]);
    assert_eq!(call!(driver, close, fd), 0);
    assert_eq!(driver.sent().0, TcpFlags::FIN | TcpFlags::ACK);
    assert_eq!(call!(driver, close, fd), -1);
    assert_eq!(errno(), libc::EBADF);
}

#[test]
fn time_moves_by_waiting_and_by_asking_and_timers_run_at_theirs() {
    let driver = Driver::new();
    let before = driver.micros();
    assert_eq!(driver.micros(), before + 1);
    assert_eq!(call!(driver, usleep, 5_000), 0);
    assert_eq!(driver.micros(), before + 5_002);

    // Nobody answers the SYN: it is repeated after a second, and the wait for it takes no time of ours.
    let fd = call!(
        driver,
        socket,
        libc::AF_INET,
        libc::SOCK_STREAM | libc::SOCK_NONBLOCK,
        0
    );
    let remote = address(REMOTE);
    let len = size_of_val(&remote) as u32;
    assert_eq!(call!(driver, connect, fd, (&raw const remote).cast(), len), -1);
    assert_eq!(errno(), libc::EINPROGRESS);
    let first = driver.sent();
    let second = driver.sent();
    assert_eq!((first.0, second.0), (TcpFlags::SYN, TcpFlags::SYN));
    assert!((1_000_000..1_005_000).contains(&(second.4 - first.4)));
}

#[test]
fn without_packets_and_timers_the_answer_is_no_packet() {
    let driver = Driver::new();
    let listener = driver.listener();
    assert!(driver.packet().0.is_empty());
    assert_eq!(
        call!(
            driver,
            accept,
            listener,
            std::ptr::null_mut(),
            std::ptr::null_mut()
        ),
        -1
    );
    assert_eq!(errno(), libc::EDEADLK);
}

#[test]
fn a_blocked_call_of_another_thread_ends_in_the_event_that_completes_it() {
    let driver = Driver::new();
    let listener = driver.listener();
    thread::scope(|scope| {
        let accepted = scope.spawn(|| {
            let fd = driver.accept(listener);
            (fd, driver.micros())
        });
        // Whichever comes first, the call or the handshake: the time is that of the event.
        thread::sleep(Duration::from_millis(50));
        driver.handshake();
        let at = driver.micros();
        assert_eq!(call!(driver, usleep, 1_000_000), 0);
        let (fd, ended) = accepted.join().unwrap();
        assert!(fd > 2);
        assert!(ended < at, "{ended} {at}");
    });
}

#[test]
fn a_null_buffer_is_a_fault_and_tcp_info_has_its_280_bytes() {
    let driver = Driver::new();
    let listener = driver.listener();
    let iss = driver.handshake();
    let fd = driver.accept(listener);
    assert_eq!(call!(driver, write, fd, std::ptr::null(), 10), -1);
    assert_eq!(errno(), libc::EFAULT);
    driver.inject(101, iss + 1, TcpFlags::ACK, b"x");
    assert_eq!(call!(driver, read, fd, std::ptr::null_mut(), 10), -1);
    assert_eq!(errno(), libc::EFAULT);

    let mut info = [0u8; 512];
    let mut len = info.len() as u32;
    let place: *mut c_void = info.as_mut_ptr().cast();
    assert_eq!(
        call!(
            driver,
            getsockopt,
            fd,
            libc::SOL_TCP,
            libc::TCP_INFO,
            place,
            &raw mut len
        ),
        0
    );
    assert_eq!((len, info[0]), (280, 1));
    assert_eq!(u32::from_ne_bytes(info[80..84].try_into().unwrap()), 10, "cwnd");
}
