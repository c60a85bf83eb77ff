//! SYN cookies (RFC 4987, section 3.6): the half-open connection is kept in the numbers that the peer sends back.
//!
//! ```text
//!   ISS      3 bits of MSS index │ 29 bits of keyed hash (four-tuple, IRS, MSS index, minute)
//!   TSval    26 bits of clock    │ ECN │ SACK │ 4 bits of window scale, 15 for none
//! ```
//!
//! The second exists only if the peer offered timestamps; without, a connection by cookie has none of these options.
//! A guess is right once in 2²⁸, since this minute's hash and the last one's are good.

use portolan_core::demux::FourTuple;
use portolan_core::wire::SeqNum;

use super::secrets::Secrets;
use crate::tcp::{Offers, Syn};
use crate::{Duration, Instant};

/// What a cookie can say of the peer's maximum segment size; it says the largest that is no larger. The common
/// ones: RFC 9293's default, IPv6's least, tunnels, PPPoE, Ethernet, jumbo frames.
const SEGMENT_SIZES: [u16; 8] = [48, 536, 1220, 1360, 1400, 1440, 1460, 8940];
const HASH_BITS: u32 = 29;
const HASH: u32 = (1 << HASH_BITS) - 1;

/// How long a cookie's hash is the newest one; it is good for one to two of them.
const PERIOD: Duration = Duration::from_secs(64);

const NO_WINDOW_SCALE: u32 = 15;
const WINDOW_SCALE: u32 = 15;
const SACK: u32 = 1 << 4;
const ECN: u32 = 1 << 5;
const OPTION_BITS: u32 = (1 << 6) - 1;

/// The SYN as a cookie can tell of it, and the cookie: our initial sequence number.
pub(super) fn bake(secrets: &Secrets, now: Instant, tuple: &FourTuple, syn: &Syn) -> (Syn, SeqNum) {
    let mss = if syn.offers.contains(Offers::MSS) {
        syn.mss
    } else {
        536
    };
    let index = SEGMENT_SIZES.iter().rposition(|&size| size <= mss).unwrap_or(0);
    let offers = if syn.offers.contains(Offers::TIMESTAMPS) {
        syn.offers
    } else {
        Offers::empty()
    };
    let told = Syn {
        mss: SEGMENT_SIZES[index],
        offers: offers | Offers::MSS,
        ..*syn
    };
    let hash = secrets.cookie_hash(tuple, syn.irs, index as u8, period(now)) & HASH;
    (told, SeqNum::new((index as u32) << HASH_BITS | hash))
}

/// What a SYN said whose SYN-ACK, with `cookie` for a number, is acknowledged by a segment with the next number
/// after `irs`, this window, and these timestamps; `None` if no such cookie was baked lately.
pub(super) fn read(
    secrets: &Secrets,
    now: Instant,
    tuple: &FourTuple,
    (irs, cookie): (SeqNum, SeqNum),
    timestamps: Option<(u32, u32)>,
) -> Option<Syn> {
    let index = (cookie.get() >> HASH_BITS) as u8;
    let is_good = |period| secrets.cookie_hash(tuple, irs, index, period) & HASH == cookie.get() & HASH;
    let newest = period(now);
    if !is_good(newest) && !newest.checked_sub(1).is_some_and(is_good) {
        return None;
    }
    let mut syn = Syn {
        irs,
        timestamp: 0,
        window: 0,
        mss: SEGMENT_SIZES[usize::from(index)],
        window_scale: 0,
        offers: Offers::MSS,
    };
    if let Some((value, echo)) = timestamps {
        syn.timestamp = value;
        syn.offers |= Offers::TIMESTAMPS;
        syn.offers.set(Offers::SACK, echo & SACK != 0);
        syn.offers.set(Offers::ECN, echo & ECN != 0);
        let shift = echo & WINDOW_SCALE;
        if shift != NO_WINDOW_SCALE {
            syn.window_scale = shift as u8;
            syn.offers |= Offers::WINDOW_SCALE;
        }
    }
    Some(syn)
}

/// The TSval that tells of the options: the last one before `clock`, so that those that follow are not older.
pub(super) fn timestamp(clock: u32, syn: &Syn) -> u32 {
    let offered = |offer, bits| if syn.offers.contains(offer) { bits } else { 0 };
    let shift = if syn.offers.contains(Offers::WINDOW_SCALE) {
        u32::from(syn.window_scale)
    } else {
        NO_WINDOW_SCALE
    };
    let bits = shift | offered(Offers::SACK, SACK) | offered(Offers::ECN, ECN);
    let value = clock & !OPTION_BITS | bits;
    if (value.wrapping_sub(clock) as i32) > 0 {
        value.wrapping_sub(OPTION_BITS + 1)
    } else {
        value
    }
}

/// How long after the last cookie one may come back.
pub(super) const fn life() -> Duration {
    Duration::from_nanos(2 * PERIOD.as_nanos())
}

const fn period(now: Instant) -> u64 {
    now.as_nanos() / PERIOD.as_nanos()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(port: u16) -> FourTuple {
        FourTuple::new(([10, 0, 0, 1], 80).into(), ([10, 0, 0, 2], port).into()).unwrap()
    }

    fn syn(mss: u16, window_scale: u8, offers: Offers) -> Syn {
        Syn {
            irs: SeqNum::new(77),
            timestamp: 5,
            window: 0,
            mss,
            window_scale,
            offers,
        }
    }

    #[test]
    fn every_option_comes_back_if_timestamps_were_offered() {
        let secrets = Secrets::new([1; 16]);
        let now = Instant::from_millis(1_000_000);
        for bits in 0..16 {
            let offers = Offers::from_bits_retain(bits << 1) | Offers::MSS;
            for shift in 0..=14 {
                let scale = if offers.contains(Offers::WINDOW_SCALE) {
                    shift
                } else {
                    0
                };
                let (told, cookie) = bake(&secrets, now, &tuple(1), &syn(1460, scale, offers));
                let timestamps = offers.contains(Offers::TIMESTAMPS);
                let clock = 1_000_000 + u32::from(shift) * 7;
                let value = timestamp(clock, &told);
                assert!((0..64).contains(&clock.wrapping_sub(value)));
                let echo = timestamps.then_some((5, value));
                let read = read(&secrets, now, &tuple(1), (SeqNum::new(77), cookie), echo).unwrap();
                if timestamps {
                    assert_eq!(read, told);
                    assert_eq!(read.offers, offers);
                } else {
                    assert_eq!((read.offers, read.mss), (Offers::MSS, 1460));
                }
            }
        }
    }

    #[test]
    fn segment_sizes_are_told_without_growing() {
        let secrets = Secrets::new([1; 16]);
        for mss in [48, 500, 536, 1000, 1439, 1459, 1460, 9000, 65_495] {
            let (told, cookie) = bake(&secrets, Instant::START, &tuple(1), &syn(mss, 0, Offers::MSS));
            let read = read(
                &secrets,
                Instant::START,
                &tuple(1),
                (SeqNum::new(77), cookie),
                None,
            )
            .unwrap();
            assert_eq!(read.mss, told.mss);
            assert!(read.mss <= mss);
        }
    }

    #[test]
    fn a_cookie_is_good_for_its_connection_and_for_one_to_two_minutes() {
        let secrets = Secrets::new([1; 16]);
        let baked = Instant::from_millis(640_000);
        let (_, cookie) = bake(&secrets, baked, &tuple(1), &syn(1460, 0, Offers::MSS));
        let at = |secrets: &Secrets, seconds: u64, port, irs, cookie| {
            let now = baked + Duration::from_secs(seconds);
            read(secrets, now, &tuple(port), (SeqNum::new(irs), cookie), None).is_some()
        };
        assert!(at(&secrets, 0, 1, 77, cookie) && at(&secrets, 127, 1, 77, cookie));
        assert!(!at(&secrets, 128, 1, 77, cookie));
        assert!(!at(&secrets, 0, 2, 77, cookie) && !at(&secrets, 0, 1, 78, cookie));
        assert!(!at(&secrets, 0, 1, 77, cookie + 1) && !at(&secrets, 0, 1, 77, cookie + (1 << HASH_BITS)));
        assert!(!at(&Secrets::new([2; 16]), 0, 1, 77, cookie));
    }
}
