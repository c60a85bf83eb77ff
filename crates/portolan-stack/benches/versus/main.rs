//! The stack beside smoltcp, in memory, on one core: `cargo bench -p portolan-stack --bench versus`.
//!
//! Rates are per second of the thread's time on a core. The contenders take turns, round after round, so that what else the machine does falls on all of them; a
//! figure is the median of its rounds. `-- ROUNDS [SECONDS] [NAME]` sets how many rounds (5), how long each
//! measurement lasts (0.3 s), and which rows are measured.
//!
//! `-- turns COUNT NAME ours|smoltcp` runs the loop of one contender so many times and says how much it did: under
//! `valgrind --tool=callgrind`, the difference of two counts is what it takes in instructions.

mod ours;
mod peer;

use std::error::Error;
use std::time::Duration;

use ours::Way;
use rustix::time::{ClockId, clock_gettime};

/// What one contender does in one round, which lasts so long.
type Contender = fn(Length) -> f64;

/// How long a measurement lasts.
#[derive(Clone, Copy)]
enum Length {
    Seconds(f64),
    /// So many turns of the contender's loop; the "rate" is how much was done in all of them.
    Turns(u32),
}

/// One question, the contenders' answers, and what is asked of us.
struct Row {
    name: &'static str,
    unit: &'static str,
    scale: f64,
    ours: Contender,
    peer: Contender,
}

const fn way(mtu: usize, checksum_offload: bool, segmentation_offload: bool) -> Way {
    Way {
        mtu,
        checksum_offload,
        segmentation_offload,
    }
}

const ROWS: [Row; 9] = [
    Row {
        name: "TCP, MTU 1500, checksums computed",
        unit: "GB/s",
        scale: 1e-9,
        ours: |length| ours::bulk(way(1500, false, false), length),
        peer: |length| peer::bulk(1500, true, length),
    },
    Row {
        name: "TCP, MTU 1500, checksums offloaded",
        unit: "GB/s",
        scale: 1e-9,
        ours: |length| ours::bulk(way(1500, true, false), length),
        peer: |length| peer::bulk(1500, false, length),
    },
    Row {
        name: "TCP, MTU 65535, checksums computed",
        unit: "GB/s",
        scale: 1e-9,
        ours: |length| ours::bulk(way(65_535, false, false), length),
        peer: |length| peer::bulk(65_535, true, length),
    },
    Row {
        name: "TCP, MTU 65535, checksums offloaded",
        unit: "GB/s",
        scale: 1e-9,
        ours: |length| ours::bulk(way(65_535, true, false), length),
        peer: |length| peer::bulk(65_535, false, length),
    },
    Row {
        name: "TCP, super-segments, MTU 1500",
        unit: "GB/s",
        scale: 1e-9,
        ours: |length| ours::bulk(way(1500, true, true), length),
        peer: |length| peer::bulk(1500, false, length).max(peer::bulk(65_535, false, length)),
    },
    Row {
        name: "TCP, MTU 1500, programs that copy",
        unit: "GB/s",
        scale: 1e-9,
        ours: |length| ours::bulk_copied(way(1500, false, false), length),
        peer: |length| peer::bulk_copied(1500, true, length),
    },
    Row {
        name: "UDP, datagrams of 64 bytes",
        unit: "M/s",
        scale: 1e-6,
        ours: ours::datagrams,
        peer: peer::datagrams,
    },
    Row {
        name: "TCP, connect and close",
        unit: "k/s",
        scale: 1e-3,
        ours: ours::connections,
        peer: peer::connections,
    },
    Row {
        name: "a segment in, 10,000 connections",
        unit: "ns",
        scale: 1.0,
        ours: |length| ours::segment_in(10_000, length),
        peer: |length| peer::segment_in(10_000, length),
    },
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut numbers = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .peekable();
    if numbers.next_if_eq("turns").is_some() {
        return run_turns(numbers);
    }
    let rounds: usize = numbers.next().map_or(Ok(5), |text| text.parse())?;
    let seconds: f64 = numbers.next().map_or(Ok(0.3), |text| text.parse())?;
    let only = numbers.next();
    println!(
        "{:<40} {:>10} {:>10} {:>8}  unit",
        "", "portolan", "smoltcp", "ratio"
    );
    for row in ROWS
        .iter()
        .filter(|row| only.as_ref().is_none_or(|only| row.name.contains(only.as_str())))
    {
        let mut figures = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for (figures, contender) in figures.iter_mut().zip([row.ours, row.peer]) {
                figures.push(contender(Length::Seconds(seconds)) * row.scale);
            }
        }
        let [ours, peer] = figures.map(median);
        println!(
            "{:<40} {ours:>10.2} {peer:>10.2} {:>8.2}  {}",
            row.name,
            ours / peer,
            row.unit
        );
    }
    Ok(())
}

/// One contender, for so many turns.
fn run_turns(mut arguments: impl Iterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let turns = Length::Turns(arguments.next().ok_or("how many turns?")?.parse()?);
    let name = arguments.next().ok_or("which row?")?;
    let row = ROWS
        .iter()
        .find(|row| row.name.contains(&name))
        .ok_or("there is no such row")?;
    let contender = match arguments.next().as_deref() {
        Some("smoltcp") => row.peer,
        _ => row.ours,
    };
    println!("{}: {}", row.name, contender(turns));
    Ok(())
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Counts for some seconds of this thread's time on a core, after a tenth of a second of warming up. Time that
/// other programs have the core does not count.
struct Measure {
    turns: Option<u32>,
    warm_until: Duration,
    length: Duration,
    start: Option<Duration>,
    rounds: u32,
    count: usize,
    is_over: bool,
}

impl Measure {
    fn new(length: Length) -> Self {
        // Valgrind has no clock that could be asked.
        let (turns, length, start) = match length {
            Length::Seconds(seconds) => (None, Duration::from_secs_f64(seconds), time_on_core()),
            Length::Turns(turns) => (Some(turns), Duration::from_secs(1), Duration::ZERO),
        };
        Self {
            turns,
            warm_until: start + length.min(Duration::from_millis(100)),
            length,
            start: None,
            rounds: 0,
            count: 0,
            is_over: false,
        }
    }

    /// Whether to go on; asks for the time every 32nd time.
    fn goes_on(&mut self) -> bool {
        self.rounds = self.rounds.wrapping_add(1);
        if let Some(turns) = self.turns {
            return self.rounds <= turns;
        }
        if self.rounds.is_multiple_of(32) {
            let now = time_on_core();
            match self.start {
                None if now >= self.warm_until => (self.start, self.count) = (Some(now), 0),
                Some(start) if now >= start + self.length => {
                    self.length = now - start;
                    self.is_over = true;
                }
                _ => {}
            }
        }
        !self.is_over
    }

    fn add(&mut self, count: usize) {
        self.count += count;
    }

    /// How many a second.
    fn rate(&self) -> f64 {
        self.count as f64 / self.length.as_secs_f64()
    }

    /// How long each took, in nanoseconds; how many there were, if turns are counted.
    fn nanos(&self) -> f64 {
        match self.turns {
            Some(_) => self.rate(),
            None => 1e9 / self.rate(),
        }
    }
}

fn time_on_core() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
