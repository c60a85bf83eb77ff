/// What a stack has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Packets that came.
    pub packets_in: u64,
    /// Packets that went.
    pub packets_out: u64,
    /// Dropped: a header that does not hold what it must.
    pub malformed: u64,
    /// Dropped: a wrong checksum.
    pub bad_checksums: u64,
    /// Dropped: a fragment; the stack does not put datagrams together.
    pub fragments: u64,
    /// Dropped: a protocol other than TCP, UDP and ICMP echo.
    pub other_protocols: u64,
    /// Dropped: to an address that is not this host's, or from or to many hosts at once.
    pub not_for_this_host: u64,
    /// Segments and datagrams for which there was no socket. Segments without RST are answered with one, datagrams
    /// with port unreachable.
    pub no_socket: u64,
    /// Dropped: SYNs that found the queue of half-open or of established connections full.
    pub syns_dropped: u64,
    /// Dropped: final acknowledgments that found the accept queue full.
    pub accepts_dropped: u64,
    /// Dropped: datagrams that found the socket's buffer full.
    pub datagrams_dropped: u64,
    /// Not sent: answers beyond those that may wait, and ICMP errors beyond their limits.
    pub answers_dropped: u64,
}
