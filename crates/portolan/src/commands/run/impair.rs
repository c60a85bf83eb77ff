//! `--impair`: a bad network around the program, in words like those of tc-netem(8).

use std::str::FromStr;

use portolan_core::Escaped;
use portolan_net::Duration;
use portolan_net::link::{Impairment, Loss};

/// What happens to the packets of either direction, as the program sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct BadNetwork {
    /// To those that come to the program.
    pub(super) inward: Impairment,
    /// To those that it sends.
    pub(super) outward: Impairment,
}

/// Why a text is no bad network: one line of fewer than 400 characters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read \"{input}\" at {at}: {fault}")]
pub(super) struct ImpairError {
    input: String,
    /// The offset in bytes of what is wrong.
    at: usize,
    fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("nothing stands there; write what happens, as in \"delay 50ms, loss 1%\"")]
    Empty,
    #[error("no such impairment; there are delay, loss, rate, queue, reorder, duplicate and corrupt")]
    Unknown,
    #[error("{0} has been said already for this direction; say it once")]
    Twice(&'static str),
    #[error("a value is missing; write {0}")]
    Missing(&'static str),
    #[error("nothing more can stand there; put a comma before the next impairment")]
    TooMuch,
    #[error("no number; write {0}")]
    NotANumber(&'static str),
    #[error("no such unit; write {0}")]
    Unit(&'static str),
    #[error("out of range; write {0}")]
    Range(&'static str),
    #[error("a queue is before a rate; say that too, as in \"rate 10mbit, queue 64kB\"")]
    QueueWithoutRate,
    #[error("so short bursts cannot lose so much; make them longer")]
    Bursts,
}

const TIME: &str = "a time of at most 600s, as in 50ms, with us, ms or s";
const PERCENT: &str = "a share from 0% to 100%, as in 0.5%";
const RATE: &str = "a rate of 1kbit to 1000gbit a second, as in 10mbit, with kbit, mbit or gbit";
const SIZE: &str = "a size of at most 1GB, as in 64kB, with B, kB, MB or GB";
const BURST: &str =
    "\"burst\" and how many packets are lost in a row on average, from 1 to 10000, as in \"burst 5\"";

/// How much later a packet comes that others overtake, at most, if nothing is said.
const REORDER_DELAY: Duration = Duration::from_millis(10);
/// What waits for the rate, if nothing is said: the bytes of a fifth of a second, and as much as some packets.
const QUEUE_SHARE: u64 = 5;
const QUEUE_MIN: u64 = 32 << 10;

impl FromStr for BadNetwork {
    type Err = ImpairError;

    fn from_str(text: &str) -> Result<Self, ImpairError> {
        let fail = |(at, fault): At<Fault>| ImpairError {
            input: Escaped::new(text).bounded(80).to_string(),
            at,
            fault,
        };
        let (mut inward, mut outward) = (Side::default(), Side::default());
        let mut at = 0;
        for item in text.split(',') {
            let words = &mut Words {
                text,
                at,
                end: at + item.len(),
            };
            at += item.len() + 1;
            let (is_in, is_out) = directions(words).map_err(fail)?;
            let sides = [is_in.then_some(&mut inward), is_out.then_some(&mut outward)];
            read(words, sides.into_iter().flatten()).map_err(fail)?;
        }
        Ok(Self {
            inward: inward.whole().map_err(fail)?,
            outward: outward.whole().map_err(fail)?,
        })
    }
}

/// Something, and the offset in bytes at which it was found.
type At<T> = (usize, T);

/// The words of one item.
struct Words<'a> {
    text: &'a str,
    /// Where the next word is looked for.
    at: usize,
    end: usize,
}

impl<'a> Words<'a> {
    /// The next word, or nothing and where it would be.
    fn next(&mut self) -> At<&'a str> {
        let rest = &self.text[self.at..self.end];
        let start = self.at + (rest.len() - rest.trim_start().len());
        let word = self.text[start..self.end].split_whitespace().next().unwrap_or("");
        self.at = start + word.len();
        (start, word)
    }

    /// The same, if there has to be one: `what`.
    fn value(&mut self, what: &'static str) -> Result<At<&'a str>, At<Fault>> {
        match self.next() {
            (at, "") => Err((at, Fault::Missing(what))),
            word => Ok(word),
        }
    }
}

/// What has been said of one direction.
#[derive(Default)]
struct Side {
    impairment: Impairment,
    said: Vec<&'static str>,
    /// Where a queue was said.
    queue_at: Option<usize>,
}

impl Side {
    /// The impairment, when all has been said.
    fn whole(self) -> Result<Impairment, At<Fault>> {
        let Self {
            mut impairment,
            said,
            queue_at,
        } = self;
        match queue_at {
            Some(at) if !said.contains(&"rate") => return Err((at, Fault::QueueWithoutRate)),
            Some(_) => {}
            None => impairment.queue = (impairment.rate / QUEUE_SHARE).max(QUEUE_MIN),
        }
        Ok(impairment)
    }
}

/// For which directions an item is, in and out: `in:` and `out:` may stand before it.
fn directions(words: &mut Words<'_>) -> Result<(bool, bool), At<Fault>> {
    let (at, word) = words.next();
    let (directions, prefix) = match word {
        "" => return Err((at, Fault::Empty)),
        word if word.starts_with("in:") => ((true, false), "in:"),
        word if word.starts_with("out:") => ((false, true), "out:"),
        _ => ((true, true), ""),
    };
    words.at = at + prefix.len();
    Ok(directions)
}

/// Reads one impairment, for some directions.
fn read<'a>(words: &mut Words<'_>, sides: impl Iterator<Item = &'a mut Side>) -> Result<(), At<Fault>> {
    let (at, word) = words.next();
    let (name, change) = match word {
        "" => return Err((at, Fault::Empty)),
        "delay" => {
            let (delay, jitter) = (time(words.value(TIME)?)?, optional(words, time)?);
            ("delay", Change::Delay(delay, jitter.unwrap_or_default()))
        }
        "loss" => ("loss", Change::Loss(loss(words)?)),
        "rate" => ("rate", Change::Rate(rate(words.value(RATE)?)?)),
        "queue" => ("queue", Change::Queue(size(words.value(SIZE)?)?)),
        "reorder" => {
            let (chance, delay) = (share(words.value(PERCENT)?)?, optional(words, time)?);
            ("reorder", Change::Reorder(chance, delay.unwrap_or(REORDER_DELAY)))
        }
        "duplicate" => ("duplicate", Change::Duplicate(share(words.value(PERCENT)?)?)),
        "corrupt" => ("corrupt", Change::Corrupt(share(words.value(PERCENT)?)?)),
        _ => return Err((at, Fault::Unknown)),
    };
    let (rest_at, rest) = words.next();
    if !rest.is_empty() {
        return Err((rest_at, Fault::TooMuch));
    }
    for side in sides {
        if side.said.contains(&name) {
            return Err((at, Fault::Twice(name)));
        }
        side.said.push(name);
        change.make(side, at);
    }
    Ok(())
}

/// One thing that is said.
enum Change {
    Delay(Duration, Duration),
    Loss(Loss),
    Rate(u64),
    Queue(u64),
    Reorder(f64, Duration),
    Duplicate(f64),
    Corrupt(f64),
}

impl Change {
    fn make(&self, side: &mut Side, at: usize) {
        let impairment = &mut side.impairment;
        match *self {
            Self::Delay(delay, jitter) => (impairment.delay, impairment.jitter) = (delay, jitter),
            Self::Loss(loss) => impairment.loss = loss,
            Self::Rate(rate) => impairment.rate = rate,
            Self::Queue(queue) => (impairment.queue, side.queue_at) = (queue, Some(at)),
            Self::Reorder(chance, delay) => (impairment.reorder, impairment.reorder_delay) = (chance, delay),
            Self::Duplicate(chance) => impairment.duplicate = chance,
            Self::Corrupt(chance) => impairment.corrupt = chance,
        }
    }
}

fn optional<T>(
    words: &mut Words<'_>,
    read: impl FnOnce(At<&str>) -> Result<T, At<Fault>>,
) -> Result<Option<T>, At<Fault>> {
    match words.next() {
        (_, "") => Ok(None),
        word => read(word).map(Some),
    }
}

/// `1%`, or `1% burst 5`.
fn loss(words: &mut Words<'_>) -> Result<Loss, At<Fault>> {
    let (at, word) = words.value(PERCENT)?;
    let chance = share((at, word))?;
    match words.next() {
        (_, "") => return Ok(Loss::Random(chance)),
        (_, "burst") => {}
        (at, _) => return Err((at, Fault::TooMuch)),
    }
    let (burst_at, word) = words.value(BURST)?;
    let (in_a_row, unit) = number((burst_at, word), BURST)?;
    if !unit.1.is_empty() {
        return Err((unit.0, Fault::NotANumber(BURST)));
    }
    if !(1.0..=10_000.0).contains(&in_a_row) {
        return Err((burst_at, Fault::Range(BURST)));
    }
    if chance >= 1.0 {
        return Ok(Loss::Random(chance));
    }
    // See `Loss::Bursts` for how the share follows from both chances.
    let end = 1.0 / in_a_row;
    let begin = chance * end / (1.0 - chance);
    if begin > 1.0 {
        return Err((burst_at, Fault::Bursts));
    }
    Ok(Loss::Bursts { begin, end })
}

fn time(word: At<&str>) -> Result<Duration, At<Fault>> {
    let micros = [("us", 1.0), ("ms", 1e3), ("s", 1e6)];
    scaled(word, &micros, 0.0..=600e6, TIME).map(Duration::from_micros)
}

fn rate(word: At<&str>) -> Result<u64, At<Fault>> {
    // Bytes.
    let units = [("kbit", 125.0), ("mbit", 125e3), ("gbit", 125e6)];
    scaled(word, &units, 125.0..=125e9, RATE)
}

fn size(word: At<&str>) -> Result<u64, At<Fault>> {
    let units = [("b", 1.0), ("kb", 1e3), ("mb", 1e6), ("gb", 1e9)];
    scaled(word, &units, 0.0..=1e9, SIZE)
}

fn share(word: At<&str>) -> Result<f64, At<Fault>> {
    let (value, (unit_at, unit)) = number(word, PERCENT)?;
    match unit {
        "%" if value <= 100.0 => Ok(value / 100.0),
        "%" => Err((word.0, Fault::Range(PERCENT))),
        _ => Err((unit_at, Fault::Unit(PERCENT))),
    }
}

/// A number with one of some units, each with its size.
fn scaled(
    word: At<&str>,
    units: &[(&str, f64)],
    range: std::ops::RangeInclusive<f64>,
    what: &'static str,
) -> Result<u64, At<Fault>> {
    let (value, (unit_at, unit)) = number(word, what)?;
    let unit = units.iter().find(|(name, _)| unit.eq_ignore_ascii_case(name));
    let (_, scale) = unit.ok_or((unit_at, Fault::Unit(what)))?;
    let value = value * scale;
    if !range.contains(&value) {
        return Err((word.0, Fault::Range(what)));
    }
    Ok(value.round() as u64)
}

/// The number at the front of a word, and the rest.
fn number<'a>((at, word): At<&'a str>, what: &'static str) -> Result<(f64, At<&'a str>), At<Fault>> {
    let len = word
        .find(|char: char| !char.is_ascii_digit() && char != '.')
        .unwrap_or(word.len());
    let (digits, unit) = word.split_at(len);
    let value = match digits.parse::<f64>() {
        Ok(value) if digits.starts_with(|char: char| char.is_ascii_digit()) => value,
        _ => return Err((at, Fault::NotANumber(what))),
    };
    Ok((value, (at + len, unit)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_network_as_people_write_it() {
        let network: BadNetwork =
            "delay 50ms 10ms, loss 1%, rate 10mbit, reorder 1%, duplicate 1%, corrupt 0.1%"
                .parse()
                .unwrap();
        let expected = Impairment {
            rate: 1_250_000,
            queue: 250_000,
            delay: Duration::from_millis(50),
            jitter: Duration::from_millis(10),
            loss: Loss::Random(0.01),
            reorder: 0.01,
            reorder_delay: Duration::from_millis(10),
            duplicate: 0.01,
            corrupt: 0.001,
        };
        assert_eq!((network.inward, network.outward), (expected, expected));
    }

    #[test]
    fn directions_units_and_bursts() {
        let network: BadNetwork = "in:delay 1.5s,out: loss 20% burst 4,rate 64KBIT,out:queue 3kB"
            .parse()
            .unwrap();
        assert_eq!(network.inward.delay, Duration::from_millis(1500));
        assert_eq!(network.outward.delay, Duration::default());
        assert_eq!(network.inward.loss, Loss::None);
        assert_eq!(
            network.outward.loss,
            Loss::Bursts {
                begin: 0.0625,
                end: 0.25
            }
        );
        assert_eq!((network.inward.rate, network.outward.rate), (8000, 8000));
        assert_eq!((network.inward.queue, network.outward.queue), (32 << 10, 3000));
        let all: BadNetwork = "out:loss 100% burst 3".parse().unwrap();
        assert_eq!(all.outward.loss, Loss::Random(1.0));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place_and_what_to_write() {
        let cases = [
            ("", 0, "nothing stands there"),
            ("delay 1ms,", 10, "nothing stands there"),
            ("delay 1ms,,loss 1%", 10, "nothing stands there"),
            ("in:", 3, "nothing stands there"),
            ("dely 50ms", 0, "delay, loss, rate"),
            ("up:delay 50ms", 0, "no such impairment"),
            ("delay", 5, "a value is missing; write a time"),
            ("delay 50", 8, "no such unit; write a time"),
            ("delay ms", 6, "no number; write a time"),
            ("delay -5ms", 6, "no number"),
            ("delay 1.2.3ms", 6, "no number"),
            ("delay 601s", 6, "out of range; write a time"),
            ("delay 1ms 2ms 3ms", 14, "a comma"),
            ("delay 1ms, delay 2ms", 11, "delay has been said already"),
            ("in:loss 1%, loss 2%", 12, "loss has been said already"),
            ("loss 1", 6, "as in 0.5%"),
            ("loss 101%", 5, "0% to 100%"),
            ("loss 1% 25%", 8, "a comma"),
            ("loss 1% burst", 13, "\"burst 5\""),
            ("loss 1% burst 0", 14, "from 1"),
            ("loss 90% burst 1", 15, "longer"),
            ("rate 10mb", 7, "kbit, mbit or gbit"),
            ("rate 0kbit", 5, "1kbit"),
            ("rate 99999gbit", 5, "1000gbit"),
            ("queue 64kB", 0, "a queue is before a rate"),
            ("rate 1mbit, queue 64k", 20, "with B, kB"),
            ("reorder 1% soon", 11, "no number; write a time"),
        ];
        for (text, at, says) in cases {
            let error = text.parse::<BadNetwork>().unwrap_err();
            assert_eq!(error.at, at, "{text}: {error}");
            assert!(error.to_string().contains(says), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_network_or_a_short_error(text in "(in:|out:|delay|loss|rate|burst|[ ,.%0-9a-z\\u{e9}\\n]){0,60}") {
            if let Err(error) = text.parse::<BadNetwork>() {
                prop_assert!(error.at <= text.len());
                prop_assert!(error.to_string().chars().count() < 400 - "portolan: --impair: ".len());
                prop_assert!(!error.to_string().contains('\n'));
            }
        }
    }
}
