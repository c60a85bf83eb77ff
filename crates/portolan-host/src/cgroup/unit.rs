//! systemd units by the names of their cgroups (systemd.unit(5), and its document on the cgroup interface).

/// The most particular unit in a path: of a user's own manager if there is one, else of the system's.
pub(super) fn find(parts: &[&str]) -> Option<String> {
    let (unit, rest) = first_unit(parts)?;
    if unit.starts_with("user@")
        && let Some((inner, _)) = first_unit(rest)
        // The user's manager itself runs in a scope of this name: it is the service.
        && inner != "init.scope"
    {
        return Some(inner);
    }
    Some(unit)
}

/// The unit below the slices at the beginning of a path, and what follows it.
///
/// A service may make cgroups of its own below its unit's, with any names.
fn first_unit<'a, 'b>(parts: &'a [&'b str]) -> Option<(String, &'a [&'b str])> {
    let index = parts.iter().position(|part| !part.ends_with(".slice"))?;
    // A name that could be taken for one of the kernel's files has an underscore before it.
    let name = parts[index].strip_prefix('_').unwrap_or(parts[index]);
    is_unit(name).then(|| (name.to_owned(), &parts[index + 1..]))
}

/// Whether `name` is that of a unit which can hold processes.
fn is_unit(name: &str) -> bool {
    let Some((stem, kind)) = name.rsplit_once('.') else {
        return false;
    };
    !stem.is_empty()
        && name.len() < UNIT_NAME_MAX
        && stem
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte))
        && matches!(kind, "service" | "scope" | "socket" | "mount" | "swap")
}

/// Undoes systemd's escapes in a name: `\x2d` is a hyphen.
pub(super) fn unescape(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = match after {
            [b'x', high, low, ..] if first == b'\\' => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                bytes.push(high << 4 | low);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// The length that no name of a unit reaches, in bytes.
const UNIT_NAME_MAX: usize = 256;
