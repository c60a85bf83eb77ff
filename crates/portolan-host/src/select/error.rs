use portolan_core::Escaped;

/// A filter that cannot be understood: what is wrong, where, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("filter `{}`: {fault} (at {offset})", Escaped::new(.text).bounded(80))]
pub struct FilterError {
    /// The words as given, joined by blanks.
    pub text: String,
    /// The byte of `text` where the fault begins.
    pub offset: usize,
    /// What is wrong.
    pub fault: FilterFault,
}

/// What can be wrong with a filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilterFault {
    /// A word is missing where the text ends or a parenthesis closes.
    #[error("{after} wants {expected} after it")]
    Missing {
        /// What stands before the gap.
        after: String,
        /// What would fit.
        expected: &'static str,
    },
    /// A word stands where another kind of word is wanted.
    #[error("`{}` stands where {expected} belongs", Escaped::new(.word).bounded(40))]
    Unexpected {
        /// The word.
        word: String,
        /// What would fit.
        expected: &'static str,
    },
    /// A parenthesis was never closed, or closed and never opened.
    #[error("{0}")]
    Parenthesis(&'static str),
    /// A comparison that the test does not know.
    #[error("{test} can be compared with = and != only")]
    Comparison {
        /// The word that begins the test.
        test: &'static str,
    },
    /// A number beyond the ports.
    #[error("port {} is out of range: a port is 0 to 65535", Escaped::new(.0).bounded(40))]
    PortOutOfRange(String),
    /// A range whose end comes first.
    #[error("range {first}-{last} is reversed; write {last}-{first}")]
    ReversedRange {
        /// What was given first.
        first: u32,
        /// What was given second.
        last: u32,
    },
    /// A word that is neither a number nor a service.
    #[error(
        "`{}` is no port: neither a number from 0 to 65535 nor a service name",
        Escaped::new(.0).bounded(40)
    )]
    NotAPort(String),
    /// Nothing between two commas, or before or behind one.
    #[error("a port is missing at the comma; write one comma between two ports")]
    EmptyItem,
    /// A port with a plus sign.
    #[error("a port has no sign; write the digits alone")]
    Sign,
    /// A digit of another script where a port could begin.
    #[error("the digit '{}' (U+{:04X}) is not an ASCII digit; write 0 to 9", .0, *.0 as u32)]
    ForeignDigit(char),
    /// A service name that has several ports, where one number is wanted.
    #[error("{} has several ports; write the number", Escaped::new(.0).bounded(40))]
    AmbiguousService(String),
    /// A word that is neither an address, a prefix nor a host name.
    #[error(
        "`{}` is no address: write 10.0.0.5, 10.0.0.0/8, [2001:db8::1]:443 or a host name",
        Escaped::new(.0).bounded(40)
    )]
    NotAnAddress(String),
    /// A bracket around an IPv6 address that is not closed.
    #[error("the bracket of `{}` is not closed; write [::1]:80", Escaped::new(.0).bounded(40))]
    UnclosedBracket(String),
    /// A prefix longer than the address.
    #[error("prefix length {given} is out of range: {address} has {max} bits")]
    PrefixTooLong {
        /// What was given.
        given: String,
        /// The family.
        address: &'static str,
        /// Its length.
        max: u8,
    },
    /// No interface has this name.
    #[error(
        "there is no network interface {} here; `ip link` lists them, an index works too",
        Escaped::new(.0).bounded(40)
    )]
    UnknownInterface(String),
    /// No cgroup has this path.
    #[error(
        "there is no cgroup v2 at {}; write its path below /sys/fs/cgroup",
        Escaped::new(.0).bounded(60)
    )]
    UnknownCgroup(String),
    /// Not a firewall mark.
    #[error("`{}` is no mark: write 0x1 or 0x1/0xff", Escaped::new(.0).bounded(40))]
    NotAMark(String),
    /// Not a protocol with ports.
    #[error("`{}` is no protocol: write tcp, udp, udplite, sctp or mptcp", Escaped::new(.0).bounded(40))]
    NotAProtocol(String),
    /// Not a process id.
    #[error("`{}` is no process id", Escaped::new(.0).bounded(40))]
    NotAPid(String),
    /// Not a state.
    #[error(
        "there is no state `{}`; write listening, established, time-wait, connected, all, …",
        Escaped::new(.0).bounded(40)
    )]
    UnknownState(String),
    /// `state` after the first test.
    #[error("`state` and `exclude` come before the first test")]
    StateNotFirst,
    /// A family that is not listed here.
    #[error("{0} sockets are not listed here; families are inet, inet6, vsock and unix")]
    UnlistedFamily(&'static str),
    /// More words than any person writes.
    #[error("the filter has more than {max} words")]
    TooLong {
        /// The limit.
        max: usize,
    },
    /// More parentheses and negations inside each other than any person writes.
    #[error("more than {max} parentheses or negations inside each other")]
    TooDeep {
        /// The limit.
        max: usize,
    },
}
