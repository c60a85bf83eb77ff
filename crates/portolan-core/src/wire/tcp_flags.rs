use std::fmt;

use bitflags::bitflags;

bitflags! {
    /// The control bits of a TCP header (RFC 9293, section 3.1; AE: RFC 9768).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct TcpFlags: u16 {
        /// No more data from the sender.
        const FIN = 1;
        /// Synchronize sequence numbers: a connection begins.
        const SYN = 1 << 1;
        /// Reset the connection.
        const RST = 1 << 2;
        /// Push: hand the data on now.
        const PSH = 1 << 3;
        /// The acknowledgment number means something.
        const ACK = 1 << 4;
        /// The urgent pointer means something.
        const URG = 1 << 5;
        /// ECN echo: a mark of congestion was seen (RFC 3168).
        const ECE = 1 << 6;
        /// Congestion window reduced (RFC 3168).
        const CWR = 1 << 7;
        /// Accurate ECN (RFC 9768), once the nonce sum.
        const AE = 1 << 8;
    }
}

/// The names, the most telling first, joined by commas: `SYN,ACK`. No flag at all is `none`.
impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        for (place, (name, _)) in self.iter_names().enumerate() {
            if place > 0 {
                f.write_str(",")?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_print_by_name() {
        assert_eq!((TcpFlags::SYN | TcpFlags::ACK).to_string(), "SYN,ACK");
        assert_eq!(
            (TcpFlags::AE | TcpFlags::CWR | TcpFlags::ECE | TcpFlags::SYN).to_string(),
            "SYN,ECE,CWR,AE"
        );
        assert_eq!(TcpFlags::empty().to_string(), "none");
    }
}
