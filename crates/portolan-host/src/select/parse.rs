//! The grammar of filters.
//!
//! ```text
//! filter   = *( ("state" / "exclude") STATE ) [ list ]
//! list     = unary *( [ "and" / "or" ] unary )          left to right, both of the same rank
//! unary    = "(" list ")" / "not" unary / test
//! test     = ("src" / "dst") ["=" / "!="] HOST
//!          / ("sport" / "dport") [COMPARISON] PORT
//!          / ("dev" / "fwmark" / "cgroup") ["=" / "!="] VALUE
//!          / "autobound" / ITEM
//! ```

use super::error::FilterFault;
use super::expression::{End, Expression, Operator, Span, Test};
use super::holder::Holder;
use super::item::{item, place};
use super::names::Names;
use super::operand;
use super::states::states_named;
use super::tokens::{Comparison, Kind, TestWord, Token};
use crate::{Family, StateSet};

/// Parentheses and negations inside each other beyond this are refused, so that no input makes the parser
/// or the evaluation recurse without end.
const MAX_DEPTH: usize = 64;

pub(super) type Fault = (usize, FilterFault);

pub(super) struct Parsed {
    pub(super) expression: Option<Expression>,
    pub(super) states: Option<StateSet>,
    /// The family that the last test named (`inet6:…`): ss lists no other then.
    pub(super) family: Option<Family>,
}

pub(super) struct Parser<'a> {
    tokens: &'a [Token],
    position: usize,
    /// Where the text ends, for faults there.
    end: usize,
    hint: Option<Family>,
    names: &'a dyn Names,
    holders: &'a mut Vec<Holder>,
    family: Option<Family>,
}

impl<'a> Parser<'a> {
    pub(super) fn new(
        tokens: &'a [Token],
        end: usize,
        hint: Option<Family>,
        names: &'a dyn Names,
        holders: &'a mut Vec<Holder>,
    ) -> Self {
        Self {
            tokens,
            position: 0,
            end,
            hint,
            names,
            holders,
            family: None,
        }
    }

    /// The whole filter.
    pub(super) fn filter(mut self) -> Result<Parsed, Fault> {
        let states = self.states()?;
        let expression = if self.peek().is_some() {
            Some(self.list(0)?)
        } else {
            None
        };
        if let Some(token) = self.peek() {
            return Err((
                token.offset,
                FilterFault::Parenthesis("a parenthesis closes here that was never opened"),
            ));
        }
        Ok(Parsed {
            expression,
            states,
            family: self.family,
        })
    }

    fn states(&mut self) -> Result<Option<StateSet>, Fault> {
        let mut states = None;
        while let Some(Kind::State { exclude }) = self.peek().map(|token| token.kind) {
            let keyword = self.next("a filter")?;
            let name = self.value(&keyword.text, "the name of a state")?;
            let named = states_named(&name.text)
                .map_err(|_| (name.offset, FilterFault::UnknownState(name.text.clone())))?;
            states = Some(if exclude {
                states.unwrap_or(StateSet::ALL).intersection(named.complement())
            } else {
                states.unwrap_or(StateSet::EMPTY).union(named)
            });
        }
        Ok(states)
    }

    fn list(&mut self, depth: usize) -> Result<Expression, Fault> {
        let first = self.unary(depth)?;
        let mut rest = Vec::new();
        loop {
            let operator = match self.peek().map(|token| token.kind) {
                None | Some(Kind::Close) => break,
                Some(Kind::And) => {
                    self.position += 1;
                    Operator::And
                }
                Some(Kind::Or) => {
                    self.position += 1;
                    Operator::Or
                }
                Some(
                    Kind::Open
                    | Kind::Not
                    | Kind::Compare(_)
                    | Kind::Test(_)
                    | Kind::State { .. }
                    | Kind::Word,
                ) => Operator::And,
            };
            rest.push((operator, self.unary(depth)?));
        }
        Ok(if rest.is_empty() {
            first
        } else {
            Expression::Chain {
                first: Box::new(first),
                rest,
            }
        })
    }

    fn unary(&mut self, depth: usize) -> Result<Expression, Fault> {
        let after = match self
            .position
            .checked_sub(1)
            .and_then(|before| self.tokens.get(before))
        {
            Some(token) => format!("`{}`", token.text.chars().take(20).collect::<String>()),
            None => "the filter".to_owned(),
        };
        let token = self.next(&after)?.clone();
        if depth >= MAX_DEPTH && matches!(token.kind, Kind::Open | Kind::Not) {
            return Err((token.offset, FilterFault::TooDeep { max: MAX_DEPTH }));
        }
        match token.kind {
            Kind::Open => {
                let inner = self.list(depth + 1)?;
                match self.peek().map(|token| token.kind) {
                    Some(Kind::Close) => self.position += 1,
                    _ => {
                        return Err((
                            token.offset,
                            FilterFault::Parenthesis("the parenthesis that opens here is never closed"),
                        ));
                    }
                }
                Ok(inner)
            }
            Kind::Not => Ok(Expression::Not(Box::new(self.unary(depth + 1)?))),
            Kind::Test(word) => self.test(word),
            Kind::Word => item(&token.text, self.names, self.holders)
                .map(|(_, expression)| expression)
                .map_err(|(at, fault)| (token.offset + at, fault)),
            Kind::State { .. } => Err((token.offset, FilterFault::StateNotFirst)),
            Kind::Close | Kind::And | Kind::Or | Kind::Compare(_) => Err((
                token.offset,
                FilterFault::Unexpected {
                    word: token.text,
                    expected: "a test such as sport = :22",
                },
            )),
        }
    }

    fn test(&mut self, word: TestWord) -> Result<Expression, Fault> {
        let comparison = self.comparison();
        let expected = match word {
            TestWord::Autobound => {
                return match comparison {
                    None => Ok(Expression::Test(self.autobound())),
                    Some((offset, _)) => Err((
                        offset,
                        FilterFault::Unexpected {
                            word: self.tokens[self.position - 1].text.clone(),
                            expected: "the next test (autobound is compared with nothing)",
                        },
                    )),
                };
            }
            TestWord::Src | TestWord::Dst => "an address",
            TestWord::Sport | TestWord::Dport => "a port such as :22",
            TestWord::Dev => "a network interface",
            TestWord::Fwmark => "a mark such as 0x1/0xff",
            TestWord::Cgroup => "the path of a cgroup",
        };
        let value = self.value(word.name(), expected)?.clone();
        let (comparison_offset, comparison) = comparison.unwrap_or((value.offset, Comparison::Equal));
        let end = match word {
            TestWord::Dst | TestWord::Dport => End::Remote,
            _ => End::Local,
        };
        let at_value = |fault| (value.offset + place(&value.text, &fault), fault);
        if matches!(word, TestWord::Sport | TestWord::Dport) {
            let (expression, family) =
                operand::port_test(&value.text, end, comparison, self.hint, self.names).map_err(at_value)?;
            self.family = family.or(self.family);
            return Ok(expression);
        }
        let negated = match comparison {
            Comparison::Equal => false,
            Comparison::NotEqual => true,
            Comparison::Less | Comparison::LessOrEqual | Comparison::Greater | Comparison::GreaterOrEqual => {
                return Err((comparison_offset, FilterFault::Comparison { test: word.name() }));
            }
        };
        let test = match word {
            TestWord::Dev => operand::device(&value.text, self.names).map_err(at_value)?,
            TestWord::Fwmark => operand::mark(&value.text).map_err(at_value)?,
            TestWord::Cgroup => match self.names.cgroup(&value.text) {
                Some(id) => Test::Cgroup(id),
                None => return Err(at_value(FilterFault::UnknownCgroup(value.text.clone()))),
            },
            TestWord::Src | TestWord::Dst | TestWord::Sport | TestWord::Dport | TestWord::Autobound => {
                let host = operand::host(&value.text, end, self.hint, self.names).map_err(at_value)?;
                self.family = host.family.or(self.family);
                host.test
            }
        };
        let test = Expression::Test(test);
        Ok(if negated {
            Expression::Not(Box::new(test))
        } else {
            test
        })
    }

    fn autobound(&self) -> Test {
        let range = self.names.ephemeral();
        Test::Autobound(Span {
            first: u32::from(range.first().get()),
            last: u32::from(range.last().get()),
        })
    }

    fn comparison(&mut self) -> Option<(usize, Comparison)> {
        let token = self.peek()?;
        let Kind::Compare(comparison) = token.kind else {
            return None;
        };
        let offset = token.offset;
        self.position += 1;
        Some((offset, comparison))
    }

    /// The word that a test wants; a keyword there is a fault, not a name.
    fn value(&mut self, after: &str, expected: &'static str) -> Result<&'a Token, Fault> {
        let missing = || FilterFault::Missing {
            after: format!("`{after}`"),
            expected,
        };
        let token = self.peek().ok_or_else(|| (self.end, missing()))?;
        match token.kind {
            Kind::Word => {
                self.position += 1;
                Ok(token)
            }
            Kind::Close => Err((token.offset, missing())),
            Kind::Open
            | Kind::And
            | Kind::Or
            | Kind::Not
            | Kind::Compare(_)
            | Kind::Test(_)
            | Kind::State { .. } => Err((
                token.offset,
                FilterFault::Unexpected {
                    word: token.text.clone(),
                    expected,
                },
            )),
        }
    }

    fn next(&mut self, after: &str) -> Result<&'a Token, Fault> {
        let token = self.peek().ok_or_else(|| {
            (
                self.end,
                FilterFault::Missing {
                    after: after.to_owned(),
                    expected: "a test such as sport = :22",
                },
            )
        })?;
        self.position += 1;
        Ok(token)
    }

    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.position)
    }
}
