//! The host under test: a stack, its clock, its link and the sockets of one program.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use portolan_core::table::{Device, Host};
use portolan_stack::{ConnectionId, Event, Instant, ListenerId, Offload, Packet, Pieces, Stack, StackConfig};

use crate::call::{Attempt, Call};
use crate::control::Control;
use crate::errno::{self, Errno};
use crate::flags::Flags;
use crate::settings::Settings;
use crate::sockets::{Kind, Socket};

/// Where the clock begins: far enough from zero that nothing looks like the beginning of time.
const START: Instant = Instant::from_millis(1_000_000);
/// What IP and TCP headers take of a packet without options.
const HEADERS: (usize, usize) = (40, 60);

/// See the module.
#[derive(Debug)]
pub(crate) struct World {
    now: Instant,
    pub(crate) stack: Stack,
    pub(crate) settings: Settings,
    control: Control,
    pub(crate) local: IpAddr,
    mtu: usize,
    merged: Option<u16>,
    /// Packets that left, and when.
    link: VecDeque<(Instant, Vec<u8>)>,
    pub(crate) sockets: HashMap<i32, Socket>,
    /// Which descriptor a connection or a listener has.
    pub(crate) connections: HashMap<ConnectionId, i32>,
    pub(crate) listeners: HashMap<ListenerId, i32>,
}

impl World {
    /// A host with the address and the link that the flags name, and no sockets.
    pub(crate) fn new(flags: &Flags) -> Self {
        let mut host = Host::new();
        if let Some(device) = Device::new(1) {
            let prefix = if flags.local.is_ipv4() { 16 } else { 64 };
            host.add_address(device, flags.local, Some(prefix));
        }
        let settings = Settings::new();
        let config = StackConfig {
            mtu: flags.mtu,
            // As Linux does, so that what goes at once is known as such; the harness cuts it.
            segmentation_offload: true,
            tcp: settings.tcp,
            ..StackConfig::default()
        };
        Self {
            now: START,
            stack: Stack::new(config, host, *b"packetdrill test"),
            settings,
            control: Control::new(flags.control.clone()),
            local: flags.local,
            mtu: flags.mtu,
            merged: flags.mss,
            link: VecDeque::new(),
            sockets: HashMap::new(),
            connections: HashMap::new(),
            listeners: HashMap::new(),
        }
    }

    pub(crate) const fn now(&self) -> Instant {
        self.now
    }

    /// When something is to be done next.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.stack.poll_timeout()
    }

    /// The clock says this now; what is due is done.
    pub(crate) fn move_to(&mut self, now: Instant) {
        self.now = self.now.max(now);
        self.stack.handle_timeout(self.now);
    }

    /// Obeys the commands that the script gave since it was last asked.
    pub(crate) fn read_control(&mut self) {
        let lines = self.control.new_lines();
        if lines.is_empty() {
            return;
        }
        for line in &lines {
            self.settings.take_line(line);
        }
        self.stack.set_tcp_config(self.settings.tcp);
        let fds: Vec<i32> = self.sockets.keys().copied().collect();
        for fd in fds {
            self.apply_options(fd);
        }
    }

    /// A packet comes from the link.
    pub(crate) fn take_in(&mut self, bytes: &[u8]) {
        let headers = if self.local.is_ipv4() {
            HEADERS.0
        } else {
            HEADERS.1
        };
        let offload = if bytes.len() > self.mtu {
            // A packet that was merged on its way.
            let mss = self.merged.unwrap_or((self.mtu - headers) as u16);
            Offload {
                piece_len: NonZeroU16::new(mss),
                ..Offload::default()
            }
        } else {
            Offload::default()
        };
        self.stack.handle_packet(self.now, Packet { bytes, offload });
    }

    /// The packet that left first.
    pub(crate) fn take_packet(&mut self) -> Option<(Instant, Vec<u8>)> {
        self.link.pop_front()
    }

    /// Lets everything follow that has a cause: packets go out, sockets learn what happened to them.
    pub(crate) fn settle(&mut self) {
        let mut buffer = vec![0; self.stack.max_packet_len()];
        let mut piece = vec![0; self.stack.max_packet_len()];
        while let Some(transmit) = self.stack.poll_transmit(self.now, &mut buffer) {
            let packet = Packet {
                bytes: &buffer[..transmit.len],
                offload: transmit.offload,
            };
            let Ok(mut pieces) = Pieces::new(packet) else {
                continue;
            };
            while let Some(len) = pieces.write_next(&mut piece) {
                self.link.push_back((self.now, piece[..len].to_vec()));
            }
        }
        while let Some(event) = self.stack.poll_event() {
            match event {
                Event::Acceptable(id) => {
                    if let Some(&fd) = self.listeners.get(&id) {
                        self.wake(fd, libc::EPOLLIN);
                    }
                }
                Event::Connected(id) => self.note_connected(id),
                Event::Readable(id) => {
                    if let Some(&fd) = self.connections.get(&id) {
                        self.wake(fd, libc::EPOLLIN);
                    }
                }
                Event::Closed(id, reason) => self.note_closed(id, reason),
                _ => {}
            }
        }
        self.wake_writers();
    }

    fn note_connected(&mut self, id: ConnectionId) {
        let Some(&fd) = self.connections.get(&id) else {
            return;
        };
        self.wake(fd, libc::EPOLLOUT);
    }

    fn note_closed(&mut self, id: ConnectionId, reason: portolan_stack::CloseReason) {
        let Some(&fd) = self.connections.get(&id) else {
            return;
        };
        if let Some(socket) = self.sockets.get_mut(&fd)
            && let Kind::Connection(connection) = &socket.kind
            && let Some(errno) = errno::of_close(reason, connection.peer_finished)
        {
            socket.error = Some(errno);
        }
        self.wake(
            fd,
            libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLERR | libc::EPOLLHUP,
        );
    }

    /// Tries a call: `None` if it has to wait.
    pub(crate) fn attempt(&mut self, call: &mut Call) -> Attempt {
        match call {
            Call::Accept { fd, flags } => self.try_accept(*fd, *flags),
            Call::Connect { fd, remote, begun } => self.try_connect(*fd, *remote, begun),
            Call::Read {
                fd,
                len,
                flags,
                faulty,
                got,
            } => self.try_read(*fd, *len, *flags, *faulty, got),
            Call::Write {
                fd,
                bytes,
                flags,
                done,
            } => self.try_write(*fd, bytes, *flags, done),
            Call::Close { id, deadline } => self.try_close(*id, *deadline),
            Call::Poll { fds, deadline } => self.try_poll(fds, *deadline),
            Call::EpollWait { fd, most, deadline } => self.try_epoll_wait(*fd, *most, *deadline),
        }
    }

    /// When a wait of so many milliseconds ends; `None` if never.
    pub(crate) fn deadline(&self, timeout_millis: i32) -> Option<Instant> {
        let millis = u64::try_from(timeout_millis).ok()?;
        Some(self.now + portolan_stack::Duration::from_millis(millis))
    }

    /// The socket of a descriptor.
    pub(crate) fn socket_mut(&mut self, fd: i32) -> Result<&mut Socket, Errno> {
        self.sockets.get_mut(&fd).ok_or(Errno(libc::EBADF))
    }

    /// The port of a socket address as this host names it.
    pub(crate) fn named(&self, address: SocketAddr) -> SocketAddr {
        if address.ip().is_unspecified() {
            SocketAddr::new(self.local, address.port())
        } else {
            address
        }
    }
}
