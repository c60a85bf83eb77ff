//! The words of `--so_flags`: `local=ADDRESS,remote=ADDRESS,mtu=BYTES,mss=BYTES,ctl=FILE`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// What the flags say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flags {
    /// The address of the host under test.
    pub(crate) local: IpAddr,
    /// The longest IP packet of the link.
    pub(crate) mtu: usize,
    /// How much data each of the segments had that came merged into one packet.
    pub(crate) mss: Option<u16>,
    /// Where the commands of the script are noted.
    pub(crate) control: Option<PathBuf>,
}

impl Flags {
    /// Reads the flags; words that mean nothing here are passed over.
    pub(crate) fn parse(text: &str) -> Self {
        let mut flags = Self {
            local: Ipv4Addr::new(192, 168, 0, 1).into(),
            mtu: 1500,
            mss: None,
            control: None,
        };
        for (key, value) in text.split(',').filter_map(|word| word.split_once('=')) {
            match key {
                "local" => flags.local = value.parse().unwrap_or(flags.local),
                "mtu" => flags.mtu = value.parse().unwrap_or(flags.mtu),
                "mss" => flags.mss = value.parse().ok(),
                "ctl" => flags.control = Some(value.into()),
                _ => {}
            }
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_words_count_and_others_do_not() {
        let flags = Flags::parse("local=fd00::1,remote=fd00::2,mtu=1520,mss=1000,ctl=/tmp/c,odd=1,x");
        assert_eq!(flags.local, "fd00::1".parse::<IpAddr>().unwrap());
        assert_eq!((flags.mtu, flags.mss), (1520, Some(1000)));
        assert_eq!(flags.control, Some("/tmp/c".into()));
        assert_eq!(Flags::parse("").mtu, 1500);
    }
}
