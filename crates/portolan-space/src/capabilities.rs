//! What a program may do in its space beyond its user's rights.

use std::str::FromStr;

use rustix::thread::CapabilitySet;

/// Capabilities (capabilities(7)) of a program in its space. They are those of the space's user namespace: they hold for
/// its network, mounts, host name and mapped users, and for nothing of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(CapabilitySet);

impl Capabilities {
    /// None.
    pub const NONE: Self = Self(CapabilitySet::empty());
    /// All that the kernel has.
    pub const ALL: Self = Self(CapabilitySet::all());

    /// Those of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0.union(other.0))
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub(crate) const fn set(self) -> CapabilitySet {
        self.0
    }
}

/// Reads `all`, or names as in capabilities(7) with commas between them: `net_raw,cap_chown`, in either case.
impl FromStr for Capabilities {
    type Err = UnknownCapability;

    fn from_str(text: &str) -> Result<Self, UnknownCapability> {
        let mut read = Self::NONE;
        let mut at = 0;
        for word in text.split(',') {
            read = read.union(one(word).ok_or(UnknownCapability { at })?);
            at += word.chars().count() + 1;
        }
        Ok(read)
    }
}

fn one(word: &str) -> Option<Capabilities> {
    let name = word.trim().to_ascii_uppercase();
    match name.strip_prefix("CAP_").unwrap_or(&name) {
        "ALL" => Some(Capabilities::ALL),
        name => CapabilitySet::from_name(name).map(Capabilities),
    }
}

/// A word that is the name of no capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no capability has this name, at {at}; net_raw is one, `man 7 capabilities` lists them, all stands for every one"
)]
pub struct UnknownCapability {
    /// Where it begins, in characters.
    pub at: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_each_way_that_people_write_them() {
        let both = Capabilities(CapabilitySet::NET_RAW | CapabilitySet::CHOWN);
        for text in ["net_raw,chown", "CAP_CHOWN,CAP_NET_RAW", "Net_Raw, cap_chown"] {
            assert_eq!(text.parse(), Ok(both), "{text}");
        }
        assert_eq!("all".parse(), Ok(Capabilities::ALL));
        assert_eq!("chown,ALL".parse(), Ok(Capabilities::ALL));
    }

    #[test]
    fn what_is_none_is_refused_and_placed() {
        for (text, at) in [
            ("", 0),
            ("net_rww", 0),
            ("chown,,kill", 6),
            ("chown,root", 6),
            ("äö,chown", 0),
        ] {
            assert_eq!(
                text.parse::<Capabilities>(),
                Err(UnknownCapability { at }),
                "{text}"
            );
        }
    }
}
