//! Places for connections, of which there are a few: who is idle for longest gives way to who comes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The places, and who of those that hold one is idle.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    idle: Mutex<Idle>,
    /// That somebody became idle.
    news: Notify,
}

#[derive(Debug, Default)]
struct Idle {
    /// By the order in which they became so.
    who: BTreeMap<u64, Arc<Notify>>,
    next: u64,
}

/// A place, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    /// That it is to be given up; kept until it is.
    gives_way: Arc<Notify>,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Arc::new(Semaphore::new(count)),
            idle: Mutex::default(),
            news: Notify::new(),
        })
    }

    /// Waits for a place: not long if one of those that are taken is idle.
    pub(super) async fn take(self: &Arc<Self>) -> Place {
        let free = Arc::clone(&self.free);
        let permit = match Arc::clone(&free).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let mut acquiring = std::pin::pin!(free.acquire_owned());
                let made_room = async {
                    while !self.evict() {
                        self.news.notified().await;
                    }
                    std::future::pending().await
                };
                let acquired = tokio::select! {
                    biased;
                    acquired = &mut acquiring => acquired,
                    never = made_room => never,
                };
                acquired.expect("the semaphore is never closed")
            }
        };
        Place {
            places: Arc::clone(self),
            gives_way: Arc::default(),
            _permit: permit,
        }
    }

    /// Tells who is idle for longest to go; `false` if nobody is.
    fn evict(&self) -> bool {
        let longest = self.idle().who.pop_first();
        longest.inspect(|(_, who)| who.notify_one()).is_some()
    }

    /// No code that holds the lock can leave it half changed, so a panic elsewhere does not matter.
    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits for something as one who is idle; `None` if the place is to be given up.
    pub(super) async fn idle<T>(&self, something: impl Future<Output = T>) -> Option<T> {
        let number = {
            let mut idle = self.places.idle();
            idle.next += 1;
            let number = idle.next;
            idle.who.insert(number, Arc::clone(&self.gives_way));
            number
        };
        let _entry = Entry {
            places: &self.places,
            number,
        };
        self.places.news.notify_one();
        tokio::select! {
            biased;
            result = something => Some(result),
            () = self.gives_way.notified() => None,
        }
    }
}

/// Somebody among those who are idle, for as long as it is.
struct Entry<'a> {
    places: &'a Places,
    number: u64,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.places.idle().who.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::sync::oneshot;
    use tokio::task::yield_now;

    use super::*;

    /// Somebody who is idle until it is told otherwise, and then gives way or answers.
    async fn idler(place: Place, told: oneshot::Receiver<()>) -> bool {
        place.idle(told).await.is_some()
    }

    #[tokio::test]
    async fn the_longest_idle_gives_way_and_nobody_else() {
        let places = Places::new(3);
        let busy = places.take().await;
        assert_eq!(busy.idle(ready(7)).await, Some(7));
        let mut idlers = Vec::new();
        for _ in 0..2 {
            let (tell, told) = oneshot::channel();
            let idler = tokio::spawn(idler(places.take().await, told));
            // It is idle before the next one is.
            yield_now().await;
            idlers.push((tell, idler));
        }
        let third = places.take().await;
        let (_tell, first) = idlers.remove(0);
        assert!(!first.await.unwrap(), "it gave way");
        let (tell, second) = idlers.remove(0);
        tell.send(()).unwrap();
        assert!(second.await.unwrap(), "it was left alone");
        drop((busy, third));
        assert_eq!(places.free.available_permits(), 3);
        assert!(places.idle().who.is_empty());
    }

    #[tokio::test]
    async fn who_comes_when_all_are_busy_has_the_place_of_the_first_that_is_idle() {
        let places = Places::new(1);
        let busy = places.take().await;
        let taking = tokio::spawn({
            let places = Arc::clone(&places);
            async move { places.take().await }
        });
        yield_now().await;
        assert!(!taking.is_finished());
        // It has something to do before it is idle for long.
        assert_eq!(busy.idle(ready(())).await, Some(()));
        yield_now().await;
        assert_eq!(busy.idle(pending::<()>()).await, None);
        drop(busy);
        taking.await.unwrap();
    }
}
