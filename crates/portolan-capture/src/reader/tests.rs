use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

type Owned = (Option<i128>, u32, u32, u32, Vec<u8>);

fn read(bytes: &[u8]) -> (Vec<Owned>, Option<CaptureError>, u64) {
    let mut frames = Vec::new();
    let mut reader = match CaptureReader::new(bytes) {
        Ok(reader) => reader,
        Err(error) => return (frames, Some(error), 0),
    };
    loop {
        match reader.next_frame() {
            Ok(Some(frame)) => {
                assert_eq!(frame.number, frames.len() as u64 + 1);
                frames.push((
                    frame.time,
                    frame.link,
                    frame.interface,
                    frame.original_len,
                    frame.bytes.to_vec(),
                ));
            }
            Ok(None) => return (frames, None, reader.damaged()),
            Err(error) => {
                assert!(
                    matches!(reader.next_frame(), Ok(None)),
                    "nothing comes after an error"
                );
                return (frames, Some(error), reader.damaged());
            }
        }
    }
}

fn words(words: &[u32], big_endian: bool) -> Vec<u8> {
    let bytes = |word: &u32| {
        if big_endian {
            word.to_be_bytes()
        } else {
            word.to_le_bytes()
        }
    };
    words.iter().flat_map(bytes).collect()
}

fn pcap(magic: u32, link: u32, big_endian: bool, packets: &[(u32, u32, u32, &[u8])]) -> Vec<u8> {
    let version = if big_endian { 0x0002_0004 } else { 0x0004_0002 };
    let mut file = words(&[magic, version, 0, 0, 65_535, link], big_endian);
    for (seconds, fraction, original, data) in packets {
        file.extend(words(
            &[*seconds, *fraction, data.len() as u32, *original],
            big_endian,
        ));
        file.extend(*data);
    }
    file
}

fn block(kind: u32, body: &[u8], big_endian: bool) -> Vec<u8> {
    let padded = body.len().next_multiple_of(4);
    let length = padded as u32 + 12;
    let mut bytes = words(&[kind, length], big_endian);
    bytes.extend(body);
    bytes.resize(8 + padded, 0);
    bytes.extend(words(&[length], big_endian));
    bytes
}

fn section(big_endian: bool) -> Vec<u8> {
    let version = if big_endian { 0x0001_0000 } else { 0x0000_0001 };
    block(
        0x0A0D_0D0A,
        &words(&[0x1A2B_3C4D, version, u32::MAX, u32::MAX], big_endian),
        big_endian,
    )
}

fn interface(link: u32, options: &[u8], big_endian: bool) -> Vec<u8> {
    let mut body = words(&[if big_endian { link << 16 } else { link }, 0], big_endian);
    body.extend(options);
    block(1, &body, big_endian)
}

fn packet(interface: u32, units: u64, original: u32, data: &[u8], big_endian: bool) -> Vec<u8> {
    let (high, low) = ((units >> 32) as u32, units as u32);
    let mut body = words(&[interface, high, low, data.len() as u32, original], big_endian);
    body.extend(data);
    block(6, &body, big_endian)
}

#[test]
fn pcap_in_both_orders_and_resolutions() {
    for (magic, unit) in [(0xA1B2_C3D4, 1000), (0xA1B2_3C4D, 1)] {
        for big_endian in [false, true] {
            let file = pcap(
                magic,
                1,
                big_endian,
                &[(10, 20, 3, &[1, 2, 3]), (11, 0, 100, &[4])],
            );
            let (frames, error, _) = read(&file);
            assert!(error.is_none());
            let first = Some(10_000_000_000 + 20 * unit);
            assert_eq!(
                frames,
                [
                    (first, 1, 0, 3, vec![1, 2, 3]),
                    (Some(11_000_000_000), 1, 0, 100, vec![4])
                ]
            );
        }
    }
}

#[test]
fn pcapng_with_two_interfaces_and_two_sections() {
    let mut file = section(false);
    file.extend(interface(1, &[], false));
    // if_tsresol 9, if_tsresol with a power of two, end of options.
    file.extend(interface(101, &[9, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0], false));
    file.extend(packet(0, 5_000_001, 60, &[1; 5], false));
    file.extend(packet(1, 7, 4, &[2; 4], false));
    file.extend(block(0x0BAD, &[9; 7], false));
    file.extend(section(true));
    file.extend(interface(113, &[0, 9, 0, 1, 0x81, 0, 0, 0, 0, 0, 0, 0], true));
    file.extend(packet(0, 3, 1, &[3], true));
    file.extend(block(3, &[0, 0, 0, 2, 8, 9], true));
    let (frames, error, damaged) = read(&file);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(damaged, 0);
    assert_eq!(
        frames,
        [
            (Some(5_000_001_000), 1, 0, 60, vec![1; 5]),
            (Some(7), 101, 1, 4, vec![2; 4]),
            (Some(1_500_000_000), 113, 0, 1, vec![3]),
            (None, 113, 0, 2, vec![8, 9]),
        ]
    );
}

#[test]
fn a_cut_file_gives_what_is_whole_and_says_where_it_ends() {
    let file = pcap(0xA1B2_C3D4, 1, false, &[(1, 0, 2, &[1, 2]), (2, 0, 9, &[3; 9])]);
    let (frames, error, _) = read(&file[..file.len() - 4]);
    assert_eq!(frames.len(), 1);
    let error = error.unwrap();
    assert!(
        matches!(
            error,
            CaptureError::Truncated {
                offset: 42,
                needed: 25,
                available: 21
            }
        ),
        "{error}"
    );
    let (_, error, _) = read(&file[..10]);
    assert!(matches!(
        error,
        Some(CaptureError::Truncated {
            offset: 0,
            needed: 24,
            available: 10
        })
    ));
}

#[test]
fn impossible_lengths_are_refused_without_being_believed() {
    let mut file = pcap(0xA1B2_C3D4, 1, false, &[]);
    file.extend(words(&[0, 0, u32::MAX, u32::MAX], false));
    let (_, error, _) = read(&file);
    assert!(matches!(
        error,
        Some(CaptureError::TooLong {
            offset: 24,
            length: 4_294_967_311,
            ..
        })
    ));

    for (length, too_long) in [(0, false), (8, false), (13, false), (0xFFFF_FFFC, true)] {
        let mut file = section(false);
        file.extend(words(&[6, length, 0, 0], false));
        let (_, error, _) = read(&file);
        match error {
            Some(CaptureError::TooLong { offset: 28, .. }) => assert!(too_long),
            Some(CaptureError::Damaged { offset: 28, .. }) => assert!(!too_long),
            other => panic!("{length}: {other:?}"),
        }
    }
}

#[test]
fn a_damaged_block_is_counted_and_passed_over() {
    let mut file = section(false);
    file.extend(packet(0, 0, 1, &[1], false));
    file.extend(interface(1, &[], false));
    let mut damaged = packet(0, 0, 1, &[1], false);
    damaged[20..24].copy_from_slice(&500u32.to_le_bytes());
    file.extend(damaged);
    file.extend(packet(0, 0, 1, &[7], false));
    let (frames, error, damaged) = read(&file);
    assert!(error.is_none(), "{error:?}");
    assert_eq!((frames.len(), damaged), (1, 2));
}

#[test]
fn a_reader_says_when_it_has_to_wait() {
    let file = pcap(0xA1B2_C3D4, 1, false, &[(1, 0, 2, &[1, 2]), (2, 0, 1, &[3])]);
    let mut reader = CaptureReader::new(&file[..]).unwrap();
    assert!(!reader.is_drained());
    reader.next_frame().unwrap();
    assert!(!reader.is_drained());
    reader.next_frame().unwrap();
    assert!(reader.is_drained());
}

#[test]
fn what_is_no_capture_is_said_to_be_none() {
    for bytes in [&b""[..], b"GET", b"\0\0\0\0\0\0\0\0", b"hello, world"] {
        assert!(matches!(read(bytes).1, Some(CaptureError::NotACapture)));
        assert!(!is_capture(bytes));
    }
}

#[test]
fn a_failing_reader_is_reported_with_its_cause() {
    struct Broken(usize);
    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::Error::from(io::ErrorKind::ConnectionReset));
            }
            self.0 = 0;
            let file = pcap(0xA1B2_C3D4, 1, false, &[]);
            buffer[..file.len()].copy_from_slice(&file);
            Ok(file.len())
        }
    }
    let mut reader = CaptureReader::new(Broken(1)).unwrap();
    let error = reader.next_frame().unwrap_err();
    assert!(matches!(error, CaptureError::Read { offset: 24, .. }), "{error}");
}

proptest! {
    #[test]
    fn any_bytes_behind_any_magic_are_read_to_an_end(
        magic in prop_oneof![Just(PCAP_MAGICS[0]), Just(PCAP_MAGICS[1]), Just(PCAP_MAGICS[4]), Just(0x0A0D_0D0A)],
        bytes in vec(any::<u8>(), 0..300)
    ) {
        let mut file = magic.to_le_bytes().to_vec();
        file.extend(bytes);
        read(&file);
    }

    #[test]
    fn any_bytes_in_place_of_others_are_read_to_an_end(
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..8), big_endian: bool
    ) {
        let mut file = section(big_endian);
        file.extend(interface(1, &[9, 0, 1, 0, 9, 0, 0, 0, 14, 0, 8, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0], big_endian));
        file.extend(packet(0, u64::MAX, 9, &[1; 9], big_endian));
        file.extend(block(3, &[0, 0, 0, 2, 8, 9], big_endian));
        for (place, value) in changes {
            let place = place.index(file.len());
            file[place] = value;
        }
        read(&file);
    }
}
