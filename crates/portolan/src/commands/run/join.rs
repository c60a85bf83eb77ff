//! A second program in a space that runs: no gateway, no ports, no policy of its own.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use portolan_gateway::control::{AskError, Client, Directory, Joined, News, SpaceName};
use portolan_space::{Ended, Event, Membership, Program, Signals, Space, SpaceConfig};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::Signal;

use super::code::Code;
use super::foreground::Terminal;
use super::session::{End, pass_on};
use super::{sandbox, space_failure, words};
use crate::exit::Failure;
use crate::message;

/// Runs `program` in the space until it ends, or the space does.
pub(super) fn run(
    name: &SpaceName,
    command: &[OsString],
    program: Program,
    verbose: bool,
) -> Result<End, Failure> {
    let asked = Client::connect(&Directory::of_user(), name).and_then(|client| client.join(words(command)));
    let (namespaces, mut joined) = asked.map_err(|error| not_joined(name, &error))?;
    let membership = Membership::from_descriptors(namespaces)
        .map_err(|error| not_joined(name, &AskError::Failed(error.into())))?;
    // The configuration holds the namespaces, which are to go when the space does.
    let mut space = Space::start(&SpaceConfig::join(program, membership)).map_err(space_failure)?;
    let (end, is_lost) = follow(&mut space, &mut joined, verbose)
        .map_err(|error| Code::Gateway.failure(format!("the program could not be followed: {error}")))?;
    if is_lost {
        message::say(&format!(
            "the space {} has ended, and the program with it",
            name.as_str()
        ));
    }
    Ok(end)
}

/// Starts the program, passes signals on to it, and waits for its end; `true` if that was the end of the space.
fn follow(space: &mut Space, joined: &mut Joined, verbose: bool) -> io::Result<(End, bool)> {
    let signals = Signals::hold()?;
    let mut terminal = Terminal::open();
    sandbox::enter(verbose);
    space.go()?;
    let mut not_run = None;
    loop {
        let [happened, signalled, told] = readable([space.as_fd(), signals.as_fd(), joined.as_fd()])?;
        if happened {
            match space.poll()? {
                // If the space ends just now, that is heard next.
                Some(Event::Started { pid }) => drop(joined.started(pid)),
                Some(Event::NotRun(errno)) => not_run = Some(errno),
                Some(Event::Ended(ended)) => {
                    return Ok((not_run.map_or(End::Ended(ended), End::NotRun), space.is_lost()));
                }
                Some(Event::Stopped(_)) if let Some(terminal) = &mut terminal => {
                    signals.stop()?;
                    terminal.look();
                    let _ = space.signal(Signal::CONT.as_raw());
                }
                _ => {}
            }
        }
        if signalled && let Some(signal) = signals.poll()? {
            pass_on(signal, space);
        }
        if told {
            match joined.poll() {
                Some(News::Stop) => drop(space.signal(Signal::TERM.as_raw())),
                Some(News::Ended) => {
                    space.end();
                    return Ok((End::Ended(Ended::Killed(Signal::KILL.as_raw())), true));
                }
                None => {}
            }
        }
    }
}

/// Waits until something can be read, and says from which.
fn readable<const N: usize>(descriptors: [BorrowedFd<'_>; N]) -> io::Result<[bool; N]> {
    let mut fds = descriptors.map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN));
    loop {
        match poll(&mut fds, None) {
            Ok(_) => return Ok(fds.each_ref().map(|fd| !fd.revents().is_empty())),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn not_joined(name: &SpaceName, error: &AskError) -> Failure {
    Code::Join.failure(format!("cannot join {}: {error}", name.as_str()))
}
