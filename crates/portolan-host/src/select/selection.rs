use super::bounds;
use super::error::FilterError;
use super::expression::{End, Expression, InetTest, Operator, Test};
use super::holder::Holder;
use super::item::{ItemKind, item};
use super::names::Names;
use super::parse::{Fault, Parsed, Parser};
use super::tokens::{self, Token};
use crate::{Family, ProtocolSet, SocketProtocol, StateSet};
use portolan_core::PortRange;

/// A filter, understood: which sockets are meant, apart from options such as `--tcp`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    pub(super) expression: Option<Expression>,
    pub(super) holders: Vec<Holder>,
    pub(super) family: Option<Family>,
    states: Option<StateSet>,
}

impl Selection {
    /// Reads a filter from the words of a command line; no words mean every socket.
    ///
    /// `hint` is the family of addresses without one of their own, as `ss -f` sets it: with
    /// [`Family::Unix`], `src` is followed by a path.
    ///
    /// # Errors
    /// [`FilterError`] for what is neither a list of items nor an expression.
    pub fn parse<W: AsRef<str>>(
        words: &[W],
        hint: Option<Family>,
        names: &dyn Names,
    ) -> Result<Self, FilterError> {
        let text = words.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" ");
        Self::parse_text(&text, hint, names).map_err(|(offset, fault)| FilterError { text, offset, fault })
    }

    /// The states that the filter names (`state established`), if it names any.
    #[must_use]
    pub fn states(&self) -> Option<StateSet> {
        self.states
    }

    /// Whether the filter looks at remote ends alone (`dst`, `dport`), so that it means connections too.
    #[must_use]
    pub fn mentions_remote(&self) -> bool {
        self.any_test(|test| match test {
            Test::Inet(InetTest { end, .. }) | Test::Unix { end, .. } | Test::Vsock { end, .. } => {
                *end == End::Remote
            }
            Test::Constant(_)
            | Test::Device(_)
            | Test::Mark { .. }
            | Test::Cgroup(_)
            | Test::Autobound(_)
            | Test::Protocol(_)
            | Test::Holder(_) => false,
        })
    }

    /// Whether the filter looks at firewall marks, which the kernel shows to CAP_NET_ADMIN only.
    #[must_use]
    pub fn mentions_mark(&self) -> bool {
        self.any_test(|test| matches!(test, Test::Mark { .. }))
    }

    /// Whether the filter names unix sockets, which nobody sees who does not ask for them.
    #[must_use]
    pub fn mentions_unix(&self) -> bool {
        self.any_test(|test| matches!(test, Test::Unix { .. } | Test::Protocol(SocketProtocol::Unix)))
    }

    /// Whether the filter can be answered only with the owners known.
    #[must_use]
    pub fn needs_owners(&self) -> bool {
        !self.holders.is_empty()
    }

    /// Whether the filter names no condition at all.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.expression.is_none() && self.states.is_none()
    }

    /// Local ports outside of which no meant socket can be; `None` if it could have any.
    ///
    /// With `without_peers` only sockets without a remote end are asked for (listeners, unconnected ones).
    #[must_use]
    pub fn local_ports(&self, without_peers: bool) -> Option<Vec<PortRange>> {
        let ranges = bounds::local_ports(self.expression.as_ref()?, without_peers);
        (!ranges.is_all()).then(|| ranges.iter().collect())
    }

    /// Protocols outside of which no meant socket can be.
    #[must_use]
    pub fn protocols(&self) -> ProtocolSet {
        self.expression
            .as_ref()
            .map_or(ProtocolSet::ALL, bounds::protocols)
    }

    fn any_test(&self, mut predicate: impl FnMut(&Test) -> bool) -> bool {
        self.expression
            .as_ref()
            .is_some_and(|expression| expression.any_test(&mut predicate))
    }

    fn parse_text(text: &str, hint: Option<Family>, names: &dyn Names) -> Result<Self, Fault> {
        let tokens = tokens::tokens(text)?;
        let mut holders = Vec::new();
        if !tokens::are_expression(&tokens) {
            let expression = items(&tokens, names, &mut holders)?;
            return Ok(Self {
                expression,
                holders,
                ..Self::default()
            });
        }
        let Parsed {
            expression,
            states,
            family,
        } = Parser::new(&tokens, text.len(), hint, names, &mut holders).filter()?;
        Ok(Self {
            expression,
            holders,
            family,
            states,
        })
    }
}

/// Items of one kind are alternatives; the kinds must all hold.
fn items(
    tokens: &[Token],
    names: &dyn Names,
    holders: &mut Vec<Holder>,
) -> Result<Option<Expression>, Fault> {
    let mut items = Vec::new();
    for token in tokens {
        items.push(item(&token.text, names, holders).map_err(|(at, fault)| (token.offset + at, fault))?);
    }
    let mut kinds = Vec::new();
    for kind in [
        ItemKind::Protocol,
        ItemKind::Port,
        ItemKind::Address,
        ItemKind::Holder,
    ] {
        let alternatives = items
            .iter()
            .filter(|(of, _)| *of == kind)
            .map(|(_, expression)| expression.clone())
            .collect();
        kinds.extend(Expression::joined(Operator::Or, alternatives));
    }
    Ok(Expression::joined(Operator::And, kinds))
}

#[cfg(test)]
mod tests;
