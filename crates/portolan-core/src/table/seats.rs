//! Where a socket stands in the order of its port: the two orders of UDP, that of TCP listeners, and
//! membership in a `SO_REUSEPORT` group.

use super::slab::NONE;

/// A position in a list that grows at both ends; the front is the lowest.
pub(super) type Order = i64;

/// What a receiver has beyond its claim. UDP sockets have one from bind to release, TCP sockets while
/// they listen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    /// The order in which binds look at the sockets of a port (UDP).
    pub(super) bind_order: Order,
    /// The order in which packets look at the sockets of a port and address.
    pub(super) scan_order: Order,
    /// The `SO_REUSEPORT` group, or `NONE`.
    pub(super) group: u32,
    /// The place in that group.
    pub(super) member: u32,
    /// The flow under which Linux finds a connected UDP socket at once.
    pub(super) fast_flow: Option<FastFlow>,
}

/// The entry of a UDP socket in Linux's table by four-tuple.
///
/// The kernel makes it at the first connect and, as long as the local address stays, does not renew it
/// at later ones (`udp_lib_hash4`): a socket that connected again is found by its score only.
#[derive(Clone, Copy, Debug)]
pub(super) struct FastFlow {
    /// Of the four-tuple; `None` after a disconnect that gave the address back.
    pub(super) hash: Option<u64>,
    /// Later entries are found first.
    pub(super) order: u64,
}

impl Seat {
    pub(super) const fn new(bind_order: Order, scan_order: Order) -> Self {
        Self {
            bind_order,
            scan_order,
            group: NONE,
            member: NONE,
            fast_flow: None,
        }
    }
}

/// Deals out positions at the front and at the back.
#[derive(Debug, Default)]
pub(super) struct Orders {
    front: Order,
    back: Order,
}

impl Orders {
    /// A position before all others.
    pub(super) fn at_front(&mut self) -> Order {
        self.front -= 1;
        self.front
    }

    /// A position behind all others.
    pub(super) fn at_back(&mut self) -> Order {
        self.back += 1;
        self.back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn front_and_back_grow_apart() {
        let mut orders = Orders::default();
        let (a, b, c, d) = (
            orders.at_front(),
            orders.at_back(),
            orders.at_front(),
            orders.at_back(),
        );
        assert!(c < a && a < b && b < d);
    }
}
