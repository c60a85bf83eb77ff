/// Makes the counters, and the list of them.
macro_rules! counters {
    ($(#[$of_all:meta])* pub struct Counters { $($(#[$of_one:meta])* pub $name:ident: u64,)* }) => {
        $(#[$of_all])*
        pub struct Counters { $($(#[$of_one])* pub $name: u64,)* }

        impl Counters {
            /// Each counter with its name, for printing.
            pub fn list(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name)),*].into_iter()
            }
        }
    };
}

counters! {
/// What a stack has counted: all that came and went, and each reason for which something was dropped.
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
    /// Fragments that came.
    pub fragments: u64,
    /// Fragments that went.
    pub fragments_out: u64,
    /// Datagrams that were put together of fragments.
    pub datagrams_reassembled: u64,
    /// Datagrams dropped: two of their fragments overlapped.
    pub reassembly_overlaps: u64,
    /// Datagrams dropped: not all of their fragments came in time.
    pub reassembly_timeouts: u64,
    /// Datagrams dropped: there was no memory for more fragments.
    pub reassembly_no_room: u64,
    /// Dropped: a protocol other than TCP, UDP and ICMP, or an ICMP message without meaning here.
    pub other_protocols: u64,
    /// Dropped: to an address that is not this host's, or from or to many hosts at once.
    pub not_for_this_host: u64,
    /// Segments and datagrams for which there was no socket. Segments without RST are answered with one, datagrams
    /// with port unreachable.
    pub no_socket: u64,
    /// Dropped: SYNs that found the queue of half-open or of established connections full.
    pub syns_dropped: u64,
    /// SYNs repeated by the peer while the first one waits for the program's word.
    pub syns_absorbed: u64,
    /// Dropped: SYNs to a destination for which enough others wait for the program's word.
    pub syns_over_quota: u64,
    /// Dropped: SYNs that waited longest for the program's word, when there was no more room.
    pub syns_evicted: u64,
    /// SYNs answered with a cookie, since the queue of half-open connections was full.
    pub cookies_sent: u64,
    /// Connections made of a cookie that came back.
    pub cookies_received: u64,
    /// Acknowledgments without a connection, soon after cookies were sent, that were of none of them.
    pub cookies_failed: u64,
    /// Dropped or rejected by the filter as they came.
    pub filtered_in: u64,
    /// Not sent: the filter did not let them out.
    pub filtered_out: u64,
    /// Dropped: final acknowledgments that found the accept queue full.
    pub accepts_dropped: u64,
    /// Dropped: datagrams that found the socket's buffer full.
    pub datagrams_dropped: u64,
    /// ICMP errors that were believed: they quote a packet that a socket may have sent.
    pub icmp_errors: u64,
    /// Dropped: ICMP errors that quote no packet of any socket here, or not enough of one.
    pub icmp_errors_ignored: u64,
    /// Not sent: answers beyond those that may wait, and ICMP errors beyond their limits.
    pub answers_dropped: u64,
    /// Dropped: SYNs for which there was no memory.
    pub syns_refused: u64,
    /// Data dropped for want of memory, as if the network had lost it.
    pub data_refused: u64,
    /// Connections in TIME-WAIT forgotten before their time for want of memory.
    pub time_waits_evicted: u64,
}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_listed_by_its_name() {
        let counters = Counters {
            syns_refused: 3,
            ..Counters::default()
        };
        assert_eq!(counters.list().count() * size_of::<u64>(), size_of::<Counters>());
        let counted: Vec<_> = counters.list().filter(|&(_, count)| count > 0).collect();
        assert_eq!(counted, [("syns_refused", 3)]);
    }
}
