//! The filter in the stack: where rules are asked, and where the answer of before will do.
//!
//! ```text
//!   packet ─▶ demultiplex ─┬▶ connection ─▶ judged under this filter? ─▶ yes: on ─▶ deliver
//!                          │                 └▶ no: rules, once in each direction
//!                          ├▶ listener, nobody ──▶ rules (new, invalid)
//!                          └▶ UDP ─▶ flow judged? ─▶ as a connection
//! ```
//!
//! What passed is remembered where the packet leads anyway, as the number of the filter that let it pass: a new filter has
//! a new number, and each flow is asked about once more. Rules that a packet of an established connection passes are the
//! same for all of them, since nothing that rules look at changes; so remembering changes no answer.
//!
//! A packet comes on the link, or on the device that the caller names ([`Stack::handle_packet_on`]); it leaves by the
//! loopback device if it is for an address of the host, else by the link. A flow has one way out, but may come on several
//! devices: only what came on the link is remembered, and the rules are asked about each packet that came elsewhere.
//!
//! What cannot be judged ([`Verdict::Unknown`]) does not pass.

use std::sync::Arc;

use portolan_core::demux::{Delivery, FourTuple};
use portolan_core::filter::{self, ConnectionState, Filter, Hook, Reject, Verdict};
use portolan_core::table::{AddressKind, Device, Host};
use portolan_core::wire::{IpPacket, IpProtocol, TcpFlags, UnreachableCode};

use super::icmp::Control;
use super::icmp_error::PathNews;
use super::quote::{LONGEST_QUOTE, quote};
use super::udp_flows::UdpFlows;
use super::{ConnectionId, Holder, Stack};
use crate::tcp::{CloseReason, Reset, Segment, State};
use crate::{Instant, Packet, PathError};

/// How often rules decided, since the filter was set. A flow whose packets pass counts once in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleHits<'a> {
    /// In the order of the rules.
    pub rules: &'a [u64],
    /// The policy, when no rule matched.
    pub policy: u64,
}

/// Under which filter packets of a flow passed: its number, and a bit for each hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Judged(u16);

const HOOKS: u32 = 2;
/// The highest number of a filter. After it they begin anew, and what all flows passed is forgotten.
const LAST_NUMBER: u16 = u16::MAX >> HOOKS;

const fn bit(hook: Hook) -> u16 {
    match hook {
        Hook::Input => 1,
        Hook::Output => 2,
    }
}

impl Default for Judged {
    /// Without a filter, which is number 0, everything passes.
    fn default() -> Self {
        Self(bit(Hook::Input) | bit(Hook::Output))
    }
}

impl Judged {
    /// Nothing has passed.
    pub(super) const NEVER: Self = Self(0);

    pub(super) const fn passes(self, number: u16, hook: Hook) -> bool {
        self.0 >> HOOKS == number && self.0 & bit(hook) != 0
    }

    pub(super) const fn pass(&mut self, number: u16, hook: Hook) {
        if self.0 >> HOOKS != number {
            self.0 = number << HOOKS;
        }
        self.0 |= bit(hook);
    }
}

/// The filter of a stack, and what was counted of it.
#[derive(Debug)]
pub(super) struct Filtering {
    filter: Option<Arc<Filter>>,
    /// 0 as long as there never was a filter.
    number: u16,
    input: Hits,
    output: Hits,
    flows: UdpFlows,
    link: Device,
    loopback: Device,
    /// On which device the packet came that is being handled.
    arrival: Device,
}

#[derive(Debug, Default)]
struct Hits {
    rules: Vec<u64>,
    policy: u64,
}

impl Filtering {
    pub(super) fn new(secret: [u8; 16], link: Device, loopback: Device) -> Self {
        Self {
            link,
            loopback,
            arrival: link,
            filter: None,
            number: 0,
            input: Hits::default(),
            output: Hits::default(),
            flows: UdpFlows::new(secret),
        }
    }

    /// Whether there is a filter to be asked.
    #[inline]
    pub(super) const fn is_on(&self) -> bool {
        self.filter.is_some()
    }

    /// The packets to come came on this device, until [`Filtering::end_arrival`].
    pub(super) const fn begin_arrival(&mut self, device: Device) {
        self.arrival = device;
    }

    /// Packets come on the link again.
    pub(super) const fn end_arrival(&mut self) {
        self.arrival = self.link;
    }

    /// Whether the rules need not be asked.
    #[inline]
    pub(super) fn knows(&self, judged: Judged, hook: Hook) -> bool {
        judged.passes(self.number, hook) && self.remembers(hook)
    }

    /// Whether what holds for the packet at this hook holds for all of its flow.
    #[inline]
    fn remembers(&self, hook: Hook) -> bool {
        match hook {
            Hook::Input => self.arrival == self.link,
            Hook::Output => true,
        }
    }

    /// Asks the rules.
    fn decide(&mut self, hook: Hook, packet: &filter::Packet, host: &Host) -> Verdict {
        let Some(filter) = &self.filter else {
            return Verdict::Accept;
        };
        // What goes to many is heard at home too, but as what came on the link: so it is on Linux.
        let device = match hook {
            Hook::Input => self.arrival,
            Hook::Output if host.kind(packet.destination.ip()) == AddressKind::Local => self.loopback,
            Hook::Output => self.link,
        };
        let packet = filter::Packet {
            device: Some(device),
            ..*packet
        };
        let decision = filter.chain(hook).decide(&packet);
        let hits = match hook {
            Hook::Input => &mut self.input,
            Hook::Output => &mut self.output,
        };
        match decision.rule {
            Some(rule) => hits.rules[rule.place()] += 1,
            None => hits.policy += 1,
        }
        decision.verdict
    }

    /// What becomes of a datagram, whose flow is remembered if it passes.
    pub(super) fn judge_datagram(
        &mut self,
        now: Instant,
        hook: Hook,
        tuple: &FourTuple,
        host: &Host,
    ) -> Verdict {
        if self.filter.is_none() {
            return Verdict::Accept;
        }
        let number = self.number;
        let remembers = self.remembers(hook);
        if remembers && self.flows.passed_last(now, hook, tuple, number) {
            return Verdict::Accept;
        }
        let (state, judged) = self.flows.look(now, hook, tuple);
        if remembers && judged.passes(number, hook) {
            self.flows.note(hook, tuple, number);
            return Verdict::Accept;
        }
        let verdict = self.decide(hook, &packet(IpProtocol::UDP, hook, tuple, state), host);
        if verdict == Verdict::Accept {
            self.flows.pass(now, hook, tuple, remembers.then_some(number));
        }
        verdict
    }
}

/// What the rules look at of a packet between these ends.
fn packet(protocol: IpProtocol, hook: Hook, tuple: &FourTuple, state: ConnectionState) -> filter::Packet {
    let (source, destination) = match hook {
        Hook::Input => (tuple.remote(), tuple.local()),
        Hook::Output => (tuple.local(), tuple.remote()),
    };
    filter::Packet {
        protocol,
        source,
        destination,
        state,
        device: None,
    }
}

impl Stack {
    /// Sets the filter, or removes it. It counts from the next packet on, for flows that exist too: each is asked about
    /// once more, as established. To let them live, let the first rule accept what is established.
    pub fn set_filter(&mut self, filter: Option<Arc<Filter>>) {
        let hits = |hook| Hits {
            rules: filter
                .as_ref()
                .map_or_else(Vec::new, |filter| vec![0; filter.chain(hook).rules().len()]),
            policy: 0,
        };
        self.filtering.input = hits(Hook::Input);
        self.filtering.output = hits(Hook::Output);
        let is_last = self.filtering.number == LAST_NUMBER;
        if is_last {
            for (_, entry) in &mut self.connections {
                entry.judged = Judged::NEVER;
            }
        }
        self.filtering.number = if is_last { 1 } else { self.filtering.number + 1 };
        if filter.is_none() || is_last {
            self.filtering.flows.clear();
        }
        self.filtering.filter = filter;
    }

    /// The filter, if there is one.
    #[must_use]
    pub fn filter(&self) -> Option<&Arc<Filter>> {
        self.filtering.filter.as_ref()
    }

    /// How often the rules of a hook decided since the filter was set.
    #[must_use]
    pub fn rule_hits(&self, hook: Hook) -> RuleHits<'_> {
        let hits = match hook {
            Hook::Input => &self.filtering.input,
            Hook::Output => &self.filtering.output,
        };
        RuleHits {
            rules: &hits.rules,
            policy: hits.policy,
        }
    }

    /// Whether a segment may go to the connection that it is for.
    pub(super) fn admits_connected(&mut self, now: Instant, id: ConnectionId, segment: &Segment<'_>) -> bool {
        let Some(entry) = self.connections.get_mut(id) else {
            return false;
        };
        let tuple = entry.tuple;
        let packet = packet(IpProtocol::TCP, Hook::Input, &tuple, ConnectionState::Established);
        let verdict = self.filtering.decide(Hook::Input, &packet, self.table.host());
        if verdict == Verdict::Accept {
            entry.judged.pass(self.filtering.number, Hook::Input);
            return true;
        }
        self.turn_away(now, &tuple, segment, verdict);
        false
    }

    /// Whether a segment that is for no connection may be answered; one that is for a connection may pass here.
    pub(super) fn admits_unconnected(
        &mut self,
        now: Instant,
        tuple: &FourTuple,
        segment: &Segment<'_>,
        delivery: &Delivery,
        waits: bool,
    ) -> bool {
        let is_syn = segment.has(TcpFlags::SYN) && !segment.has(TcpFlags::ACK | TcpFlags::RST);
        let holder = match delivery {
            Delivery::Socket { to, .. } => self.holder(to.place()),
            Delivery::Sockets { .. } | Delivery::Nobody { .. } => &Holder::Nobody,
        };
        let state = match holder {
            // The handshake was answered: what follows is of a conversation.
            _ if self.syn_queue.find(tuple).is_some() => ConnectionState::Established,
            _ if is_syn => ConnectionState::New,
            _ if waits => ConnectionState::Established,
            Holder::Nobody | Holder::Listener(_) | Holder::Udp(_) | Holder::Connection(_) => {
                if self.held.holds(tuple) || self.has_cookie(now, tuple, segment) {
                    ConnectionState::Established
                } else {
                    ConnectionState::Invalid
                }
            }
        };
        let packet = packet(IpProtocol::TCP, Hook::Input, tuple, state);
        let verdict = self.filtering.decide(Hook::Input, &packet, self.table.host());
        if verdict == Verdict::Accept {
            return true;
        }
        self.turn_away(now, tuple, segment, verdict);
        false
    }

    /// Whether a datagram may go to its socket, or be answered.
    pub(super) fn admits_datagram(
        &mut self,
        now: Instant,
        tuple: &FourTuple,
        packet: Packet<'_>,
        ip: &IpPacket<'_>,
    ) -> bool {
        match self
            .filtering
            .judge_datagram(now, Hook::Input, tuple, self.table.host())
        {
            Verdict::Accept => return true,
            Verdict::Drop | Verdict::Unknown => {}
            Verdict::Reject(how) => {
                let code = match how {
                    Reject::Reset => UnreachableCode::Port,
                    Reject::Unreachable(code) => code,
                };
                self.answer_unreachable(now, code, packet.bytes, ip);
            }
        }
        self.counters.filtered_in += 1;
        false
    }

    /// Whether an ICMP message may be heard.
    pub(super) fn admits_icmp(
        &mut self,
        now: Instant,
        message: &Control,
        news: Option<&PathNews<'_>>,
        packet: Packet<'_>,
        ip: &IpPacket<'_>,
    ) -> bool {
        let state = match news {
            _ if message.echo_reply().is_some() => ConnectionState::New,
            None if self.asker(message, ip).is_some() => ConnectionState::Established,
            Some(news) if self.is_about_us(news) => ConnectionState::Related,
            Some(_) | None => ConnectionState::Invalid,
        };
        let asked = filter::Packet {
            protocol: ip.protocol(),
            source: (ip.source(), 0).into(),
            destination: (ip.destination(), 0).into(),
            state,
            device: None,
        };
        match self.filtering.decide(Hook::Input, &asked, self.table.host()) {
            Verdict::Accept => return true,
            // RFC 1122, section 3.2.2: no error is answered by an error.
            Verdict::Reject(how) if news.is_none() => {
                let code = match how {
                    Reject::Reset => UnreachableCode::Port,
                    Reject::Unreachable(code) => code,
                };
                self.answer_unreachable(now, code, packet.bytes, ip);
            }
            Verdict::Drop | Verdict::Unknown | Verdict::Reject(_) => {}
        }
        self.counters.filtered_in += 1;
        false
    }

    /// Whether a connection's segment may go. If it is rejected the connection learns that.
    pub(super) fn lets_out(&mut self, now: Instant, id: ConnectionId) -> bool {
        let Some(entry) = self.connections.get_mut(id) else {
            return false;
        };
        if self.filtering.knows(entry.judged, Hook::Output) {
            return true;
        }
        let is_opening = entry.look(|connection| connection.state()) == State::SynSent;
        let state = if is_opening {
            ConnectionState::New
        } else {
            ConnectionState::Established
        };
        let packet = packet(IpProtocol::TCP, Hook::Output, &entry.tuple, state);
        let verdict = self.filtering.decide(Hook::Output, &packet, self.table.host());
        if verdict == Verdict::Accept {
            if !is_opening {
                entry.judged.pass(self.filtering.number, Hook::Output);
            }
            return true;
        }
        self.counters.filtered_out += 1;
        let reason = match verdict {
            Verdict::Reject(Reject::Reset) if is_opening => Some(CloseReason::Refused),
            Verdict::Reject(Reject::Reset) => Some(CloseReason::Reset),
            Verdict::Reject(Reject::Unreachable(code)) if is_opening => Some(as_told(code)),
            // An established connection outlives an unreachable network (RFC 1122, section 4.2.3.9).
            Verdict::Reject(Reject::Unreachable(_)) | Verdict::Drop | Verdict::Unknown | Verdict::Accept => {
                None
            }
        };
        if let Some(reason) = reason {
            self.with_connection(now, id, |connection, cx| connection.end(cx, reason));
        }
        false
    }

    /// Whether an answer without a connection of its own may go.
    pub(super) fn lets_answer_out(
        &mut self,
        protocol: IpProtocol,
        tuple: &FourTuple,
        state: ConnectionState,
    ) -> bool {
        let packet = packet(protocol, Hook::Output, tuple, state);
        if self.filtering.decide(Hook::Output, &packet, self.table.host()) == Verdict::Accept {
            return true;
        }
        self.counters.filtered_out += 1;
        false
    }

    /// A segment does not pass: the peer is told if the rule says so.
    fn turn_away(&mut self, now: Instant, tuple: &FourTuple, segment: &Segment<'_>, verdict: Verdict) {
        self.counters.filtered_in += 1;
        match verdict {
            Verdict::Accept | Verdict::Drop | Verdict::Unknown => {}
            Verdict::Reject(Reject::Reset) => self.answer(tuple, Reset::answering(segment)),
            Verdict::Reject(Reject::Unreachable(code)) => {
                let told = match self.table.host().kind(tuple.remote().ip()) {
                    AddressKind::Local | AddressKind::Foreign => true,
                    AddressKind::Wildcard | AddressKind::Broadcast | AddressKind::Multicast => false,
                };
                if !told || !self.icmp_limit.allows(now, tuple.remote().ip()) {
                    self.counters.answers_dropped += 1;
                    return;
                }
                let mut quoted = [0; LONGEST_QUOTE];
                let len = quote(tuple, segment, &mut quoted);
                self.push_unreachable(tuple, code, &quoted[..len]);
            }
        }
    }
}

/// What the program is told when its own host's filter rejects: as if a router had said it.
fn as_told(code: UnreachableCode) -> CloseReason {
    match code {
        UnreachableCode::NoRoute => CloseReason::Unreachable(PathError::NetworkUnreachable),
        UnreachableCode::Host => CloseReason::Unreachable(PathError::HostUnreachable),
        UnreachableCode::Port => CloseReason::Refused,
        UnreachableCode::Prohibited => CloseReason::Unreachable(PathError::HostProhibited),
    }
}
