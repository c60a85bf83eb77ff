/// Whether `text` fits `pattern`, in which `*` stands for any bytes, `?` for one byte and `[a-z]`, `[!a]` for
/// one of a set; a backslash takes the next byte for itself.
///
/// Cost: the product of the lengths at worst, no allocation.
pub(super) fn fits(pattern: &[u8], text: &[u8], ignore_case: bool) -> bool {
    // One star is remembered: if the rest does not fit, that star takes one byte more. An earlier star
    // need never be tried again, since the later one can take whatever it would.
    let (mut at_pattern, mut at_text) = (0, 0);
    let mut star = None;
    while at_text < text.len() {
        if pattern.get(at_pattern) == Some(&b'*') {
            star = Some((at_pattern, at_text));
            at_pattern += 1;
            continue;
        }
        match fits_one(&pattern[at_pattern..], text[at_text], ignore_case) {
            Some(length) => {
                at_pattern += length;
                at_text += 1;
            }
            None => match star {
                Some((star_pattern, star_text)) => {
                    star = Some((star_pattern, star_text + 1));
                    at_pattern = star_pattern + 1;
                    at_text = star_text + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at_pattern..].iter().all(|byte| *byte == b'*')
}

/// Whether a text holds any character that [`fits`] takes for more than itself.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// How long the first element of the pattern is, if it takes `byte`.
fn fits_one(pattern: &[u8], byte: u8, ignore_case: bool) -> Option<usize> {
    let same = |a: u8, b: u8| {
        if ignore_case {
            a.eq_ignore_ascii_case(&b)
        } else {
            a == b
        }
    };
    match *pattern.first()? {
        b'?' => Some(1),
        b'[' => match set_of(&pattern[1..]) {
            Some((set, negated, length)) => {
                let byte = if ignore_case {
                    byte.to_ascii_lowercase()
                } else {
                    byte
                };
                (in_set(set, byte, ignore_case) != negated).then_some(length + 1)
            }
            // A bracket that is not closed stands for itself.
            None => (byte == b'[').then_some(1),
        },
        b'\\' if pattern.len() > 1 => same(pattern[1], byte).then_some(2),
        first => same(first, byte).then_some(1),
    }
}

/// The inside of a set, whether it is negated, and its length with the closing bracket.
fn set_of(pattern: &[u8]) -> Option<(&[u8], bool, usize)> {
    let negated = matches!(pattern.first(), Some(b'!' | b'^'));
    let start = usize::from(negated);
    // A closing bracket that comes first belongs to the set.
    let end = start + 1 + pattern.get(start + 1..)?.iter().position(|byte| *byte == b']')?;
    Some((&pattern[start..end], negated, end + 1))
}

fn in_set(set: &[u8], byte: u8, ignore_case: bool) -> bool {
    let fold = |byte: u8| {
        if ignore_case {
            byte.to_ascii_lowercase()
        } else {
            byte
        }
    };
    let mut rest = set;
    while let [first, after @ ..] = rest {
        if let [b'-', last, beyond @ ..] = after {
            if (fold(*first)..=fold(*last)).contains(&byte) {
                return true;
            }
            rest = beyond;
        } else {
            if fold(*first) == byte {
                return true;
            }
            rest = after;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_take_what_the_shell_would() {
        let cases = [
            ("nginx", "nginx", true),
            ("nginx", "nginx2", false),
            ("ng*", "nginx", true),
            ("*x", "nginx", true),
            ("*i*x*", "nginx", true),
            ("?ginx", "nginx", true),
            ("?", "", false),
            ("*", "", true),
            ("[a-n]ginx", "nginx", true),
            ("[!a-n]ginx", "nginx", false),
            ("[]]", "]", true),
            ("[x", "[x", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("NGINX", "nginx", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(
                fits(pattern.as_bytes(), text.as_bytes(), false),
                expected,
                "{pattern} {text}"
            );
        }
        assert!(fits(b"NG[I]*", b"nginx", true));
    }

    #[test]
    fn many_stars_do_not_make_it_slow() {
        let pattern = "*a".repeat(500);
        assert!(!fits(pattern.as_bytes(), "b".repeat(20_000).as_bytes(), false));
    }

    proptest! {
        #[test]
        fn any_pattern_is_answered(pattern in any::<Vec<u8>>(), text in any::<Vec<u8>>(), fold in any::<bool>()) {
            let _ = fits(&pattern, &text, fold);
            prop_assert!(fits(b"*", &text, fold));
        }

        #[test]
        fn plain_text_fits_itself(text in "[a-zA-Z0-9@._-]{0,30}") {
            prop_assert!(fits(text.as_bytes(), text.as_bytes(), false));
        }
    }
}
