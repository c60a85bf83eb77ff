//! The limit of open descriptors: a published port takes one, and so does each connection to it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are left for all else: devices, the runtime, the first connections.
pub(super) const RESERVE: u64 = 64;

/// Descriptors that no connection takes: for as many sockets of datagrams (4,096) and pings (256) as there may be, and for
/// all else. Where a quarter of what is left is less than that, it is that quarter: published ports may take most.
const OTHERS: u64 = 4_096 + 256 + 256;

/// Raises the limit of open descriptors to what this process may have at most; gives the limit that there was, which
/// programs that are started later should get back: select(2) takes no descriptor above 1023.
pub fn raise_descriptor_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        // If it is refused, the old limit is what counts, and what is asked of it is checked.
        let _ = setrlimit(Resource::Nofile, raised);
    }
    limit.current
}

/// How many connections there may be at once, so that descriptors are left for those who need one for a moment, or later:
/// look-ups of names, sockets of datagrams and pings, who publishes a port or asks for the list. Who opens connections
/// without end takes those of connections alone.
pub(crate) fn connections_max() -> usize {
    let (limit, open) = limit_and_use();
    limit.map_or(usize::MAX, |limit| {
        let left = limit.saturating_sub(open);
        usize::try_from(left - OTHERS.min(left / 4)).unwrap_or(usize::MAX)
    })
}

/// What this process may have open, `None` for no limit, and what it has.
pub(super) fn limit_and_use() -> (Option<u64>, u64) {
    let path = "/proc/self/fd";
    // The size is their number from Linux 6.2 on, and 0 before. To read all the names of many takes a tenth of a second.
    let open = match std::fs::metadata(path) {
        Ok(data) if data.len() > 0 => data.len(),
        // One of those that are counted is the directory itself.
        _ => std::fs::read_dir(path).map_or(0, |entries| entries.count().saturating_sub(1) as u64),
    };
    (getrlimit(Resource::Nofile).current, open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_are_open_are_counted() {
        let (_, before) = limit_and_use();
        let opened: Vec<_> = (0..500).map(|_| std::io::pipe().unwrap()).collect();
        let (_, with) = limit_and_use();
        drop(opened);
        // Other tests open some and close some at the same time.
        assert!((before + 900..before + 1_500).contains(&with), "{before}, {with}");
    }
}
