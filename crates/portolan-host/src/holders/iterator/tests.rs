use super::*;

#[test]
fn a_record_is_read_back() {
    let mut record = [0; RECORD_LEN];
    record[..8].copy_from_slice(&0x1_2345_6789u64.to_ne_bytes());
    record[8..12].copy_from_slice(&812i32.to_ne_bytes());
    record[12..].copy_from_slice(&7i32.to_ne_bytes());
    let expected = Holding {
        inode: 0x1_2345_6789,
        pid: 812,
        fd: 7,
    };
    assert_eq!(parse_record(&record), expected);
}

#[test]
fn the_verifiers_reason_is_its_last_words() {
    let log = "0: R1=ctx()\n5: (79) r3 = *(u64 *)(r2 +40)\nR2 invalid mem access 'scalar'\nprocessed 6 insns (limit 1000000)\n";
    assert_eq!(last_line(log), " (R2 invalid mem access 'scalar')");
    assert_eq!(last_line(""), "");
}

fn request(inodes: impl IntoIterator<Item = u64>) -> HoldingsRequest {
    HoldingsRequest {
        inodes: Some(inodes.into_iter().collect()),
        ..HoldingsRequest::default()
    }
}

#[test]
fn few_sockets_are_looked_for_by_the_program() {
    assert_eq!(prefilter(&HoldingsRequest::default()), []);
    assert_eq!(prefilter(&request([])), []);
    assert_eq!(prefilter(&request([5])), [(5, 5)]);
    assert_eq!(
        prefilter(&request([9, 7, 1 << 32 | 8, 8, 11])),
        [(7, 9), (11, 11)]
    );
    assert_eq!(
        prefilter(&request([0, u64::from(u32::MAX)])),
        [(0, 0), (u32::MAX, u32::MAX)]
    );
    assert_eq!(prefilter(&request(0..=PREFILTER_MAX as u64)), []);
}

#[test]
fn many_sockets_make_bounded_intervals_that_leave_none_out() {
    // Gaps of 2, 3 and 4, 12 and more.
    let inodes: Vec<u64> = (0..2000).map(|n: u64| n * 3 + n % 2 + n / 100 * 10).collect();
    let intervals = prefilter(&request(inodes.iter().copied()));
    assert!(
        (2..=INTERVALS_MAX).contains(&intervals.len()),
        "{}",
        intervals.len()
    );
    for inode in inodes {
        let inode = u32::try_from(inode).unwrap();
        let within = |(first, last): &(u32, u32)| (*first..=*last).contains(&inode);
        assert!(intervals.iter().any(within), "{inode}");
    }
    assert!(intervals.array_windows().all(|[one, next]| one.1 < next.0));
}
