//! Socket options.

use portolan_stack::{Duration, TcpConfig};

use crate::errno::Errno;
use crate::info;
use crate::settings;
use crate::sockets::{Kind, Socket};
use crate::world::World;

const TCP_NOTSENT_LOWAT: i32 = 25;
const TCP_INQ: i32 = 36;
const TCP_RTO_MAX_MS: i32 = 44;
const SO_MEMINFO: i32 = 55;
/// The smallest buffers that Linux grants.
const LEAST_SEND_BUFFER: usize = 4608;
const LEAST_RECEIVE_BUFFER: usize = 2304;

impl World {
    /// How the connections of a socket behave.
    pub(crate) fn config_of(&self, fd: i32) -> TcpConfig {
        let overrides = self.sockets.get(&fd).map(|socket| socket.overrides);
        self.settings.with(&overrides.unwrap_or_default())
    }

    /// Makes a socket behave as its options say.
    pub(crate) fn apply_options(&mut self, fd: i32) {
        let (now, config) = (self.now(), self.config_of(fd));
        match self.sockets.get(&fd).map(|socket| &socket.kind) {
            Some(Kind::Listener(id)) => {
                let _gone = self.stack.configure_listener(*id, &config);
            }
            Some(Kind::Connection(connection)) => {
                let _gone = self.stack.configure(now, connection.id, &config);
            }
            Some(Kind::Fresh(_) | Kind::Epoll(_)) | None => {}
        }
    }

    pub(crate) fn set_option(&mut self, fd: i32, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        let number = integer(value);
        let on = number.is_some_and(|number| number != 0);
        let socket = self.socket_mut(fd)?;
        if matches!(socket.kind, Kind::Epoll(_)) {
            return Err(Errno(libc::ENOTSOCK));
        }
        let overrides = &mut socket.overrides;
        let needed = || number.ok_or(Errno(libc::EINVAL));
        let positive = |most: i32| {
            let number = number.ok_or(Errno(libc::EINVAL))?;
            if (1..=most).contains(&number) {
                Ok(number)
            } else {
                Err(Errno(libc::EINVAL))
            }
        };
        match (level, name) {
            (libc::SOL_SOCKET, libc::SO_SNDBUF | libc::SO_SNDBUFFORCE) => {
                // Linux doubles what is asked for, to have room for its own.
                overrides.send_buffer = Some((needed()?.max(0) as usize * 2).max(LEAST_SEND_BUFFER));
            }
            (libc::SOL_SOCKET, libc::SO_RCVBUF | libc::SO_RCVBUFFORCE) => {
                overrides.receive_buffer = Some((needed()?.max(0) as usize * 2).max(LEAST_RECEIVE_BUFFER));
            }
            (libc::SOL_SOCKET, libc::SO_KEEPALIVE) => overrides.keepalive = on,
            (libc::SOL_SOCKET, libc::SO_LINGER) => {
                let (Some(on), Some(secs)) = (integer(value), value.get(4..).and_then(integer)) else {
                    return Err(Errno(libc::EINVAL));
                };
                socket.linger = (on != 0).then(|| Duration::from_secs(secs.max(0) as u64));
            }
            (libc::SOL_SOCKET, libc::SO_RCVLOWAT) => socket.low_water = needed()?.max(1) as usize,
            (libc::SOL_TCP, libc::TCP_NODELAY) => {
                overrides.no_delay = on;
                if let Kind::Connection(connection) = &socket.kind {
                    let id = connection.id;
                    let now = self.now();
                    // Setting it again sends what waits, too.
                    let _gone = self.stack.set_no_delay(now, id, on);
                }
            }
            (libc::SOL_TCP, libc::TCP_CORK) => overrides.cork = on,
            (libc::SOL_TCP, libc::TCP_MAXSEG) => {
                // Linux's TCP_MIN_MSS and MAX_TCP_WINDOW.
                let bytes = needed()?;
                if !(88..=32_767).contains(&bytes) && bytes != 0 {
                    return Err(Errno(libc::EINVAL));
                }
                overrides.max_segment = (bytes != 0).then_some(bytes as u16);
            }
            (libc::SOL_TCP, TCP_NOTSENT_LOWAT) => {
                let bytes = needed()? as u32;
                overrides.not_sent_low_water = (bytes != 0).then(|| settings::low_water(bytes));
                socket.noted.insert((level, name), value.to_vec());
            }
            (libc::SOL_TCP, TCP_RTO_MAX_MS) => {
                let millis = needed()?;
                if !(1000..=120_000).contains(&millis) {
                    return Err(Errno(libc::EINVAL));
                }
                overrides.max_rto = Some(Duration::from_millis(millis as u64));
            }
            // They change what Linux does for speed, and nothing that can be seen here.
            (libc::SOL_TCP, libc::TCP_QUICKACK | libc::TCP_DEFER_ACCEPT | libc::TCP_WINDOW_CLAMP) => {
                socket.noted.insert((level, name), value.to_vec());
            }
            (libc::SOL_TCP, libc::TCP_KEEPIDLE) => {
                overrides.keep_idle = Some(Duration::from_secs(positive(32_767)? as u64));
            }
            (libc::SOL_TCP, libc::TCP_KEEPINTVL) => {
                overrides.keep_interval = Some(Duration::from_secs(positive(32_767)? as u64));
            }
            (libc::SOL_TCP, libc::TCP_KEEPCNT) => overrides.keep_probes = Some(positive(127)? as u8),
            (libc::SOL_TCP, libc::TCP_SYNCNT) => overrides.syn_retries = Some(positive(127)? as u8),
            (libc::SOL_TCP, libc::TCP_LINGER2) => {
                overrides.fin_wait = match needed()? {
                    0 => None,
                    secs => Some(Duration::from_secs(secs.max(0) as u64)),
                };
            }
            (libc::SOL_TCP, libc::TCP_USER_TIMEOUT) => {
                overrides.user_timeout = match needed()? {
                    millis if millis < 0 => return Err(Errno(libc::EINVAL)),
                    0 => None,
                    millis => Some(Duration::from_millis(millis as u64)),
                };
            }
            (libc::SOL_TCP, libc::TCP_CONGESTION) => {
                let name = String::from_utf8_lossy(value);
                let known = settings::congestion_control(name.trim_end_matches('\0'));
                overrides.congestion_control = Some(known.ok_or(Errno(libc::ENOENT))?);
            }
            (libc::SOL_TCP, TCP_INQ) => match needed()? {
                0 => socket.tells_unread = false,
                1 => socket.tells_unread = true,
                _ => return Err(Errno(libc::EINVAL)),
            },
            // The bits of ECN are TCP's own.
            (libc::SOL_IP, libc::IP_TOS) | (libc::SOL_IPV6, libc::IPV6_TCLASS) => {
                overrides.traffic_class = needed()? as u8 & !3;
            }
            (libc::SOL_IP, libc::IP_TTL) | (libc::SOL_IPV6, libc::IPV6_UNICAST_HOPS) => {
                overrides.hop_limit = match needed()? {
                    -1 => None,
                    hops @ 1..=255 => Some(hops as u8),
                    _ => return Err(Errno(libc::EINVAL)),
                };
            }
            (libc::SOL_SOCKET | libc::SOL_IP | libc::SOL_IPV6, _) => {
                socket.noted.insert((level, name), value.to_vec());
            }
            _ => return Err(Errno(libc::ENOPROTOOPT)),
        }
        self.apply_options(fd);
        Ok(())
    }

    pub(crate) fn option(&mut self, fd: i32, level: i32, name: i32) -> Result<Vec<u8>, Errno> {
        if (level, name) == (libc::SOL_SOCKET, libc::SO_ERROR) {
            let error = self.socket_mut(fd)?.error.take();
            return Ok(bytes(error.map_or(0, |errno| errno.0)));
        }
        let config = self.config_of(fd);
        let socket = self.sockets.get(&fd).ok_or(Errno(libc::EBADF))?;
        let keepalive = self.settings.keepalive(&socket.overrides);
        let secs = |time: Duration| (time.as_millis() / 1000) as i32;
        let number = match (level, name) {
            (libc::SOL_SOCKET, libc::SO_SNDBUF) => config.send_buffer as i32,
            (libc::SOL_SOCKET, libc::SO_RCVBUF) => config.receive_buffer as i32,
            (libc::SOL_SOCKET, libc::SO_TYPE) => libc::SOCK_STREAM,
            (libc::SOL_SOCKET, libc::SO_PROTOCOL) => libc::IPPROTO_TCP,
            (libc::SOL_SOCKET, libc::SO_DOMAIN) if socket.is_v6 => libc::AF_INET6,
            (libc::SOL_SOCKET, libc::SO_DOMAIN) => libc::AF_INET,
            (libc::SOL_SOCKET, libc::SO_ACCEPTCONN) => i32::from(matches!(socket.kind, Kind::Listener(_))),
            (libc::SOL_SOCKET, libc::SO_KEEPALIVE) => i32::from(socket.overrides.keepalive),
            (libc::SOL_SOCKET, libc::SO_RCVLOWAT) => socket.low_water as i32,
            (libc::SOL_SOCKET, libc::SO_LINGER) => {
                let on = bytes(i32::from(socket.linger.is_some()));
                return Ok([on, bytes(socket.linger.map_or(0, secs))].concat());
            }
            (libc::SOL_SOCKET, SO_MEMINFO) => return Ok(self.memory_info(socket, &config)),
            (libc::SOL_IP, libc::IP_TOS) | (libc::SOL_IPV6, libc::IPV6_TCLASS) => {
                i32::from(config.traffic_class)
            }
            (libc::SOL_IP, libc::IP_TTL) | (libc::SOL_IPV6, libc::IPV6_UNICAST_HOPS) => {
                i32::from(config.hop_limit)
            }
            (libc::SOL_TCP, libc::TCP_NODELAY) => i32::from(config.no_delay),
            (libc::SOL_TCP, libc::TCP_CORK) => i32::from(config.cork),
            (libc::SOL_TCP, libc::TCP_MAXSEG) => self.max_segment(socket),
            (libc::SOL_TCP, TCP_NOTSENT_LOWAT) => {
                let noted = socket.noted.get(&(level, name));
                noted.and_then(|value| integer(value)).unwrap_or(0)
            }
            (libc::SOL_TCP, TCP_RTO_MAX_MS) => config.max_rto.as_millis() as i32,
            (libc::SOL_TCP, libc::TCP_KEEPIDLE) => secs(keepalive.idle),
            (libc::SOL_TCP, libc::TCP_KEEPINTVL) => secs(keepalive.interval),
            (libc::SOL_TCP, libc::TCP_KEEPCNT) => i32::from(keepalive.probes),
            (libc::SOL_TCP, libc::TCP_SYNCNT) => i32::from(config.syn_retries),
            (libc::SOL_TCP, libc::TCP_LINGER2) => secs(config.fin_wait),
            (libc::SOL_TCP, libc::TCP_USER_TIMEOUT) => {
                config.user_timeout.map_or(0, |time| time.as_millis() as i32)
            }
            (libc::SOL_TCP, libc::TCP_CONGESTION) => {
                let mut name = settings::name_of(config.congestion_control).as_bytes().to_vec();
                name.resize(16, 0);
                return Ok(name);
            }
            (libc::SOL_TCP, TCP_INQ) => i32::from(socket.tells_unread),
            (libc::SOL_TCP, libc::TCP_INFO) => return Ok(self.tcp_info(socket)),
            // No algorithm has more to tell.
            (libc::SOL_TCP, libc::TCP_CC_INFO) => return Ok(Vec::new()),
            (level, name) => {
                let known = level != libc::SOL_TCP;
                return match socket.noted.get(&(level, name)) {
                    Some(value) => Ok(value.clone()),
                    None if known => Ok(bytes(0)),
                    None => Err(Errno(libc::ENOPROTOOPT)),
                };
            }
        };
        Ok(bytes(number))
    }

    /// TCP_MAXSEG: the data of a segment once there is a connection; before that what was asked for, or 536.
    fn max_segment(&self, socket: &Socket) -> i32 {
        let asked = socket.overrides.max_segment.map_or(536, i32::from);
        let Kind::Connection(connection) = &socket.kind else {
            return asked;
        };
        match self.stack.info(connection.id) {
            Some(info) if info.state.is_synchronized() => i32::from(info.send_mss),
            _ => asked,
        }
    }

    fn tcp_info(&self, socket: &Socket) -> Vec<u8> {
        match &socket.kind {
            Kind::Connection(connection) => {
                let info = self.stack.info(connection.id);
                let stats = self.stack.statistics(self.now(), connection.id);
                info::tcp_info(info.as_ref(), &stats.unwrap_or_default(), self.now())
            }
            Kind::Listener(_) => info::of_state(info::LISTEN),
            Kind::Fresh(_) | Kind::Epoll(_) => info::of_state(info::CLOSE),
        }
    }

    /// SO_MEMINFO: bytes in either direction and their limits.
    fn memory_info(&self, socket: &Socket, config: &TcpConfig) -> Vec<u8> {
        let queues = match &socket.kind {
            Kind::Connection(connection) => self
                .stack
                .info(connection.id)
                .map_or((0, 0), |info| (info.receive_queue, info.send_queue)),
            _ => (0, 0),
        };
        let fields = [
            queues.0,
            config.receive_buffer,
            queues.1,
            config.send_buffer,
            0,
            queues.1,
            0,
            0,
            0,
        ];
        fields
            .iter()
            .flat_map(|&field| (field as u32).to_ne_bytes())
            .collect()
    }
}

/// The int at the front; one byte counts as an int, as for options of IP.
fn integer(value: &[u8]) -> Option<i32> {
    match value {
        [byte] => Some(i32::from(*byte)),
        _ => Some(i32::from_ne_bytes(value.get(..4)?.try_into().ok()?)),
    }
}

fn bytes(number: i32) -> Vec<u8> {
    number.to_ne_bytes().to_vec()
}
