//! The gate: may the program talk to this destination?
//!
//! ```text
//!   flow ─▶ ask ─▶ hidden addresses ─▶ gateway? own? loopback, link-local, …? ─▶ rules ─▶ rates ─▶ Pass or Denial
//!                                                                                  ▲                  │
//!   look-up ─▶ ask_name ─▶ upstream ─▶ answered ─▶ pins: address ─▶ names ─────────┘                  └▶ ledger
//! ```
//! Rules are read from a snapshot that is replaced as a whole, so a change never holds a flow up.

mod file;
mod learn;
mod ledger;
mod pins;
mod policy;
mod rate;
mod report;
mod rules;
mod sni;
mod special;
mod target;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use portolan_core::Port;

pub use self::file::{PolicyError, PolicyErrorKind};
pub use self::learn::Learned;
pub use self::ledger::{Asked, Counted, Ledger, Line};
pub use self::policy::{AllowNameError, DenyWith, ParseDenyWithError, Policy, Rule, RuleKind};
pub use self::rate::{FlowRate, Limiter, Limits, RateUnit};
pub use self::report::{AllowedItem, DeniedItem, Destination, Report};
pub use self::sni::{SHOWN_BYTES_MAX, Shown, shown_name};
pub use self::special::AddressClass;
pub use self::target::{Target, TargetError, TargetErrorKind, TargetHost, TargetProtocol};

use self::pins::{Names, Pins};
use self::rules::{Entry, Rules};
pub use crate::flows::FlowProtocol;
use crate::links::LinkConfig;

/// What the gate knows of the space and its host.
#[derive(Clone, Debug, Default)]
pub struct HostFacts {
    /// The addresses of the gateway, as the program sees it.
    pub gateway: Vec<IpAddr>,
    /// The addresses of the space itself.
    pub inside: Vec<IpAddr>,
    /// The addresses of the host, loopback aside. They change: [`Gate::set_host_addresses`].
    pub host_addresses: Vec<IpAddr>,
    /// The spaces that this one is linked with.
    pub links: Vec<LinkConfig>,
}

/// Decides for every flow and every look-up, and counts. Clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    policy: Policy,
    gateway: Vec<IpAddr>,
    inside: Vec<IpAddr>,
    links: Vec<Link>,
    host_addresses: RwLock<Arc<[IpAddr]>>,
    rules: RwLock<Arc<Rules>>,
    /// Held by whoever makes new rules.
    adding: Mutex<()>,
    pins: Mutex<Pins>,
    ledger: Ledger,
    on_first_denial: OnceLock<Hook>,
    texts: Texts,
}

/// A space that this one is linked with.
#[derive(Debug)]
struct Link {
    /// The host name of it.
    name: Arc<str>,
    rule: Arc<str>,
    addresses: Vec<IpAddr>,
}

/// Texts of rules that are not in the policy's list, made once.
#[derive(Debug)]
struct Texts {
    default: Arc<str>,
    allow_host: Arc<str>,
    no_rule: Arc<str>,
    no_out: Arc<str>,
    no_host: Arc<str>,
    gateway: Arc<str>,
    inside: Arc<str>,
    name_not_shown: Arc<str>,
}

/// A flow that is allowed.
#[derive(Clone, Debug)]
pub struct Pass {
    /// Where to dial; not what the program asked for where `--allow-host` leads to loopback.
    pub dial: SocketAddr,
    /// The rule that allowed it, as text.
    pub rule: Arc<str>,
    /// The name that the program looked up to come to this address, if it did.
    pub name: Option<Arc<str>>,
    /// Whether the connection must show its name before a byte is passed on: see [`Gate::check_name`].
    pub wants_name: bool,
    /// What the rule limits; bytes that are carried are counted there.
    pub limiter: Option<Arc<Limiter>>,
    /// What the program asked for.
    asked: (FlowProtocol, SocketAddr),
}

/// A flow that is denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Why: `no rule allows it`.
    pub reason: Arc<str>,
    /// Whether it is the first of this destination, so that a person should hear of it.
    pub first: bool,
}

/// May a name be looked up?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameVerdict {
    /// Yes.
    Allowed {
        /// The rule that allows it, as text.
        rule: Arc<str>,
        /// Whether connections to it have to show the name.
        wants_name: bool,
    },
    /// No, and it must not leave the host in a question.
    Denied(Denial),
}

impl Gate {
    /// A gate for a space.
    #[must_use]
    pub fn new(policy: Policy, facts: HostFacts) -> Self {
        let canonical = |addresses: Vec<IpAddr>| -> Vec<IpAddr> {
            addresses
                .into_iter()
                .map(|address| address.to_canonical())
                .collect()
        };
        let HostFacts {
            gateway,
            inside,
            host_addresses,
            links,
        } = facts;
        let rules = Rules::new(&policy, Instant::now());
        let texts = Texts {
            default: "default".into(),
            allow_host: "--allow-host".into(),
            no_rule: "no rule allows it".into(),
            no_out: "--no-out".into(),
            no_host: "an address of this host, with --no-host".into(),
            gateway: "the gateway leads to no port of this host that --allow-host does not name".into(),
            inside: "an address of the space itself".into(),
            name_not_shown: "the connection shows no name".into(),
        };
        let shared = Shared {
            policy,
            gateway: canonical(gateway),
            inside: canonical(inside),
            links: links.into_iter().map(Link::from).collect(),
            host_addresses: RwLock::new(canonical(host_addresses).into()),
            rules: RwLock::new(Arc::new(rules)),
            adding: Mutex::new(()),
            pins: Mutex::default(),
            ledger: Ledger::default(),
            on_first_denial: OnceLock::new(),
            texts,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Decides about a new flow, and counts it. `destination` is what the program sent to; its port is 0 for echo.
    ///
    /// # Errors
    /// Why it is denied; nothing of it may leave then.
    pub fn ask(&self, protocol: FlowProtocol, destination: SocketAddr) -> Result<Pass, Denial> {
        let shared = &*self.shared;
        let now = Instant::now();
        let destination = canonical(destination);
        let link = shared.link(destination.ip());
        let names = match link {
            Some(link) => Names::from_iter([link.name.clone()]),
            None => lock(&shared.pins).names(destination.ip(), now),
        };
        let result = match link {
            Some(link) => shared.decide_link(protocol, destination, link, &names),
            None => shared.decide(protocol, destination, &names, now),
        };
        let asked = asked(protocol, destination);
        match result {
            Ok(pass) => {
                shared.ledger.allow(Line {
                    asked,
                    name: pass.name.clone(),
                    because: pass.rule.clone(),
                });
                Ok(pass)
            }
            Err(because) => Err(shared.deny(Line {
                asked,
                name: names.first().cloned(),
                because,
            })),
        }
    }

    /// May `name` be looked up? It is counted if not.
    #[must_use]
    pub fn ask_name(&self, name: &str) -> NameVerdict {
        let shared = &*self.shared;
        let name = normal_name(name);
        match shared.decide_name(&name) {
            Ok(verdict) => verdict,
            Err(reason) => NameVerdict::Denied(shared.deny_name(name.into(), reason)),
        }
    }

    /// Enters what the resolver answered for an allowed name: these addresses with their times to live. Gives those
    /// that may be told to the program, in their order; the others are counted as denied.
    #[must_use]
    pub fn answered(&self, name: &str, addresses: &[(IpAddr, Duration)]) -> Vec<IpAddr> {
        let shared = &*self.shared;
        let now = Instant::now();
        let name: Arc<str> = normal_name(name).into();
        let mut told = Vec::with_capacity(addresses.len());
        for &(address, ttl) in addresses {
            match shared.refused_answer(&name, address) {
                None => {
                    lock(&shared.pins).pin(&name, address.to_canonical(), ttl, now);
                    told.push(address);
                }
                Some(what) => {
                    let reason = format!("it resolves to {address}: {what}").into();
                    shared.deny_name(name.clone(), reason);
                }
            }
        }
        told
    }

    /// Decides whether a connection that was allowed may go on, now that it has shown `name`: in the ClientHello of TLS
    /// or the Host of HTTP. To be asked if [`Pass::wants_name`].
    ///
    /// # Errors
    /// If no rule allows the name at the destination; the connection must be reset then. It is counted.
    pub fn check_name(&self, pass: &Pass, name: &str) -> Result<(), Denial> {
        let shared = &*self.shared;
        let name = normal_name(name);
        let (protocol, destination) = pass.asked;
        let rules = shared.rules();
        let shown: Arc<str> = name.into();
        let names = [shown];
        let allowed = rules
            .first(protocol, destination, &names)
            .is_some_and(|found| found.entry.allows() && found.name.is_some());
        if allowed {
            return Ok(());
        }
        let [shown] = names;
        Err(shared.deny_after_all(pass, Some(shown), shared.texts.no_rule.clone()))
    }

    /// The same for a connection that shows no name, or none that can be read: always denied, and counted.
    #[must_use]
    pub fn no_name(&self, pass: &Pass) -> Denial {
        let shared = &*self.shared;
        shared.deny_after_all(pass, pass.name.clone(), shared.texts.name_not_shown.clone())
    }

    /// Allows a target from now on, before all other rules. What is denied by default stays so.
    pub fn allow(&self, target: Target) {
        self.shared.add(Rule {
            kind: RuleKind::Allow,
            target,
        });
    }

    /// Denies a target from now on, before all other rules. Flows that are there stay.
    pub fn deny(&self, target: Target) {
        self.shared.add(Rule {
            kind: RuleKind::Deny,
            target,
        });
    }

    /// Replaces the addresses of the host.
    pub fn set_host_addresses(&self, addresses: &[IpAddr]) {
        let canonical = addresses.iter().map(|address| address.to_canonical()).collect();
        *self
            .shared
            .host_addresses
            .write()
            .unwrap_or_else(PoisonError::into_inner) = canonical;
    }

    /// Has `tell` called for the first denial of each destination, of a flow or a look-up, on the thread that asks: it
    /// must not wait. The line prints as `connection to 203.0.113.9:25 (no rule allows it)`. The first call counts.
    pub fn on_first_denial(&self, tell: impl Fn(&Line) + Send + Sync + 'static) {
        // A second one is told nothing, as documented.
        let _ = self.shared.on_first_denial.set(Hook(Box::new(tell)));
    }

    /// How a program learns of a denial.
    #[must_use]
    pub fn deny_with(&self) -> DenyWith {
        self.shared.policy.deny_with.unwrap_or_default()
    }

    /// The policy that the gate began with.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.shared.policy
    }

    /// Enters that a name stands for these addresses, which were not answered by anybody outside.
    pub fn known(&self, name: &str, addresses: &[IpAddr]) {
        let now = Instant::now();
        let name: Arc<str> = normal_name(name).into();
        let mut pins = lock(&self.shared.pins);
        for address in addresses {
            pins.pin(&name, address.to_canonical(), Duration::ZERO, now);
        }
    }

    /// The addresses of the gateway.
    #[must_use]
    pub fn gateway(&self) -> &[IpAddr] {
        &self.shared.gateway
    }

    /// The addresses of the space.
    #[must_use]
    pub fn inside(&self) -> &[IpAddr] {
        &self.shared.inside
    }

    /// The host name of the linked space that has this address.
    pub(crate) fn linked_name(&self, address: IpAddr) -> Option<&str> {
        self.shared.link(address).map(|link| &*link.name)
    }

    /// Whether an address is one of the host's.
    fn is_of_host(&self, address: IpAddr) -> bool {
        self.shared.is_of_host(address)
    }

    /// What was allowed and denied so far.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.shared.ledger
    }
}

impl Shared {
    fn rules(&self) -> Arc<Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn host_addresses(&self) -> Arc<[IpAddr]> {
        let addresses = self.host_addresses.read().unwrap_or_else(PoisonError::into_inner);
        addresses.clone()
    }

    fn add(&self, rule: Rule) {
        // The new rules are made while the old ones are asked; two who add wait for each other.
        let _adding = lock(&self.adding);
        let rules = Arc::new(self.rules().with(rule, Instant::now()));
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// Decides about a flow to a canonical destination that has these names. The reason, if it is denied.
    fn decide(
        &self,
        protocol: FlowProtocol,
        destination: SocketAddr,
        names: &Names,
        now: Instant,
    ) -> Result<Pass, Arc<str>> {
        let ip = destination.ip();
        let rules = self.rules();
        let found = rules.first(protocol, destination, names);
        let pass = |dial, rule: &Arc<str>, name, entry: Option<&Arc<Entry>>| Pass {
            dial,
            rule: rule.clone(),
            name,
            wants_name: protocol == FlowProtocol::Tcp && entry.is_some_and(|entry| self.wants_name(entry)),
            limiter: entry.and_then(|entry| entry.limiter.clone()),
            asked: (protocol, destination),
        };
        if let Some(found) = &found
            && !found.entry.allows()
        {
            return Err(found.entry.denial.clone());
        }
        if self.gateway.contains(&ip) {
            let port = Port::new(destination.port());
            if protocol == FlowProtocol::Icmp || !self.policy.allow_host.contains(port) {
                return Err(self.texts.gateway.clone());
            }
            let loopback = match ip {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            };
            let dial = SocketAddr::new(loopback, destination.port());
            return Ok(pass(dial, &self.texts.allow_host, None, None));
        }
        if self.policy.no_out {
            return Err(self.texts.no_out.clone());
        }
        if self.is_inside(ip) {
            return Err(self.texts.inside.clone());
        }
        let found = match AddressClass::of(ip) {
            None => found,
            Some(class) => match rules.opener(protocol, destination) {
                Some(entry) if entry.allows() => Some(rules::Match { entry, name: None }),
                _ => return Err(class.reason().into()),
            },
        };
        if self.policy.no_host && self.is_of_host(ip) {
            return Err(self.texts.no_host.clone());
        }
        if let IpAddr::V6(ip) = ip {
            self.decide_hidden(protocol, ip, destination.port(), &rules)?;
        }
        let Some(found) = found else {
            let default = &self.texts.default;
            return if rules.default_allows() {
                Ok(pass(destination, default, names.first().cloned(), None))
            } else {
                Err(self.texts.no_rule.clone())
            };
        };
        if let Some(limiter) = &found.entry.limiter
            && !limiter.take_flow(now)
        {
            return Err(format!("more flows than {} allows", found.entry.text).into());
        }
        let name = found.name.or_else(|| names.first().cloned());
        Ok(pass(destination, &found.entry.text, name, Some(found.entry)))
    }

    /// Whether an IPv4 address that an IPv6 one hides is closed.
    fn decide_hidden(
        &self,
        protocol: FlowProtocol,
        address: Ipv6Addr,
        port: u16,
        rules: &Rules,
    ) -> Result<(), Arc<str>> {
        for hidden in special::hidden(address) {
            let hidden = IpAddr::V4(hidden);
            if self.gateway.contains(&hidden) || self.is_inside(hidden) {
                return Err(self.texts.inside.clone());
            }
            if self.policy.no_host && self.is_of_host(hidden) {
                return Err(self.texts.no_host.clone());
            }
            let found = rules.first(protocol, SocketAddr::new(hidden, port), &[]);
            if let Some(found) = found
                && !found.entry.allows()
            {
                return Err(found.entry.denial.clone());
            }
        }
        Ok(())
    }

    fn link(&self, address: IpAddr) -> Option<&Link> {
        self.links.iter().find(|link| link.addresses.contains(&address))
    }

    /// Decides about a flow to a linked space. It is wanted by both, so nothing but a rule about its name or everything
    /// denies it: its addresses are of our own making, and rules about addresses mean others.
    fn decide_link(
        &self,
        protocol: FlowProtocol,
        destination: SocketAddr,
        link: &Link,
        names: &Names,
    ) -> Result<Pass, Arc<str>> {
        let rules = self.rules();
        if let Some(found) = rules.first(protocol, destination, names)
            && !found.entry.allows()
            && (found.name.is_some() || matches!(found.entry.rule.target.host, TargetHost::Any))
        {
            return Err(found.entry.denial.clone());
        }
        Ok(Pass {
            dial: destination,
            rule: link.rule.clone(),
            name: Some(link.name.clone()),
            wants_name: false,
            limiter: None,
            asked: (protocol, destination),
        })
    }

    fn wants_name(&self, entry: &Entry) -> bool {
        match entry.rule.kind {
            RuleKind::AllowName => true,
            RuleKind::Allow => {
                self.policy.check_names
                    && matches!(entry.rule.target.host, TargetHost::Name(_) | TargetHost::Below(_))
            }
            RuleKind::Deny => false,
        }
    }

    /// The rule that lets a name be looked up, or why it may not be.
    fn decide_name(&self, name: &str) -> Result<NameVerdict, Arc<str>> {
        if self.policy.no_out {
            return Err(self.texts.no_out.clone());
        }
        let rules = self.rules();
        match rules.first_of_name(name) {
            Some(entry) if entry.allows() => Ok(NameVerdict::Allowed {
                rule: entry.text.clone(),
                wants_name: self.wants_name(entry),
            }),
            Some(entry) => Err(entry.denial.clone()),
            None if rules.default_allows() => Ok(NameVerdict::Allowed {
                rule: self.texts.default.clone(),
                wants_name: false,
            }),
            None => Err(self.texts.no_rule.clone()),
        }
    }

    /// What is wrong with an address as the answer to a name.
    fn refused_answer(&self, name: &str, address: IpAddr) -> Option<String> {
        let address = address.to_canonical();
        if let Some(class) = AddressClass::of(address) {
            return Some(class.to_string());
        }
        if self.gateway.contains(&address) || self.is_inside(address) {
            return Some("the space itself".into());
        }
        let hidden = match address {
            IpAddr::V4(_) => Default::default(),
            IpAddr::V6(address) => special::hidden(address),
        };
        let of_host = std::iter::once(address)
            .chain(hidden.into_iter().map(IpAddr::V4))
            .any(|address| self.is_of_host(address));
        // Where they are open as such, a name for one opens nothing.
        let is_closed = of_host && (self.policy.no_host || self.rules().allows_by_name(name));
        is_closed.then(|| "this host".into())
    }

    fn is_inside(&self, address: IpAddr) -> bool {
        self.inside.contains(&address)
    }

    fn is_of_host(&self, address: IpAddr) -> bool {
        self.host_addresses().contains(&address)
    }

    fn deny_name(&self, name: Arc<str>, because: Arc<str>) -> Denial {
        self.deny(Line {
            asked: Asked::Dns,
            name: Some(name),
            because,
        })
    }

    fn deny_after_all(&self, pass: &Pass, name: Option<Arc<str>>, because: Arc<str>) -> Denial {
        let (protocol, destination) = pass.asked;
        self.deny(Line {
            asked: asked(protocol, destination),
            name,
            because,
        })
    }

    /// Counts a denial, and tells whoever wants to hear of the first.
    fn deny(&self, line: Line) -> Denial {
        let reason = line.because.clone();
        let first = self.ledger.deny(line.clone());
        if first && let Some(Hook(tell)) = self.on_first_denial.get() {
            tell(&line);
        }
        Denial { reason, first }
    }
}

impl From<LinkConfig> for Link {
    fn from(config: LinkConfig) -> Self {
        let name = config.name.as_str();
        Self {
            name: format!("{name}.portolan").into(),
            rule: format!("link {name}").into(),
            addresses: config.addresses,
        }
    }
}

/// Whoever is told of denials.
struct Hook(Box<dyn Fn(&Line) + Send + Sync>);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The destination with a v4-mapped address as the IPv4 one that it is.
fn canonical(destination: SocketAddr) -> SocketAddr {
    match destination.ip() {
        IpAddr::V4(_) => destination,
        IpAddr::V6(_) => match destination.ip().to_canonical() {
            v4 @ IpAddr::V4(_) => SocketAddr::new(v4, destination.port()),
            IpAddr::V6(_) => destination,
        },
    }
}

fn asked(protocol: FlowProtocol, destination: SocketAddr) -> Asked {
    match protocol {
        FlowProtocol::Tcp => Asked::Tcp(destination.ip(), destination.port()),
        FlowProtocol::Udp => Asked::Udp(destination.ip(), destination.port()),
        FlowProtocol::Icmp => Asked::Icmp(destination.ip()),
    }
}

/// A name in lower case, without the dot at its end.
fn normal_name(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
