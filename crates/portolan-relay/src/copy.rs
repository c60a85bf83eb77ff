//! Relaying between any two ends, chunk by chunk.

use std::future::{Future, pending};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BytesMut;

use crate::end::{Chunk, Disturbance, End};
use crate::flow::{Counters, Ending, Options, Side, stopped};

/// The most that is read at once, in bytes.
const MAX_CHUNK: usize = 64 << 10;

/// Passes bytes between `one` and `other`, both ways, until it is over. Chunks are passed on as they come: between ends
/// that share chunks, nothing is copied.
pub async fn relay<A: End, B: End>(one: A, other: B, options: Options, counters: Arc<Counters>) -> Ending {
    one.must_finish();
    other.must_finish();
    // Whether a side's bytes were taken from it and not given yet: what follows them must not go before them.
    let held = [AtomicBool::new(false), AtomicBool::new(false)];
    let ending = {
        // Pinned here, or each would be there twice: as what is waited for, and as what the block below was given.
        let there = pin!(direction(&one, Side::One, &other, &counters, &held[0]));
        let back = pin!(direction(&other, Side::Other, &one, &counters, &held[1]));
        let both = async { tokio::try_join!(there, back) };
        // What can be passed on is, before it is looked whether something failed.
        tokio::select! {
            biased;
            done = both => match done {
                Ok(_) => Ending::Finished,
                Err((side, error)) => Ending::Failed(side, error),
            },
            error = watch(&one, &other) => Ending::Failed(Side::One, error),
            error = watch(&other, &one) => Ending::Failed(Side::Other, error),
            ending = stopped(&options, &counters) => ending,
        }
    };
    match &ending {
        Ending::Finished => return ending,
        Ending::Failed(Side::One, _) if !held[0].load(Ordering::Relaxed) => {
            last_words(&one, Side::One, &other, &counters).await;
        }
        Ending::Failed(Side::Other, _) if !held[1].load(Ordering::Relaxed) => {
            last_words(&other, Side::Other, &one, &counters).await;
        }
        Ending::Failed(..) | Ending::Idle | Ending::Drained => {}
    }
    one.reset();
    other.reset();
    ending
}

/// Passes on what one side sent before it failed, as far as the other takes it at once: the kernel too gives a reader the
/// bytes before the reset.
async fn last_words(source: &impl End, side: Side, target: &impl End, counters: &Counters) {
    let mut room = BytesMut::new();
    while let Some(Ok(Chunk { mut bytes, is_urgent })) =
        at_once(source.read_chunk(&mut room, MAX_CHUNK)).await
        && !bytes.is_empty()
    {
        while !bytes.is_empty() {
            let before = bytes.len();
            let written = if is_urgent {
                at_once(target.write_urgent(&mut bytes)).await
            } else {
                at_once(target.write_chunk(&mut bytes, false)).await
            };
            let Some(Ok(())) = written else {
                return;
            };
            counters.add(side, before - bytes.len());
        }
    }
    target.sent().await;
}

/// Waits until an end fails. Meanwhile it is answered when it asks whether somebody is there, if the opposite end is.
async fn watch<'a>(end: &'a impl End, opposite: &'a impl End) -> io::Error {
    let mut asking: Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>> = None;
    loop {
        let is_there = async {
            match &mut asking {
                Some(asking) => asking.await,
                None => pending().await,
            }
        };
        let disturbance = tokio::select! {
            biased;
            disturbance = end.disturbed() => Some(disturbance),
            () = is_there => None,
        };
        asking = match disturbance {
            Some(Disturbance::Failed(error)) => return error,
            // Who asks again has heard nothing: so is the opposite end asked again.
            Some(Disturbance::Asked) => Some(Box::pin(opposite.is_there())),
            None => {
                end.answer();
                None
            }
        };
    }
}

/// What can be had without waiting.
async fn at_once<T>(action: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        result = action => Some(result),
        () = std::future::ready(()) => None,
    }
}

/// Passes on what comes from one side until that side is done.
async fn direction(
    source: &impl End,
    side: Side,
    target: &impl End,
    counters: &Counters,
    is_held: &AtomicBool,
) -> Result<(), (Side, io::Error)> {
    let opposite = match side {
        Side::One => Side::Other,
        Side::Other => Side::One,
    };
    let mut room = BytesMut::new();
    loop {
        let read = source.read_chunk(&mut room, MAX_CHUNK).await;
        let Chunk { mut bytes, is_urgent } = read.map_err(|error| (side, error))?;
        if bytes.is_empty() {
            break;
        }
        is_held.store(true, Ordering::Relaxed);
        if is_urgent {
            while !bytes.is_empty() {
                let before = bytes.len();
                // It is seldom, and the connection no larger for it.
                let written = Box::pin(target.write_urgent(&mut bytes)).await;
                written.map_err(|error| (opposite, error))?;
                counters.add(side, before - bytes.len());
            }
            is_held.store(false, Ordering::Relaxed);
            continue;
        }
        // What did not fill the room may be the last.
        let is_last = bytes.len() < MAX_CHUNK && source.is_at_end();
        while !bytes.is_empty() {
            let before = bytes.len();
            let written = target.write_chunk(&mut bytes, is_last).await;
            written.map_err(|error| (opposite, error))?;
            counters.add(side, before - bytes.len());
        }
        is_held.store(false, Ordering::Relaxed);
        if is_last {
            break;
        }
    }
    target.finish().map_err(|error| (opposite, error))?;
    counters.finish(side);
    Ok(())
}
