use thiserror::Error;

/// A pattern for names: `*` stands for any characters, `?` for one, the rest for itself in any case.
///
/// There are no classes and no escapes. Matching takes at most pattern times name steps and no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glob<'a>(&'a str);

/// Why a text is no [`Glob`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum GlobError {
    /// Nothing could match.
    #[error("the pattern is empty; write a name with * or ?, such as 'ssh*'")]
    Empty,
    /// Longer than any name.
    #[error(
        "the pattern has {len} bytes; names of services are shorter than {}",
        Glob::MAX_LEN
    )]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
}

impl<'a> Glob<'a> {
    /// The longest pattern, in bytes; the longest name in the registry has fewer.
    pub const MAX_LEN: usize = 64;

    /// Takes `pattern` as it is.
    ///
    /// # Errors
    /// [`GlobError`] if it is empty or longer than [`Self::MAX_LEN`].
    pub const fn new(pattern: &'a str) -> Result<Self, GlobError> {
        match pattern.len() {
            0 => Err(GlobError::Empty),
            len if len > Self::MAX_LEN => Err(GlobError::TooLong { len }),
            _ => Ok(Self(pattern)),
        }
    }

    /// Whether `text` has a wildcard, so that a person would mean a pattern.
    #[must_use]
    pub fn is_glob(text: &str) -> bool {
        text.contains(['*', '?'])
    }

    /// Whether all of `name` fits the pattern.
    #[must_use]
    pub fn matches(self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut p, mut n) = (0, 0);
        // After the last `*` seen: where the pattern goes on, and how much of the name it has taken.
        let mut retry: Option<(usize, usize)> = None;
        while n < name.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    p += 1;
                    retry = Some((p, n));
                }
                Some(b'?') => {
                    p += 1;
                    n += 1;
                }
                Some(byte) if byte.eq_ignore_ascii_case(&name[n]) => {
                    p += 1;
                    n += 1;
                }
                Some(_) | None => {
                    // Let the last `*` take one byte more; earlier ones never need to (greedy is enough).
                    let Some((after, taken)) = retry else { return false };
                    p = after;
                    n = taken + 1;
                    retry = Some((after, n));
                }
            }
        }
        pattern[p..].iter().all(|&byte| byte == b'*')
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Glob::new(pattern).unwrap().matches(name)
    }

    #[test]
    fn wildcards_match_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("ssh*", "ssh", true),
            ("ssh*", "sshell", true),
            ("ssh*", "xssh", false),
            ("*sql?", "mysqlx", true),
            ("*sql?", "mysql", false),
            ("*SQL", "MySql", true),
            ("*", "", true),
            ("?", "", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-c-d", false),
            ("sql*net", "sql*net", true),
            ("**x", "yyx", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn a_pattern_has_bounds() {
        assert_eq!(Glob::new(""), Err(GlobError::Empty));
        assert_eq!(Glob::new(&"*".repeat(65)), Err(GlobError::TooLong { len: 65 }));
    }

    /// The definition, without cleverness.
    fn slow(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, _) => name.is_empty(),
            (Some((b'*', rest)), None) => slow(rest, name),
            (Some((b'*', rest)), Some((_, shorter))) => slow(rest, name) || slow(pattern, shorter),
            (Some((b'?', rest)), Some((_, shorter))) => slow(rest, shorter),
            (Some((byte, rest)), Some((own, shorter))) => byte == own && slow(rest, shorter),
            (Some(_), None) => false,
        }
    }

    proptest! {
        #[test]
        fn matching_is_what_the_definition_says(pattern in "[ab*?]{1,8}", name in "[ab]{0,10}") {
            prop_assert_eq!(matches(&pattern, &name), slow(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
