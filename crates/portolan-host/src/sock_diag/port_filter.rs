//! Programs for the filter that the kernel runs over the sockets of a dump (INET_DIAG_REQ_BYTECODE).
//!
//! An instruction is a code, and two distances to jump ahead: one for yes, one for no. A program that ends
//! exactly at its last byte takes the socket; one that jumps four bytes beyond refuses it. A comparison
//! with a port is two instructions long: the second one's field for "no" holds the port. The kernel checks
//! that all places jumped to lie on the way of those who always answer yes.

use portolan_core::{Port, PortRange};

/// INET_DIAG_BC_JMP: always "no".
const JUMP: u8 = 1;
/// INET_DIAG_BC_S_GE: the local port is this one or higher.
const LOCAL_AT_LEAST: u8 = 2;
/// INET_DIAG_BC_S_LE: the local port is this one or lower.
const LOCAL_AT_MOST: u8 = 3;

/// Bytes of an instruction.
const STEP: usize = 4;
/// Bytes of a comparison.
const COMPARISON: usize = 2 * STEP;
/// Bytes for a range: two comparisons and a jump.
const RANGE: usize = 2 * COMPARISON + STEP;
/// Beyond this many ranges it is cheaper to have all sockets; the distances also have 16 bits only.
const MAX_RANGES: usize = 512;

/// A program that takes the sockets whose local port lies in one of `ranges`; `None` if that would be too
/// long, or none at all.
pub(super) fn local_ports(ranges: &[PortRange]) -> Option<Vec<u8>> {
    if ranges.is_empty() || ranges.len() > MAX_RANGES {
        return None;
    }
    // After the last range there is nothing to jump over.
    let length = ranges.len() * RANGE - STEP;
    let mut program = Vec::with_capacity(length);
    for (index, range) in ranges.iter().enumerate() {
        let start = index * RANGE;
        let last = index + 1 == ranges.len();
        // A range that does not fit leads to the next one, the last one to the refusal.
        let next = if last { length + STEP } else { start + RANGE };
        compare(&mut program, LOCAL_AT_LEAST, range.first(), next - start);
        compare(
            &mut program,
            LOCAL_AT_MOST,
            range.last(),
            next - start - COMPARISON,
        );
        if !last {
            instruction(&mut program, JUMP, STEP, length - (start + 2 * COMPARISON));
        }
    }
    Some(program)
}

fn compare(program: &mut Vec<u8>, code: u8, port: Port, no: usize) {
    instruction(program, code, COMPARISON, no);
    instruction(program, 0, 0, usize::from(port.get()));
}

fn instruction(program: &mut Vec<u8>, code: u8, yes: usize, no: usize) {
    program.push(code);
    program.push(u8::try_from(yes).expect("one or two instructions"));
    program.extend(
        u16::try_from(no)
            .expect("MAX_RANGES keeps it below 64 KiB")
            .to_ne_bytes(),
    );
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the kernel does (inet_diag_bc_audit): whether it would accept the program.
    fn audit(program: &[u8]) -> bool {
        let step = |at: usize| {
            let no = u16::from_ne_bytes([program[at + 2], program[at + 3]]);
            (program[at], usize::from(program[at + 1]), usize::from(no))
        };
        let mut way = vec![];
        let mut at = 0;
        while at < program.len() {
            way.push(at);
            at += step(at).1;
        }
        at == program.len()
            && way.iter().all(|at| {
                let (code, yes, no) = step(*at);
                let left = program.len() - at;
                let least = if code == JUMP { STEP } else { COMPARISON };
                let lands = |distance: usize| {
                    distance.is_multiple_of(4)
                        && distance >= least
                        && (distance == left || distance == left + 4 || way.contains(&(at + distance)))
                };
                lands(yes) && lands(no)
            })
    }

    /// What the kernel does (inet_diag_bc_run).
    fn takes(program: &[u8], local: u16) -> bool {
        let mut at = 0;
        while at < program.len() {
            let (code, yes) = (program[at], usize::from(program[at + 1]));
            let no = usize::from(u16::from_ne_bytes([program[at + 2], program[at + 3]]));
            let port = program
                .get(at + 6..at + 8)
                .map_or(0, |port| u16::from_ne_bytes([port[0], port[1]]));
            let answer = match code {
                JUMP => false,
                LOCAL_AT_LEAST => local >= port,
                LOCAL_AT_MOST => local <= port,
                _ => unreachable!("{code}"),
            };
            at += if answer { yes } else { no };
        }
        at == program.len()
    }

    fn range(first: u16, last: u16) -> PortRange {
        PortRange::new(Port::new(first), Port::new(last)).unwrap()
    }

    #[test]
    fn no_range_and_too_many_are_left_to_the_reader() {
        assert_eq!(local_ports(&[]), None);
        assert_eq!(local_ports(&vec![range(1, 1); MAX_RANGES + 1]), None);
        assert!(audit(&local_ports(&vec![range(1, 1); MAX_RANGES]).unwrap()));
    }

    proptest! {
        #[test]
        fn it_takes_what_the_ranges_hold(
            ends in proptest::collection::vec((0_u16..200, 0_u16..60), 1..8),
            port in 0_u16..300,
        ) {
            let ranges: Vec<_> = ends.into_iter().map(|(first, more)| range(first, first + more)).collect();
            let program = local_ports(&ranges).unwrap();
            prop_assert!(audit(&program));
            let held = ranges.iter().any(|range| range.contains(Port::new(port)));
            prop_assert_eq!(takes(&program, port), held);
        }
    }
}
