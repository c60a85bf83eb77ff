//! How many relays there may be, and their end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// A bound on relays that run at once, and the way to end them all.
#[derive(Clone, Debug)]
pub struct Relays {
    places: Arc<Semaphore>,
    limit: u32,
    running: Arc<AtomicUsize>,
    end: Arc<watch::Sender<bool>>,
}

/// A place among [`Relays`], held while a connection is relayed.
#[derive(Debug)]
pub struct Permit {
    _place: OwnedSemaphorePermit,
    running: Arc<AtomicUsize>,
    end: watch::Receiver<bool>,
}

impl Relays {
    /// At most `limit` at once.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        Self {
            places: Arc::new(Semaphore::new(limit as usize)),
            limit,
            running: Arc::default(),
            end: Arc::new(watch::Sender::new(false)),
        }
    }

    /// A place for one more, or `None`: there are enough, or they are being drained.
    #[must_use]
    pub fn admit(&self) -> Option<Permit> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        self.running.fetch_add(1, Ordering::Relaxed);
        Some(Permit {
            _place: place,
            running: Arc::clone(&self.running),
            end: self.end.subscribe(),
        })
    }

    /// How many run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// Admits no more, waits until those that run are over, and ends those that are not after `patience`. Gives how many
    /// had to be ended.
    pub async fn drain(&self, patience: Duration) -> usize {
        // Whoever holds all places lets nobody in.
        let all = self.places.acquire_many(self.limit);
        tokio::pin!(all);
        let ended = match tokio::time::timeout(patience, &mut all).await {
            Ok(_) => 0,
            Err(_) => {
                let ended = self.running();
                self.end.send_replace(true);
                let _ = all.await;
                ended
            }
        };
        self.places.close();
        ended
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Permit {
    /// Waits until the relay is to end.
    pub(crate) async fn told_to_end(&self) {
        let mut end = self.end.clone();
        // All senders gone means that nobody can tell any more.
        if end.wait_for(|end| *end).await.is_err() {
            std::future::pending().await
        }
    }
}
