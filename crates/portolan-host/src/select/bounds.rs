//! What a filter lets the kernel leave out: sets that hold every socket the filter can mean, and perhaps
//! more.

use super::expression::{End, Expression, InetTest, Operator, Span, Test};
use super::ranges::Ranges;
use crate::{ProtocolSet, SocketProtocol};

/// A set that grows and shrinks with `or` and `and`.
trait Bound: Sized {
    fn everything() -> Self;
    fn either(self, other: Self) -> Self;
    fn both(self, other: Self) -> Self;
    /// The sockets for which the test holds (or fails, where `negated`).
    fn of(test: &Test, negated: bool, without_peers: bool) -> Self;
}

/// The local ports of every socket the expression can mean. `without_peers`: only sockets without a remote
/// end are asked for, so that a port of either end is the local one.
pub(super) fn local_ports(expression: &Expression, without_peers: bool) -> Ranges {
    bound(expression, false, without_peers)
}

/// The protocols of every socket the expression can mean.
pub(super) fn protocols(expression: &Expression) -> ProtocolSet {
    bound::<Protocols>(expression, false, false).0
}

fn bound<B: Bound>(expression: &Expression, negated: bool, without_peers: bool) -> B {
    match expression {
        Expression::Test(test) => B::of(test, negated, without_peers),
        Expression::Not(inner) => bound(inner, !negated, without_peers),
        Expression::Chain { first, rest } => {
            let mut so_far = bound::<B>(first, negated, without_peers);
            for (operator, part) in rest {
                let next = bound::<B>(part, negated, without_peers);
                // not (a and b) is (not a) or (not b).
                so_far = match (operator, negated) {
                    (Operator::And, false) | (Operator::Or, true) => so_far.both(next),
                    (Operator::Or, false) | (Operator::And, true) => so_far.either(next),
                };
            }
            so_far
        }
    }
}

impl Bound for Ranges {
    fn everything() -> Self {
        Self::all()
    }

    fn either(self, other: Self) -> Self {
        self.union(other)
    }

    fn both(self, other: Self) -> Self {
        self.intersection(&other)
    }

    fn of(test: &Test, negated: bool, without_peers: bool) -> Self {
        match test {
            Test::Constant(value) if *value == negated => Self::none(),
            Test::Inet(InetTest {
                end,
                addresses,
                ports: Span { first, last },
                protocol,
            }) => {
                let local = match end {
                    End::Local => true,
                    End::Either => without_peers,
                    End::Remote => false,
                };
                let ports = Self::spanning(*first, *last);
                match (local, negated) {
                    (true, false) => ports,
                    // Sockets of other addresses or protocols fail the test with any port.
                    (true, true) if addresses.is_none() && protocol.is_none() => ports.complement(),
                    (_, _) => Self::everything(),
                }
            }
            Test::Autobound(Span { first, last }) => {
                let ports = Self::spanning(*first, *last);
                if negated { ports.complement() } else { ports }
            }
            Test::Constant(_)
            | Test::Unix { .. }
            | Test::Vsock { .. }
            | Test::Device(_)
            | Test::Mark { .. }
            | Test::Cgroup(_)
            | Test::Protocol(_)
            | Test::Holder(_) => Self::everything(),
        }
    }
}

struct Protocols(ProtocolSet);

impl Bound for Protocols {
    fn everything() -> Self {
        Self(ProtocolSet::ALL)
    }

    fn either(self, other: Self) -> Self {
        Self(self.0.iter().chain(other.0.iter()).collect())
    }

    fn both(self, other: Self) -> Self {
        Self(
            self.0
                .iter()
                .filter(|protocol| other.0.contains(*protocol))
                .collect(),
        )
    }

    fn of(test: &Test, negated: bool, _without_peers: bool) -> Self {
        let one = |protocol: SocketProtocol| Self(ProtocolSet::EMPTY.with(protocol));
        let all_but = |protocol: SocketProtocol| {
            Self(
                SocketProtocol::ALL
                    .into_iter()
                    .filter(|other| *other != protocol)
                    .collect(),
            )
        };
        match test {
            Test::Protocol(protocol) if negated => all_but(*protocol),
            Test::Protocol(protocol) => one(*protocol),
            Test::Unix { .. } if !negated => one(SocketProtocol::Unix),
            Test::Vsock { .. } if !negated => one(SocketProtocol::Vsock),
            Test::Inet(InetTest {
                protocol: Some(protocol),
                ..
            }) if !negated => one(*protocol),
            Test::Constant(_)
            | Test::Inet(_)
            | Test::Unix { .. }
            | Test::Vsock { .. }
            | Test::Device(_)
            | Test::Mark { .. }
            | Test::Cgroup(_)
            | Test::Autobound(_)
            | Test::Holder(_) => Self::everything(),
        }
    }
}
