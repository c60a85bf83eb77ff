use super::error::FilterFault;

/// A word of a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// As it was written, backslashes resolved.
    pub(super) text: String,
    /// The byte of the whole text where it begins.
    pub(super) offset: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Open,
    Close,
    And,
    Or,
    Not,
    Compare(Comparison),
    /// The beginning of a test.
    Test(TestWord),
    /// `state`, `exclude`.
    State {
        exclude: bool,
    },
    /// Anything else.
    Word,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TestWord {
    Src,
    Dst,
    Sport,
    Dport,
    Dev,
    Fwmark,
    Cgroup,
    Autobound,
}

impl TestWord {
    const ALL: [Self; 8] = [
        Self::Src,
        Self::Dst,
        Self::Sport,
        Self::Dport,
        Self::Dev,
        Self::Fwmark,
        Self::Cgroup,
        Self::Autobound,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Src => "src",
            Self::Dst => "dst",
            Self::Sport => "sport",
            Self::Dport => "dport",
            Self::Dev => "dev",
            Self::Fwmark => "fwmark",
            Self::Cgroup => "cgroup",
            Self::Autobound => "autobound",
        }
    }
}

/// More words than this are refused.
pub(super) const MAX_WORDS: usize = 4096;

/// Cuts a text into words at blanks. A backslash takes the next character for itself, a blank too.
///
/// ss(8) wants blanks around everything. Here parentheses and `!` may also touch the word they belong to,
/// and a comparison the test before it and the value after it: `(sport=:22)`.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, (usize, FilterFault)> {
    let mut tokens = Vec::new();
    let mut characters = text.char_indices().peekable();
    while let Some((offset, first)) = characters.peek().copied() {
        if first.is_ascii_whitespace() {
            characters.next();
            continue;
        }
        let mut word = Vec::new();
        while let Some((at, character)) = characters.next_if(|(_, next)| !next.is_ascii_whitespace()) {
            if character == '\\'
                && let Some((_, next)) = characters.next()
            {
                word.push((at, next));
            } else {
                word.push((at, character));
            }
        }
        split_word(offset, &word, &mut tokens);
        if tokens.len() > MAX_WORDS {
            return Err((offset, FilterFault::TooLong { max: MAX_WORDS }));
        }
    }
    Ok(tokens)
}

/// Whether the words are an expression of ss(8) rather than a list of items.
pub(super) fn are_expression(tokens: &[Token]) -> bool {
    tokens.iter().any(|token| token.kind != Kind::Word)
}

/// Takes off what touches a word: parentheses, `!`, a test and its comparison.
fn split_word(offset: usize, word: &[(usize, char)], tokens: &mut Vec<Token>) {
    let mut rest = word;
    while let [(at, first @ ('(' | '!')), after @ ..] = rest {
        if *first == '!' && matches!(after.first(), Some((_, '='))) {
            break;
        }
        tokens.push(classified(first.to_string(), *at));
        rest = after;
    }
    let mut closing = 0;
    while let [before @ .., (_, ')')] = rest {
        closing += 1;
        rest = before;
    }
    if !rest.is_empty() {
        let start = rest.first().map_or(offset, |(at, _)| *at);
        let text = rest.iter().map(|(_, character)| *character).collect::<String>();
        split_test(text, start, tokens);
    }
    for (at, _) in &word[word.len() - closing..] {
        tokens.push(classified(")".to_owned(), *at));
    }
}

/// Splits `sport>=1024` into its three words.
fn split_test(text: String, offset: usize, tokens: &mut Vec<Token>) {
    let test = TestWord::ALL.into_iter().find(|test| {
        text.strip_prefix(test.name())
            .is_some_and(|rest| rest.starts_with(['=', '!', '<', '>']))
    });
    let Some(test) = test else {
        tokens.push(classified(text, offset));
        return;
    };
    let (name, rest) = text.split_at(test.name().len());
    let length = rest
        .find(|character| !['=', '!', '<', '>'].contains(&character))
        .unwrap_or(rest.len());
    let (comparison, value) = rest.split_at(length);
    tokens.push(classified(name.to_owned(), offset));
    tokens.push(classified(comparison.to_owned(), offset + name.len()));
    if !value.is_empty() {
        tokens.push(classified(value.to_owned(), offset + name.len() + length));
    }
}

fn classified(text: String, offset: usize) -> Token {
    let kind = match text.as_str() {
        "(" => Kind::Open,
        ")" => Kind::Close,
        "!" | "not" => Kind::Not,
        "&" | "&&" | "and" => Kind::And,
        "|" | "||" | "or" => Kind::Or,
        "=" | "==" | "eq" => Kind::Compare(Comparison::Equal),
        "!=" | "ne" | "neq" => Kind::Compare(Comparison::NotEqual),
        "<" | "lt" => Kind::Compare(Comparison::Less),
        "<=" | "le" | "leq" => Kind::Compare(Comparison::LessOrEqual),
        ">" | "gt" => Kind::Compare(Comparison::Greater),
        ">=" | "ge" | "geq" => Kind::Compare(Comparison::GreaterOrEqual),
        "state" => Kind::State { exclude: false },
        "exclude" | "excl" => Kind::State { exclude: true },
        word => TestWord::ALL
            .into_iter()
            .find(|test| test.name() == word)
            .map_or(Kind::Word, Kind::Test),
    };
    Token { kind, text, offset }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(text: &str) -> Vec<String> {
        tokens(text)
            .unwrap()
            .into_iter()
            .map(|token| token.text)
            .collect()
    }

    #[test]
    fn blanks_parentheses_and_comparisons_separate() {
        assert_eq!(
            texts("( sport = :22 )\tor\ndst 10/8"),
            ["(", "sport", "=", ":22", ")", "or", "dst", "10/8"]
        );
        assert_eq!(texts("!(sport>=:22)"), ["!", "(", "sport", ">=", ":22", ")"]);
        assert_eq!(texts("sport!=80 !nginx"), ["sport", "!=", "80", "!", "nginx"]);
        assert_eq!(
            texts(r"src unix:/a\ b \( x \)"),
            ["src", "unix:/a b", "(", "x", ")"]
        );
    }

    #[test]
    fn offsets_point_into_the_text() {
        let found = tokens("  (sport>=:22)").unwrap();
        let offsets = found.iter().map(|token| token.offset).collect::<Vec<_>>();
        assert_eq!(offsets, [2, 3, 8, 10, 13]);
    }

    #[test]
    fn items_alone_are_no_expression() {
        assert!(!are_expression(&tokens("8080 nginx 10.0.0.0/8").unwrap()));
        assert!(are_expression(&tokens("not nginx").unwrap()));
    }

    proptest! {
        #[test]
        fn any_text_is_cut_and_offsets_rise(text in any::<String>()) {
            let found = tokens(&text).unwrap();
            prop_assert!(found.is_sorted_by_key(|token| token.offset));
            prop_assert!(found.iter().all(|token| text.is_char_boundary(token.offset)));
        }
    }
}
