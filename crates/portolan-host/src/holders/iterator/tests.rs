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

#[test]
fn few_sockets_are_looked_for_by_the_program() {
    let request = |inodes: &[u64]| HoldingsRequest {
        inodes: Some(inodes.iter().copied().collect()),
        ..HoldingsRequest::default()
    };
    assert_eq!(prefilter(&HoldingsRequest::default()), [0; 0]);
    assert_eq!(prefilter(&request(&[9, 7, 1 << 32 | 8, 8])), [7, 8, 9]);
    let many: Vec<u64> = (0..=PREFILTER_MAX as u64).collect();
    assert_eq!(prefilter(&request(&many)), [0; 0]);
    assert_eq!(prefilter(&request(&many[1..])).len(), PREFILTER_MAX);
}
