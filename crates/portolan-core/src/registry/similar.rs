//! "Did you mean": names that a mistyped one is near to.

/// The longest name for which neighbours are looked for, in bytes.
const LONGEST: usize = 40;

/// The `count` of `names` that are nearest to `typed`, nearest first; at most two mistakes away, one for
/// names of up to four letters. A mistake is a letter missing, added, changed, or swapped with the next.
pub(super) fn nearest<'a>(typed: &str, names: impl Iterator<Item = &'a str>, count: usize) -> Vec<&'a str> {
    if typed.is_empty() || typed.len() > LONGEST {
        return Vec::new();
    }
    let typed = typed.to_ascii_lowercase();
    let limit = if typed.len() <= 4 { 1 } else { 2 };
    let mut found: Vec<(usize, bool, &str)> = names
        .filter(|name| name.len().abs_diff(typed.len()) <= limit)
        .filter_map(|name| {
            let distance = distance(typed.as_bytes(), name.as_bytes());
            // Of equally near names, the one with the same first letter: that one is seldom mistyped.
            let other_head = typed.as_bytes().first() != name.as_bytes().first();
            (distance <= limit).then_some((distance, other_head, name))
        })
        .collect();
    found.sort_unstable();
    found.dedup_by_key(|&mut (_, _, name)| name);
    found.truncate(count);
    found.into_iter().map(|(_, _, name)| name).collect()
}

/// The number of mistakes between two names (optimal string alignment).
///
/// The length of `a` is at most [`LONGEST`], that of `b` two more.
fn distance(a: &[u8], b: &[u8]) -> usize {
    const WIDTH: usize = LONGEST + 3;
    let mut before = [0; WIDTH];
    let mut last: [usize; WIDTH] = std::array::from_fn(|column| column);
    for row in 1..=a.len() {
        let mut now = [row; WIDTH];
        for column in 1..=b.len() {
            let changed = usize::from(!a[row - 1].eq_ignore_ascii_case(&b[column - 1]));
            let mut least = (last[column - 1] + changed)
                .min(last[column] + 1)
                .min(now[column - 1] + 1);
            if row > 1 && column > 1 && a[row - 1] == b[column - 2] && a[row - 2] == b[column - 1] {
                least = least.min(before[column - 2] + 1);
            }
            now[column] = least;
        }
        before = last;
        last = now;
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_counted() {
        for (a, b, expected) in [
            ("http", "http", 0),
            ("htpt", "http", 1),
            ("htp", "http", 1),
            ("httpp", "http", 1),
            ("hxxp", "http", 2),
            ("", "abc", 3),
        ] {
            assert_eq!(distance(a.as_bytes(), b.as_bytes()), expected, "{a} {b}");
        }
    }

    #[test]
    fn the_nearest_come_first_and_far_ones_not_at_all() {
        let names = ["https", "http", "xttp", "imap", "htpasswd"];
        assert_eq!(nearest("HTPT", names.into_iter(), 3), ["http"]);
        assert_eq!(nearest("httpz", names.into_iter(), 3), ["http", "https", "xttp"]);
        assert_eq!(nearest("", names.into_iter(), 3), [""; 0]);
        assert_eq!(nearest(&"h".repeat(1000), names.into_iter(), 3), [""; 0]);
    }
}
