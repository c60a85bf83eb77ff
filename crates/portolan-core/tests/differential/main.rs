//! The table against the kernel that this runs on: random sequences of operations and packets.
//!
//! Each sequence is done on real sockets in a private network namespace and told to the table; every answer
//! and every receiver of a packet must be the same. A difference prints the seed and the sequence, as
//! lines for the `replay` example.
//!
//! - `PORTOLAN_SEQUENCES=500000` runs that many instead of 10,000;
//! - `PORTOLAN_SEED=7` starts from another seed.
//!
//! Root can be several users and forge packets. An ordinary user gets a user namespace, where there is one
//! user only, and no packets unless `/dev/net/tun` may be opened: the test says what it had to leave out.

mod kernel;
mod packets;
mod sequence;
#[path = "../../examples/replay/session.rs"]
mod session;
mod world;

use std::io;
use std::process::{Command, ExitCode};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use sequence::{End, Kinds, PORTS, Powers, Sequence};
use world::World;

/// Tells the process that it is the one in the namespace.
const INSIDE: &str = "PORTOLAN_INSIDE";
/// The ports that sequences use, each its own; then a new namespace is due.
const FIRST_PORT: u16 = 1100;
const LAST_PORT: u16 = 65_000;
/// Differences that are printed before giving up.
const SHOWN: usize = 3;

fn main() -> ExitCode {
    // `cargo test -- --list` and a name filter are for harnesses; this test is one.
    if std::env::args().any(|argument| argument == "--list") {
        println!("differential: test");
        return ExitCode::SUCCESS;
    }
    if std::env::var_os(INSIDE).is_none() {
        return enter().unwrap_or_else(|error| skipped(&error));
    }
    let world = match World::new() {
        Ok(world) => world,
        Err(error) => return skipped(&error),
    };
    match compare(world) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("differential: FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The machine forbids what the test needs.
fn skipped(error: &io::Error) -> ExitCode {
    println!("skipped: differential test: {error}");
    ExitCode::SUCCESS
}

/// Starts this program again, in a network namespace of its own.
fn enter() -> io::Result<ExitCode> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(INSIDE, "1");
    kernel::isolate(&mut command, kernel::effective_uid() != 0);
    let status = command
        .status()
        .map_err(|error| io::Error::other(format!("no namespace can be made here: {error}")))?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(otherwise)
}

fn compare(mut world: World) -> io::Result<bool> {
    let (seed, count) = (number("PORTOLAN_SEED", 1), number("PORTOLAN_SEQUENCES", 10_000));
    let users = kernel::act_as(5).is_ok() && kernel::act_as(0).is_ok();
    let powers = Powers {
        users,
        packets: world.has_packets(),
    };
    println!("differential: {count} sequences from seed {seed} against this kernel");
    if !powers.users {
        println!("differential: left out: sockets of other users, privileged ports (not root)");
    }
    if !powers.packets {
        println!("skipped: packets and tcp connections: /dev/net/tun may not be opened");
    }
    let (mut compared, mut holes, mut different) = (0, 0, 0);
    let mut kinds = Kinds::new();
    let mut base = FIRST_PORT;
    for index in 0..count {
        if base > LAST_PORT - PORTS {
            world = world.renew()?;
            base = FIRST_PORT;
        }
        let random = ChaCha8Rng::seed_from_u64(seed.wrapping_mul(1 << 32).wrapping_add(index));
        match Sequence::new(&mut world, random, powers, base).run(&mut kinds)? {
            End::Same(operations) => compared += operations,
            End::Hole(operations) => {
                compared += operations;
                holes += 1;
            }
            End::Different(lines, what) => {
                different += 1;
                println!("DIFFERENT: seed {seed}, sequence {index}: {what}");
                for line in lines {
                    println!("{line}");
                }
                if different == SHOWN {
                    break;
                }
            }
        }
        base += PORTS;
    }
    for (kind, count) in &kinds {
        println!("differential: {count:>8} {kind}");
    }
    println!(
        "differential: {compared} answers compared, {different} sequences differ, {holes} ended at the \
         known hole of automatic connects, where either answer is right"
    );
    Ok(different == 0)
}
