//! A connection that a peer opens, before there is one: what its SYN said.

use bitflags::bitflags;
use portolan_core::wire::{SeqNum, TcpFlags};

use super::State;
use super::connection::{Connection, Cx, Opening, Wanted};
use super::outgoing::{Outgoing, syn_options};
use super::scoreboard::Scoreboard;
use super::segment::{Options, Segment};
use crate::Instant;

/// A SYN, as much of it as a connection begins with: 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Syn {
    pub(crate) irs: SeqNum,
    /// TSval, if the peer offers timestamps.
    pub(crate) timestamp: u32,
    pub(crate) window: u16,
    /// The maximum segment size, if the peer says one.
    pub(crate) mss: u16,
    /// The shift, if the peer offers window scaling.
    pub(crate) window_scale: u8,
    pub(crate) offers: Offers,
}

bitflags! {
    /// What a SYN offers.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Offers: u8 {
        const MSS = 1;
        const WINDOW_SCALE = 1 << 1;
        const SACK = 1 << 2;
        const TIMESTAMPS = 1 << 3;
        const ECN = 1 << 4;
    }
}

/// How the answer to a SYN fared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    /// When it was sent, if that was once, so that its acknowledgment tells the round-trip time.
    pub(crate) once_at: Option<Instant>,
    /// How often it was repeated because time ran out.
    pub(crate) attempts: u8,
    /// When a segment that does not fit may be answered again.
    pub(crate) challenge_from: Instant,
}

impl Syn {
    /// What `segment` says, which is a SYN.
    pub(crate) fn of(segment: &Segment<'_>) -> Self {
        let options = &segment.options;
        let mut offers = Offers::empty();
        offers.set(Offers::MSS, options.mss.is_some());
        offers.set(Offers::WINDOW_SCALE, options.window_scale.is_some());
        offers.set(Offers::SACK, options.sack_permitted);
        offers.set(Offers::TIMESTAMPS, options.timestamps.is_some());
        // RFC 3168, section 6.1.1: both bits ask for it.
        let ecn = TcpFlags::ECE | TcpFlags::CWR;
        offers.set(Offers::ECN, segment.flags.contains(ecn));
        Self {
            irs: segment.seq,
            timestamp: options.timestamps.map_or(0, |(value, _)| value),
            window: segment.window,
            mss: options.mss.unwrap_or(0),
            window_scale: options.window_scale.unwrap_or(0),
            offers,
        }
    }

    /// A SYN that says this.
    fn segment(&self) -> Segment<'static> {
        let offered = |what| self.offers.contains(what);
        let mut flags = TcpFlags::SYN;
        if offered(Offers::ECN) {
            flags |= TcpFlags::ECE | TcpFlags::CWR;
        }
        Segment {
            seq: self.irs,
            ack: SeqNum::new(0),
            flags,
            window: self.window,
            is_scaled: false,
            urgent_pointer: 0,
            payload: &[],
            owner: None,
            options: Options {
                mss: offered(Offers::MSS).then_some(self.mss),
                window_scale: offered(Offers::WINDOW_SCALE).then_some(self.window_scale),
                sack_permitted: offered(Offers::SACK),
                timestamps: offered(Offers::TIMESTAMPS).then_some((self.timestamp, 0)),
                sack: &[],
            },
            congestion_experienced: false,
            piece_len: 1,
        }
    }

    /// The SYN-ACK that answers it: what [`Connection::accept`] would send, without a connection.
    pub(crate) fn answer(&self, cx: &Cx<'_>, opening: Opening) -> Outgoing {
        let Cx { now, config, .. } = cx;
        let both = |ours, theirs| ours && self.offers.contains(theirs);
        let mut flags = TcpFlags::SYN | TcpFlags::ACK;
        if both(config.accept_ecn, Offers::ECN) {
            flags |= TcpFlags::ECE;
        }
        let clock = (now.as_millis() as u32).wrapping_add(opening.timestamp_offset);
        let options = syn_options(
            config.max_segment.unwrap_or(u16::MAX).min(opening.mss),
            both(config.window_scaling, Offers::WINDOW_SCALE).then(|| config.window_shift()),
            both(config.sack, Offers::SACK),
            both(config.timestamps, Offers::TIMESTAMPS).then_some((clock, self.timestamp)),
        );
        let window = config.first_receive_limit().min(65_535) as u16;
        Outgoing {
            options,
            ..Outgoing::new(opening.iss, self.irs + 1, flags, window)
        }
    }
}

/// Room for a SYN-ACK that waits for its acknowledgment, empty: with each connection that opens it is used anew.
#[derive(Debug, Default)]
pub(crate) struct Room(Scoreboard);

impl Connection {
    /// The connection in SYN-RECEIVED whose answer to `syn` is on its way.
    pub(crate) fn half_open(cx: &Cx<'_>, opening: Opening, syn: &Syn, answered: Answered) -> Self {
        Self::half_open_in(Room::default(), cx, opening, syn, answered)
    }

    /// The same, with room for what it waits for.
    pub(crate) fn half_open_in(
        room: Room,
        cx: &Cx<'_>,
        opening: Opening,
        syn: &Syn,
        answered: Answered,
    ) -> Self {
        let mut connection = Self::accept(cx, opening, &syn.segment());
        connection.board = room.0;
        debug_assert_eq!(connection.state, State::SynReceived);
        connection.wanted -= Wanted::SYN;
        connection.snd_nxt = opening.iss + 1;
        if let Some(at) = answered.once_at {
            connection.board.push(opening.iss, opening.iss + 1, 0, at);
        }
        connection.attempts = answered.attempts;
        connection.on_ack_sent(false);
        connection.acks.challenge_after(answered.challenge_from);
        connection
    }

    /// Gives the room back that [`Connection::half_open_in`] took, unless it is in use.
    pub(crate) fn take_room(&mut self) -> Option<Room> {
        self.board.is_empty().then(|| {
            self.board.clear();
            Room(std::mem::take(&mut self.board))
        })
    }

    /// Whether the peer did not get our SYN-ACK.
    pub(crate) const fn wants_syn(&self) -> bool {
        self.wanted.contains(Wanted::SYN)
    }

    /// Whether what came is to be answered with an acknowledgment.
    pub(crate) const fn wants_ack(&self) -> bool {
        self.wanted.contains(Wanted::ACK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Pool;
    use crate::tcp::TcpConfig;

    #[test]
    fn the_answer_is_that_of_a_connection() {
        let opening = Opening {
            iss: SeqNum::new(u32::MAX),
            mss: 1460,
            path_mss: 1400,
            timestamp_offset: u32::MAX - 5,
        };
        for (bits, offers) in (0..64).flat_map(|bits| (0..32).map(move |offers| (bits, offers))) {
            let is_set = |bit| bits >> bit & 1 == 1;
            let config = TcpConfig {
                sack: is_set(0),
                timestamps: is_set(1),
                window_scaling: is_set(2),
                accept_ecn: is_set(3),
                max_segment: is_set(4).then_some(1000),
                initial_receive_buffer: if is_set(5) { 1 << 20 } else { 3000 },
                ..TcpConfig::default()
            };
            let syn = Syn {
                irs: SeqNum::new(u32::MAX - 1),
                timestamp: 77,
                window: 9,
                mss: 1200,
                window_scale: 7,
                offers: Offers::from_bits_retain(offers),
            };
            let cx = Cx {
                now: Instant::from_millis(12_345),
                config: &config,
                pool: &mut Pool::new(0),
            };
            let sent = Connection::accept(&cx, opening, &syn.segment()).poll_transmit(&cx, 0);
            let answer = syn.answer(&cx, opening);
            assert_eq!(
                format!("{sent:?}"),
                format!("{:?}", Some(answer)),
                "{config:?} {syn:?}"
            );
        }
    }

    #[test]
    fn a_syn_is_16_bytes_and_comes_back_as_it_was() {
        assert_eq!(size_of::<Syn>(), 16);
        for offers in 0..32 {
            let offers = Offers::from_bits_retain(offers);
            let value = |offer, value| if offers.contains(offer) { value } else { 0 };
            let syn = Syn {
                irs: SeqNum::new(7),
                timestamp: value(Offers::TIMESTAMPS, 3) as u32,
                window: 9,
                mss: value(Offers::MSS, 1460),
                window_scale: value(Offers::WINDOW_SCALE, 7) as u8,
                offers,
            };
            assert_eq!(Syn::of(&syn.segment()), syn);
        }
    }
}
