//! What the table must know of the host: addresses, devices, and the settings of the number space.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

use smallvec::SmallVec;

use crate::{Port, PortRange};

/// A network device, by the number that the caller has for it (on Linux the interface index).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device(NonZeroU32);

impl Device {
    /// The loopback device, as Linux numbers it in each of its network namespaces.
    pub const LOOPBACK: Self = Self(NonZeroU32::MIN);

    /// The device with this number, or `None` for 0, which stands for "no device" in every interface.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number of the device.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

/// What an address is to this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressKind {
    /// `0.0.0.0` or `::`.
    Wildcard,
    /// An address of the host, loopback included.
    Local,
    /// An IPv4 broadcast address: of a subnet, `255.255.255.255`, or anything in `0.0.0.0/8`.
    Broadcast,
    /// A multicast address.
    Multicast,
    /// Somebody else's address.
    Foreign,
}

/// The host whose ports a table keeps: its addresses and the settings that on Linux are
/// `ip_local_port_range`, `ip_local_reserved_ports` and `ip_unprivileged_port_start`.
///
/// A new host has the loopback addresses only and Linux's defaults.
#[derive(Clone, Debug)]
pub struct Host {
    // Asked for every packet. A host has a handful of addresses, among which a keyed hash would be slower.
    addresses: BTreeMap<IpAddr, SmallVec<[Device; 1]>>,
    broadcasts: BTreeSet<Ipv4Addr>,
    devices: BTreeSet<Device>,
    ephemeral: PortRange,
    reserved: Vec<PortRange>,
    unprivileged_start: u32,
    accept_foreign: bool,
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// A host with the loopback addresses only, the automatic ports 32768 to 60999, none of them
    /// reserved, and 1024 as the first port that takes no privilege.
    #[must_use]
    pub fn new() -> Self {
        Self {
            addresses: BTreeMap::new(),
            broadcasts: BTreeSet::new(),
            devices: BTreeSet::new(),
            ephemeral: PortRange::new(Port::new(32_768), Port::new(60_999)).expect("32768 is below 60999"),
            reserved: Vec::new(),
            unprivileged_start: 1024,
            accept_foreign: false,
        }
    }

    /// Adds a device without an address.
    pub fn add_device(&mut self, device: Device) {
        self.devices.insert(device);
    }

    /// Adds an address of a device. An IPv4 address with a prefix of up to 30 bits also makes the
    /// broadcast address of its subnet known.
    pub fn add_address(&mut self, device: Device, address: IpAddr, prefix_bits: Option<u8>) {
        self.devices.insert(device);
        self.addresses.entry(address).or_default().push(device);
        if let (IpAddr::V4(address), Some(bits @ 1..=30)) = (address, prefix_bits) {
            let host_part = u32::MAX >> bits;
            self.broadcasts
                .insert(Ipv4Addr::from_bits(address.to_bits() | host_part));
        }
    }

    /// Sets the range of automatic ports (`ip_local_port_range`).
    pub fn set_ephemeral(&mut self, range: PortRange) {
        self.ephemeral = range;
    }

    /// Keeps ports from being chosen automatically (`ip_local_reserved_ports`); they can still be asked for.
    pub fn reserve(&mut self, range: PortRange) {
        self.reserved.push(range);
    }

    /// Sets the first port that takes no privilege (`ip_unprivileged_port_start`), 0 to 65536.
    pub fn set_unprivileged_start(&mut self, first: u32) {
        self.unprivileged_start = first;
    }

    /// Lets any socket bind an address that is not the host's (`ip_nonlocal_bind`).
    pub fn accept_foreign_addresses(&mut self, accept: bool) {
        self.accept_foreign = accept;
    }

    /// The range of automatic ports.
    #[must_use]
    pub fn ephemeral(&self) -> PortRange {
        self.ephemeral
    }

    /// The first port that takes no privilege.
    #[must_use]
    pub fn unprivileged_start(&self) -> u32 {
        self.unprivileged_start
    }

    /// Whether `port` is never chosen automatically.
    #[must_use]
    pub fn is_reserved(&self, port: Port) -> bool {
        self.reserved.iter().any(|range| range.contains(port))
    }

    /// Whether binding `port` takes a privilege. Port 0 asks for an automatic one and takes none.
    #[must_use]
    pub fn is_privileged(&self, port: Port) -> bool {
        port != Port::ZERO && u32::from(port.get()) < self.unprivileged_start
    }

    /// Whether the host has this device.
    #[must_use]
    pub fn has_device(&self, device: Device) -> bool {
        self.devices.contains(&device)
    }

    /// What `address` is to this host. Give v4-mapped addresses as IPv4.
    #[must_use]
    pub fn kind(&self, address: IpAddr) -> AddressKind {
        if address.is_unspecified() {
            AddressKind::Wildcard
        } else if address.is_multicast() {
            AddressKind::Multicast
        } else if self.addresses.contains_key(&address) {
            AddressKind::Local
        } else {
            match address {
                IpAddr::V4(address) => self.kind_of_ipv4(address),
                IpAddr::V6(Ipv6Addr::LOCALHOST) => AddressKind::Local,
                IpAddr::V6(_) => AddressKind::Foreign,
            }
        }
    }

    fn kind_of_ipv4(&self, address: Ipv4Addr) -> AddressKind {
        let [first, ..] = address.octets();
        // Linux counts the whole of 0.0.0.0/8 as broadcast (inet_addr_type), and 127.255.255.255 is the
        // broadcast address of the loopback device.
        if first == 0
            || address == Ipv4Addr::BROADCAST
            || address == Ipv4Addr::new(127, 255, 255, 255)
            || self.broadcasts.contains(&address)
        {
            AddressKind::Broadcast
        } else if first == 127 {
            AddressKind::Local
        } else {
            AddressKind::Foreign
        }
    }

    /// Whether a socket may bind `address`: the host's own, broadcast, and multicast ones.
    ///
    /// A socket that is bound to a device may not use `::1` or a link-local address of another device;
    /// for every other address Linux asks the whole host (the weak host model).
    pub(super) fn may_bind(&self, address: IpAddr, device: Option<Device>) -> bool {
        if self.accept_foreign {
            return true;
        }
        match self.kind(address) {
            AddressKind::Foreign => false,
            AddressKind::Local => match (address, device) {
                (IpAddr::V6(ip), Some(device)) if ip.is_loopback() || ip.is_unicast_link_local() => self
                    .addresses
                    .get(&address)
                    .is_some_and(|devices| devices.contains(&device)),
                (IpAddr::V4(_) | IpAddr::V6(_), _) => true,
            },
            AddressKind::Wildcard | AddressKind::Broadcast | AddressKind::Multicast => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_address_is_told_apart() {
        let device = Device::new(2).unwrap();
        let mut host = Host::new();
        host.add_address(device, "10.8.0.1".parse().unwrap(), Some(24));
        host.add_address(device, "fd08::1".parse().unwrap(), Some(64));
        for (address, kind) in [
            ("0.0.0.0", AddressKind::Wildcard),
            ("::", AddressKind::Wildcard),
            ("10.8.0.1", AddressKind::Local),
            ("fd08::1", AddressKind::Local),
            ("127.9.9.9", AddressKind::Local),
            ("::1", AddressKind::Local),
            ("10.8.0.255", AddressKind::Broadcast),
            ("255.255.255.255", AddressKind::Broadcast),
            ("0.1.2.3", AddressKind::Broadcast),
            ("224.0.0.1", AddressKind::Multicast),
            ("ff02::1", AddressKind::Multicast),
            ("10.8.0.0", AddressKind::Foreign),
            ("240.0.0.1", AddressKind::Foreign),
            ("fd08::2", AddressKind::Foreign),
        ] {
            assert_eq!(host.kind(address.parse().unwrap()), kind, "{address}");
        }
    }

    #[test]
    fn a_host_of_one_address_has_no_broadcast() {
        let mut host = Host::new();
        host.add_address(Device::new(2).unwrap(), "10.8.0.1".parse().unwrap(), Some(32));
        assert_eq!(host.kind("10.8.0.255".parse().unwrap()), AddressKind::Foreign);
    }
}
