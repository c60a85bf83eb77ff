//! Any bytes as a capture and as a hexadecimal dump: both come to an end, and every packet can be drawn.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portolan_capture::{CaptureReader, FlowTable, anatomy, guess_link, hex};
use portolan_core::wire::{Dissection, LinkType};

fn draw(link: LinkType, bytes: &[u8], time: Option<i128>, flows: &mut FlowTable) {
    let packet = Dissection::of(link, bytes);
    flows.add(&packet, time, bytes.len() as u64);
    let mut end = 0;
    for field in anatomy::fields(&packet, bytes, &|_, _| None) {
        assert_eq!(field.bit_offset, end);
        end += field.bits;
    }
    assert!(end <= bytes.len() * 8);
}

fuzz_target!(|bytes: &[u8]| {
    let mut flows = FlowTable::new(8);
    if let Ok(mut reader) = CaptureReader::new(bytes) {
        while let Ok(Some(frame)) = reader.next_frame() {
            let link = LinkType::from_number(frame.link).unwrap_or(LinkType::Ethernet);
            draw(link, frame.bytes, frame.time, &mut flows);
        }
    }
    for packet in hex::packets(bytes).unwrap_or_default() {
        if let Some(link) = guess_link(&packet) {
            draw(link, &packet, None, &mut flows);
        }
    }
    for flow in flows.flows() {
        std::hint::black_box(flow.state());
    }
});
