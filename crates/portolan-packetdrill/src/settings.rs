//! The sysctls of `net.ipv4` that scripts set, and the options of one socket, as a [`TcpConfig`].

use portolan_stack::{CongestionControl, Duration, Keepalive, TcpConfig};

/// What all sockets share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// How connections behave without options.
    pub(crate) tcp: TcpConfig,
    keepalive: Keepalive,
}

/// Options of a socket; `None` where the settings hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Overrides {
    pub(crate) no_delay: bool,
    pub(crate) cork: bool,
    pub(crate) max_segment: Option<u16>,
    pub(crate) not_sent_low_water: Option<usize>,
    pub(crate) max_rto: Option<Duration>,
    pub(crate) keepalive: bool,
    pub(crate) keep_idle: Option<Duration>,
    pub(crate) keep_interval: Option<Duration>,
    pub(crate) keep_probes: Option<u8>,
    pub(crate) user_timeout: Option<Duration>,
    pub(crate) syn_retries: Option<u8>,
    pub(crate) fin_wait: Option<Duration>,
    pub(crate) send_buffer: Option<usize>,
    pub(crate) receive_buffer: Option<usize>,
    pub(crate) congestion_control: Option<CongestionControl>,
    pub(crate) traffic_class: u8,
    pub(crate) hop_limit: Option<u8>,
}

/// Linux's values for keepalive.
const KEEPALIVE: Keepalive = Keepalive {
    idle: Duration::from_secs(7200),
    interval: Duration::from_secs(75),
    probes: 9,
};

impl Settings {
    /// Linux's values.
    pub(crate) fn new() -> Self {
        Self {
            tcp: TcpConfig {
                statistics: true,
                ..TcpConfig::default()
            },
            keepalive: KEEPALIVE,
        }
    }

    /// Takes a line of the control file; one that says nothing of TCP is passed over.
    pub(crate) fn take_line(&mut self, line: &str) {
        let Some((name, value)) = line
            .strip_prefix("sysctl ")
            .and_then(|setting| setting.split_once('='))
        else {
            return;
        };
        if let Some(name) = name.trim().strip_prefix("net.ipv4.") {
            self.set(name, value.trim().trim_matches('"'));
        }
    }

    fn set(&mut self, name: &str, value: &str) {
        let words: Vec<u64> = value.split_whitespace().map_while(parse).collect();
        let first = words.first().copied();
        let on = first.is_some_and(|number| number != 0);
        let small = first.map_or(0, |number| number.min(255) as u8);
        let secs = Duration::from_secs(first.unwrap_or(0));
        let tcp = &mut self.tcp;
        match name {
            "tcp_timestamps" => tcp.timestamps = on,
            "tcp_sack" => tcp.sack = on,
            "tcp_window_scaling" => tcp.window_scaling = on,
            "tcp_ecn" => {
                tcp.ecn = first == Some(1);
                tcp.accept_ecn = on;
            }
            "tcp_dsack" => tcp.duplicate_sack = on,
            "tcp_early_retrans" => tcp.tail_loss_probe = matches!(first, Some(3 | 4)),
            "tcp_slow_start_after_idle" => tcp.restart_after_idle = on,
            "tcp_min_tso_segs" => tcp.min_burst = first.unwrap_or(2) as u16,
            "tcp_notsent_lowat" => tcp.not_sent_low_water = low_water(first.unwrap_or(0) as u32),
            "tcp_synack_retries" => tcp.syn_ack_retries = small,
            "tcp_rto_max_ms" => tcp.max_rto = Duration::from_millis(first.unwrap_or(120_000)),
            "tcp_congestion_control" => {
                tcp.congestion_control = congestion_control(value).unwrap_or(tcp.congestion_control);
            }
            "tcp_rmem" => {
                if let &[_, first, most] = &words[..] {
                    // Linux keeps half of a buffer for its own; the window has the rest.
                    tcp.initial_receive_buffer = first as usize / 2;
                    tcp.receive_buffer = most as usize;
                }
            }
            "tcp_wmem" => {
                if let &[_, first, most] = &words[..] {
                    tcp.initial_send_buffer = first as usize;
                    tcp.send_buffer = most as usize;
                }
            }
            "tcp_syn_retries" => tcp.syn_retries = small,
            "tcp_retries2" => tcp.retries = small,
            "tcp_fin_timeout" => tcp.fin_wait = secs,
            "tcp_keepalive_time" => self.keepalive.idle = secs,
            "tcp_keepalive_intvl" => self.keepalive.interval = secs,
            "tcp_keepalive_probes" => self.keepalive.probes = small,
            _ => {}
        }
    }

    /// How a connection with these options behaves.
    pub(crate) fn with(&self, overrides: &Overrides) -> TcpConfig {
        let mut tcp = self.tcp;
        tcp.no_delay = overrides.no_delay;
        tcp.cork = overrides.cork;
        tcp.max_segment = overrides.max_segment;
        tcp.not_sent_low_water = overrides.not_sent_low_water.unwrap_or(tcp.not_sent_low_water);
        tcp.max_rto = overrides.max_rto.unwrap_or(tcp.max_rto);
        tcp.keepalive = overrides.keepalive.then(|| self.keepalive(overrides));
        tcp.user_timeout = overrides.user_timeout.or(tcp.user_timeout);
        tcp.syn_retries = overrides.syn_retries.unwrap_or(tcp.syn_retries);
        tcp.fin_wait = overrides.fin_wait.unwrap_or(tcp.fin_wait);
        // A size that was asked for stays.
        if let Some(size) = overrides.send_buffer {
            (tcp.initial_send_buffer, tcp.send_buffer) = (size, size);
        }
        if let Some(size) = overrides.receive_buffer {
            (tcp.initial_receive_buffer, tcp.receive_buffer) = (size, size);
        }
        tcp.congestion_control = overrides.congestion_control.unwrap_or(tcp.congestion_control);
        tcp.traffic_class = overrides.traffic_class;
        tcp.hop_limit = overrides.hop_limit.unwrap_or(tcp.hop_limit);
        tcp
    }

    /// When a socket with these options asks an idle peer, if it does.
    pub(crate) fn keepalive(&self, overrides: &Overrides) -> Keepalive {
        Keepalive {
            idle: overrides.keep_idle.unwrap_or(self.keepalive.idle),
            interval: overrides.keep_interval.unwrap_or(self.keepalive.interval),
            probes: overrides.keep_probes.unwrap_or(self.keepalive.probes),
        }
    }
}

/// The algorithm with this name.
pub(crate) fn congestion_control(name: &str) -> Option<CongestionControl> {
    match name {
        "cubic" => Some(CongestionControl::Cubic),
        "reno" => Some(CongestionControl::NewReno),
        _ => None,
    }
}

/// Linux's name of the algorithm.
pub(crate) fn name_of(congestion_control: CongestionControl) -> &'static str {
    match congestion_control {
        CongestionControl::Cubic => "cubic",
        CongestionControl::NewReno => "reno",
        _ => "unknown",
    }
}

/// A low-water mark of TCP_NOTSENT_LOWAT, where the largest number means none.
pub(crate) fn low_water(bytes: u32) -> usize {
    if bytes == u32::MAX {
        usize::MAX
    } else {
        bytes as usize
    }
}

/// A number as C writes it.
fn parse(word: &str) -> Option<u64> {
    match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_change_what_they_name() {
        let mut settings = Settings::new();
        settings.take_line("sysctl net.ipv4.tcp_timestamps=0");
        settings.take_line("sysctl net.ipv4.tcp_rmem=4096 540000 15728640");
        settings.take_line("sysctl net.ipv4.tcp_congestion_control=reno");
        settings.take_line("ip tcp_metrics flush all");
        settings.take_line("sysctl net.ipv4.tcp_fastopen=0x402");
        assert!(!settings.tcp.timestamps);
        assert_eq!(settings.tcp.receive_buffer, 15_728_640);
        assert_eq!(settings.tcp.initial_receive_buffer, 270_000);
        assert_eq!(settings.tcp.congestion_control, CongestionControl::NewReno);
    }

    #[test]
    fn options_go_before_settings() {
        let settings = Settings::new();
        let overrides = Overrides {
            keepalive: true,
            keep_idle: Some(Duration::from_secs(1)),
            ..Overrides::default()
        };
        let keepalive = settings.with(&overrides).keepalive.unwrap();
        assert_eq!(keepalive.idle, Duration::from_secs(1));
        assert_eq!(keepalive.probes, 9);
        assert_eq!(settings.with(&Overrides::default()).keepalive, None);
    }
}
