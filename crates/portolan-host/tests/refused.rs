//! What is left where the system refuses the usual ways.

mod private;

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::thread;

use portolan_host::{
    Collector, ProtocolSet, Query, Socket, SocketProtocol, SocketRead, Sources, SpaceSelect, StateSet,
    read_sockets,
};
use rustix::io::Errno;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

use private::in_namespace;

fn query() -> Query {
    Query {
        protocols: ProtocolSet::ALL,
        states: StateSet::ALL,
        space: SpaceSelect::Host,
        ..Query::listeners()
    }
}

/// Runs `body` in a thread in which socket(2) fails with `errno` for AF_NETLINK.
fn with_netlink_refused<T: Send>(errno: Errno, body: impl FnOnce() -> T + Send) -> T {
    const AF_NETLINK: u64 = 16;
    let netlink = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, AF_NETLINK).unwrap();
    let filter = SeccompFilter::new(
        [(libc::SYS_socket, vec![SeccompRule::new(vec![netlink]).unwrap()])].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(u32::try_from(errno.raw_os_error()).unwrap()),
        std::env::consts::ARCH.try_into().unwrap(),
    )
    .unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            apply_filter(&program).unwrap();
            body()
        });
        worker.join().unwrap()
    })
}

fn addresses(read: &SocketRead) -> Vec<(SocketProtocol, u64)> {
    let mut addresses: Vec<_> = read
        .sockets
        .iter()
        .map(|socket: &Socket| (socket.protocol, socket.inode))
        .collect();
    addresses.sort_unstable();
    addresses
}

#[test]
fn a_sandbox_without_netlink_reads_text_and_says_so() {
    in_namespace("a_sandbox_without_netlink_reads_text_and_says_so", || {
        let _tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 80)).unwrap();
        let _udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)).unwrap();
        let free = read_sockets(&query(), &Sources::default()).unwrap();
        assert_eq!(free.sockets.len(), 2);
        for errno in [Errno::PERM, Errno::ACCESS, Errno::NOSYS, Errno::AFNOSUPPORT] {
            let confined =
                with_netlink_refused(errno, || read_sockets(&query(), &Sources::default())).unwrap();
            assert_eq!(addresses(&confined), addresses(&free), "{errno}");
            assert_eq!(confined.collectors, [Collector::ProcNet].into());
            assert_eq!(confined.warnings.len(), 1);
            assert!(
                confined.warnings[0].contains("netlink is refused"),
                "{:?}",
                confined.warnings
            );
            assert_eq!(confined.hidden_spaces, 0);
        }
    });
}

#[test]
fn without_proc_the_host_itself_is_read() {
    in_namespace("without_proc_the_host_itself_is_read", || {
        let _tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 80)).unwrap();
        let sources = Sources {
            proc_root: PathBuf::from("/nonexistent"),
            ..Sources::default()
        };
        let every = Query {
            space: SpaceSelect::Every,
            ..query()
        };
        let read = read_sockets(&every, &sources).unwrap();
        assert_eq!((read.sockets.len(), read.spaces.len()), (1, 1));
        assert_eq!(read.collectors, [Collector::SockDiag].into());
        assert!(
            read.warnings
                .iter()
                .any(|warning| warning.contains("/nonexistent")),
            "{:?}",
            read.warnings
        );
    });
}

#[test]
fn with_neither_netlink_nor_proc_the_host_counts_as_hidden() {
    in_namespace("with_neither_netlink_nor_proc_the_host_counts_as_hidden", || {
        let sources = Sources {
            proc_root: PathBuf::from("/nonexistent"),
            ..Sources::default()
        };
        let every = Query {
            space: SpaceSelect::Every,
            ..query()
        };
        let read = with_netlink_refused(Errno::PERM, || read_sockets(&every, &sources)).unwrap();
        assert_eq!(
            (read.sockets.len(), read.spaces.len(), read.hidden_spaces),
            (0, 0, 1)
        );
        assert!(read.remedy().is_some() && !read.warnings.is_empty());
        // Asked for by name it is an error.
        assert!(with_netlink_refused(Errno::PERM, || read_sockets(&query(), &sources)).is_err());
    });
}

#[test]
fn what_the_kernel_does_not_have_or_list_is_told_apart() {
    in_namespace("what_the_kernel_does_not_have_or_list_is_told_apart", || {
        let protocols = std::fs::read_to_string("/proc/self/net/protocols").unwrap();
        let read = read_sockets(&query(), &Sources::default()).unwrap();
        for (protocol, name) in [
            (SocketProtocol::Sctp, "SCTP"),
            (SocketProtocol::Vsock, "AF_VSOCK"),
        ] {
            let has = protocols
                .lines()
                .any(|line| line.starts_with(&format!("{name} ")));
            assert_eq!(read.absent.contains(protocol), !has, "{protocol}");
            assert!(has || !read.unlisted.contains(protocol));
        }
        assert!(!read.absent.contains(SocketProtocol::Tcp) && !read.unlisted.contains(SocketProtocol::Tcp));
        let text = Sources {
            netlink: false,
            ..Sources::default()
        };
        let read = read_sockets(&query(), &text).unwrap();
        assert_eq!(
            read.unseen_by_text.contains(SocketProtocol::Mptcp),
            protocols.contains("MPTCP ")
        );
        // The kernel was not asked, so nothing is known of it.
        assert!(!read.unlisted.contains(SocketProtocol::Mptcp));
    });
}
