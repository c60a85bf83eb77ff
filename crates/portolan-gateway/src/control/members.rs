//! The programs that have joined a space, and are still there.

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::JoinedItem;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Members {
    entries: Mutex<Vec<Arc<Entry>>>,
    /// Told when one has gone.
    gone: Notify,
}

#[derive(Debug)]
struct Entry {
    command: Vec<String>,
    since: Instant,
    pid: AtomicI32,
}

/// One of them, listed until this is dropped.
#[derive(Debug)]
pub(super) struct Member<'a> {
    all: &'a Members,
    entry: Arc<Entry>,
}

/// More cannot join one space.
const MEMBERS_MAX: usize = 1_024;

impl Members {
    /// Lists one more; `None` if there are too many.
    pub(super) fn enter(&self, command: Vec<String>) -> Option<Member<'_>> {
        let entry = Arc::new(Entry {
            command,
            since: Instant::now(),
            pid: AtomicI32::new(0),
        });
        let mut entries = self.entries();
        if entries.len() >= MEMBERS_MAX {
            return None;
        }
        entries.push(Arc::clone(&entry));
        drop(entries);
        Some(Member { all: self, entry })
    }

    /// Those that are there, in the order of their coming.
    pub(super) fn list(&self) -> Vec<JoinedItem> {
        let entries = self.entries();
        let items = entries.iter().map(|entry| JoinedItem {
            pid: entry.pid.load(Ordering::Relaxed),
            command: entry.command.clone(),
            age: entry.since.elapsed().as_secs(),
        });
        items.collect()
    }

    /// Waits until there are none.
    pub(super) async fn none(&self) {
        loop {
            let gone = self.gone.notified();
            if self.entries().is_empty() {
                return;
            }
            gone.await;
        }
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Arc<Entry>>> {
        // Nothing that holds it panics half-way.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member<'_> {
    /// Says that it runs, in this process.
    pub(super) fn started(&self, pid: i32) {
        self.entry.pid.store(pid, Ordering::Relaxed);
    }
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        self.all
            .entries()
            .retain(|entry| !Arc::ptr_eq(entry, &self.entry));
        self.all.gone.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_gone_is_not_listed_and_makes_room() {
        let members = Members::default();
        let all: Vec<_> = (0..MEMBERS_MAX)
            .map(|number| members.enter(vec![number.to_string()]).unwrap())
            .collect();
        assert!(members.enter(vec![]).is_none());
        all[1].started(7);
        assert_eq!((members.list()[1].pid, members.list()[0].pid), (7, 0));
        let mut all = all.into_iter();
        drop(all.next());
        assert_eq!(members.list()[0].command, ["1"]);
        let last = members.enter(vec!["last".to_owned()]).unwrap();
        assert_eq!(members.list().len(), MEMBERS_MAX);
        drop((all, last));
        assert_eq!(members.list(), []);
    }

    #[tokio::test]
    async fn who_waits_for_the_last_to_go_is_told() {
        let members = Members::default();
        members.none().await;
        let (first, second) = (members.enter(vec![]), members.enter(vec![]));
        let mut none = std::pin::pin!(members.none());
        let mut is_told = async || tokio::select! { biased; () = &mut none => true, () = tokio::task::yield_now() => false };
        assert!(!is_told().await);
        drop(first);
        assert!(!is_told().await);
        drop(second);
        assert!(is_told().await);
    }
}
