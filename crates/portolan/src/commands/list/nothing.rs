//! What is said when no socket fits.

use portolan_core::Escaped;
use portolan_host::{ProtocolSet, Snapshot, StateSet};

use crate::footer::{say, shortened};

/// Says that no socket fits, and what was looked for.
pub(super) fn say_nothing(
    filter: &[String],
    protocols: ProtocolSet,
    states: StateSet,
    space: Option<&str>,
    snapshot: &Snapshot,
) {
    let protocols = match protocols {
        ProtocolSet::PORTS | ProtocolSet::ALL => String::new(),
        some => some.iter().map(|protocol| format!("{protocol} ")).collect(),
    };
    let what = match states {
        StateSet::OPEN => "socket is open".to_owned(),
        StateSet::ALL => "socket is there".to_owned(),
        some => {
            let names = some.iter().map(|state| state.to_string()).collect::<Vec<_>>();
            format!("socket in state {}", names.join(" or "))
        }
    };
    let fits = match filter {
        [] => String::new(),
        words => format!(" that fits `{}`", shortened(&words.join(" "))),
    };
    let place = match space {
        Some(space) => format!(" in {}", shortened(space)),
        None => String::new(),
    };
    let all = match states {
        StateSet::OPEN if !filter.is_empty() => "; --all looks at connections too",
        _ => "",
    };
    let similar = similar_holder(filter, snapshot);
    say(&format!("no {protocols}{what}{place}{fits}{all}{similar}"));
}

/// A holder whose name begins with the only word of the filter: `python` for `python3`.
fn similar_holder(filter: &[String], snapshot: &Snapshot) -> String {
    let [word] = filter else {
        return String::new();
    };
    let names = snapshot
        .processes
        .values()
        .filter_map(|process| process.name.to_str())
        .filter(|name| word.len() >= 3 && name.len() > word.len() && name.starts_with(word.as_str()));
    match names.min() {
        Some(name) => format!("; there is {}: write '{}*'", Escaped::new(name), shortened(word)),
        None => String::new(),
    }
}
