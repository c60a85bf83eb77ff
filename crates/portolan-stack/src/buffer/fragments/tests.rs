use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

const LIMIT: usize = 4 << 20;

fn key(last: u8, identification: u32) -> FragmentKey {
    FragmentKey {
        source: IpAddr::from([10, 0, 0, last]),
        destination: IpAddr::from([10, 0, 0, 1]),
        identification,
        protocol: 17,
    }
}

fn piece(key: FragmentKey, offset: u16, payload: &[u8], more: bool) -> Piece<'_> {
    Piece {
        key,
        offset,
        more,
        head: b"head",
        payload,
        ecn: 0,
    }
}

/// Pools are compared by what they lend.
struct World {
    fragments: Fragments,
    pool: Pool,
}

impl World {
    fn new(limit: usize) -> Self {
        Self {
            fragments: Fragments::new([5; 16], limit),
            pool: Pool::new(0),
        }
    }

    fn insert(&mut self, piece: &Piece<'_>) -> Taken {
        self.fragments.insert(&mut self.pool, Instant::START, piece)
    }

    fn take(&mut self, key: &FragmentKey) -> Option<Vec<u8>> {
        let mut out = vec![0; 66_000];
        let (head, payload, _) = self.fragments.take_whole(&mut self.pool, key, &mut out)?;
        assert_eq!(&out[..head], b"head");
        Some(out[head..head + payload].to_vec())
    }

    fn assert_empty(&self) {
        assert_eq!((self.fragments.cost, self.pool.lent_bytes()), (0, 0));
        assert_eq!((self.fragments.queues.len(), self.fragments.by_key.len()), (0, 0));
        assert_eq!(self.fragments.next_timeout(), None);
        for share in self.fragments.shares.iter() {
            assert_eq!((share.cost, share.oldest, share.newest), (0, None, None));
        }
    }
}

proptest! {
    #[test]
    fn any_cutting_in_any_order_arrives_whole(
        data in vec(any::<u8>(), 1..6000), cuts in vec(any::<Index>(), 0..40), order in vec(any::<Index>(), 1..60),
        again in vec(any::<Index>(), 0..5),
    ) {
        let mut edges: Vec<usize> = cuts.iter().map(|cut| cut.index(data.len()) / 8 * 8).collect();
        edges.extend([0, data.len()]);
        edges.sort_unstable();
        edges.dedup();
        let mut pieces: Vec<(usize, usize)> = edges.windows(2).map(|pair| (pair[0], pair[1])).collect();
        // Some come twice.
        let copies: Vec<_> = again.iter().map(|place| pieces[place.index(pieces.len())]).collect();
        pieces.extend(copies);
        for (place, swap) in order.iter().enumerate() {
            let len = pieces.len();
            pieces.swap(place % len, swap.index(len));
        }
        let mut world = World::new(LIMIT);
        let mut got = None;
        for (start, end) in pieces {
            let more = end != data.len();
            match world.insert(&piece(key(2, 7), start as u16, &data[start..end], more)) {
                Taken::Waits => {}
                Taken::Whole => {
                    got = world.take(&key(2, 7));
                    break;
                }
                other => prop_assert!(false, "{other:?}"),
            }
        }
        prop_assert_eq!(got, Some(data));
        world.assert_empty();
    }

    #[test]
    fn whatever_comes_memory_stays_within_its_limit(
        steps in vec((0u8..40, 0u32..4, 0u16..8192, 1usize..3000, any::<bool>(), 0u8..4, 0u64..5), 1..400)
    ) {
        let limit = 200_000;
        let mut world = World::new(limit);
        let mut now = Instant::START;
        let mut out = vec![0; 66_000];
        let payload = [7; 3000];
        for (source, identification, offset, len, more, ecn, pause) in steps {
            now += Duration::from_secs(pause);
            while world.fragments.pop_expired(&mut world.pool, now, &mut out).is_some() {}
            let len = if more { len / 8 * 8 } else { len };
            let key = key(source, identification);
            let piece = Piece { ecn, ..piece(key, offset * 8, &payload[..len], more) };
            if world.fragments.insert(&mut world.pool, now, &piece) == Taken::Whole {
                prop_assert!(world.take(&key).is_some());
            }
            prop_assert!(world.fragments.cost <= limit);
            prop_assert!(world.pool.lent_bytes() <= limit);
            let costs: usize = world.fragments.queues.values().map(|queue| queue.cost).sum();
            prop_assert_eq!(costs, world.fragments.cost);
            prop_assert_eq!(world.fragments.by_key.len(), world.fragments.queues.len());
        }
        now += LIFE_V6;
        while world.fragments.pop_expired(&mut world.pool, now, &mut out).is_some() {}
        world.assert_empty();
    }
}

#[test]
fn an_overlap_ends_the_datagram_and_a_duplicate_does_not() {
    let data = [1; 64];
    for (offset, len, taken) in [
        (8, 16, Taken::Waits),
        (16, 8, Taken::Waits),
        (0, 16, Taken::Overlap),
        (16, 16, Taken::Overlap),
        (0, 32, Taken::Overlap),
    ] {
        let mut world = World::new(LIMIT);
        let key = key(2, 1);
        assert_eq!(world.insert(&piece(key, 8, &data[..16], true)), Taken::Waits);
        let second = world.insert(&piece(key, offset, &data[..len], true));
        assert_eq!(second, taken, "{offset} {len}");
        assert_eq!(world.fragments.queues.is_empty(), taken == Taken::Overlap);
    }
}

#[test]
fn two_ends_or_none_at_all_are_no_datagram() {
    let data = [1; 64];
    for pieces in [
        &[(8, 16, false), (24, 8, true)][..],
        &[(8, 16, false), (8, 24, false)],
        &[(24, 8, true), (8, 8, false)],
        &[(0, 0, true)],
        &[(65_528, 8, false)],
    ] {
        let mut world = World::new(LIMIT);
        let results: Vec<_> = pieces
            .iter()
            .map(|&(offset, len, more)| world.insert(&piece(key(2, 1), offset, &data[..len], more)))
            .collect();
        assert_eq!(results.last(), Some(&Taken::Mismatch), "{pieces:?}");
        world.assert_empty();
    }
}

#[test]
fn marks_of_routers_are_joined() {
    // RFC 3168, section 5.3: none with any other is an error, a mark marks the whole.
    let marks = [
        ([0, 0], Some(false)),
        ([2, 2], Some(false)),
        ([1, 2], Some(false)),
        ([2, 3], Some(true)),
        ([3, 1], Some(true)),
        ([0, 3], None),
        ([2, 0], None),
    ];
    for (ecn, expected) in marks {
        let mut world = World::new(LIMIT);
        let key = key(2, 1);
        let first = Piece {
            ecn: ecn[0],
            ..piece(key, 0, &[1; 8], true)
        };
        let second = Piece {
            ecn: ecn[1],
            ..piece(key, 8, &[1; 8], false)
        };
        assert_eq!(world.insert(&first), Taken::Waits);
        let taken = world.insert(&second);
        let mut out = [0; 20];
        let marked = world
            .fragments
            .take_whole(&mut world.pool, &key, &mut out)
            .map(|(.., marked)| marked);
        assert_eq!(marked, expected, "{ecn:?} {taken:?}");
        world.assert_empty();
    }
}

#[test]
fn a_source_that_floods_does_not_take_the_others_memory() {
    let mut world = World::new(1 << 20);
    let patient = key(9, 1);
    assert_eq!(world.insert(&piece(patient, 0, &[1; 8], true)), Taken::Waits);
    for identification in 0..20_000 {
        world.insert(&piece(key(2, identification), 8, &[1; 8], true));
        assert!(world.fragments.cost <= 1 << 20);
    }
    assert!(world.fragments.evicted() > 19_000);
    // Many sources at once take from the largest share, not from those that hold little.
    for n in 0..20_000u32 {
        let [_, a, b, c] = n.to_be_bytes();
        let many = FragmentKey {
            source: IpAddr::from([172, a, b, c]),
            ..key(2, n)
        };
        world.insert(&piece(many, 8, &[1; 2000], true));
    }
    assert!(world.fragments.cost <= 1 << 20);
    let mut world = World::new(1 << 20);
    world.insert(&piece(patient, 0, &[1; 8], true));
    for source in [2, 3, 4, 5, 6, 7] {
        for identification in 0..2_000 {
            world.insert(&piece(key(source, identification), 8, &[1; 8], true));
        }
    }
    assert_eq!(world.insert(&piece(patient, 8, &[1; 8], false)), Taken::Whole);
}

#[test]
fn what_does_not_come_in_time_is_given_up_with_its_first_fragment() {
    let mut world = World::new(LIMIT);
    let mut out = [0; 10];
    world.insert(&piece(key(2, 1), 0, b"12345678", true));
    world.insert(&piece(key(2, 2), 8, b"12345678", true));
    let end = Instant::START + LIFE_V4;
    assert_eq!(world.fragments.next_timeout(), Some(end));
    let early = Instant::from_millis(29_999);
    assert!(
        world
            .fragments
            .pop_expired(&mut world.pool, early, &mut out)
            .is_none()
    );
    let expired = world
        .fragments
        .pop_expired(&mut world.pool, end, &mut out)
        .unwrap();
    assert_eq!((expired.first, &out), (Some(10), b"head123456"));
    let expired = world
        .fragments
        .pop_expired(&mut world.pool, end, &mut out)
        .unwrap();
    assert_eq!(expired.first, None);
    world.assert_empty();
}

#[test]
fn a_thousand_holes_are_kept_and_a_payload_of_one_byte_too_many_is_not() {
    let mut world = World::new(LIMIT);
    let key = key(2, 1);
    for n in (1..=2 * MAX_RANGES as u16).step_by(2) {
        assert_eq!(world.insert(&piece(key, n * 8, &[1; 8], true)), Taken::Waits);
    }
    assert_eq!(world.insert(&piece(key, 40_000, &[1; 8], true)), Taken::NoRoom);
    world.assert_empty();
    let long = vec![1; 65_535];
    assert_eq!(world.insert(&piece(key, 0, &long[..65_528], true)), Taken::Waits);
    assert_eq!(world.insert(&piece(key, 65_528, &long[..7], false)), Taken::Whole);
    assert_eq!(world.take(&key).map(|data| data.len()), Some(65_535));
}
