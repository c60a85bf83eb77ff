//! The options of a TCP header: the walk ends, stays inside, and what it read is emitted bit for bit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portolan_core::wire::{TcpOptionBlock, TcpOptions};

fuzz_target!(|bytes: &[u8]| {
    let bytes = &bytes[..bytes.len().min(TcpOptionBlock::CAPACITY)];
    let mut walk = TcpOptions::new(bytes);
    std::hint::black_box(walk.aligned_timestamps());
    let mut block = TcpOptionBlock::new();
    let mut clean = true;
    let mut kept = Vec::new();
    while let Some(option) = walk.next() {
        assert!(walk.offset() <= bytes.len());
        match option {
            Ok(option) => {
                let end = walk.offset();
                let mut single = TcpOptionBlock::new();
                single.push(option).expect("what was parsed can be emitted");
                assert_eq!(&single.as_bytes()[..option.len_bytes()], &bytes[end - option.len_bytes()..end]);
                block.push(option).expect("all of it fitted before");
                kept.push(option);
            }
            Err(_) => clean = false,
        }
    }
    let again = TcpOptions::new(block.as_bytes()).collect::<Result<Vec<_>, _>>();
    assert_eq!(again, Ok(kept));
    if clean {
        let len = TcpOptionBlock::CAPACITY - block.remaining();
        assert_eq!(&block.as_bytes()[..len], &bytes[..len]);
    }
});
