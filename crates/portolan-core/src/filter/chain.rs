use super::index::Index;
use super::{Action, Packet, Rule, RuleId, Verdict};

/// The answer to a packet, and who gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What becomes of the packet.
    pub verdict: Verdict,
    /// The rule that decided, or `None` if the policy did. Of [`Verdict::Unknown`] the first rule that cannot be judged
    /// and makes a difference.
    pub rule: Option<RuleId>,
}

/// An ordered list of rules with a policy, ready to be asked.
///
/// It does not change: a new list is a new chain. To make one costs some microseconds for each rule.
#[derive(Clone, Debug)]
pub struct Chain {
    rules: Vec<Rule>,
    policy: Action,
    index: Index,
    /// The rules that cannot be judged whole, which are compared one by one.
    opaque: Vec<u32>,
}

impl Chain {
    /// A chain of these rules, in this order; `policy` is for packets that none of them matches.
    ///
    /// # Panics
    /// If there are more than 2^32 rules.
    #[must_use]
    pub fn new(rules: impl IntoIterator<Item = Rule>, policy: Action) -> Self {
        let rules: Vec<Rule> = rules.into_iter().collect();
        let count = u32::try_from(rules.len()).expect("2^32 rules do not fit into memory");
        let places = (0..count).zip(&rules);
        let is_opaque = |rule: &Rule| rule.opaque_reason().is_some();
        let index = Index::new(places.clone().filter(|(_, rule)| !is_opaque(rule)));
        let opaque = places
            .filter(|(_, rule)| is_opaque(rule))
            .map(|(place, _)| place)
            .collect();
        Self {
            rules,
            policy,
            index,
            opaque,
        }
    }

    /// A chain without rules, which lets everything pass.
    #[must_use]
    pub fn accept_all() -> Self {
        Self::new([], Action::Accept)
    }

    /// The rules, in order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What is done with packets that no rule matches.
    #[must_use]
    pub const fn policy(&self) -> Action {
        self.policy
    }

    /// What becomes of a packet. Does not allocate.
    #[must_use]
    pub fn decide(&self, packet: &Packet) -> Decision {
        let matches = |place: u32| self.rules[place as usize].matches(packet);
        let found = self.index.first_match(packet, matches);
        let (action, rule) = match found {
            Some(place) => (self.rules[place as usize].action(), Some(RuleId::new(place))),
            None => (self.policy, None),
        };
        // A rule that may match or not changes nothing if it would do the same.
        let doubtful = self
            .opaque
            .iter()
            .take_while(|&&place| found.is_none_or(|found| place < found))
            .find(|&&place| {
                let rule = &self.rules[place as usize];
                rule.action() != action && rule.matches(packet)
            });
        match doubtful {
            Some(&place) => Decision {
                verdict: Verdict::Unknown,
                rule: Some(RuleId::new(place)),
            },
            None => Decision {
                verdict: action.into(),
                rule,
            },
        }
    }
}
