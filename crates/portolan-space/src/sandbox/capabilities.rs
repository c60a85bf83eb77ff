//! Capabilities (capabilities(7)).

use rustix::io::{Errno, Result};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
};

/// Gives up every capability of the calling thread, and as far as it may the way back to them: ambient, inheritable,
/// permitted, effective, and the bounding set, so that no program that it becomes has any either, root or not.
///
/// # Errors
/// If the kernel refuses; a set that only a privileged thread may change is left as it is.
pub fn drop_capabilities() -> Result<()> {
    empty_bounding_set()?;
    keep(CapabilitySet::empty())
}

/// The same, but the bounding set stays as it is: execve(2) refuses a file whose capabilities (`ping` has some) are not
/// in it, where it would run the program without them under NO_NEW_PRIVS. For a thread that has that or becomes no program.
pub(crate) fn drop_held_capabilities() -> Result<()> {
    keep(CapabilitySet::empty())
}

/// The same, but for those of `wanted` that this thread has.
pub(crate) fn keep_held_capabilities(wanted: CapabilitySet) -> Result<()> {
    keep(wanted & capabilities(None)?.permitted)
}

/// The same, and whatever program the thread becomes has them, root or not, under NO_NEW_PRIVS too.
pub(crate) fn hand_down_capabilities(wanted: CapabilitySet) -> Result<()> {
    let kept = wanted & capabilities(None)?.permitted;
    clear_ambient_capability_set()?;
    set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: kept,
        },
    )?;
    each_capability()
        .filter(|one| kept.contains(*one))
        .try_for_each(|one| configure_capability_in_ambient_set(one, true))
}

/// The same, but for the capabilities to take any port, at any interface, and to see who holds one; of those that this
/// thread has. For a helper that does nothing else.
///
/// # Errors
/// As above.
pub fn keep_port_capabilities() -> Result<()> {
    let ports = CapabilitySet::NET_BIND_SERVICE | CapabilitySet::NET_RAW;
    let holders = CapabilitySet::SYS_PTRACE | CapabilitySet::DAC_READ_SEARCH;
    let kept = (ports | holders) & capabilities(None)?.permitted;
    empty_bounding_set()?;
    keep(kept)
}

/// The same, but for the capability to see in which user namespace another process is. Where that is not to be had, as in
/// a container, a process with the same capabilities is only seen by one that keeps them all. It can be seen itself, as by
/// [`be_seen`]. For a helper that does nothing else.
///
/// # Errors
/// As above.
pub(crate) fn keep_peer_capabilities() -> Result<()> {
    let permitted = capabilities(None)?.permitted;
    let kept = if permitted.contains(CapabilitySet::SYS_PTRACE) {
        CapabilitySet::SYS_PTRACE
    } else {
        permitted
    };
    empty_bounding_set()?;
    keep(kept)?;
    set_dumpable_behavior(DumpableBehavior::Dumpable)
}

/// Gives up the capabilities that the calling thread holds, and lets processes of the same user, even those without any,
/// see where this one is: [`Keeper`](crate::Keeper) lets nobody in whom it cannot look at. For the first thread, whose
/// capabilities are the process's to others; other threads keep theirs.
///
/// # Errors
/// If the kernel refuses.
pub fn be_seen() -> Result<()> {
    keep(CapabilitySet::empty())?;
    // A program that has got capabilities by its file is not; nor may one trace it.
    set_dumpable_behavior(DumpableBehavior::Dumpable)
}

fn empty_bounding_set() -> Result<()> {
    for capability in each_capability() {
        match capability_is_in_bounding_set(capability) {
            Ok(true) => match remove_capability_from_bounding_set(capability) {
                Ok(()) => {}
                // Without CAP_SETPCAP; then there is nothing to gain by it but for set-uid programs.
                Err(Errno::PERM) => break,
                Err(error) => return Err(error),
            },
            Ok(false) => {}
            // One more than the kernel knows.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Those that this library knows, and those that only the kernel does.
fn each_capability() -> impl Iterator<Item = CapabilitySet> {
    (0..u64::BITS).map(|number| CapabilitySet::from_bits_retain(1 << number))
}

fn keep(kept: CapabilitySet) -> Result<()> {
    clear_ambient_capability_set()?;
    set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )
}
