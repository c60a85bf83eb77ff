use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use portolan_core::table::{Device, Host};
use portolan_stack::{Counters, StackConfig};

use crate::clock::Clock;
use crate::driver::Driver;
use crate::hub::Hub;
use crate::link::Link;
use crate::shard::{Shard, ShardRef};
use crate::steering::Steering;

/// A host of one's own: addresses with 65,536 TCP and 65,536 UDP ports each. See the [crate].
///
/// This is a handle, cheap to clone; the work is done by its [`Driver`]s.
#[derive(Clone, Debug)]
pub struct Stack {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    hub: Arc<Hub>,
    shards: Box<[ShardRef]>,
    turn: AtomicUsize,
}

/// What a [`Stack`] is to be.
#[derive(Clone, Debug)]
pub struct Builder {
    host: Host,
    addresses: Vec<(IpAddr, u8)>,
    config: StackConfig,
    device: Option<Device>,
    secret: Option<[u8; 16]>,
}

impl Stack {
    /// A stack that has no address yet.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            host: Host::new(),
            addresses: Vec::new(),
            config: StackConfig::default(),
            device: None,
            secret: None,
        }
    }

    /// What was counted since the stack was made, over all shards.
    #[must_use]
    pub fn counters(&self) -> Vec<Counters> {
        let shards = self.inner.shards.iter();
        shards
            .map(|shard| shard.look(|core| *core.engine.counters()))
            .collect()
    }

    /// How many connections there are, those in TIME-WAIT left out.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        let shards = self.inner.shards.iter();
        shards
            .map(|shard| shard.look(|core| core.engine.connection_count()))
            .sum()
    }

    /// Gives memory up that is kept for more of what there was (see [`portolan_stack::Stack::trim`]): each shard stands
    /// still meanwhile, some hundred nanoseconds for each connection that there is or was.
    pub fn trim(&self) {
        for shard in &self.inner.shards {
            shard.look(|core| core.trim());
        }
    }

    /// Packets that were dropped between shards: fragments that belong to nothing, or too many at once.
    #[must_use]
    pub fn dropped_between_shards(&self) -> u64 {
        self.inner.hub.dropped()
    }

    /// The address that a socket without one uses to talk to `remote`.
    #[must_use]
    pub fn source_for(&self, remote: IpAddr) -> Option<IpAddr> {
        self.inner.hub.source_for(remote)
    }

    pub(crate) fn hub(&self) -> &Hub {
        &self.inner.hub
    }

    pub(crate) fn shards(&self) -> &[ShardRef] {
        &self.inner.shards
    }

    /// The shard whose turn it is.
    pub(crate) fn next_shard(&self) -> usize {
        self.inner.turn.fetch_add(1, Ordering::Relaxed) % self.inner.shards.len()
    }

    /// The shard of a conversation.
    pub(crate) fn shard_of(&self, local: SocketAddr, remote: SocketAddr) -> usize {
        self.inner.hub.steering().of_ends(local, remote)
    }
}

impl Builder {
    /// Adds an address, with the length of its network's prefix.
    #[must_use]
    pub fn address(mut self, address: impl Into<IpAddr>, prefix_bits: u8) -> Self {
        self.addresses.push((address.into(), prefix_bits));
        self
    }

    /// Says what number the link has, [`Tun::device`](crate::tun::Tun::device) for instance, so that
    /// [filter](crate::filter) rules can name it. Else it is that of [`Builder::config`]. What the host sends to itself is
    /// on [`StackConfig::loopback`].
    #[must_use]
    pub const fn device(mut self, device: Device) -> Self {
        self.device = Some(device);
        self
    }

    /// Sets how the stack behaves. Its MTU and its offloads are those of the link.
    #[must_use]
    pub fn config(mut self, config: StackConfig) -> Self {
        self.config = config;
        self
    }

    /// Changes the host's settings: the range of automatic ports, reserved and privileged ports.
    #[must_use]
    pub fn host(mut self, change: impl FnOnce(&mut Host)) -> Self {
        change(&mut self.host);
        self
    }

    /// Fixes the secret that keys sequence numbers, port choices and hashes, to have a run repeated. Without it
    /// the system's randomness gives one.
    #[must_use]
    pub fn secret(mut self, secret: [u8; 16]) -> Self {
        self.secret = Some(secret);
        self
    }

    /// A stack with one shard, on one link.
    ///
    /// # Errors
    /// If an address, a prefix or the link's MTU is none; if the system has no randomness.
    pub fn build<L: Link>(self, link: L) -> io::Result<(Stack, Driver<L>)> {
        let (stack, drivers) = self.build_sharded([link])?;
        let driver = drivers.into_iter().next().expect("one link makes one driver");
        Ok((stack, driver))
    }

    /// A stack with a shard for each link, to be driven by as many threads: links that are the queues of one
    /// device. A packet may come on any of them, and is handed to the shard that has its flow.
    ///
    /// # Errors
    /// If there is no link, or they differ in what they can do; if an address, a prefix or the MTU is none; if the system
    /// has no randomness.
    pub fn build_sharded<L: Link>(
        mut self,
        links: impl IntoIterator<Item = L>,
    ) -> io::Result<(Stack, Vec<Driver<L>>)> {
        let links: Vec<L> = links.into_iter().collect();
        let wrong = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
        let first = links
            .first()
            .ok_or_else(|| wrong("a stack needs at least one link"))?;
        let capabilities = first.capabilities();
        self.check(capabilities.mtu)?;
        if links.iter().any(|link| link.capabilities() != capabilities) {
            return Err(wrong("the links of one stack must have the same capabilities"));
        }
        let config = StackConfig {
            mtu: capabilities.mtu,
            checksum_offload: capabilities.checksum_offload,
            segmentation_offload: capabilities.segmentation_offload,
            udp_segmentation_offload: capabilities.datagram_offload,
            device: self.device.unwrap_or(self.config.device),
            ..self.config
        };
        for &(address, prefix_bits) in &self.addresses {
            self.host.add_address(config.device, address, Some(prefix_bits));
        }
        let secret = match self.secret {
            Some(secret) => secret,
            None => {
                let mut secret = [0; 16];
                getrandom::fill(&mut secret)?;
                secret
            }
        };
        let clock = Clock::new();
        let steering = Steering::new(secret, links.len());
        let hub = Arc::new(Hub::new(self.host.clone(), self.addresses, steering));
        let shards: Vec<Arc<Shard>> = links
            .iter()
            .map(|_| {
                Shard::new(
                    portolan_stack::Stack::new(config, self.host.clone(), secret),
                    clock,
                )
            })
            .collect();
        let stack = Stack {
            inner: Arc::new(Inner {
                hub: Arc::clone(&hub),
                shards: shards.iter().map(ShardRef::new).collect(),
                turn: AtomicUsize::new(0),
            }),
        };
        let drivers = links
            .into_iter()
            .zip(shards)
            .enumerate()
            .map(|(number, (link, shard))| Driver::new(link, Arc::clone(&hub), number, shard))
            .collect();
        Ok((stack, drivers))
    }

    /// What a stack cannot work with is said at once, and not found out later.
    fn check(&self, mtu: usize) -> io::Result<()> {
        let wrong = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        for &(address, prefix_bits) in &self.addresses {
            let most = if address.is_ipv4() { 32 } else { 128 };
            if prefix_bits > most {
                return wrong(format!(
                    "{address}/{prefix_bits} is no address with a prefix: that has at most {most} bits"
                ));
            }
            if address.is_unspecified() || address.is_multicast() {
                return wrong(format!("{address} is no address that a host can have"));
            }
        }
        let least = if self.addresses.iter().any(|(address, _)| address.is_ipv6()) {
            LEAST_MTU_V6
        } else {
            LEAST_MTU_V4
        };
        if !(least..=MOST_MTU).contains(&mtu) {
            return wrong(format!(
                "the link's MTU is {mtu} bytes; with these addresses it must be {least} to {MOST_MTU}"
            ));
        }
        Ok(())
    }
}

/// Every host takes IPv4 packets of so many bytes (RFC 1122, section 3.3.2).
const LEAST_MTU_V4: usize = 576;
/// Every link takes IPv6 packets of so many bytes (RFC 8200, section 5).
const LEAST_MTU_V6: usize = 1280;
/// The longest IP packet.
const MOST_MTU: usize = 65_535;
