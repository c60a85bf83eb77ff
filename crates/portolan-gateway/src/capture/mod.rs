//! What passes the device of a space, as a capture (pcapng).
//!
//! ```text
//!   device ◀─▶ Tap ◀─▶ stack
//!               └▶ Recorder ─┬▶ Beginnings ─▶ whose flow is it? ─▶ remark
//!                            └▶ packets of the wire, checksums complete ─▶ CaptureWriter ─▶ Output ─▶ file
//! ```
//!
//! Directions are those of the program's device. A packet is in the file before the other side has it, whoever ends the
//! gateway and how; so the network is no faster than the file. What cannot be written is counted, and holds nothing up.

mod beginnings;
mod hooks;
mod output;

use std::fs::File;
use std::io;
use std::mem;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use portolan_capture::{CaptureInterface, CaptureWriter, CapturedPacket, Direction};
use portolan_net::link::{self, Batch, Observer};
use portolan_stack::{Packet, Pieces};
use serde::Serialize;

use self::beginnings::Beginnings;
pub use self::hooks::{Trouble, Whose};
use self::output::Output;
/// What a capture is to be.
#[derive(Debug)]
pub struct CaptureConfig<'a> {
    /// Where it goes: a file that is empty, a pipe, a device.
    pub file: File,
    /// The program's device, and its addresses.
    pub interface: CaptureInterface<'a>,
    /// What addresses are called.
    pub names: &'a [(IpAddr, &'a str)],
    /// Says whose a flow is.
    pub whose: Whose,
    /// Hears once, and at once, why packets cannot be written.
    pub trouble: Trouble,
}

/// A capture that is being made. This is a handle; [`Recorder`] makes it.
#[derive(Clone, Debug)]
pub struct Capture(Arc<Mutex<Recording>>);

/// Puts what it observes into a capture.
#[derive(Debug)]
pub struct Recorder(Arc<Mutex<Recording>>);

/// What a capture has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CaptureCounts {
    /// Packets in the file.
    pub packets: u64,
    /// Packets that could not be written.
    pub missing: u64,
    /// Packets to the program, as the device carried them: super-segments are one.
    #[serde(rename = "in")]
    pub inward: u64,
    /// The same of those that it sent.
    #[serde(rename = "out")]
    pub outward: u64,
}

#[derive(Debug)]
struct Recording {
    /// Puts together what goes into the file next, with so many packets in it.
    writer: CaptureWriter<Vec<u8>>,
    batched: u64,
    /// What every capture begins with, until it is in the file.
    head: Vec<u8>,
    output: Output,
    /// Packets of those that count as written which the output still holds.
    held: u64,
    beginnings: Beginnings,
    whose: Whose,
    trouble: Option<Trouble>,
    counts: CaptureCounts,
    /// Packets that are missing since the last one that was written.
    gap: u64,
    /// One packet of the wire.
    piece: Box<[u8]>,
    /// When it began, since 1970 and by the clock that never goes back.
    began: (Duration, Instant),
}

impl Capture {
    /// Begins a capture. To be called in a runtime with I/O.
    ///
    /// # Errors
    /// If the runtime cannot wait for the pipe that `config` names.
    pub fn begin(config: CaptureConfig<'_>) -> io::Result<(Self, Recorder)> {
        let mut writer = CaptureWriter::new(Vec::new(), &config.interface)?;
        if !config.names.is_empty() {
            writer.names(config.names)?;
        }
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut recording = Recording {
            head: mem::take(writer.sink()),
            writer,
            batched: 0,
            output: Output::new(config.file)?,
            held: 0,
            beginnings: Beginnings::default(),
            whose: config.whose,
            trouble: Some(config.trouble),
            counts: CaptureCounts::default(),
            gap: 0,
            piece: vec![0; Batch::MAX_PACKET].into(),
            began: (since_1970, Instant::now()),
        };
        // Who reads while it is written knows at once what it is.
        recording.write_batch();
        let shared = Arc::new(Mutex::new(recording));
        Ok((Self(Arc::clone(&shared)), Recorder(shared)))
    }

    /// What it has so far.
    #[must_use]
    pub fn counts(&self) -> CaptureCounts {
        lock(&self.0).counts
    }

    /// Writes what is still to be written, and the sums, and closes the file: nothing is recorded any more. Whoever is to
    /// read it from a pipe has `patience` to do so.
    #[must_use]
    pub fn finish(self, patience: Duration) -> CaptureCounts {
        let mut recording = lock(&self.0);
        recording.finish(patience);
        recording.counts
    }
}

impl Observer for Recorder {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut recording = lock(&self.0);
        match recording.output.poll_ready(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(())) => recording.held = 0,
            Poll::Ready(Err(error)) => recording.lose_held(&error),
        }
        Poll::Ready(())
    }

    fn observe(&mut self, direction: link::Direction, packet: Packet<'_>) {
        lock(&self.0).record(direction, packet);
    }

    fn turn_ends(&mut self) {
        lock(&self.0).write_batch();
    }
}

impl Recording {
    fn record(&mut self, direction: link::Direction, packet: Packet<'_>) {
        // What the stack receives, the program has sent.
        let direction = match direction {
            link::Direction::In => Direction::Out,
            link::Direction::Out => Direction::In,
        };
        match direction {
            Direction::In => self.counts.inward += 1,
            Direction::Out => self.counts.outward += 1,
        }
        let time = self.now();
        let beginning = self.beginnings.look(direction, packet.bytes);
        let mut remark = beginning
            .and_then(|beginning| self.whose.ask(&beginning))
            .unwrap_or_default();
        let mut piece = mem::take(&mut self.piece);
        match Pieces::new(packet) {
            // What cannot be cut is for the stack to refuse.
            Err(_) => self.batch(time, direction, &remark, packet.bytes),
            Ok(mut pieces) => {
                while let Some(len) = pieces.write_next(&mut piece) {
                    self.batch(time, direction, &remark, &piece[..len]);
                    remark.clear();
                }
            }
        }
        self.piece = piece;
    }

    fn batch(&mut self, time: Duration, direction: Direction, comment: &str, bytes: &[u8]) {
        let packet = CapturedPacket {
            time,
            direction,
            missing: if self.batched == 0 { self.gap } else { 0 },
            comment,
            bytes,
        };
        // Nothing keeps a vector from growing.
        let _ = self.writer.packet(&packet);
        self.batched += 1;
    }

    /// Writes what was put together, all of it or nothing.
    fn write_batch(&mut self) {
        let head = mem::take(&mut self.head);
        let packets = mem::take(&mut self.batched);
        let written = self.output.write(&[&head, self.writer.sink()]);
        self.writer.sink().clear();
        match written {
            Ok(()) => {
                self.gap = 0;
                self.counts.packets += packets;
                self.held = if self.output.is_waiting() { packets } else { 0 };
            }
            Err(error) => {
                self.head = head;
                self.gap += packets;
                self.counts.missing += packets;
                self.tell(&error);
            }
        }
    }

    fn finish(&mut self, patience: Duration) {
        let (time, CaptureCounts { packets, missing, .. }) = (self.now(), self.counts);
        let _ = self.writer.statistics(time, packets + missing, missing);
        self.write_batch();
        match self.output.finish(patience) {
            Ok(()) => self.held = 0,
            Err(error) => self.lose_held(&error),
        }
    }

    /// What the output still held will never be in the file.
    fn lose_held(&mut self, error: &io::Error) {
        let held = mem::take(&mut self.held);
        self.counts.packets -= held;
        self.counts.missing += held;
        self.gap += held;
        self.tell(error);
    }

    fn tell(&mut self, error: &io::Error) {
        if let Some(trouble) = self.trouble.take() {
            trouble.hear(error);
        }
    }

    fn now(&self) -> Duration {
        let (since_1970, began) = self.began;
        since_1970 + began.elapsed()
    }
}

/// No code that holds the lock can leave the recording half changed, so a panic elsewhere does not matter.
fn lock(recording: &Mutex<Recording>) -> MutexGuard<'_, Recording> {
    recording.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
