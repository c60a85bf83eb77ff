//! What stands between the device of a space and the stack: a capture, and behind it a bad network.
//!
//! ```text
//!   program ─▶ device ─▶ capture ─▶ bad network ─▶ stack
//! ```
//!
//! So a capture has what one on the program's own machine would have: what it sends, even if that is lost on the way, and
//! what it receives.

use std::io;
use std::path::PathBuf;

use portolan_gateway::capture::CaptureCounts;
use portolan_net::Link;
use portolan_net::link::{Impaired, ImpairedCounts, PathCounts, Tap};
use portolan_space::{Space, Subnets};
use serde::Serialize;

use super::impair::BadNetwork;
use super::pcap::{Capturing, Pcap};
use crate::exit::Failure;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "The link of the space")]
pub(super) struct BetweenArgs {
    /// Put a bad network around the program: 'delay 50ms 10ms, loss 1%, rate 10mbit', each way; 'in:' or 'out:' before
    /// one of them is for that way only. Others: queue 64kB, reorder 1%, duplicate 1%, corrupt 0.1%, loss 1% burst 5
    #[arg(long, value_name = "NETWORK")]
    impair: Option<BadNetwork>,
    /// Write the packets of the space's device to this file (pcapng), with the names of the processes whose they are
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
}

/// What is between, as it was asked for.
#[derive(Debug)]
pub(super) struct Between {
    impair: Option<BadNetwork>,
    /// Repeats what the bad network does.
    seed: u64,
    subnets: Option<Subnets>,
    impaired: Option<ImpairedCounts>,
    pcap: Option<Pcap>,
    capturing: Option<Capturing>,
}

/// The space whose link it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Around<'a> {
    pub(super) space: &'a Space,
    pub(super) name: &'a str,
}

/// What is told of the link.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct LinkReport {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) impaired: Option<Impairments>,
    #[serde(skip_serializing_if = "Option::is_none")]
    captured: Option<CaptureCounts>,
}

/// What a bad network did, for the report.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Impairments {
    /// Repeats it.
    seed: u64,
    #[serde(rename = "in")]
    inward: Suffered,
    #[serde(rename = "out")]
    outward: Suffered,
}

/// What the packets of one direction suffered.
#[derive(Clone, Copy, Debug, Serialize)]
struct Suffered {
    packets: u64,
    lost: u64,
    overflowed: u64,
    duplicated: u64,
    reordered: u64,
    corrupted: u64,
}

impl Between {
    /// Opens what is to be written.
    pub(super) fn open(args: &BetweenArgs) -> Result<Self, Failure> {
        Ok(Self {
            impair: args.impair,
            seed: 0,
            subnets: None,
            impaired: None,
            pcap: args.pcap.as_deref().map(Pcap::open).transpose()?,
            capturing: None,
        })
    }

    /// Says by what chance is decided, and what the addresses are.
    pub(super) const fn ready(&mut self, seed: u64, subnets: Subnets) {
        self.seed = seed;
        self.subnets = Some(subnets);
    }

    /// Whether packets go as if nothing were there, so that they may as well go by another way.
    pub(super) const fn is_nothing(&self) -> bool {
        self.impair.is_none() && self.pcap.is_none() && self.capturing.is_none()
    }

    /// The link with all of it before it. Call it in the runtime.
    pub(super) fn wrap(&mut self, link: Box<dyn Link>, around: Around<'_>) -> io::Result<Box<dyn Link>> {
        let mut link = link;
        if let Some(pcap) = self.pcap.take() {
            let (capturing, recorder) = pcap.begin(around.name, around.space, self.subnets.as_ref())?;
            self.capturing = Some(capturing);
            link = Box::new(Tap::new(link, recorder));
        }
        if let Some(network) = self.impair {
            // What the stack sends goes in.
            let impaired = Impaired::new(link, network.inward, network.outward, self.seed);
            self.impaired = Some(impaired.counts());
            link = Box::new(impaired);
        }
        Ok(link)
    }

    /// What a capture has so far, if there is one.
    pub(super) fn captured(&self) -> Option<CaptureCounts> {
        self.capturing.as_ref().map(Capturing::counts)
    }

    /// Ends all of it, and says what a capture lacks.
    pub(super) fn end(mut self, verbose: bool) -> LinkReport {
        LinkReport {
            impaired: self.impairments(),
            captured: self.capturing.take().map(|capturing| capturing.finish(verbose)),
        }
    }

    fn impairments(&self) -> Option<Impairments> {
        let [inward, outward] = self.impaired.as_ref()?.read().map(Suffered::from);
        Some(Impairments {
            seed: self.seed,
            inward,
            outward,
        })
    }
}

impl Impairments {
    /// One line for each direction.
    pub(super) fn lines(&self) -> [String; 2] {
        [("in", self.inward), ("out", self.outward)].map(|(way, suffered)| {
            let Suffered {
                packets,
                lost,
                overflowed,
                duplicated,
                reordered,
                corrupted,
            } = suffered;
            format!(
                "impaired: {way}: {packets} packets, {lost} lost, {overflowed} overflowed, {duplicated} duplicated, \
                 {reordered} reordered, {corrupted} corrupted (seed {})",
                self.seed
            )
        })
    }
}

impl From<PathCounts> for Suffered {
    fn from(counts: PathCounts) -> Self {
        Self {
            packets: counts.sent,
            lost: counts.lost,
            overflowed: counts.overflowed,
            duplicated: counts.duplicated,
            reordered: counts.reordered,
            corrupted: counts.corrupted,
        }
    }
}
