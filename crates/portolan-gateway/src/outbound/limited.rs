//! An end whose bytes count for the limit of a rule.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use portolan_relay::{Chunk, Disturbance, End};

use crate::gate::Limiter;

/// Reads no more than a rule allows in a time. The end has to wait as the bytes before it do, so it is not told early.
pub(super) struct Limited<E> {
    end: E,
    limiter: Arc<Limiter>,
    /// Until when nothing is read.
    until: Mutex<Option<Instant>>,
}

impl<E> Limited<E> {
    pub(super) const fn new(end: E, limiter: Arc<Limiter>) -> Self {
        Self {
            end,
            limiter,
            until: Mutex::new(None),
        }
    }
}

impl<E: End> End for Limited<E> {
    /// It waits before it reads: dropped, it has taken nothing.
    async fn read_chunk(&self, room: &mut BytesMut, max: usize) -> io::Result<Chunk> {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = until {
            tokio::time::sleep_until(until.into()).await;
        }
        let chunk = self.end.read_chunk(room, max).await?;
        let now = Instant::now();
        let wait = self.limiter.carry(chunk.bytes.len() as u64, now);
        let until = (!wait.is_zero()).then(|| now + wait);
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
        Ok(chunk)
    }

    async fn write_chunk(&self, chunk: &mut Bytes, is_last: bool) -> io::Result<()> {
        self.end.write_chunk(chunk, is_last).await
    }

    async fn write_urgent(&self, chunk: &mut Bytes) -> io::Result<()> {
        self.end.write_urgent(chunk).await
    }

    fn must_finish(&self) {
        self.end.must_finish();
    }

    fn finish(&self) -> io::Result<()> {
        self.end.finish()
    }

    async fn failed(&self) -> io::Error {
        self.end.failed().await
    }

    async fn disturbed(&self) -> Disturbance {
        self.end.disturbed().await
    }

    async fn is_there(&self) {
        self.end.is_there().await;
    }

    fn answer(&self) {
        self.end.answer();
    }

    async fn sent(&self) {
        self.end.sent().await;
    }

    fn reset(self) {
        self.end.reset();
    }
}
