//! Any text as a notation of ports: it is read or refused in a short line, and what is read prints as itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portolan_core::Notation;

fuzz_target!(|text: &str| {
    match text.parse::<Notation>() {
        Ok(notation) => assert_eq!(notation.to_string().parse(), Ok(notation)),
        Err(fault) => assert!(fault.to_string().len() < 400),
    }
});
