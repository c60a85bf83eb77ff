//! Chains of IPv6 extension headers: they end, stay inside, and what was read is emitted bit for bit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portolan_core::wire::{ExtensionHeaders, ExtensionRepr, IpProtocol};

fuzz_target!(|input: (u8, &[u8])| {
    let (first, bytes) = input;
    let mut walk = ExtensionHeaders::new(IpProtocol::new(first), bytes);
    let mut place = 0;
    let mut steps = 0;
    for header in walk.by_ref() {
        steps += 1;
        assert!(steps <= ExtensionHeaders::LIMIT + 1);
        let Ok(header) = header else { break };
        assert_eq!(header.offset(), place);
        place += header.bytes().len();
        std::hint::black_box(header.segments_left());
        if header.fragment().is_none() {
            let repr = ExtensionRepr::Other { kind: header.kind(), body: header.body() };
            let mut again = vec![0; repr.header_len()];
            repr.emit(header.next_header(), &mut again).expect("what was parsed can be emitted");
            assert_eq!(again, header.bytes());
        }
    }
    assert_eq!(walk.offset(), place);
    assert!(place <= bytes.len());
});
